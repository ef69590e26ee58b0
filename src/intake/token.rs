//! Hub keys: what Looker sends as `Authorization: Token token="<key>"`.
//!
//! A key is `<nonce>/<hex HMAC-SHA512(secret, nonce)>`, the scheme of Looker's own Action Hub: with
//! that hub's secret, the keys that it gave out stay valid here. Nothing is stored: a new secret ends
//! all keys, unless the old one is kept among the previous ones while Looker gets a new key; and a
//! single key is ended by naming it.

use data_encoding::HEXLOWER;
use ring::hmac;
use subtle::{Choice, ConstantTimeEq};

use crate::config::Secret;

const NONCE_BYTES: usize = 32;

/// A new key for `secret`, to be entered in Looker. It is as good as a password.
pub fn new_key(secret: &Secret) -> Result<String, getrandom::Error> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce)?;
    let nonce = HEXLOWER.encode(&nonce);
    let digest = digest(secret, &nonce);
    Ok(format!("{nonce}/{digest}"))
}

/// Which keys are good.
#[derive(Debug)]
pub(super) struct Keys {
    secrets: Vec<Secret>,
    revoked: Vec<String>,
}

impl Keys {
    /// Keys made with any of `secrets`, but not those whose nonce is in `revoked`.
    pub(super) fn new(secrets: Vec<Secret>, revoked: Vec<String>) -> Self {
        Self { secrets, revoked }
    }

    /// Whether the header's value is a good key. The time taken says nothing about how much of a
    /// wrong key is right, nor under which secret.
    pub(super) fn accept(&self, authorization: Option<&[u8]>) -> bool {
        let Some((nonce, claimed)) = authorization.and_then(key) else {
            return false;
        };
        let right = self.secrets.iter().fold(Choice::from(0), |right, secret| {
            right | digest(secret, nonce).as_bytes().ct_eq(claimed.as_bytes())
        });
        bool::from(right) && !self.revoked.iter().any(|revoked| revoked == nonce)
    }
}

/// Nonce and digest of `Token token="<nonce>/<digest>"`.
fn key(header: &[u8]) -> Option<(&str, &str)> {
    let header = std::str::from_utf8(header).ok()?.trim();
    let (scheme, rest) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("token") {
        return None;
    }
    let key = rest.trim().strip_prefix("token=\"")?.strip_suffix('"')?;
    let (nonce, digest) = key.split_once('/')?;
    (!nonce.is_empty()).then_some((nonce, digest))
}

fn digest(secret: &Secret, nonce: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA512, secret.expose().as_bytes());
    HEXLOWER.encode(hmac::sign(&key, nonce.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret::new("hub secret".to_owned())
    }

    fn accepts(secret: &Secret, authorization: Option<&[u8]>) -> bool {
        Keys::new(vec![secret.clone()], Vec::new()).accept(authorization)
    }

    #[test]
    fn keys_of_a_previous_secret_stay_good_and_revoked_ones_do_not() {
        let old = Secret::new("old secret".to_owned());
        let header = |key: &str| format!("Token token=\"{key}\"").into_bytes();
        let [ours, theirs, revoked] =
            [&secret(), &old, &secret()].map(|secret| new_key(secret).unwrap());
        let (nonce, _) = revoked.split_once('/').unwrap();
        let keys = Keys::new(vec![secret(), old], vec![nonce.to_owned()]);
        assert!(keys.accept(Some(&header(&ours))));
        assert!(keys.accept(Some(&header(&theirs))));
        assert!(!keys.accept(Some(&header(&revoked))));
        let strange = new_key(&Secret::new("other".to_owned())).unwrap();
        assert!(!keys.accept(Some(&header(&strange))));
        let shown = format!("{keys:?}");
        assert!(!shown.contains("old secret"), "{shown}");
    }

    #[test]
    fn a_new_key_is_accepted_by_its_own_secret_only() {
        let key = new_key(&secret()).unwrap();
        assert_eq!(key.len(), 2 * NONCE_BYTES + 1 + 128);
        assert_ne!(key, new_key(&secret()).unwrap());
        let header = format!("Token token=\"{key}\"");
        assert!(accepts(&secret(), Some(header.as_bytes())));
        assert!(!accepts(
            &Secret::new("other".to_owned()),
            Some(header.as_bytes())
        ));
    }

    #[test]
    fn a_key_of_lookers_own_hub_is_accepted() {
        // printf nonce | openssl dgst -sha512 -hmac "hub secret"
        let digest = "12b10c177eb60aa6723c1cdfae2b38514b23b0303603fd28abf873b3926fec3c283a75f4fa0bf10594a285625837c68391575244a229b947f4f5b9db32e12a2c";
        for header in [
            format!("Token token=\"nonce/{digest}\""),
            format!("token token=\"nonce/{digest}\""),
            format!("  Token   token=\"nonce/{digest}\" "),
        ] {
            assert!(accepts(&secret(), Some(header.as_bytes())), "{header}");
        }
    }

    #[test]
    fn anything_else_is_refused_without_a_panic() {
        let digest = digest(&secret(), "nonce");
        let flipped = format!(
            "{}{}",
            if digest.starts_with('0') { '1' } else { '0' },
            &digest[1..]
        );
        assert!(!accepts(&secret(), None));
        for header in [
            "".to_owned(),
            "Token".to_owned(),
            "Token ".to_owned(),
            "Token token=".to_owned(),
            "Token token=\"".to_owned(),
            "Token token=\"\"".to_owned(),
            "Token token=\"/\"".to_owned(),
            "Token token=\"nonce\"".to_owned(),
            "Token token=\"nonce/\"".to_owned(),
            format!("Token token=\"/{digest}\""),
            format!("Token token=\"other/{digest}\""),
            format!("Token token=\"nonce/{flipped}\""),
            format!("Token token=\"nonce/{}\"", &digest[..127]),
            format!("Token token=\"nonce/{digest}0\""),
            format!("Token token=\"nonce/{}\"", digest.to_uppercase()),
            format!("Token token=\"nonce/{digest}"),
            format!("Token nonce/{digest}"),
            format!("Bearer token=\"nonce/{digest}\""),
            format!("nonce/{digest}"),
            "Token token=\"é/é\"".to_owned(),
            "x".repeat(30_000),
        ] {
            assert!(!accepts(&secret(), Some(header.as_bytes())), "{header}");
        }
        assert!(!accepts(&secret(), Some(b"\xff\xfe Token token=\"\xff/\"")));
    }
}
