//! Measures of a query with pivots: many values in one row, which only attributes can take, and only
//! if it was chosen how.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::cells::{Attribute, MOST_VALUE_CHARACTERS, attribute_literal, note_missing};
use super::names::{Names, json_name};
use super::notes::{Note, Tally};
use super::values;
use crate::model::{Row, Text, Value};
use crate::record::{begin_setting, end_setting};

/// What becomes of a tagged measure in a query with pivots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PivotedMeasures {
    /// It fails the delivery: none of its values would be right.
    #[default]
    Refuse,
    /// Each pivot value makes an attribute of its own: `looker_<view>.<measure>.<pivot value>`.
    Attributes,
    /// All together are one attribute: the text of a JSON object by pivot value.
    Json,
}

/// Pivot values that can become user attributes in one delivery. Looker shows 200 unless told
/// otherwise, and mParticle takes 100 attributes of a user.
const MOST_PIVOT_VALUES: usize = 1000;

/// What Looker puts between the values of several pivots.
const BETWEEN_PIVOTS: &str = "|FIELD|";
/// Where Looker puts a row's total, if the query has row totals.
const ROW_TOTAL: &str = "$$$_row_total_$$$";

/// A pivoted column that goes to attributes.
#[derive(Clone, Debug)]
pub(super) struct PivotColumn {
    /// In the row.
    pub(super) slot: usize,
    /// `looker_<view>.<measure>`
    name: String,
    as_json: bool,
}

/// The literal of one attribute, and which one: by pivot value, or the column's own.
type Literal = (Option<String>, Vec<u8>);

impl PivotColumn {
    /// `None` where the choice is to refuse it.
    pub(super) fn new(slot: usize, name: String, how: PivotedMeasures) -> Option<Self> {
        let as_json = match how {
            PivotedMeasures::Refuse => return None,
            PivotedMeasures::Attributes => false,
            PivotedMeasures::Json => true,
        };
        Some(Self {
            slot,
            name,
            as_json,
        })
    }

    /// How its attributes are named in what people read.
    pub(super) fn shown_name(&self) -> String {
        match self.as_json {
            true => self.name.clone(),
            false => format!("{}.<pivot value>", self.name),
        }
    }

    /// Members of one row's attributes, `"name":` and literal, for a place that takes any name.
    pub(super) fn members(
        &self,
        row: &Row<'_>,
        tally: &mut Tally,
        how: &Attribute<'_>,
    ) -> Vec<(Box<str>, Vec<u8>)> {
        let mut members = Vec::new();
        for (key, literal) in self.literals(row, tally, how) {
            match json_name(&self.attribute(key.as_deref())) {
                Ok(name) => members.push((name, literal)),
                Err(_) => tally.add(Note::PivotLeftOut, self.slot, row.number),
            }
        }
        members
    }

    /// What one row has of attributes; those that are null and not to be sent are not among them.
    fn literals(&self, row: &Row<'_>, tally: &mut Tally, how: &Attribute<'_>) -> Vec<Literal> {
        let place = (self.slot, row.number);
        let mut literals = Vec::new();
        let mut put = |key: Option<String>, value: Value<'_>, tally: &mut Tally| {
            let mut literal = Vec::new();
            attribute_literal(&mut literal, value, place, tally, how);
            if !literal.is_empty() {
                literals.push((key, literal));
            }
        };
        let raw = match row.value(self.slot) {
            Value::Pivoted(raw) => raw,
            value @ Value::Absent => {
                note_missing(value, place.0, place.1, tally);
                return literals;
            }
            // There are calculations over pivots, which have one value in a row.
            single => {
                put(None, single, tally);
                return literals;
            }
        };
        let Ok(PivotCell(mut values)) = serde_json::from_str::<PivotCell<'_>>(raw) else {
            tally.add(Note::PivotLeftOut, place.0, place.1);
            return literals;
        };
        if how.spelling.canonical {
            values.sort_by(|(a, _), (b, _)| a.cmp(b));
        }
        if self.as_json {
            match object(&values, place, tally, how) {
                Some(text) => {
                    let mut literal = Vec::new();
                    values::canonical(&mut literal, &text);
                    literals.push((None, literal));
                }
                None => put(None, Value::Null, tally),
            }
            return literals;
        }
        for (key, value) in values {
            match value {
                Some(value) => put(Some(key), value_of(value), tally),
                None => tally.add(Note::PivotLeftOut, place.0, place.1),
            }
        }
        literals
    }

    fn attribute(&self, key: Option<&str>) -> String {
        match key {
            None => self.name.clone(),
            Some(key) => format!("{}.{}", self.name, said(key)),
        }
    }
}

/// A key of a cell as a part of a name.
fn said(key: &str) -> Cow<'_, str> {
    match key {
        ROW_TOTAL => Cow::Borrowed("row_total"),
        key if key.contains(BETWEEN_PIVOTS) => Cow::Owned(key.replace(BETWEEN_PIVOTS, ".")),
        key => Cow::Borrowed(key),
    }
}

