//! Columns that a schedule sends although they have no tag in LookML, or another one: table
//! calculations, custom fields, and models that its owner may not edit.

use std::borrow::Cow;
use std::str::FromStr;
use std::sync::Arc;

use super::spelling::{nearest, nearest_tag};
use super::tags::{TAGS, Tag};
use crate::model::{DataType, Field, Header};

/// Lines that a schedule may have: far more than a form is made for.
const MOST_LINES: usize = 500;
/// Columns of the result that are named where one is not found.
const MOST_NAMED: usize = 60;
/// Characters of a line, a tag or a column that are quoted in a message.
const MOST_QUOTED: usize = 80;

/// What the form's field "More Columns" says: one `column: tag` a line. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MoreColumns(Arc<[MoreColumn]>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct MoreColumn {
    column: String,
    word: &'static str,
    tag: Tag,
}

/// Why "More Columns" cannot be used. Each is a sentence for the schedule's owner.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoreColumnsError {
    /// A line has no colon, or nothing on one side of it.
    #[error(
        "Line {number} of \"More Columns\", {line}, is not a column and its tag, such as calculation_1: mp_user_attribute."
    )]
    Line {
        /// From 1.
        number: usize,
        /// What it says, quoted.
        line: String,
    },
    /// More lines than anybody would write.
    #[error("\"More Columns\" has more than {MOST_LINES} lines.")]
    TooMany,
    /// The tag is none that is understood.
    #[error("\"More Columns\" gives the column {column} the tag {tag}, which is none.{known}")]
    Tag {
        /// The column, quoted.
        column: String,
        /// What stands for its tag, quoted.
        tag: String,
        /// Which tags there are, and which may have been meant.
        known: String,
    },
    /// Two lines for one column.
    #[error("\"More Columns\" has two lines for the column {0}.")]
    Twice(String),
    /// A place that only events have, and the data are profiles.
    #[error(
        "\"More Columns\" gives the column {column} the tag {tag}, which is for Events, and the data type is User Profiles."
    )]
    OfEvents {
        /// The column, quoted.
        column: String,
        /// Its tag.
        tag: &'static str,
    },
    /// The result has no such column.
    #[error("\"More Columns\" names the column {column}, which the result does not have.{known}")]
    Column {
        /// What it names, quoted.
        column: String,
        /// Which columns there are, and which may have been meant.
        known: String,
    },
}

impl FromStr for MoreColumns {
    type Err = MoreColumnsError;

    /// Empty lines are passed over.
    fn from_str(text: &str) -> Result<Self, MoreColumnsError> {
        let mut columns: Vec<MoreColumn> = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            let parts = line.rsplit_once(':').map(|(a, b)| (a.trim(), b.trim()));
            let Some((column, word)) = parts.filter(|(a, b)| !a.is_empty() && !b.is_empty()) else {
                let line = quoted(line);
                return Err(MoreColumnsError::Line {
                    number: at + 1,
                    line,
                });
            };
            let Some(&(word, tag)) = TAGS.iter().find(|(known, _)| *known == word) else {
                let all = TAGS.iter().map(|(tag, _)| *tag);
                return Err(MoreColumnsError::Tag {
                    column: quoted(column),
                    tag: quoted(word),
                    known: known("The tags are", nearest_tag(word), all),
                });
            };
            if columns.iter().any(|known| known.column == column) {
                return Err(MoreColumnsError::Twice(quoted(column)));
            }
            if columns.len() >= MOST_LINES {
                return Err(MoreColumnsError::TooMany);
            }
            let column = column.to_owned();
            columns.push(MoreColumn { column, word, tag });
        }
        Ok(Self(columns.into()))
    }
}

impl MoreColumns {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all tags have a meaning for this type of data. (In LookML, which serves both, a tag
    /// that has none is passed over; here it was chosen for this very schedule.)
    pub fn check(&self, data_type: DataType) -> Result<(), MoreColumnsError> {
        let wrong = match data_type {
            DataType::Event => None,
            DataType::User => self.0.iter().find(|more| more.tag.is_of_events()),
        };
        match wrong {
            None => Ok(()),
            Some(more) => Err(MoreColumnsError::OfEvents {
                column: quoted(&more.column),
                tag: more.word,
            }),
        }
    }

    /// The header as if its columns had these tags before those of LookML, so that these count.
    pub fn apply<'a>(&self, header: &'a Header) -> Result<Cow<'a, Header>, MoreColumnsError> {
        let mut header = Cow::Borrowed(header);
        for more in self.0.iter() {
            let is_it = |field: &Field| field.name == more.column;
            let Some(at) = header.fields.iter().position(is_it) else {
                return Err(unknown(&more.column, &header));
            };
            if let Some(field) = header.to_mut().fields.get_mut(at) {
                field.tags.retain(|tag| tag.trim() != more.word);
                field.tags.insert(0, more.word.to_owned());
            }
        }
        Ok(header)
    }
}

fn unknown(column: &str, header: &Header) -> MoreColumnsError {
    if header.pivots.iter().any(|pivot| pivot == column) {
        return MoreColumnsError::Column {
            column: quoted(column),
            known: " (The query pivots on it: its values stand in the names of columns.)"
                .to_owned(),
        };
    }
    let names = || header.fields.iter().map(|field| field.name.as_str());
    MoreColumnsError::Column {
        column: quoted(column),
        known: known("Its columns are", nearest(column, names()), names()),
    }
}

