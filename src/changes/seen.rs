//! Whether an identity has occurred in a result, in memory of a fixed size.
//!
//! A Bloom filter: it never says that an identity did not occur which did. It may say the other
//! with some chance (under 2 % up to 15 million identities), and whoever is meant by that is asked
//! after again in the next delivery, where chance is dealt again.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

/// Bits: 16 MiB.
const BITS: u64 = 1 << 27;
const PROBES: u64 = 4;

/// Identities that occurred.
pub(super) struct Seen {
    salt: [u8; 16],
    words: Vec<u64>,
}

impl Seen {
    /// `salt` makes where chance falls unforeseeable; a new one for each delivery.
    pub fn new(salt: [u8; 16]) -> Self {
        Self {
            salt,
            words: vec![0; (BITS / 64) as usize],
        }
    }

    /// `people` are sets of identities, see `record::parts`.
    pub fn add(&mut self, people: &[u8]) {
        for identity in crate::record::parts(people).flat_map(members) {
            for bit in probes(self.salt, identity) {
                if let Some(word) = self.words.get_mut((bit / 64) as usize) {
                    *word |= 1 << (bit % 64);
                }
            }
        }
    }

    /// Whether any of their identities may have occurred.
    pub fn any(&self, people: &[u8]) -> bool {
        let occurred = |bit: u64| {
            let word = self.words.get((bit / 64) as usize);
            word.is_none_or(|word| word & (1 << (bit % 64)) != 0)
        };
        crate::record::parts(people)
            .flat_map(members)
            .any(|identity| probes(self.salt, identity).all(occurred))
    }
}

fn probes(salt: [u8; 16], identity: &[u8]) -> impl Iterator<Item = u64> {
    let mut hasher = SipHasher13::new_with_key(&salt);
    hasher.write(identity);
    let hash = hasher.finish128();
    // Kirsch and Mitzenmacher, "Less Hashing, Same Performance": two hashes do for all probes.
    (0..PROBES).map(move |n| hash.h1.wrapping_add(n.wrapping_mul(hash.h2 | 1)) % BITS)
}

/// The members of a set of identities: `"email":"a,b"` and so on.
fn members(mut identities: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        if identities.is_empty() {
            return None;
        }
        let (mut quoted, mut escaped) = (false, false);
        let end = identities.iter().position(|&byte| {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => quoted = !quoted,
                b',' if !quoted => return true,
                _ => {}
            }
            false
        });
        let end = end.unwrap_or(identities.len());
        let (member, rest) = identities.split_at(end);
        identities = rest.get(1..).unwrap_or_default();
        Some(member)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::push_part;

    fn people(sets: &[&str]) -> Vec<u8> {
        let mut people = Vec::new();
        for set in sets {
            push_part(&mut people, set.as_bytes());
        }
        people
    }

    #[test]
    fn a_set_is_taken_apart_at_its_commas_and_not_at_those_of_its_values() {
        let set = br#""mpid":12,"email":"a,\"b\\","customer_id":"7""#;
        let parts: Vec<_> = members(set).collect();
        let want: [&[u8]; 3] = [
            br#""mpid":12"#,
            br#""email":"a,\"b\\""#,
            br#""customer_id":"7""#,
        ];
        assert_eq!(parts, want);
        assert_eq!(members(b"").count(), 0);
    }

    #[test]
    fn who_shares_one_identity_with_the_result_has_occurred() {
        let mut seen = Seen::new([1; 16]);
        seen.add(&people(&[r#""customer_id":"7","email":"a@b.c""#]));
        assert!(seen.any(&people(&[r#""email":"a@b.c""#])));
        assert!(seen.any(&people(&[r#""email":"x""#, r#""customer_id":"7""#])));
        assert!(!seen.any(&people(&[r#""customer_id":"8","email":"x""#])));
        assert!(!seen.any(&people(&[r#""email":"7""#])));
    }
}