/// The text of a JSON object; `None` where nothing of it can be sent.
fn object(
    values: &[(String, Option<&str>)],
    place: (usize, u64),
    tally: &mut Tally,
    how: &Attribute<'_>,
) -> Option<String> {
    // What deletes an attribute deletes nothing inside of one.
    let null = if how.null == b"null" { how.null } else { b"" };
    let inside = Attribute { null, ..*how };
    let mut text = vec![b'{'];
    for (key, value) in values {
        let Some(value) = value else {
            tally.add(Note::PivotLeftOut, place.0, place.1);
            continue;
        };
        let start = text.len();
        if start > 1 {
            text.push(b',');
        }
        values::canonical(&mut text, &said(key));
        text.push(b':');
        let bare = text.len();
        attribute_literal(&mut text, value_of(value), place, tally, &inside);
        if text.len() == bare {
            text.truncate(start);
        }
    }
    text.push(b'}');
    if text.len() == "{}".len() {
        return None;
    }
    let text = String::from_utf8(text).ok()?;
    if text.chars().count() > MOST_VALUE_CHARACTERS {
        tally.add(Note::PivotLeftOut, place.0, place.1);
        return None;
    }
    Some(text)
}

/// The pivoted columns of user attributes. Their names are learned from the rows.
#[derive(Clone, Debug, Default)]
pub(super) struct Pivots(Vec<Learned>);

#[derive(Clone, Debug)]
struct Learned {
    column: PivotColumn,
    /// The keys that were seen, and the slot of each if it has one. In the order of the first row that
    /// had them, so that the next is nearly always found at once.
    slots: Vec<(Option<String>, Option<u16>)>,
}

impl Pivots {
    pub(super) fn push(&mut self, column: PivotColumn) {
        self.0.push(Learned {
            column,
            slots: Vec::new(),
        });
    }

    /// Writes the settings of one row. A name that is new gets the next slot of `names`.
    pub(super) fn write(
        &mut self,
        out: &mut Vec<u8>,
        row: &Row<'_>,
        names: &mut Names,
        tally: &mut Tally,
        how: &Attribute<'_>,
    ) {
        let mut given: usize = self.0.iter().map(|learned| learned.slots.len()).sum();
        for Learned { column, slots } in &mut self.0 {
            let literals = column.literals(row, tally, how);
            for (at, (key, literal)) in literals.iter().enumerate() {
                let here = slots.get(at).filter(|(known, _)| known == key);
                let known = here.or_else(|| slots.iter().find(|(known, _)| known == key));
                let slot = match known {
                    Some((_, slot)) => *slot,
                    None if given >= MOST_PIVOT_VALUES => None,
                    None => {
                        let slot = new_slot(&column.attribute(key.as_deref()), names);
                        slots.push((key.clone(), slot));
                        given += 1;
                        slot
                    }
                };
                let Some(slot) = slot else {
                    tally.add(Note::PivotLeftOut, column.slot, row.number);
                    continue;
                };
                let start = begin_setting(out, slot);
                out.extend_from_slice(literal);
                end_setting(out, start);
            }
        }
    }
}

/// `None`: mParticle would not take the name, or another attribute has it.
fn new_slot(name: &str, names: &mut Names) -> Option<u16> {
    let name = json_name(name).ok()?;
    if names.attributes.contains(&name) {
        return None;
    }
    let slot = u16::try_from(names.attributes.len()).ok()?;
    names.attributes.push(name);
    Some(slot)
}

/// What a JSON literal is, by its first byte: it has been checked.
fn value_of(json: &str) -> Value<'_> {
    match json.as_bytes() {
        [b'"', .., b'"'] => {
            let raw = json.get(1..json.len() - 1).unwrap_or_default();
            let escaped = raw.contains('\\');
            Value::String(Text { raw, escaped })
        }
        [b't', ..] => Value::Bool(true),
        [b'f', ..] => Value::Bool(false),
        [b'n', ..] => Value::Null,
        [b'[', ..] => Value::List(json),
        [b'{', ..] => Value::Object(json),
        _ => Value::Number(json),
    }
}

/// A cell's values by pivot value: each key once, in Looker's order. `None`: there is no value.
struct PivotCell<'a>(Vec<(String, Option<&'a str>)>);

#[derive(Deserialize)]
struct Inner<'a> {
    #[serde(default, borrow, deserialize_with = "present")]
    value: Option<&'a RawValue>,
}

/// A null is a value.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(from).map(Some)
}

impl<'de> Deserialize<'de> for PivotCell<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Cells).map(Self)
    }
}

struct Cells;

impl<'de> Visitor<'de> for Cells {
    type Value = Vec<(String, Option<&'de str>)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value for each pivot value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values: Self::Value = Vec::new();
        while let Some((key, inner)) = map.next_entry::<String, Inner<'de>>()? {
            let value = inner.value.map(RawValue::get);
            match values.iter_mut().find(|(known, _)| *known == key) {
                Some((_, known)) => *known = value,
                None => values.push((key, value)),
            }
        }
        Ok(values)
    }
}
