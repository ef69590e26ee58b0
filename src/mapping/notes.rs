//! Values that were left out or changed, counted by column and kind; and what else only the rows together
//! show.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;

use super::event_names::EventNames;
use super::shared::SharedValues;

macro_rules! notes {
    ($($name:ident = $what:literal,)+) => {
        /// Why a value was not sent as it was.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Note {
            $($name,)+
        }

        impl Note {
            const ALL: [Self; NOTES] = [$(Self::$name,)+];

            fn what(self) -> &'static str {
                match self {
                    $(Self::$name => $what,)+
                }
            }
        }
    };
}

// From `SentAsText` on: those that are expected.
notes! {
    Absent = "the row has no such cell, so nothing was sent for it",
    Failed = "Looker could not compute the cell, which holds an error, so nothing was sent for it",
    Pivoted = "the cell is pivoted (it has no single value) and was not sent",
    Placeholder = "the identity is a placeholder such as \"null\" and counts as empty (mparticle.placeholder_identities)",
    ZeroMpid = "0 is nobody's mpid and was not sent",
    Untrimmed = "the identity has white space around it and was sent with it (mparticle.trim_identities sends it without)",
    NotAnInteger = "the value is not a whole number and was not sent",
    NotABoolean = "the value is not true or false and was not sent",
    NotAUuid = "the value is not a UUID and was not sent",
    NotAKnownWord = "the value is not one of those that mParticle knows and was not sent",
    UnknownEventType = "mParticle has no such custom event type, so `other` was sent",
    NotASingleValue = "the value is a list or an object and was not sent",
    Cut = "the value was longer than mParticle takes and was cut",
    TooLong = "the list or object was longer than mParticle takes and was not sent: half of it would be wrong",
    EntriesCut = "entries of the list were longer than mParticle takes and were cut",
    EntriesLeftOut = "the list had more than 1,000 entries, or too large a number, and was sent without what mParticle does not take",
    MixedLists = "the list holds lists or objects, which can be sent as text only, and was not sent, since other rows have lists",
    TooMany = "the event had 100 attributes already, the most that mParticle takes, so the value was not sent",
    FromDateAsUtc = "the value is a date without an offset and was read as UTC, since Looker named no known time zone before the rows",
    NotATime = "the value is not a plausible time and was not sent",
    NotAnIp = "the value is not an IP address and was not sent",
    NotAPlace = "latitude and longitude are not both there and within the bounds of the globe, so neither was sent",
    NotANumber = "the value is not a number, or too large a one, and was not sent",
    ConsentWithoutTime = "the row has no usable time of the consent, which mParticle needs, so it was not sent",
    PivotLeftOut = "of the values by pivot value one could not be sent: it is not a value, its name or the text of all would be longer than mParticle takes or is taken, or there are more than 1,000",
    Replaced = "the text held half a character (a lone surrogate), which was replaced by U+FFFD",
    NotOfItsType = "the value is none of the type that its column has in Looker and was sent as text",
    SentAsText = "the value is a list or an object and was sent as its JSON text",
    HtmlTakenOut = "the value held HTML, and its text alone was sent",
    FromDate = "the value is a date and was turned into milliseconds since 1970",
    FromDay = "the value is a day as yyyymmdd and was turned into milliseconds since 1970",
    FromSeconds = "the value was taken for seconds since 1970 (as milliseconds it would lie in the early 1970s) and was turned into milliseconds",
    FromMicros = "the value was taken for microseconds since 1970 and was turned into milliseconds",
    FromNanos = "the value was taken for nanoseconds since 1970 and was turned into milliseconds",
}

/// How many there are.
const NOTES: usize = 34;
/// Columns that are named in one sentence.
const MOST_COLUMNS: usize = 3;

impl Note {
    /// Whether the value arrives as the person who tagged the column means it, in another form. Others
    /// are worth a look.
    pub fn is_expected(self) -> bool {
        self as usize >= Self::SentAsText as usize
    }
}

