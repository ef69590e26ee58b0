//! `preview --explore`: the tags of an Explore's fields, and what is missing, before a Look is made.

use crate::harmless::harmless;
use crate::looker_api::ExploreField;
use crate::mapping::{self, Tag};

/// What the fields of an Explore are to mParticle.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
pub struct Tagged {
    /// The Explore, as it was asked for.
    pub explore: String,
    /// Fields with one of our tags: name, tag.
    pub fields: Vec<(String, String)>,
    /// Fields with a tag that is nearly one of ours: name, tag, what may have been meant.
    pub misspelt: Vec<(String, String, String)>,
    /// Fields with tags of other systems only: name, tags.
    pub others: Vec<(String, String)>,
    /// Fields without any tag.
    pub untagged: usize,
    /// What a delivery of it would lack, as sentences.
    pub missing: Vec<String>,
    /// A field is an identity.
    identity: bool,
}

impl Tagged {
    /// Sorts the fields.
    pub fn new(explore: &str, fields: &[ExploreField]) -> Self {
        let mut tagged = Self {
            explore: explore.to_owned(),
            fields: Vec::new(),
            misspelt: Vec::new(),
            others: Vec::new(),
            untagged: 0,
            missing: Vec::new(),
            identity: false,
        };
        let mut event = false;
        for field in fields {
            let ours = field.tags.iter().find_map(|text| {
                let tag = mapping::tag(text.trim())?;
                Some((text.trim(), tag))
            });
            if let Some((text, tag)) = ours {
                tagged.identity |= matches!(tag, Tag::Identity(_));
                event |= text == "mp_event_name";
                tagged.fields.push((field.name.clone(), text.to_owned()));
                continue;
            }
            if field.tags.is_empty() {
                tagged.untagged += 1;
                continue;
            }
            let near = field.tags.iter().find_map(|text| {
                let meant = mapping::nearest_tag(text)?;
                Some((text.clone(), meant.to_owned()))
            });
            let name = field.name.clone();
            match near {
                Some((text, meant)) => tagged.misspelt.push((name, text, meant)),
                None => tagged.others.push((name, field.tags.join(", "))),
            }
        }
        let identity = "No field is an identity (such as mp_customer_id or mp_email): every delivery needs one.";
        let name =
            "No field is an event's name (mp_event_name): events are called looker_custom_event.";
        let missing = [(tagged.identity, identity), (event, name)].into_iter();
        let missing = missing.filter(|(there, _)| !there);
        tagged.missing = missing.map(|(_, said)| said.to_owned()).collect();
        tagged
    }

    /// Whether users can be told apart.
    pub fn has_identity(&self) -> bool {
        self.identity
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!("Explore {}\n", self.explore);
        let mut section = |head: &str, lines: Vec<String>| {
            if !lines.is_empty() {
                text.push_str(&format!("\n{head}\n"));
                for line in lines {
                    text.push_str(&format!("  {}\n", harmless(&line)));
                }
            }
        };
        let pair = |(name, tag): &(String, String)| format!("{name}  {tag}");
        let sent = self.fields.iter().map(pair);
        section("Fields that are sent", sent.collect());
        let near = self.misspelt.iter();
        let near = near.map(|(name, tag, meant)| format!("{name}  {tag}: did you mean {meant}?"));
        section("Misspelt, and not sent", near.collect());
        let others = self.others.iter().map(pair);
        section("With tags of other systems only", others.collect());
        section("Missing", self.missing.clone());
        text.push_str(&format!("\nFields without a tag: {}\n", self.untagged));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, tags: &[&str]) -> ExploreField {
        ExploreField {
            name: name.to_owned(),
            kind: "dimension",
            label: name.to_owned(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            hidden: false,
        }
    }

    #[test]
    fn fields_are_told_apart_and_what_is_missing_is_said() {
        let fields = [
            field("users.email", &["email", "mp_email"]),
            field("users.plan", &["mp_user_atribute"]),
            field("users.note", &["braze_id"]),
            field("users.age", &[]),
        ];
        let tagged = Tagged::new("shop/users", &fields);
        assert_eq!(
            tagged.fields,
            [("users.email".to_owned(), "mp_email".to_owned())]
        );
        assert_eq!(tagged.misspelt[0].2, "mp_user_attribute");
        assert_eq!(tagged.others[0].0, "users.note");
        assert_eq!((tagged.untagged, tagged.missing.len()), (1, 1));
        let text = tagged.text();
        assert!(text.contains("did you mean mp_user_attribute?"), "{text}");
        let bare = Tagged::new("shop/users", &[]);
        assert_eq!(bare.missing.len(), 2);
    }
}
