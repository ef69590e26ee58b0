//! Attributes by the type that their column has in Looker, for those who want `true` and not `"Yes"`.

use super::notes::{Note, Tally};
use super::number::{self, Number};
use super::time::Times;
use super::values;
use crate::model::Text;

/// Whether attributes are sent by the type of their column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttributeTypes {
    /// As Looker wrote them.
    #[default]
    AsIs,
    /// Texts of yesno columns become booleans, those of numeric ones numbers; times get ISO 8601 with
    /// their offset.
    Typed,
}

/// What the texts of a column are turned into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    /// Nothing else.
    Text,
    Boolean,
    Number,
    Time,
}

/// Types of LookML whose values are numbers, beside those of durations.
const NUMERIC: &str = "number int count count_distinct sum sum_distinct average average_distinct median \
    median_distinct min max percentile percentile_distinct running_total percent_of_total \
    percent_of_previous period_over_period";

impl Type {
    /// That of a column with this type in LookML.
    pub(super) fn of(lookml: Option<&str>) -> Self {
        match lookml.unwrap_or_default() {
            "yesno" => Self::Boolean,
            "time" | "datetime" => Self::Time,
            lookml if lookml.starts_with("date") => Self::Time,
            lookml if lookml.starts_with("duration") => Self::Number,
            lookml if NUMERIC.split(' ').any(|numeric| numeric == lookml) => Self::Number,
            _ => Self::Text,
        }
    }

    /// Writes a text as a value of this type; `false` and nothing if it is to be sent as it is. `place` is
    /// its slot and row.
    pub(super) fn write(
        self,
        out: &mut Vec<u8>,
        text: Text<'_>,
        times: &Times,
        place: (usize, u64),
        tally: &mut Tally,
    ) -> bool {
        if self == Self::Text || values::is_blank(text) {
            return false;
        }
        let text = text.decoded();
        let literal = match self {
            Self::Boolean => values::boolean(&text),
            Self::Number => Some(text.trim())
                .filter(|text| Number::read(text).is_some() && number::is_finite(text)),
            // A day, a month, a week has no offset.
            Self::Time => {
                let Some(time) = times.iso(&text) else {
                    return false;
                };
                values::quoted(out, &time);
                return true;
            }
            Self::Text => None,
        };
        match literal {
            Some(literal) => out.extend_from_slice(literal.as_bytes()),
            None => tally.add(Note::NotOfItsType, place.0, place.1),
        }
        literal.is_some()
    }
}
