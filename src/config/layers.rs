//! The shipped file, the user's file and the environment, laid over each other: the last one that
//! names a key wins. Values are still raw here, and each knows where it came from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Origin};
use super::found::Found;
use super::raw::{Entry, Raw};

/// Every variable of this program begins so.
const PREFIX: &str = "LOOKER_FEED_";

/// The one section that has others within it.
const NESTED: &str = "looker.api";

/// Behind the prefix: read by the commands, and no configuration of a daemon.
const COMMANDS_ADDRESS: &str = "ADMIN_URL";

/// Entries by `section.key`, and the sections that were opened without any.
#[derive(Debug, Default)]
pub(super) struct Layers {
    entries: BTreeMap<String, Entry>,
    sections: Vec<(String, Origin)>,
    asked: Vec<&'static str>,
    found: Vec<Found>,
    /// What is no key at all.
    strange: Vec<ConfigError>,
    /// Keys that are passed over from now on.
    pub(super) without: BTreeSet<&'static str>,
}

impl Layers {
    /// Lays a TOML document over what is there. `path` is `None` for the shipped file.
    pub(super) fn file(&mut self, text: &str, path: Option<&Path>) -> Result<(), ConfigError> {
        let at = |offset: usize| {
            let line = 1 + text.bytes().take(offset).filter(|b| *b == b'\n').count();
            match path {
                None => Origin::Defaults { line },
                Some(path) => Origin::File {
                    path: path.to_owned(),
                    line,
                },
            }
        };
        let document = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
            origin: at(error.span().map_or(0, |span| span.start)),
            reason: error.message().to_owned(),
        })?;
        for (section, value) in document.get_ref() {
            let origin = at(section.span().start);
            let DeValue::Table(keys) = value.get_ref() else {
                self.strange.push(ConfigError::Unknown {
                    key: section.get_ref().to_string(),
                    origin,
                    known: "a key stands in a section, under a line such as [intake]".to_owned(),
                });
                continue;
            };
            self.section(section.get_ref(), origin, keys, &at);
        }
        Ok(())
    }

    /// A section and those within it: `[looker.api]` is `api` within `looker`.
    fn section(
        &mut self,
        name: &str,
        origin: Origin,
        keys: &DeTable<'_>,
        at: &impl Fn(usize) -> Origin,
    ) {
        self.sections.push((name.to_owned(), origin));
        for (key, value) in keys {
            let (path, origin) = (format!("{name}.{}", key.get_ref()), at(key.span().start));
            match value.get_ref() {
                DeValue::Table(keys) if path.starts_with(NESTED) => {
                    self.section(&path, origin, keys, at);
                }
                value => {
                    let raw = raw(value);
                    self.put(path, Entry { raw, origin });
                }
            }
        }
    }

    /// Lays the environment over what is there. Names without the prefix are other people's, and
    /// so are those that Kubernetes sets for a service called `looker-feed`, and the address that the
    /// commands look a daemon up by: whoever has it in the profile may start a daemon too.
    pub(super) fn environment(&mut self, variables: impl Iterator<Item = (String, String)>) {
        for (name, value) in variables {
            let Some(rest) = name.strip_prefix(PREFIX) else {
                continue;
            };
            let parts = rest.split_once("__");
            let upper = !rest.bytes().any(|byte| byte.is_ascii_lowercase());
            match parts {
                Some((section, key)) if upper => {
                    let entry = Entry {
                        raw: Raw::Text(value),
                        origin: Origin::Variable(name.clone()),
                    };
                    let key = key.replace("__", ".");
                    let key = format!("{section}.{key}").to_ascii_lowercase();
                    self.put(key, entry);
                }
                None if rest == COMMANDS_ADDRESS || set_by_kubernetes(rest) => {}
                _ => self.strange.push(ConfigError::Unknown {
                    key: name.clone(),
                    origin: Origin::Variable(name),
                    known: format!(
                        "a variable is {PREFIX}<SECTION>__<KEY> in capitals, with two \
                         underscores between section and key"
                    ),
                }),
            }
        }
    }

    fn put(&mut self, key: String, entry: Entry) {
        if !self.without.contains(key.as_str()) {
            self.entries.insert(key, entry);
        }
    }

    /// The entry of a key that need not be there; an empty text is as good as none.
    pub(super) fn optional(&mut self, key: &'static str) -> Option<Entry> {
        self.asked.push(key);
        let entry = self.entries.remove(key);
        let entry = entry.filter(|entry| entry.raw != Raw::Text(String::new()));
        let seen = entry.as_ref().map(|entry| (&entry.raw, &entry.origin));
        self.found.push(Found::new(key, seen));
        entry
    }

    /// The sections within `section`, by name: what stands in each, by key. They are taken out.
    pub(super) fn within(&mut self, section: &str) -> BTreeMap<String, BTreeMap<String, Entry>> {
        let prefix = format!("{section}.");
        let inner = |path: &str| {
            let (name, key) = path.strip_prefix(&prefix)?.split_once('.')?;
            Some((name.to_owned(), key.to_owned()))
        };
        let mut found: BTreeMap<String, BTreeMap<String, Entry>> = BTreeMap::new();
        for (path, entry) in std::mem::take(&mut self.entries) {
            match inner(&path) {
                Some((name, key)) => {
                    found.entry(name).or_default().insert(key, entry);
                }
                None => {
                    self.entries.insert(path, entry);
                }
            }
        }
        self.sections.retain(|(name, _)| {
            let within = name.strip_prefix(&prefix);
            if let Some(name) = within {
                found.entry(name.to_owned()).or_default();
            }
            within.is_none()
        });
        found
    }

    /// The entry of a key that the shipped file must have.
    pub(super) fn required(&mut self, key: &'static str) -> Result<Entry, ConfigError> {
        self.asked.push(key);
        let entry = self
            .entries
            .remove(key)
            .ok_or(ConfigError::NoDefault { key })?;
        let seen = Some((&entry.raw, &entry.origin));
        self.found.push(Found::new(key, seen));
        Ok(entry)
    }

    /// What was found under `key`, which has just been asked for, is a secret.
    pub(super) fn hide(&mut self, key: &'static str) {
        for found in self.found.iter_mut().filter(|found| found.key == key) {
            found.hide();
        }
    }

    /// All that was asked for, in that order.
    pub(super) fn found(&mut self) -> Vec<Found> {
        std::mem::take(&mut self.found)
    }

    /// What was found and has not been asked for.
    pub(super) fn finish(mut self) -> Vec<ConfigError> {
        let mut wrong = std::mem::take(&mut self.strange);
        let keys_of = |section: &str| -> Vec<&str> {
            let key = |asked: &&'static str| {
                let (of, key) = asked.rsplit_once('.')?;
                (of == section).then_some(key)
            };
            self.asked.iter().filter_map(key).collect()
        };
        for (key, Entry { origin, .. }) in &self.entries {
            let section = key.rsplit_once('.').map_or(key.as_str(), |(of, _)| of);
            let keys = keys_of(section);
            let known = if keys.is_empty() {
                self.no_such_section(section)
            } else {
                format!("the keys of [{section}] are {}", keys.join(", "))
            };
            wrong.push(ConfigError::Unknown {
                key: key.clone(),
                origin: origin.clone(),
                known,
            });
        }
        for (section, origin) in &self.sections {
            let is_named = |key: &String| key.split_once('.').is_some_and(|(of, _)| of == section);
            if keys_of(section).is_empty() && !self.entries.keys().any(is_named) {
                wrong.push(ConfigError::Unknown {
                    key: format!("[{section}]"),
                    origin: origin.clone(),
                    known: self.no_such_section(section),
                });
            }
        }
        wrong
    }

    fn no_such_section(&self, section: &str) -> String {
        let mut sections: Vec<_> = self
            .asked
            .iter()
            .filter_map(|key| Some(key.rsplit_once('.')?.0))
            .collect();
        sections.dedup();
        format!(
            "there is no section [{section}]; the sections are {}",
            sections.join(", ")
        )
    }
}

/// <https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>
fn set_by_kubernetes(rest: &str) -> bool {
    rest == "PORT"
        || ["SERVICE_HOST", "SERVICE_PORT", "PORT_"]
            .iter()
            .any(|begin| rest.starts_with(begin))
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix())
            .map_or(Raw::Other("a number out of range"), Raw::Whole),
        DeValue::Array(items) => items
            .iter()
            .map(|item| match item.get_ref() {
                DeValue::String(text) => Some(text.to_string()),
                _ => None,
            })
            .collect::<Option<Vec<_>>>()
            .map_or(Raw::Other("a list of other things than text"), Raw::List),
        DeValue::Float(digits) => digits
            .as_str()
            .parse()
            .map_or(Raw::Other("a number with a fraction"), Raw::Fraction),
        DeValue::Boolean(truth) => Raw::Truth(*truth),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Table(_) => Raw::Other("a table"),
    }
}