/// Counts notes; one slot for each selected column.
#[derive(Clone, Debug)]
pub struct Tally {
    columns: Vec<Column>,
    /// Rows that were mapped, those that were refused included.
    pub(super) rows: u64,
    pub(super) event_names: EventNames,
}

#[derive(Clone, Debug)]
struct Column {
    counts: [Count; NOTES],
    /// How lists were sent so far.
    lists: Option<Lists>,
    /// Of a column of identities.
    identities: Option<Box<SharedValues>>,
}

impl Default for Column {
    fn default() -> Self {
        Self {
            counts: [Count::default(); NOTES],
            lists: None,
            identities: None,
        }
    }
}

/// What a list is sent as: all those of a column alike, so that no attribute changes its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lists {
    AsLists,
    AsText,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    values: u64,
    first_row: u64,
}

impl Tally {
    /// For a plan with this many selected columns.
    pub fn new(columns: usize) -> Self {
        Self {
            columns: vec![Column::default(); columns],
            rows: 0,
            event_names: EventNames::default(),
        }
    }

    /// Counts one value of column `slot`.
    pub fn add(&mut self, note: Note, slot: usize, row: u64) {
        let Some(column) = self.columns.get_mut(slot) else {
            return;
        };
        let count = &mut column.counts[note as usize];
        if count.values == 0 {
            count.first_row = row;
        }
        count.values += 1;
    }

    /// How often this was noted of column `slot`.
    pub fn count(&self, note: Note, slot: usize) -> u64 {
        self.columns
            .get(slot)
            .map_or(0, |column| column.counts[note as usize].values)
    }

    /// The names of the events.
    pub fn event_names(&self) -> &EventNames {
        &self.event_names
    }

    /// What a list in column `slot` is sent as, if `this` is what the first of them would be.
    pub(super) fn lists(&mut self, slot: usize, this: Lists) -> Lists {
        match self.columns.get_mut(slot) {
            Some(column) => *column.lists.get_or_insert(this),
            None => this,
        }
    }

    /// Counts an identity of column `slot`.
    #[inline]
    pub(super) fn identity(&mut self, slot: usize, value: &[u8], row: u64) {
        if let Some(column) = self.columns.get_mut(slot) {
            let hash = FixedState::default().hash_one(value);
            column.identities.get_or_insert_default().add(hash, row);
        }
    }

    /// One sentence for each kind of note that is worth a look, and each identity that very many rows
    /// share. `columns` are the plan's names.
    pub fn sentences<'a>(&'a self, columns: &'a [String]) -> impl Iterator<Item = String> + 'a {
        let kinds = self.kinds(columns, |note| !note.is_expected());
        kinds.into_iter().chain(self.shared(columns))
    }

    /// One sentence for each kind of note on values that arrive as they are meant.
    pub fn expected<'a>(&'a self, columns: &'a [String]) -> impl Iterator<Item = String> + 'a {
        self.kinds(columns, Note::is_expected).into_iter()
    }

    /// A sentence for each kind, those of the first columns first.
    fn kinds(&self, columns: &[String], which: impl Fn(Note) -> bool) -> Vec<String> {
        let noted = |note: Note| {
            let counts = self
                .columns
                .iter()
                .map(move |column| column.counts[note as usize]);
            let all = columns.iter().zip(counts).enumerate();
            all.filter(|(_, (_, count))| count.values > 0)
                .map(|(at, (name, count))| (at, name.as_str(), count))
                .collect::<Vec<_>>()
        };
        let mut kinds: Vec<_> = Note::ALL
            .into_iter()
            .filter(|note| which(*note))
            .map(|note| (note, noted(note)))
            .filter(|(_, noted)| !noted.is_empty())
            .collect();
        kinds.sort_by_key(|(_, noted)| noted.first().map(|(at, ..)| *at));
        let sentence = |(note, noted): &(Note, Vec<(usize, &str, Count)>)| {
            let values: u64 = noted.iter().map(|(_, _, count)| count.values).sum();
            let first = noted.iter().map(|(_, _, count)| count.first_row).min();
            let names: Vec<_> = noted.iter().map(|(_, name, _)| *name).collect();
            let what = match names.len() {
                1 if values == 1 => "1 row".to_owned(),
                1 => format!("{values} rows"),
                _ => format!("{values} values"),
            };
            format!(
                "{}: {} ({what}, first in row {}).",
                named(&names),
                note.what(),
                first.unwrap_or_default() + 1,
            )
        };
        kinds.iter().map(sentence).collect()
    }

