//! A batch that a person has mended, made fit to be sent in the place of the old one.
//!
//! mParticle drops a batch whose `source_request_id` it has seen. The old id must therefore not be
//! used for another content: if mParticle has the old batch after all, it would drop the mended one
//! in silence. So a mended batch gets an id of its own, the old one with a hash of the content
//! behind it. It is a function of the content: whoever makes the same edit twice makes the same id,
//! and a resend is dropped as a resend.

use std::fmt;

use data_encoding::HEXLOWER;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

const ID: &str = "source_request_id";
const ENVIRONMENT: &str = "environment";
/// Between the old id and the hash.
const MARK: &str = ".e";
/// Bytes of the hash that are written, as two hexadecimal digits each.
const HASHED: usize = 8;

/// What was edited cannot be sent in the place of the old batch.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The text is not a JSON object, or a name stands in it twice.
    #[error("The edited batch is not a JSON object: {0}.")]
    Malformed(#[source] serde_json::Error),
    /// The old batch is none that looker-feed made.
    #[error(
        "The batch that is kept has no `source_request_id`, so it cannot be edited; export it, and \
         send it by other means."
    )]
    Strange,
    /// Data for development would be taken for real data, or the other way round.
    #[error("`environment` must stay as it was: {0}.")]
    Environment(String),
    /// The id was changed by hand.
    #[error(
        "`source_request_id` must stay as it was, {0}: looker-feed makes the new one from it, so \
         that mParticle takes the edited batch once."
    )]
    Id(String),
    /// mParticle would refuse it for its size.
    #[error("The edited batch has {bytes} bytes; at most {most} are allowed.")]
    TooLarge {
        /// Its size, without the white space between its parts.
        bytes: usize,
        /// The limit.
        most: usize,
    },
}

/// The edited text as a batch of at most `most` bytes, without white space between its parts and
/// otherwise to the letter, under its new id. `None`: nothing but white space has changed.
pub fn edited(old: &[u8], new: &str, most: usize) -> Result<Option<String>, EditError> {
    let old: Batch<'_> = serde_json::from_slice(old).map_err(|_| EditError::Strange)?;
    let new: Batch<'_> = serde_json::from_str(new).map_err(EditError::Malformed)?;
    let old_id = old.value(ID).ok_or(EditError::Strange)?;
    let name: String = serde_json::from_str(&old_id).map_err(|_| EditError::Strange)?;
    if new.value(ID).is_some_and(|id| id != old_id) {
        return Err(EditError::Id(old_id));
    }
    if new.value(ENVIRONMENT) != old.value(ENVIRONMENT) {
        let was = old.value(ENVIRONMENT);
        return Err(EditError::Environment(was.unwrap_or("absent".to_owned())));
    }
    let content = new.content();
    if content == old.content() {
        return Ok(None);
    }
    let id = serde_json::Value::from(id_of(&name, &content)).to_string();
    let mut text = format!("{{\"{ID}\":{id}");
    for (name, value) in content {
        text.push(',');
        text.push_str(&serde_json::Value::from(name).to_string());
        text.push(':');
        text.push_str(&value);
    }
    text.push('}');
    if text.len() > most {
        return Err(EditError::TooLarge {
            bytes: text.len(),
            most,
        });
    }
    Ok(Some(text))
}

/// The id of a content that was made from the batch `old`, which may have been edited itself.
fn id_of(old: &str, content: &[(&str, String)]) -> String {
    let first = match old.rsplit_once(MARK) {
        Some((first, hash)) if is_hash(hash) => first,
        _ => old,
    };
    let mut hash = Sha256::new();
    for (name, value) in content {
        // No JSON text holds a zero byte.
        for part in [*name, value] {
            hash.update(part);
            hash.update([0]);
        }
    }
    let hash = hash.finalize();
    let digits = HEXLOWER.encode(hash.get(..HASHED).unwrap_or_default());
    format!("{first}{MARK}{digits}")
}

fn is_hash(text: &str) -> bool {
    text.len() == 2 * HASHED && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The properties of a batch, in their order, each value as it stands.
struct Batch<'a>(Vec<(String, &'a RawValue)>);

