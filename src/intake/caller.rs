//! What an execute request says of the schedule behind it, read as far as it can be: also a request
//! that is refused is remembered with its title.

use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::receiver::Caller;
use super::request::{Origin, Sections};

/// Text from outside is cut here, in characters; a title is for people, the others are ids.
const MOST: usize = 400;
/// A link that is longer is left out: half of one leads nowhere.
const LONGEST_LINK: usize = 1200;

/// The members of `scheduled_plan` that name it; each may be absent, and none has to have its type.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    scheduled_plan_id: Value,
    title: Value,
    url: Value,
    query_id: Value,
    download_url: Value,
}

impl Caller {
    /// What the headers alone say.
    pub(super) fn of(origin: &Origin) -> Self {
        Self {
            webhook_id: origin.webhook_id.clone(),
            instance: origin.instance.clone(),
            ..Self::default()
        }
    }

    /// Takes up what has come of the body.
    pub(super) fn read(&mut self, sections: &Sections) {
        let plan = sections
            .plan_json()
            .and_then(|plan| serde_json::from_slice(plan).ok());
        let plan: Named = plan.unwrap_or_default();
        self.title = text(&plan.title).unwrap_or_default();
        self.link = text_within(&plan.url, LONGEST_LINK);
        self.schedule_id = text(&plan.scheduled_plan_id);
        self.query_id = text(&plan.query_id);
        let download = plan.download_url.as_str();
        self.hosts = [self.link.as_deref(), download]
            .into_iter()
            .flatten()
            .filter_map(host)
            .collect();
        self.hosts.dedup();
    }
}

fn text(value: &Value) -> Option<String> {
    let text = text_within(value, usize::MAX)?;
    Some(text.chars().take(MOST).collect())
}

fn text_within(value: &Value, most: usize) -> Option<String> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    (!text.is_empty() && text.len() <= most).then_some(text)
}

/// `host` or `host:port`, as it stands in the address.
fn host(address: &str) -> Option<String> {
    let url = Url::parse(address.trim()).ok()?;
    let host = url.host_str()?;
    let host = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    Some(host.chars().take(MOST).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(plan: &str) -> Caller {
        let mut sections = Sections::default();
        sections.put("scheduled_plan", plan.as_bytes()).unwrap();
        let mut caller = Caller::of(&Origin {
            webhook_id: Some("w".to_owned()),
            instance: Some("i".to_owned()),
        });
        caller.read(&sections);
        caller
    }

    #[test]
    fn a_plan_is_named_by_old_looker_and_new() {
        for id in ["7", r#""7""#] {
            let caller = caller(&format!(
                r#"{{"scheduled_plan_id": {id}, "title": " Daily ", "query_id": 42,
                    "url": "https://looker.example.com/looks/7",
                    "download_url": "https://looker.example.com:9999/downloads/x"}}"#
            ));
            assert_eq!(caller.schedule_id.as_deref(), Some("7"));
            assert_eq!(caller.query_id.as_deref(), Some("42"));
            assert_eq!(caller.title, "Daily");
            assert_eq!(
                caller.hosts,
                ["looker.example.com", "looker.example.com:9999"]
            );
            assert_eq!(caller.webhook_id.as_deref(), Some("w"));
        }
    }

    #[test]
    fn whatever_the_plan_is_nothing_fails_and_nothing_is_long() {
        for plan in ["null", "[]", "5", r#"{"title": ["x"], "url": {"a": 1}}"#] {
            let caller = caller(plan);
            assert_eq!((&*caller.title, caller.link), ("", None));
        }
        let long = "é".repeat(5_000);
        let caller = caller(&format!(
            r#"{{"title": "{long}", "url": "https://a.example.com/{long}", "scheduled_plan_id": "{long}"}}"#
        ));
        assert_eq!(caller.title.chars().count(), MOST);
        assert_eq!(caller.link, None);
        assert_eq!(caller.schedule_id.unwrap().chars().count(), MOST);
    }
}
