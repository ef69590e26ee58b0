//! What a schedule's owner chooses around "Send Only Changes", and what must hold for it.

use std::time::Duration;

use super::quote::quoted;
use super::receiver::OnlyChanges;
use crate::model::DataType;

/// The longest time between full refreshes, in days.
const MOST_DAYS: u64 = 3650;
/// Characters of an attribute's name that mParticle takes. ("Default Service Limits")
const MOST_CHARACTERS: usize = 256;
/// What the attributes of columns begin with.
const OF_COLUMNS: &str = "looker_";

/// The choices do not go together. Each is a sentence for the schedule's owner.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ChangesError {
    /// Events are no state that could be the same as before.
    #[error(
        "\"Send Only Changes\" works for User Profiles only. For Events, \"Skip Events Already Sent\" keeps those from arriving twice that were sent before."
    )]
    Events,
    /// Sent by hand, not by a schedule: there is no last delivery to compare with.
    #[error(
        "\"Send Only Changes\" compares with the last delivery of the same schedule, and this was not sent by one. Run the schedule instead, or choose \"No\" to send all users."
    )]
    NoSchedule,
    /// An audience is kept by comparing, too.
    #[error("An audience attribute was given, which needs \"Send Only Changes\": \"Yes\".")]
    Alone,
    /// Not a number of days.
    #[error("The days of a full refresh, {0}, are not a whole number from 1 to {MOST_DAYS}.")]
    Days(String),
    /// mParticle would not take it, or a column has that name.
    #[error(
        "The audience attribute {0} cannot be used: it must have at most {MOST_CHARACTERS} characters, no control characters, and not begin with \"{OF_COLUMNS}\", as the attributes of columns do."
    )]
    Attribute(String),
}

/// The fields of the form, as far as they have a text.
pub(super) struct Fields {
    pub only: bool,
    pub days: Option<String>,
    pub attribute: Option<String>,
    pub may_shrink: bool,
}

impl Fields {
    pub fn read(self) -> Result<Option<OnlyChanges>, ChangesError> {
        if !self.only {
            // Nobody would be told of leaving any more, which should not go unnoticed.
            return match self.attribute {
                Some(_) => Err(ChangesError::Alone),
                None => Ok(None),
            };
        }
        let full_refresh = match self.days {
            None => None,
            Some(text) => match text.parse() {
                Ok(days @ 1..=MOST_DAYS) => Some(Duration::from_secs(days * 24 * 3600)),
                _ => return Err(ChangesError::Days(quoted(&text))),
            },
        };
        if let Some(name) = &self.attribute {
            let fits = name.chars().count() <= MOST_CHARACTERS
                && !name.chars().any(char::is_control)
                && !name.starts_with(OF_COLUMNS);
            if !fits {
                return Err(ChangesError::Attribute(quoted(name)));
            }
        }
        Ok(Some(OnlyChanges {
            full_refresh,
            audience: self.attribute,
            may_shrink: self.may_shrink,
        }))
    }
}

/// Whether only changes can be sent of this type of data.
pub(super) fn fit(data_type: DataType) -> Result<(), ChangesError> {
    match data_type {
        DataType::Event => Err(ChangesError::Events),
        DataType::User => Ok(()),
    }
}

/// Whether only changes can be sent when this schedule sends.
pub(super) fn check(schedule: Option<&str>) -> Result<(), ChangesError> {
    schedule.map(|_| ()).ok_or(ChangesError::NoSchedule)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(
        only: bool,
        days: &str,
        attribute: &str,
    ) -> Result<Option<OnlyChanges>, ChangesError> {
        let line = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let fields = Fields {
            only,
            days: line(days),
            attribute: line(attribute),
            may_shrink: false,
        };
        fields.read()
    }

    #[test]
    fn what_is_chosen_is_taken_and_nothing_is_chosen_by_default() {
        assert_eq!(fields(false, "3", ""), Ok(None));
        assert_eq!(fields(true, "", ""), Ok(Some(OnlyChanges::default())));
        let all = fields(true, "3", "Big Spenders").unwrap().unwrap();
        assert_eq!(all.full_refresh, Some(Duration::from_secs(3 * 86_400)));
        assert_eq!(all.audience.as_deref(), Some("Big Spenders"));
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        for (fields, want) in [
            (fields(false, "", "x"), "needs \"Send Only Changes\""),
            (fields(true, "0", ""), "not a whole number from 1"),
            (fields(true, "3651", ""), "not a whole number from 1"),
            (fields(true, "often", ""), "not a whole number from 1"),
            (fields(true, "", "looker_users.ltv"), "not begin with"),
            (fields(true, "", "a\tb"), "no control characters"),
            (fields(true, "", &"x".repeat(257)), "at most 256"),
        ] {
            let error = fields.unwrap_err().to_string();
            assert!(error.contains(want), "{want:?} in {error:?}");
        }
        let error = fit(DataType::Event).unwrap_err().to_string();
        assert!(error.contains("User Profiles only"), "{error}");
        let error = check(None).unwrap_err().to_string();
        assert!(error.contains("same schedule"), "{error}");
        assert_eq!((fit(DataType::User), check(Some("7"))), (Ok(()), Ok(())));
    }
}
