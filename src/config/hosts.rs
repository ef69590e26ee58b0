//! Which hosts rows may be fetched from, and which of them are this machine.

use url::Host;

/// One entry of `looker.allowed_hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedHost {
    /// As a url has it: lower case, punycode, IPv4 in its usual form.
    pub host: Host<String>,
    /// `None`: any port.
    pub port: Option<u16>,
}

impl AllowedHost {
    /// Whether the entry covers this host and port.
    pub fn covers(&self, host: &Host<&str>, port: u16) -> bool {
        let same = match (&self.host, host) {
            (Host::Domain(ours), Host::Domain(theirs)) => ours == theirs,
            (Host::Ipv4(ours), Host::Ipv4(theirs)) => ours == theirs,
            (Host::Ipv6(ours), Host::Ipv6(theirs)) => ours == theirs,
            _ => false,
        };
        same && self.port.is_none_or(|ours| ours == port)
    }

    /// Whether the host is this machine by its literal address or as `localhost`.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

/// Whether a host names this machine by its literal address or as `localhost`.
pub(super) fn is_loopback<S: AsRef<str>>(host: &Host<S>) -> bool {
    match host {
        Host::Domain(name) => {
            let name = name.as_ref();
            name == "localhost" || name.ends_with(".localhost")
        }
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address
            .to_ipv4_mapped()
            .map_or(address.is_loopback(), |v4| v4.is_loopback()),
    }
}
