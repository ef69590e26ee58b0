//! System Activity: what schedules did, as Looker has it.

use std::time::Duration;

use serde_json::{Value, json};

use super::client::{Call, LookerApi, text};
use super::error::ApiError;
use crate::clock::UnixMillis;

/// The model, now and before Looker 23.
const MODELS: [&str; 2] = ["system__activity", "i__looker"];
/// Jobs that are read at once, the newest.
const MOST: &str = "5000";

/// One run of a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its id.
    pub id: String,
    /// The schedule's id.
    pub plan: String,
    /// The schedule's name; empty if it has none.
    pub name: String,
    /// How it ended, or that it has not.
    pub status: JobStatus,
    /// When it began.
    pub created: UnixMillis,
    /// When it ended.
    pub finalized: Option<UnixMillis>,
    /// Where it went: `<hub>::<action>` for an action.
    pub destinations: Vec<String>,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobStatus {
    /// It is delivered, as Looker sees it.
    Success,
    /// It failed.
    Failure,
    /// It has not ended, or what it is nobody has documented.
    Other,
}

impl LookerApi {
    /// The jobs of the last `back`, the newest first. What Looker says may be some minutes old.
    ///
    /// # Errors
    /// See [`ApiError`]; [`ApiError::Forbidden`] without the permission `see_system_activity`.
    pub async fn jobs(&self, back: Duration) -> Result<Vec<Job>, ApiError> {
        let hours = back.as_secs().div_ceil(3600).max(1);
        let mut last = None;
        for model in MODELS {
            let body = json!({
                "model": model,
                "view": "scheduled_plan",
                "fields": [
                    "scheduled_plan.id", "scheduled_plan.name", "scheduled_job.id",
                    "scheduled_job.name", "scheduled_job.status", "scheduled_job.created_time",
                    "scheduled_job.finalized_time", "scheduled_plan.destination_addresses",
                ],
                "filters": { "scheduled_job.created_date": format!("{hours} hours") },
                "sorts": ["scheduled_job.created_time desc"],
                "limit": MOST,
                "query_timezone": "UTC",
            });
            let call = Call::post(
                &["queries", "run", "json"],
                body,
                "read System Activity (permission `see_system_activity`)",
                "the model of System Activity",
            );
            match self.ask::<Vec<Value>>(call).await {
                Ok(rows) => return Ok(rows.iter().filter_map(job).collect()),
                // The other name of the model, then.
                Err(error @ (ApiError::NotFound { .. } | ApiError::Refused { .. })) => {
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| ApiError::Foreign {
            host: self.host().to_owned(),
        }))
    }

    /// Which of Looker's action hubs is at `base`, by its id; `None`: none is, as far as it can be
    /// seen.
    ///
    /// # Errors
    /// See [`ApiError`]; [`ApiError::Forbidden`] for a user who is no admin.
    pub async fn hub_at(&self, base: &str) -> Result<Option<String>, ApiError> {
        let fields = [("fields", "id,url")];
        let call = Call {
            query: &fields,
            ..Call::get(&["integration_hubs"], "read the action hubs", "action hubs")
        };
        let hubs: Vec<Value> = self.ask(call).await?;
        let bare = |url: &str| url.trim().trim_end_matches('/').to_ascii_lowercase();
        let found = hubs.iter().find(|hub| {
            hub["url"]
                .as_str()
                .is_some_and(|url| bare(url) == bare(base))
        });
        Ok(found.and_then(|hub| text(&hub["id"])))
    }
}

/// One row; `None`: it lacks what names it.
fn job(row: &Value) -> Option<Job> {
    let name = ["scheduled_plan.name", "scheduled_job.name"];
    let name = name.iter().find_map(|field| row[*field].as_str());
    let addresses = row["scheduled_plan.destination_addresses"].as_str();
    Some(Job {
        id: text(&row["scheduled_job.id"])?,
        plan: text(&row["scheduled_plan.id"])?,
        name: name.unwrap_or_default().trim().to_owned(),
        status: match row["scheduled_job.status"].as_str() {
            Some("success") => JobStatus::Success,
            Some("failure") => JobStatus::Failure,
            _ => JobStatus::Other,
        },
        created: time(&row["scheduled_job.created_time"])?,
        finalized: time(&row["scheduled_job.finalized_time"]),
        destinations: addresses
            .unwrap_or_default()
            .split([',', ';', '\n'])
            .map(|address| address.trim().to_owned())
            .filter(|address| !address.is_empty())
            .collect(),
    })
}

/// `2026-11-28 00:15:09`, in UTC as it was asked for.
fn time(value: &Value) -> Option<UnixMillis> {
    let text = value
        .as_str()?
        .trim()
        .trim_end_matches('Z')
        .replace('T', " ");
    let time = humantime::parse_rfc3339_weak(&text).ok()?;
    let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(UnixMillis(u64::try_from(since.as_millis()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_whatever_looker_leaves_out() {
        let row = json!({
            "scheduled_plan.id": 7, "scheduled_plan.name": null, "scheduled_job.id": "91",
            "scheduled_job.name": " Nightly ", "scheduled_job.status": "failure",
            "scheduled_job.created_time": "2026-11-28 00:15:09",
            "scheduled_job.finalized_time": null,
            "scheduled_plan.destination_addresses": "3::mparticle, a@example.com",
        });
        let read = job(&row).unwrap();
        assert_eq!(
            (&*read.id, &*read.plan, &*read.name),
            ("91", "7", "Nightly")
        );
        assert_eq!(read.status, JobStatus::Failure);
        assert_eq!(read.created, UnixMillis(1_795_824_909_000));
        assert_eq!(read.destinations, ["3::mparticle", "a@example.com"]);
        assert_eq!(job(&json!({"scheduled_plan.id": 7})), None);
        assert_eq!(job(&json!([])), None);
        assert_eq!(time(&json!("yesterday")), None);
    }
}
