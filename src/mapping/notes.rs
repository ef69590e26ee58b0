//! Values that were left out or changed, counted by column and kind.

/// Why a value was not sent as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Note {
    Absent,
    Pivoted,
    NotAnInteger,
    NotABoolean,
    NotAUuid,
    NotAKnownWord,
    UnknownEventType,
    NotASingleValue,
    SentAsText,
    Cut,
    TooMany,
    HtmlTakenOut,
    FromDate,
    FromDateAsUtc,
    FromSeconds,
    NotAnIp,
    NotAPlace,
    NotANumber,
    ConsentWithoutTime,
    PivotLeftOut,
}

/// How many there are.
const NOTES: usize = 20;

impl Note {
    const ALL: [Self; NOTES] = [
        Self::Absent,
        Self::Pivoted,
        Self::NotAnInteger,
        Self::NotABoolean,
        Self::NotAUuid,
        Self::NotAKnownWord,
        Self::UnknownEventType,
        Self::NotASingleValue,
        Self::SentAsText,
        Self::Cut,
        Self::TooMany,
        Self::HtmlTakenOut,
        Self::FromDate,
        Self::FromDateAsUtc,
        Self::FromSeconds,
        Self::NotAnIp,
        Self::NotAPlace,
        Self::NotANumber,
        Self::ConsentWithoutTime,
        Self::PivotLeftOut,
    ];

    fn what(self) -> &'static str {
        match self {
            Self::Absent => "the row has no such cell, so nothing was sent for it",
            Self::Pivoted => "the cell is pivoted (it has no single value) and was not sent",
            Self::NotAnInteger => "the value is not a whole number and was not sent",
            Self::NotABoolean => "the value is not true or false and was not sent",
            Self::NotAUuid => "the value is not a UUID and was not sent",
            Self::NotAKnownWord => {
                "the value is not one of those that mParticle knows and was not sent"
            }
            Self::UnknownEventType => {
                "mParticle has no such custom event type, so `other` was sent"
            }
            Self::NotASingleValue => "the value is a list or an object and was not sent",
            Self::SentAsText => "the value is a list or an object and was sent as its JSON text",
            Self::Cut => "the value was longer than mParticle takes and was cut",
            Self::TooMany => {
                "the event had 100 attributes already, the most that mParticle takes, so the value was not sent"
            }
            Self::HtmlTakenOut => "the value held HTML, and its text alone was sent",
            Self::FromDate => "the value is a date and was turned into milliseconds since 1970",
            Self::FromDateAsUtc => {
                "the value is a date without an offset and was read as UTC, since Looker named no known time zone before the rows"
            }
            Self::FromSeconds => {
                "the value was taken for seconds since 1970 (as milliseconds it would lie in the early 1970s) and was turned into milliseconds"
            }
            Self::NotAnIp => "the value is not an IP address and was not sent",
            Self::ConsentWithoutTime => {
                "the row has no usable time of the consent, which mParticle needs, so it was not sent"
            }
            Self::NotANumber => "the value is no number, or too large a one, and was not sent",
            Self::PivotLeftOut => {
                "of the values by pivot value one could not be sent: it is no value, its name or the text of all would be longer than mParticle takes or is taken, or there are more than 1,000"
            }
            Self::NotAPlace => {
                "latitude and longitude are not both there and within the bounds of the globe, so neither was sent"
            }
        }
    }
}

/// Counts notes; one slot for each selected column.
#[derive(Clone, Debug)]
pub struct Tally {
    columns: Vec<[Count; NOTES]>,
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
            columns: vec![[Count::default(); NOTES]; columns],
        }
    }

    /// Counts one value of column `slot`.
    pub fn add(&mut self, note: Note, slot: usize, row: u64) {
        let Some(column) = self.columns.get_mut(slot) else {
            return;
        };
        let count = &mut column[note as usize];
        if count.values == 0 {
            count.first_row = row;
        }
        count.values += 1;
    }

    /// How often this was noted of column `slot`.
    pub fn count(&self, note: Note, slot: usize) -> u64 {
        self.columns
            .get(slot)
            .map_or(0, |column| column[note as usize].values)
    }

    /// One sentence for each column and kind that occurred. `columns` are the plan's names.
    pub fn sentences<'a>(&'a self, columns: &'a [String]) -> impl Iterator<Item = String> + 'a {
        columns
            .iter()
            .zip(&self.columns)
            .flat_map(|(name, column)| {
                Note::ALL
                    .iter()
                    .zip(column)
                    .filter(|(_, count)| count.values > 0)
                    .map(move |(note, count)| {
                        let rows = if count.values == 1 { "row" } else { "rows" };
                        format!(
                            "Column {name}: {what} ({values} {rows}, first in row {first}).",
                            what = note.what(),
                            values = count.values,
                            first = count.first_row + 1,
                        )
                    })
            })
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
    fn every_kind_has_its_own_place() {
        for (place, note) in Note::ALL.into_iter().enumerate() {
            assert_eq!(place, note as usize);
        }
    }
}
