//! What a result document says beside its rows, kept while the rest is skipped.
//!
//! Of `fields` (ten kilobytes and more, fifty keys a column) only names, types and tags are ever held;
//! `applied_filters` and other unknown keys pass through without a copy, however large.

use super::Limits;
use super::error::Problem;
use super::scan::{Event, Kind, Seen};
use super::sentences::{sentences, strings, text};
use crate::model::{Field, FieldKind, Header, Text};

/// A key that matters is shorter than this, also when every letter is written as an escape.
const LONGEST_KEY: usize = 128;
/// Counted for each kept string beside its bytes, since short ones cost more than their text.
const STRING_OVERHEAD: usize = 32;

/// Events above this depth matter: the root's keys, or inside `fields` a column's keys.
const WATCH_ROOT: usize = IN_ROOT;
const WATCH_FIELDS: usize = IN_COLUMN;
/// Containers around the keys of the root: itself.
const IN_ROOT: usize = 1;
/// Around those of a column: the root, `fields`, a list of it, the column.
const IN_COLUMN: usize = 4;

/// Takes the scanner's events outside `data` and builds the [`Header`].
#[derive(Debug)]
pub(super) struct HeaderReader {
    pub(super) header: Header,
    pub(super) fields_known: bool,
    /// A `data` key was there, whatever its value.
    data_key: bool,
    /// It was a list.
    pub(super) data_seen: bool,
    root: RootKey,
    list: Option<List>,
    member: Member,
    name: Option<String>,
    tags: Vec<String>,
    lookml_type: Option<String>,
    dimensions: Vec<Field>,
    measures: Vec<Field>,
    calculations: Vec<Field>,
    error_notes: Vec<String>,
    warnings: Vec<String>,
    capture: Capture,
    captured: Vec<u8>,
    kept: usize,
    limits: Limits,
}

/// What the document's reader has to do after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    Nothing,
    /// Ask the scanner for events up to this depth from now on.
    Watch(usize),
    /// Nothing of the value of the key that has just ended matters.
    Mute,
    /// The list of rows has begun.
    Rows,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RootKey {
    Data,
    Fields,
    Errors,
    Warnings,
    Timezone,
    Truncated,
    Other,
}

impl RootKey {
    fn of(key: &[u8]) -> Self {
        match key {
            b"data" => Self::Data,
            b"fields" => Self::Fields,
            b"errors" => Self::Errors,
            b"warnings" => Self::Warnings,
            b"timezone" => Self::Timezone,
            b"truncated" => Self::Truncated,
            _ => Self::Other,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    Fields(FieldKind),
    Pivots,
}

/// A key of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    Name,
    Tags,
    Type,
    Other,
}

impl Member {
    fn of(key: &[u8]) -> Self {
        match key {
            b"name" => Self::Name,
            b"tags" => Self::Tags,
            b"type" => Self::Type,
            _ => Self::Other,
        }
    }
}

/// What the consumed bytes are copied for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Capture {
    Nothing,
    Key,
    Value(Kind),
}

/// Whether anything may be read of the value of this key, which has so many containers around it.
pub(super) fn matters(depth: usize, key: &[u8]) -> bool {
    match depth {
        IN_ROOT => RootKey::of(key) != RootKey::Other,
        // Elsewhere at the same depth nothing is read.
        IN_COLUMN => Member::of(key) != Member::Other,
        _ => true,
    }
}