/// A sentence of what there is.
fn known<'a>(
    intro: &str,
    meant: Option<&str>,
    all: impl Iterator<Item = &'a str> + Clone,
) -> String {
    let meant = meant.map_or(String::new(), |meant| format!(" Did you mean {meant}?"));
    let count = all.clone().count();
    let named: Vec<_> = all.take(MOST_NAMED).map(short).collect();
    let rest = match count.saturating_sub(named.len()) {
        0 => String::new(),
        rest => format!(" and {rest} more"),
    };
    match count {
        0 => " It has none.".to_owned(),
        _ => format!("{meant} {intro}: {}{rest}.", named.join(", ")),
    }
}

fn short(text: &str) -> String {
    text.chars().take(MOST_QUOTED).collect()
}

fn quoted(text: &str) -> String {
    format!("{:?}", short(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FieldKind;

    fn header() -> Header {
        let field = |name: &str, kind, tags: &[&str]| Field {
            name: name.to_owned(),
            kind,
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            lookml_type: None,
        };
        Header {
            fields: vec![
                field("users.id", FieldKind::Dimension, &["mp_other"]),
                field("users.city", FieldKind::Dimension, &[]),
                field("double", FieldKind::TableCalculation, &[]),
            ],
            pivots: vec!["users.state".to_owned()],
            ..Header::default()
        }
    }

    #[test]
    fn lines_are_columns_with_their_tags_which_come_first() {
        let text = " users.id : mp_customer_id\r\n\r\n  double:mp_user_attribute  \n";
        let more: MoreColumns = text.parse().unwrap();
        let header = header();
        let applied = more.apply(&header).unwrap();
        let tags = |at: usize| applied.fields[at].tags.clone();
        assert_eq!(tags(0), ["mp_customer_id", "mp_other"]);
        assert!(tags(1).is_empty());
        assert_eq!(tags(2), ["mp_user_attribute"]);
        // The same tag as in LookML changes nothing.
        let same: MoreColumns = "users.id: mp_other".parse().unwrap();
        assert_eq!(*same.apply(&header).unwrap(), header);
        // A name may hold a colon, a tag never does.
        let odd: MoreColumns = "a:b: mp_email".parse().unwrap();
        assert_eq!(odd.0[0].column, "a:b");
        for nothing in ["", " \n\t\n"] {
            let none: MoreColumns = nothing.parse().unwrap();
            assert!(none.is_empty());
            assert!(matches!(none.apply(&header), Ok(Cow::Borrowed(_))));
        }
    }

    #[test]
    fn what_cannot_be_read_says_what_there_is() {
        for (text, want) in [
            (
                "users.id",
                "Line 1 of \"More Columns\", \"users.id\", is not a column and its tag",
            ),
            ("\nusers.id:", "Line 2"),
            (": mp_email", "Line 1"),
            (
                "a.b: email",
                "the column \"a.b\" the tag \"email\", which is none. The tags are: mp_customer_id, mp_email,",
            ),
            (
                "a.b: mp_custmer_id",
                "Did you mean mp_customer_id? The tags are",
            ),
            (
                "a.b: mp_email\na.b: mp_other",
                "two lines for the column \"a.b\"",
            ),
        ] {
            let error = text.parse::<MoreColumns>().unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
            assert!(error.ends_with('.') && !error.contains('\n'), "{error}");
        }
        let all = (0..=MOST_LINES).map(|at| format!("c{at}: mp_other\n"));
        let error = all.collect::<String>().parse::<MoreColumns>().unwrap_err();
        assert_eq!(error, MoreColumnsError::TooMany);
        let long = format!("{}: nothing", "é".repeat(9000));
        let error = long.parse::<MoreColumns>().unwrap_err().to_string();
        assert!(error.chars().count() < 2500, "{error}");
    }

    #[test]
    fn a_column_that_the_result_does_not_have_is_named_with_those_that_it_has() {
        for (column, want) in [
            (
                "users.cty",
                "Did you mean users.city? Its columns are: users.id, users.city, double.",
            ),
            (
                "orders.total",
                "does not have. Its columns are: users.id, users.city, double.",
            ),
            ("users.state", "The query pivots on it"),
        ] {
            let more: MoreColumns = format!("{column}: mp_email").parse().unwrap();
            let error = more.apply(&header()).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
        let more: MoreColumns = "a: mp_email".parse().unwrap();
        let error = more.apply(&Header::default()).unwrap_err().to_string();
        assert!(error.ends_with("does not have. It has none."), "{error}");
        let mut wide = header();
        wide.fields = (0..5000)
            .map(|at| Field {
                name: format!("v.f{at}"),
                ..wide.fields[0].clone()
            })
            .collect();
        let error = more.apply(&wide).unwrap_err().to_string();
        assert!(error.contains("v.f59 and 4940 more."), "{error}");
    }

    #[test]
    fn a_tag_that_only_events_have_is_refused_for_profiles() {
        for (tag, of_events) in TAGS.map(|(word, tag)| (word, tag.is_of_events())) {
            let more: MoreColumns = format!("a.b: {tag}").parse().unwrap();
            assert_eq!(more.check(DataType::Event), Ok(()));
            assert_eq!(more.check(DataType::User).is_err(), of_events, "{tag}");
        }
        let more: MoreColumns = "a.b: mp_event_name".parse().unwrap();
        let error = more.check(DataType::User).unwrap_err().to_string();
        assert!(
            error.contains("mp_event_name, which is for Events"),
            "{error}"
        );
    }
}