impl Batch<'_> {
    /// A value, without white space between its parts.
    fn value(&self, name: &str) -> Option<String> {
        let found = self.0.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| compact(value.get()))
    }

    /// All but the id.
    fn content(&self) -> Vec<(&str, String)> {
        let others = self.0.iter().filter(|(name, _)| name != ID);
        others
            .map(|(name, value)| (name.as_str(), compact(value.get())))
            .collect()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Batch<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Properties;

        impl<'de> Visitor<'de> for Properties {
            type Value = Batch<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a batch")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Batch<'de>, A::Error> {
                let mut all: Vec<(String, &RawValue)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, _>()? {
                    if all.iter().any(|(own, _)| *own == name) {
                        return Err(de::Error::custom(format!("`{name}` stands in it twice")));
                    }
                    // More than the contract knows, and few enough to be compared with each other.
                    if all.len() == 100 {
                        return Err(de::Error::custom("it has more than 100 properties"));
                    }
                    all.push((name, value));
                }
                Ok(Batch(all))
            }
        }

        deserializer.deserialize_map(Properties)
    }
}

/// Valid JSON text without the white space between its parts.
fn compact(json: &str) -> String {
    let (mut in_string, mut after_escape) = (false, false);
    let kept = json.chars().filter(|&character| {
        if in_string {
            let escaped = std::mem::take(&mut after_escape);
            after_escape = character == '\\' && !escaped;
            in_string = escaped || character != '"';
            return true;
        }
        in_string = character == '"';
        !matches!(character, ' ' | '\n' | '\r' | '\t')
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = r#"{"source_request_id":"d1-7","environment":"development","user_identities":{"email":"a@b"},"user_attributes":{"n":9007199254740993,"x":1.10}}"#;

    fn edit(new: &str) -> Result<Option<String>, EditError> {
        edited(OLD.as_bytes(), new, 300)
    }

    #[test]
    fn an_edited_batch_keeps_all_to_the_letter_under_an_id_of_its_own() {
        let new = OLD.replace("a@b", "a \\\" @b.example");
        let text = edit(&indented(&new)).unwrap().unwrap();
        let id = text.split('"').nth(3).unwrap().to_owned();
        assert!(id.starts_with("d1-7.e") && id.len() == 6 + 16, "{id}");
        assert_eq!(text.replace(&id, "d1-7"), new);
        assert_eq!(
            edit(&new).unwrap().as_deref(),
            Some(&*text),
            "the same edit, the same id"
        );

        // Edited again, the id does not grow; a batch without its id gets one too.
        let again = text.replace("example", "example.org");
        let again = edited(text.as_bytes(), &again, 300).unwrap().unwrap();
        assert_eq!(again.split('"').nth(3).unwrap().len(), id.len());
        assert!(!again.contains(&id));
        let without = new.replace("\"source_request_id\":\"d1-7\",", "");
        assert_eq!(edit(&without).unwrap(), Some(text));
    }

    /// As a person's editor may leave it.
    fn indented(json: &str) -> String {
        let breaks = json.replace(",\"", ",\r\n\t\"").replace("\":", "\" : ");
        format!("\n {breaks}\n")
    }

    #[test]
    fn white_space_alone_is_no_edit() {
        assert_eq!(edit(OLD).unwrap(), None);
        assert_eq!(edit(&indented(OLD)).unwrap(), None);
    }

    #[test]
    fn what_would_do_harm_is_refused_with_the_reason() {
        let cases = [
            ("[]".to_owned(), "not a JSON object"),
            ("{".to_owned(), "not a JSON object"),
            (format!("{OLD}{OLD}"), "not a JSON object"),
            (
                OLD.replacen('{', "{\"environment\":\"development\",", 1),
                "stands in it twice",
            ),
            (
                OLD.replace("development", "production"),
                "must stay as it was: \"development\"",
            ),
            (
                OLD.replace("\"environment\":\"development\",", ""),
                "must stay as it was",
            ),
            (OLD.replace("d1-7", "d1-8"), "\"d1-7\""),
            (OLD.replace("\"d1-7\"", "null"), "\"d1-7\""),
            (OLD.replace("a@b", &"a".repeat(300)), "at most 300"),
        ];
        for (new, why) in cases {
            let error = edit(&new).unwrap_err();
            assert!(error.to_string().contains(why), "{new}: {error}");
        }
        for strange in ["not JSON", "{}", "{\"source_request_id\":null}"] {
            let refused = edited(strange.as_bytes(), OLD, 300);
            assert!(matches!(refused, Err(EditError::Strange)), "{strange}");
        }
    }
}
