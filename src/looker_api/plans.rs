//! Schedules: one of them, and running it once more.

use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Call, LookerApi, text};
use super::error::ApiError;

/// A schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Whether Looker runs it by itself.
    pub enabled: bool,
    /// It was made to run once, and may be gone when it has.
    pub run_once: bool,
}

#[derive(Deserialize)]
#[serde(default)]
struct Raw {
    id: Value,
    enabled: Option<bool>,
    run_once: Option<bool>,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            id: Value::Null,
            enabled: None,
            run_once: None,
        }
    }
}

/// A schedule's id, which came with a delivery: what is none must not lead elsewhere in the API.
fn checked(id: &str) -> Result<&str, ApiError> {
    let plain = |letter: u8| letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'_');
    match !id.is_empty() && id.bytes().all(plain) {
        true => Ok(id),
        false => Err(ApiError::NotFound {
            what: "this schedule".to_owned(),
        }),
    }
}

impl LookerApi {
    /// `GET /scheduled_plans/{id}`
    ///
    /// # Errors
    /// See [`ApiError`]; [`ApiError::NotFound`] when it is gone.
    pub async fn plan(&self, id: &str) -> Result<Plan, ApiError> {
        let path = ["scheduled_plans", checked(id)?];
        let fields = [("fields", "id,enabled,run_once")];
        let call = Call {
            query: &fields,
            ..Call::get(&path, "see this schedule", "this schedule")
        };
        let plan: Raw = self.ask(call).await?;
        Ok(Plan {
            enabled: plan.enabled.unwrap_or(true),
            run_once: plan.run_once.unwrap_or(false),
        })
    }

    /// `POST /scheduled_plans/{id}/run_once`: Looker copies the schedule into a new one that runs
    /// once, at once, and returns the new one's id.
    pub async fn run_once(&self, id: &str) -> Result<String, ApiError> {
        let path = ["scheduled_plans", checked(id)?, "run_once"];
        let call = Call::post(
            &path,
            json!({}),
            "run this schedule: it belongs to somebody else, and only an admin may run any",
            "this schedule",
        );
        let plan: Raw = self.ask(call).await?;
        text(&plan.id).ok_or_else(|| ApiError::Foreign {
            host: self.host().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_id_never_becomes_a_path() {
        for id in ["7", "0198-f0c0_a"] {
            assert_eq!(checked(id).ok(), Some(id));
        }
        for id in ["", "..", "7/../8", "7?x=1", "7 ", "%2e"] {
            assert!(checked(id).is_err(), "{id}");
        }
    }
}