    fn shared<'a>(&'a self, columns: &'a [String]) -> impl Iterator<Item = String> + 'a {
        columns.iter().zip(&self.columns).filter_map(|(name, column)| {
            let shared = column.identities.as_ref()?.found(self.rows)?;
            let (rows, all) = (shared.rows, self.rows);
            let others = match shared.values {
                1 => String::new(),
                values => format!(", and {} more are those of very many", values - 1),
            };
            Some(format!(
                "Column {name}: one identity is that of {rows} of {all} rows, first in row {}{others}: is it a placeholder (mparticle.placeholder_identities)?",
                shared.first_row + 1,
            ))
        })
    }
}

/// Characters of a column's name; there is room for few long ones among the notes of a delivery.
const MOST_OF_A_NAME: usize = 60;

/// `Column a.x`, or `Columns a.x, a.y, a.z and 4 more`
fn named(names: &[&str]) -> String {
    let short = |name: &str| match name.char_indices().nth(MOST_OF_A_NAME) {
        Some((end, _)) => format!("{}…", name.get(..end).unwrap_or_default()),
        None => name.to_owned(),
    };
    let shown = names.iter().take(MOST_COLUMNS).map(|name| short(name));
    let shown = shown.collect::<Vec<_>>().join(", ");
    match names.len() {
        0 | 1 => format!("Column {shown}"),
        count if count > MOST_COLUMNS => {
            format!("Columns {shown} and {} more", count - MOST_COLUMNS)
        }
        _ => format!("Columns {shown}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_counted_by_column_and_told_with_the_first_row() {
        let mut tally = Tally::new(2);
        tally.add(Note::Cut, 1, 4);
        tally.add(Note::Cut, 1, 9);
        tally.add(Note::TooMany, 0, 0);
        tally.add(Note::TooMany, 7, 0);
        let names = ["a.x".to_owned(), "a.y".to_owned()];
        let told: Vec<_> = tally.sentences(&names).collect();
        assert_eq!(told.len(), 2);
        assert!(told[0].starts_with("Column a.x: the event had 100 attributes"));
        assert!(
            told[1].ends_with("was cut (2 rows, first in row 5)."),
            "{}",
            told[1]
        );
    }

    #[test]
    fn columns_with_the_same_note_share_a_sentence_and_what_is_expected_stands_apart() {
        let names: Vec<_> = (0..5).map(|at| format!("a.c{at}")).collect();
        let mut tally = Tally::new(5);
        for slot in 0..5 {
            tally.add(Note::Absent, slot, 10 - slot as u64);
        }
        tally.add(Note::Cut, 2, 0);
        tally.add(Note::Cut, 3, 0);
        tally.add(Note::FromDate, 4, 0);
        assert_eq!(
            tally.sentences(&names).collect::<Vec<_>>(),
            [
                "Columns a.c0, a.c1, a.c2 and 2 more: the row has no such cell, so nothing was sent for it (5 values, first in row 7).",
                "Columns a.c2, a.c3: the value was longer than mParticle takes and was cut (2 values, first in row 1).",
            ]
        );
        assert_eq!(
            tally.expected(&names).collect::<Vec<_>>(),
            [
                "Column a.c4: the value is a date and was turned into milliseconds since 1970 (1 row, first in row 1)."
            ]
        );
    }

    #[test]
    fn every_kind_has_its_own_place() {
        for (place, note) in Note::ALL.into_iter().enumerate() {
            assert_eq!(place, note as usize);
        }
    }
}