impl HeaderReader {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            header: Header::default(),
            fields_known: false,
            data_key: false,
            data_seen: false,
            root: RootKey::Other,
            list: None,
            member: Member::Other,
            name: None,
            tags: Vec::new(),
            lookml_type: None,
            dimensions: Vec::new(),
            measures: Vec::new(),
            calculations: Vec::new(),
            error_notes: Vec::new(),
            warnings: Vec::new(),
            capture: Capture::Nothing,
            captured: Vec::new(),
            kept: 0,
            limits,
        }
    }

    /// Whether it is to [`take`](Self::take) every byte that is consumed now.
    pub(super) fn keeps(&self) -> bool {
        self.capture != Capture::Nothing
    }

    /// Takes the bytes that the scanner has consumed, before the event at their end.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        match self.capture {
            Capture::Nothing => Ok(()),
            Capture::Key => {
                // A longer key is none that matters: it must only stay longer.
                let room = LONGEST_KEY.saturating_sub(self.captured.len());
                let part = bytes.get(..room).unwrap_or(bytes);
                self.captured.extend_from_slice(part);
                Ok(())
            }
            Capture::Value(_) => {
                self.keep(bytes.len())?;
                self.captured.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Takes an event; `byte` is the last consumed byte, `escaped` the scanner's word on the last
    /// string.
    pub(super) fn on(&mut self, seen: Seen, byte: u8, escaped: bool) -> Result<After, Problem> {
        match seen.event {
            Event::KeyBegin => self.begin(Capture::Key),
            Event::KeyEnd => {
                self.capture = Capture::Nothing;
                let captured = std::mem::take(&mut self.captured);
                let raw = captured.strip_suffix(b"\"").unwrap_or_default();
                let raw = std::str::from_utf8(raw).map_err(|_| Problem::NotUtf8)?;
                let key = Text { raw, escaped }.decoded();
                self.on_key(seen.depth, &key);
                self.captured = captured;
                if !self.matters(seen.depth) {
                    return Ok(After::Mute);
                }
            }
            Event::ValueBegin(kind) => {
                if self.wants(seen.depth) {
                    self.begin(Capture::Value(kind));
                    self.take(&[byte])?;
                }
                return self.on_value(seen.depth, kind);
            }
            Event::ValueEnd => return self.on_value_end(seen.depth, escaped),
        }
        Ok(After::Nothing)
    }

    fn on_key(&mut self, depth: usize, key: &str) {
        match (depth, self.root) {
            (1, _) => self.root = RootKey::of(key.as_bytes()),
            (2, _) => {
                self.list = match key {
                    "dimensions" => Some(List::Fields(FieldKind::Dimension)),
                    "measures" => Some(List::Fields(FieldKind::Measure)),
                    "table_calculations" => Some(List::Fields(FieldKind::TableCalculation)),
                    "pivots" => Some(List::Pivots),
                    _ => None,
                }
            }
            (4, _) => {
                self.member = Member::of(key.as_bytes());
            }
            _ => {}
        }
    }

    /// Whether there is anything to be seen in the value of the key that has just ended.
    fn matters(&self, depth: usize) -> bool {
        match depth {
            1 => self.root != RootKey::Other,
            2 => self.list.is_some(),
            4 => self.wants(depth),
            _ => true,
        }
    }

    /// Whether the value that begins is one to keep.
    fn wants(&self, depth: usize) -> bool {
        match depth {
            1 => matches!(
                self.root,
                RootKey::Errors | RootKey::Warnings | RootKey::Timezone | RootKey::Truncated
            ),
            4 => self.list.is_some() && self.member != Member::Other,
            _ => false,
        }
    }

    fn on_value(&mut self, depth: usize, kind: Kind) -> Result<After, Problem> {
        match (depth, self.root, kind) {
            (0, _, Kind::Object) => {}
            (0, _, Kind::Array) => return Err(Problem::PlainJson),
            (0, _, _) => return Err(Problem::NotAnObject),
            (1, RootKey::Data, _) if self.data_key => return Err(Problem::DuplicateData),
            (1, RootKey::Data, _) => {
                self.data_key = true;
                if kind == Kind::Array {
                    self.data_seen = true;
                    return Ok(After::Rows);
                }
            }
            (1, RootKey::Fields, Kind::Object | Kind::Null) => {
                self.dimensions.clear();
                self.measures.clear();
                self.calculations.clear();
                self.header.pivots.clear();
                return Ok(After::Watch(WATCH_FIELDS));
            }
            (1, RootKey::Fields, _) => return Err(Problem::Header("`fields` is not an object")),
            (2, RootKey::Fields, _) => match self.list {
                Some(_) if !matches!(kind, Kind::Array | Kind::Null) => {
                    return Err(Problem::Header("a list in `fields` is not a list"));
                }
                Some(List::Fields(kind)) => self.fields(kind).clear(),
                Some(List::Pivots) => self.header.pivots.clear(),
                None => {}
            },
            (3, RootKey::Fields, _) if self.list.is_some() => {
                if kind != Kind::Object {
                    return Err(Problem::Header("an entry of `fields` is not an object"));
                }
                self.name = None;
                self.lookml_type = None;
                self.tags.clear();
            }
            _ => {}
        }
        Ok(After::Nothing)
    }

    fn on_value_end(&mut self, depth: usize, escaped: bool) -> Result<After, Problem> {
        let capture = std::mem::replace(&mut self.capture, Capture::Nothing);
        match (depth, self.root) {
            (1, RootKey::Fields) => {
                self.header.fields.clear();
                for list in [
                    &mut self.dimensions,
                    &mut self.measures,
                    &mut self.calculations,
                ] {
                    self.header.fields.append(list);
                }
                self.fields_known = true;
                return Ok(After::Watch(WATCH_ROOT));
            }
            (1, RootKey::Errors | RootKey::Warnings) => self.said()?,
            (1, RootKey::Timezone) => self.header.timezone = self.string(capture, escaped)?,
            (1, RootKey::Truncated) => self.header.truncated = self.captured == b"true",
            (3, RootKey::Fields) => self.on_entry()?,
            (4, RootKey::Fields) if self.list.is_some() => match self.member {
                Member::Name => self.name = self.string(capture, escaped)?,
                Member::Tags => {
                    self.tags =
                        strings(&self.captured, self.limits.depth()).ok_or(Problem::NotUtf8)?;
                    self.keep(self.tags.len() * STRING_OVERHEAD)?;
                }
                Member::Type => self.lookml_type = self.string(capture, escaped)?,
                Member::Other => {}
            },
            _ => {}
        }
        Ok(After::Nothing)
    }

    fn on_entry(&mut self) -> Result<(), Problem> {
        let Some(list) = self.list else {
            return Ok(());
        };
        let limit = self.limits.max_columns;
        let columns = self.dimensions.len()
            + self.measures.len()
            + self.calculations.len()
            + self.header.pivots.len();
        if columns >= limit {
            return Err(Problem::TooManyColumns { limit });
        }
        let name = self
            .name
            .take()
            .ok_or(Problem::Header("an entry of `fields` has no `name`"))?;
        match list {
            List::Pivots => self.header.pivots.push(name),
            List::Fields(kind) => {
                let tags = std::mem::take(&mut self.tags);
                let lookml_type = self.lookml_type.take();
                self.fields(kind).push(Field {
                    name,
                    kind,
                    tags,
                    lookml_type,
                });
            }
        }
        Ok(())
    }

    fn fields(&mut self, kind: FieldKind) -> &mut Vec<Field> {
        match kind {
            FieldKind::Dimension => &mut self.dimensions,
            FieldKind::Measure => &mut self.measures,
            FieldKind::TableCalculation => &mut self.calculations,
        }
    }

    /// `errors` or `warnings` are in `captured`.
    fn said(&mut self) -> Result<(), Problem> {
        let said = sentences(&self.captured, self.limits.depth()).ok_or(Problem::NotUtf8)?;
        self.keep(said.len() * STRING_OVERHEAD)?;
        if self.root == RootKey::Warnings {
            self.warnings = said;
        } else {
            (self.error_notes, self.header.errors) = said
                .into_iter()
                .partition(|sentence| sentence.trim_start().starts_with("Note:"));
        }
        self.header.notes = [self.error_notes.as_slice(), &self.warnings].concat();
        Ok(())
    }

    /// The string in `captured`; `None` when the value is none.
    fn string(&self, capture: Capture, escaped: bool) -> Result<Option<String>, Problem> {
        if capture != Capture::Value(Kind::String) {
            return Ok(None);
        }
        let raw = self.captured.strip_prefix(b"\"").unwrap_or_default();
        let raw = raw.strip_suffix(b"\"").unwrap_or_default();
        text(raw, escaped).map(Some).ok_or(Problem::NotUtf8)
    }

    fn begin(&mut self, capture: Capture) {
        self.captured.clear();
        self.capture = capture;
    }

    fn keep(&mut self, bytes: usize) -> Result<(), Problem> {
        let limit = self.limits.max_header_bytes;
        self.kept = self.kept.saturating_add(bytes);
        if self.kept > limit {
            return Err(Problem::HeaderTooLarge { limit });
        }
        Ok(())
    }
}
