//! Which network addresses rows may be fetched from. A download url comes out of a request, so it
//! could point at the daemon's own network; what is decided here is decided on the address that is
//! then connected to, not on a name that may resolve to another one a moment later.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How far a download may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// The host is not listed: public addresses only.
    Public,
    /// The host stands in `looker.allowed_hosts`: private addresses too.
    Listed,
    /// A listed loopback host over plain http: loopback addresses only.
    Loopback,
}

impl Reach {
    /// Whether a connection to this address may be opened.
    pub(super) fn covers(self, address: IpAddr) -> bool {
        let meant = canonical(address);
        match self {
            Self::Loopback => meant.is_loopback(),
            Self::Listed => !never(meant),
            Self::Public => !never(meant) && is_public(meant) && !is_detour(address),
        }
    }
}

/// IPv4 addresses come in IPv6 clothes: mapped, compatible, NAT64 (RFC 6052), 6to4 (RFC 3056).
fn canonical(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let v4 = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0xffff] => v4(g, h),
        [0, 0, 0, 0, 0, 0] if g != 0 => v4(g, h),
        [0x64, 0xff9b, 0, 0, 0, 0] => v4(g, h),
        [0x2002, high, low, ..] => v4(high, low),
        _ => address,
    }
}

/// IPv4 by ways that are not used any more: compatible addresses and 6to4.
fn is_detour(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => {
            let [a, b, c, d, e, f, ..] = v6.segments();
            a == 0x2002 || [a, b, c, d, e, f] == [0; 6]
        }
    }
}

/// Addresses that no Looker can have: link-local ones, where clouds keep the credentials of their
/// machines, the metadata services that stand elsewhere, multicast, and nothing at all.
fn never(address: IpAddr) -> bool {
    const METADATA_V4: [Ipv4Addr; 3] = [
        Ipv4Addr::new(100, 100, 100, 200), // Alibaba Cloud
        Ipv4Addr::new(192, 0, 0, 192),     // Oracle Cloud
        Ipv4Addr::new(168, 63, 129, 16),   // Azure's host
    ];
    const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254); // AWS
    match address {
        IpAddr::V4(v4) => {
            v4.octets()[0] == 0
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || METADATA_V4.contains(&v4)
        }
        IpAddr::V6(v6) => {
            v6.is_unspecified()
                || v6.is_unicast_link_local()
                || v6.is_multicast()
                || v6 == METADATA_V6
        }
    }
}

/// Addresses of the public internet: those in none of IANA's special-purpose registries for IPv4 and
/// IPv6 (RFC 6890 and what was added until 2025-10-09), and of IPv6 only what is given out as global unicast. What
/// those registries call globally reachable (AS112, AMT) serves nobody's rows either.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            let special = v4.is_private()
                || v4.is_loopback()
                || v4.is_documentation()
                || (a == 100 && (64..128).contains(&b)) // shared by carriers, RFC 6598
                || matches!(
                    (a, b, c),
                    (192, 0, 0) // protocol assignments
                        | (192, 31, 196) // AS112, RFC 7535
                        | (192, 52, 193) // AMT, RFC 7450
                        | (192, 88, 99) // once the relays of 6to4, RFC 7526
                        | (192, 175, 48) // AS112, RFC 7534
                )
                || (a == 198 && (18..20).contains(&b)) // benchmarks, RFC 2544
                || a >= 240;
            !special
        }
        // Behind it lie, not given out as such: loopback, NAT64 of one's own (64:ff9b:1::/48, RFC 8215),
        // what is to be discarded (100::/64, RFC 6666), the dummy prefix (100:0:0:1::/64, RFC 9780),
        // segment routing (5f00::/16, RFC 9602), unique local and link-local addresses.
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            let global_unicast = (0x2000..0x4000).contains(&a);
            let special = match a {
                // Protocol assignments (Teredo, ORCHID, drones and others), documentation.
                0x2001 => b < 0x200 || b == 0xdb8,
                0x2002 => true,                     // 6to4
                0x2620 => b == 0x4f && c == 0x8000, // AS112, RFC 7534
                0x3fff => b < 0x1000,               // documentation, RFC 9637
                _ => false,
            };
            global_unicast && !special
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(reach: Reach, addresses: &str, expect: bool) {
        for address in addresses.split(' ') {
            let covered = reach.covers(address.parse().unwrap());
            assert_eq!(covered, expect, "{reach:?} {address}");
        }
    }

    const PUBLIC: &str = "8.8.8.8 1.1.1.1 34.1.2.3 172.32.0.1 100.128.0.1 2606:4700::1111 64:ff9b::808:808 \
        192.0.1.1 192.88.98.255 192.88.100.0 198.20.0.0 2620:4f:8001::1 3ffe::1 3fff:1000::1";
    const LOOPBACK: &str = "127.0.0.1 127.9.9.9 ::1 ::ffff:127.0.0.1 64:ff9b::7f00:1";
    const PRIVATE: &str = "10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 198.18.0.1 192.0.2.1 \
        240.0.0.1 fc00::1 fd12::1 ::ffff:10.0.0.1 2002:a00:1:: 192.0.0.8 192.0.0.171 \
        192.31.196.1 192.52.193.1 192.88.99.1 192.175.48.1 198.19.255.255 198.51.100.7 \
        203.0.113.7 ::ffff:192.88.99.1 64:ff9b::c058:6301 64:ff9b:1::808:808 100::1 \
        100:0:0:1::1 2001::1 2001:2::1 2001:4:112::1 2001:20::1 2001:30::1 2001:db8::1 \
        2002:808:808:: ::8.8.8.8 2620:4f:8000::1 3fff::1 3fff:fff::1 4000::1 5f00::1 \
        5f00:ffff::1 6000::1";
    const NEVER: &str = "169.254.169.254 169.254.0.1 0.0.0.0 0.1.2.3 255.255.255.255 224.0.0.1 \
        100.100.100.200 168.63.129.16 192.0.0.192 fe80::1 fd00:ec2::254 :: ff02::1 \
        ::ffff:169.254.169.254";

    #[test]
    fn a_host_that_is_not_listed_is_reached_at_public_addresses_only() {
        check(Reach::Public, PUBLIC, true);
        check(Reach::Public, LOOPBACK, false);
        check(Reach::Public, PRIVATE, false);
        check(Reach::Public, NEVER, false);
    }

    #[test]
    fn a_listed_host_may_be_private_but_never_a_metadata_service() {
        check(Reach::Listed, PUBLIC, true);
        check(Reach::Listed, LOOPBACK, true);
        check(Reach::Listed, PRIVATE, true);
        check(Reach::Listed, NEVER, false);
    }

    #[test]
    fn plain_http_reaches_loopback_only() {
        check(Reach::Loopback, LOOPBACK, true);
        for others in [PUBLIC, PRIVATE, NEVER] {
            check(Reach::Loopback, others, false);
        }
    }
}
