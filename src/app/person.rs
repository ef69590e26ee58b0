//! A person by some of their identities, recognised in a batch, in a row of Looker, and in what is kept of
//! schedules.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::changes::Who;
use crate::control::people::Person;
use crate::mapping::{EVENT_BITS, Identity, IdentityNames, TAGS, Tag, user_of};
use crate::outbox::Matcher;
use crate::record;

/// Every identity that a person can be looked for by.
fn identities() -> impl Iterator<Item = Identity> {
    TAGS.iter().filter_map(|(_, tag)| match tag {
        Tag::Identity(identity) => Some(*identity),
        _ => None,
    })
}

/// Whoever has one of these identities.
pub(super) struct Meant(Vec<(Identity, String)>);

impl Meant {
    pub fn new(person: &Person) -> Result<Self, String> {
        let known = person.identities.iter().map(|(name, value)| {
            let identity = identities().find(|one| is_called(*one, name));
            let known = identity.map(|identity| (identity, value.clone()));
            known.ok_or_else(|| {
                let name = name.escape_debug();
                let names = identities().map(|one| one.wire_name(IdentityNames::Current));
                let names = names.collect::<Vec<_>>().join(", ");
                format!("There is no identity `{name}`. It is one of: {names}.")
            })
        });
        known.collect::<Result<_, _>>().map(Self)
    }

    fn has(&self, name: &str, value: &str) -> bool {
        let mut known = self.0.iter();
        known.any(|(identity, own)| is_called(*identity, name) && is_same(*identity, own, value))
    }

    /// `members` of `user_identities`.
    fn has_any(&self, members: &Map<String, Value>) -> bool {
        members
            .iter()
            .any(|(name, value)| text_of(value).is_some_and(|text| self.has(name, &text)))
    }

    /// Whether one of the values stands in a text that cannot be read as JSON.
    fn stands_in(&self, text: &[u8]) -> bool {
        let mut own = self.0.iter();
        own.any(|(_, value)| memchr::memmem::find(text, value.as_bytes()).is_some())
    }

    fn is_in(&self, value: &Value) -> bool {
        match value {
            Value::Array(all) => all.iter().any(|one| self.is_in(one)),
            Value::Object(all) => all.values().any(|one| self.is_in(one)),
            one => text_of(one).is_some_and(|text| {
                let mut own = self.0.iter();
                own.any(|(identity, value)| is_same(*identity, value, &text))
            }),
        }
    }
}

fn is_called(identity: Identity, name: &str) -> bool {
    [IdentityNames::Current, IdentityNames::Legacy]
        .iter()
        .any(|names| identity.wire_name(*names) == name)
}

/// The capitals of an e-mail address tell nobody apart.
fn is_same(identity: Identity, own: &str, other: &str) -> bool {
    let (own, other) = (own.trim(), other.trim());
    match identity {
        Identity::Email => own.to_lowercase() == other.to_lowercase(),
        _ => own == other,
    }
}

fn text_of(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        _ => None,
    }
}

/// What of a batch says whose it is.
#[derive(Deserialize)]
struct Batch {
    #[serde(default)]
    user_identities: Map<String, Value>,
    #[serde(default)]
    mpid: Value,
}

impl Matcher for Meant {
    fn batch(&self, batch: &[u8]) -> bool {
        match serde_json::from_slice::<Batch>(batch) {
            Ok(batch) => {
                self.has_any(&batch.user_identities)
                    || text_of(&batch.mpid).is_some_and(|mpid| self.has("mpid", &mpid))
            }
            Err(_) => self.stands_in(batch),
        }
    }

    /// A rejected row is of nobody for sure: it counts if any of its cells is one of the values.
    fn row(&self, text: &[u8]) -> bool {
        match serde_json::from_slice::<Value>(text) {
            Ok(row) => self.is_in(&row),
            Err(_) => self.stands_in(text),
        }
    }
}

impl Who for Meant {
    fn users(&self, key: &[u8; 16]) -> Vec<u64> {
        let mut users = Vec::new();
        for (identity, value) in &self.0 {
            for names in [IdentityNames::Current, IdentityNames::Legacy] {
                for value in [value.clone(), value.to_lowercase()] {
                    let user = user_of(key, identity.wire_name(names), &value);
                    users.extend([user, user & !EVENT_BITS]);
                }
            }
        }
        users.sort_unstable();
        users.dedup();
        users
    }

    fn is_among(&self, people: &[u8]) -> bool {
        record::parts(people).any(|members| {
            let object = [b"{", members, b"}"].concat();
            match serde_json::from_slice::<Map<String, Value>>(&object) {
                Ok(members) => self.has_any(&members),
                Err(_) => self.stands_in(members),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(identities: &[(&str, &str)]) -> Meant {
        let identities = identities.iter();
        let identities = identities.map(|(name, value)| (name.to_string(), value.to_string()));
        let person = Person {
            identities: identities.collect(),
            reference: None,
        };
        Meant::new(&person).unwrap()
    }

    #[test]
    fn a_batch_is_of_whoever_its_identities_name_and_of_nobody_else() {
        let ada = meant(&[("email", "Ada@Example.com"), ("customer_id", "17")]);
        for (batch, is_hers) in [
            (r#"{"user_identities":{"email":"ada@example.com"}}"#, true),
            (r#"{"user_identities":{"customer_id":"17"}}"#, true),
            (r#"{"user_identities":{"customerid":"17"}}"#, true),
            (r#"{"user_identities":{"customer_id":"170"}}"#, false),
            (r#"{"user_identities":{"facebook":"17"}}"#, false),
            (
                r#"{"user_identities":{"email":"bob@example.com"},"user_attributes":{"friend":"ada@example.com"}}"#,
                false,
            ),
            (r#"{"user_identities":{},"mpid":17}"#, false),
            ("ada cut Ada@Example.com", true),
        ] {
            assert_eq!(ada.batch(batch.as_bytes()), is_hers, "{batch}");
        }
        assert!(meant(&[("mpid", "-9007199254740993")]).batch(br#"{"mpid":-9007199254740993}"#));
        assert!(ada.is_among(&{
            let mut people = Vec::new();
            record::push_part(&mut people, br#""email":"bob@example.com""#);
            record::push_part(&mut people, br#""other":"x","email":"ADA@example.com""#);
            people
        }));
    }

    #[test]
    fn a_rejected_row_is_of_whoever_stands_in_one_of_its_cells() {
        let ada = meant(&[("email", "ada@example.com"), ("customer_id", "17")]);
        for (row, is_hers) in [
            (r#"{"users.email":{"value":"ada@example.com"}}"#, true),
            (r#"{"users.id":{"value":17,"rendered":"17"}}"#, true),
            (
                r#"{"users.note":{"value":"write to ada@example.com"}}"#,
                false,
            ),
            (r#"{"users.email":{"value":"ada@exam"#, false),
            (
                r#"{"users.email":{"value":"ada@example.com"}, "cut":"#,
                true,
            ),
        ] {
            assert_eq!(ada.row(row.as_bytes()), is_hers, "{row}");
        }
    }

    #[test]
    fn an_unknown_identity_is_named_with_those_there_are() {
        let person = Person {
            identities: vec![("e-mail".to_owned(), "x".to_owned())],
            reference: None,
        };
        let error = Meant::new(&person).err().unwrap();
        assert!(
            error.contains("`e-mail`") && error.contains("customer_id"),
            "{error}"
        );
    }
}
