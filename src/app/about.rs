//! What is written of a delivery before it is committed, for the outbox, to which it means nothing.

use serde::{Deserialize, Serialize};

use crate::intake::Caller;
use crate::outbox::{Attempt, MAX_ABOUT};

/// What is written of a delivery beside its title: for [`Attempt::about`], as JSON. Members may be
/// added; one that is not there was not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct About {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Where it goes, once that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// The type of its data and the environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// The failed delivery that it was asked for in the place of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeat_of: Option<String>,
    /// Looker's job, of one that never came here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
}

impl About {
    pub fn of(caller: &Caller) -> Self {
        Self {
            link: caller.link.clone(),
            instance: caller.instance.clone(),
            schedule: caller.schedule_id.clone(),
            query: caller.query_id.clone(),
            hosts: caller.hosts.clone(),
            ..Self::default()
        }
    }

    /// What was written; nothing, if it cannot be read.
    pub fn read(attempt: &Attempt) -> Self {
        serde_json::from_slice(&attempt.about).unwrap_or_default()
    }

    /// Without the link, if it would be too long with it.
    pub fn write(&self) -> Vec<u8> {
        let short = |about: &Self| {
            let text = serde_json::to_vec(about).ok()?;
            (text.len() <= MAX_ABOUT).then_some(text)
        };
        let bare = || Self {
            link: None,
            ..self.clone()
        };
        let text = short(self).or_else(|| short(&bare()));
        text.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_a_schedule_fits_whatever_came() {
        let most = "\"".repeat(64);
        let caller = |link: usize| Caller {
            link: Some("\"".repeat(link)),
            instance: Some("\"".repeat(128)),
            schedule_id: Some(most.clone()),
            query_id: Some(most.clone()),
            hosts: vec!["h".repeat(260); 2],
            ..Caller::default()
        };
        for link in [10, 1000] {
            let about = About::of(&caller(link)).write();
            assert!(about.len() <= MAX_ABOUT, "{}", about.len());
            let read: About = serde_json::from_slice(&about).unwrap();
            assert_eq!(read.link.is_some(), link == 10);
            assert_eq!(read.schedule.as_ref(), Some(&most));
        }
    }
}
