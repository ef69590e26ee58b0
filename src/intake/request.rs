//! What an execute request says beside its rows, and what must hold before anything is spent on it.

use hyper::HeaderMap;
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::changes;
use super::choices::{self, Form};
use super::error::RequestError;
use super::quote::{quoted, text};
use super::receiver::DeliveryRequest;
use crate::config::Secret;

/// The longest header value, in characters, that is taken for an id.
const MAX_ID: usize = 128;

/// What the request's headers say.
#[derive(Clone, Debug, Default)]
pub(super) struct Origin {
    pub(super) webhook_id: Option<String>,
    pub(super) instance: Option<String>,
}

impl Origin {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let id = |name: &str| {
            let value = headers.get(name)?.to_str().ok()?.trim();
            let plain = !value.is_empty()
                && value.len() <= MAX_ID
                && value.bytes().all(|byte| byte.is_ascii_graphic());
            plain.then(|| value.to_owned())
        };
        Self {
            webhook_id: id("x-looker-webhook-id"),
            instance: id("x-looker-instance"),
        }
    }
}

/// The root keys that matter, as raw JSON, as far as they have come.
#[derive(Default)]
pub(super) struct Sections {
    kind: Option<Zeroizing<Vec<u8>>>,
    plan: Option<Zeroizing<Vec<u8>>>,
    params: Option<Zeroizing<Vec<u8>>>,
    form: Option<Zeroizing<Vec<u8>>>,
}

impl Sections {
    /// Keeps a root key's value; other keys are none of our business.
    pub(super) fn put(&mut self, name: &str, json: &[u8]) -> Result<(), RequestError> {
        let (slot, name) = match name {
            "type" => (&mut self.kind, "type"),
            "scheduled_plan" => (&mut self.plan, "scheduled_plan"),
            "data" => (&mut self.params, "data"),
            "form_params" => (&mut self.form, "form_params"),
            _ => return Ok(()),
        };
        if slot.is_some() {
            return Err(RequestError::Twice(name));
        }
        *slot = Some(Zeroizing::new(json.to_vec()));
        Ok(())
    }

    /// The section that names the schedule, as far as it has come.
    pub(super) fn plan_json(&self) -> Option<&[u8]> {
        self.plan.as_ref().map(|plan| plan.as_slice())
    }

    /// Whether [`request`](Self::request) can decide without the rest of the request.
    pub(super) fn decidable(&self) -> bool {
        self.kind.is_some() && self.params.is_some() && self.form.is_some()
    }

    /// The delivery that is asked for, checked, and the download url if there is one.
    pub(super) fn request(
        &self,
        origin: &Origin,
    ) -> Result<(DeliveryRequest, Option<String>), RequestError> {
        let kind: Option<Value> = section(&self.kind, "type")?;
        if kind.as_ref().and_then(Value::as_str) != Some("query") {
            let found = match kind {
                Some(Value::String(kind)) => quoted(&kind),
                _ => "unknown".to_owned(),
            };
            return Err(RequestError::Type(found));
        }

        let params: Params = section(&self.params, "data")?.unwrap_or_default();
        let api_key = params.api_key.filter(|key| !key.is_empty());
        let api_secret = params.api_secret.filter(|secret| !secret.is_empty());
        let api_key = api_key.ok_or(RequestError::Setting("API Key"))?;
        let api_secret = api_secret.ok_or(RequestError::Setting("API Secret"))?;

        let form: Form = section(&self.form, "form_params")?.unwrap_or_default();
        let data_type = form.data_type()?;
        let environment = form.environment()?;
        let choices = form.choices()?;
        choices::fit(&choices, data_type)?;

        let plan: Plan = section(&self.plan, "scheduled_plan")?.unwrap_or_default();
        let schedule_id = text(plan.scheduled_plan_id).filter(|id| !id.trim().is_empty());
        if choices.only_changes.is_some() {
            changes::check(schedule_id.as_deref())?;
        }
        let request = DeliveryRequest {
            api_key,
            api_secret: Secret::new(api_secret),
            data_type,
            environment,
            webhook_id: origin.webhook_id.clone(),
            title: text(plan.title).unwrap_or_default(),
            link: text(plan.url),
            instance: origin.instance.clone(),
            schedule_id,
            choices,
        };
        Ok((request, plan.download_url.filter(|url| !url.is_empty())))
    }
}

/// The members of `data` that this action has.
#[derive(Default, Deserialize)]
struct Params {
    #[serde(rename = "apiKey")]
    api_key: Option<String>,
    #[serde(rename = "apiSecret")]
    api_secret: Option<String>,
}

/// Only `download_url` must have its type: to take a strange one for none would be to take a
/// delivery for an empty one. The others are for people to read.
#[derive(Default, Deserialize)]
struct Plan {
    scheduled_plan_id: Option<Value>,
    title: Option<Value>,
    url: Option<Value>,
    download_url: Option<String>,
}

/// A section's content; `None` if it is absent or null.
fn section<'a, T: Deserialize<'a>>(
    raw: &'a Option<Zeroizing<Vec<u8>>>,
    name: &'static str,
) -> Result<Option<T>, RequestError> {
    let Some(raw) = raw else { return Ok(None) };
    // An array would pass for a struct with serde, member by member.
    let first = raw.iter().find(|byte| !byte.is_ascii_whitespace());
    if first == Some(&b'[') {
        return Err(RequestError::Shape(name));
    }
    serde_json::from_slice(raw).map_err(|_| RequestError::Shape(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        AttributeTypes, Historical, MoreColumns, Nulls, PivotedMeasures, Pod, Untagged,
    };
    use crate::intake::Choices;
    use crate::model::{DataType, Environment};

    const KIND: (&str, &str) = ("type", r#""query""#);
    const PLAN: (&str, &str) = (
        "scheduled_plan",
        r#"{"scheduled_plan_id": 7, "title": "T", "url": "https://l/looks/1", "download_url": "https://l/d", "query": {}}"#,
    );
    const DATA: (&str, &str) = ("data", r#"{"apiKey": "k", "apiSecret": "s", "x": 1}"#);
    const FORM: (&str, &str) = (
        "form_params",
        r#"{"data_type": "event_data", "environment": "development"}"#,
    );

    fn request(
        sections: &[(&str, &str)],
    ) -> Result<(DeliveryRequest, Option<String>), RequestError> {
        let mut all = Sections::default();
        for (name, json) in sections {
            all.put(name, json.as_bytes())?;
        }
        all.request(&Origin::default())
    }

    #[test]
    fn a_complete_request_is_an_order() {
        let (request, url) = request(&[KIND, PLAN, ("attachment", "null"), DATA, FORM]).unwrap();
        assert_eq!(request.api_key, "k");
        assert_eq!(request.api_secret.expose(), "s");
        assert_eq!(request.data_type, DataType::Event);
        assert_eq!(request.environment, Environment::Development);
        assert_eq!(request.title, "T");
        assert_eq!(request.link.as_deref(), Some("https://l/looks/1"));
        assert_eq!(request.schedule_id.as_deref(), Some("7"));
        assert_eq!(url.as_deref(), Some("https://l/d"));
    }

    #[test]
    fn a_schedule_that_is_absent_null_or_empty_has_no_url() {
        for plan in [
            "null",
            "{}",
            r#"{"download_url": null}"#,
            r#"{"download_url": ""}"#,
        ] {
            let (_, url) = request(&[KIND, ("scheduled_plan", plan), DATA, FORM]).unwrap();
            assert_eq!(url, None, "{plan}");
        }
        assert_eq!(request(&[KIND, DATA, FORM]).unwrap().1, None);
    }

    #[test]
    fn ids_of_new_and_old_looker_are_both_text() {
        for (id, expect) in [
            ("12", Some("12")),
            (r#""ab""#, Some("ab")),
            ("null", None),
            ("[]", None),
        ] {
            let plan = format!(r#"{{"scheduled_plan_id": {id}, "title": 5}}"#);
            let (request, _) = request(&[KIND, ("scheduled_plan", &plan), DATA, FORM]).unwrap();
            assert_eq!(request.schedule_id.as_deref(), expect);
            assert_eq!(request.title, "5");
        }
    }

    #[test]
    fn each_fault_has_its_own_sentence() {
        // The section, what stands in it, if it is there, and what is said.
        let cases = r#"
            type|"cell"|This action supports type "query" only (a Look or an Explore), but the request is of type "cell".
            type||This action supports type "query" only (a Look or an Explore), but the request is of type unknown.
            data||Required setting "API Key" not specified in action settings.
            data|null|Required setting "API Key" not specified in action settings.
            data|{"apiKey": "k", "apiSecret": ""}|Required setting "API Secret" not specified in action settings.
            form_params||Missing data type (user|event).
            form_params|{"data_type": null}|Missing data type (user|event).
            form_params|{"data_type": "rows"}|Unknown data type "rows": it must be "user_data" or "event_data".
            form_params|{"data_type": "user_data"}|Missing environment (production|development).
            form_params|{"data_type": "user_data", "environment": "Production"}|Unknown environment "Production": it must be "production" or "development".
            scheduled_plan|{"download_url": 5}|The `scheduled_plan` section of Looker's request is not what an action hub expects.
            scheduled_plan|[]|The `scheduled_plan` section of Looker's request is not what an action hub expects.
            data|["k", "s"]|The `data` section of Looker's request is not what an action hub expects.
            data|{"apiKey": "k", "apiSecret": {"hunter2": 1}}|The `data` section of Looker's request is not what an action hub expects."#;
        for case in cases.lines().skip(1) {
            let mut parts = case.trim().splitn(3, '|');
            let [name, json, message] = std::array::from_fn(|_| parts.next().unwrap());
            let mut sections = vec![KIND, PLAN, DATA, FORM];
            sections.retain(|(own, _)| *own != name);
            sections.extend((!json.is_empty()).then_some((name, json)));
            let error = request(&sections).map(|_| "accepted").unwrap_err();
            assert_eq!(error.to_string(), message);
        }
        let twice = request(&[KIND, DATA, DATA, FORM]).map(|_| "accepted");
        let message = "Looker's request has two `data` sections.";
        assert_eq!(twice.unwrap_err().to_string(), message);
    }

    fn choices(optional: &str) -> Result<Choices, RequestError> {
        let form =
            format!(r#"{{"data_type": "event_data", "environment": "production"{optional}}}"#);
        let (request, _) = request(&[KIND, PLAN, DATA, ("form_params", &form)])?;
        Ok(request.choices)
    }

    #[test]
    fn a_schedule_without_the_optional_fields_is_as_it_is_configured() {
        for optional in [
            "",
            r#", "pod": null, "plan_id": "", "plan_version": " ", "skip_sent": "no""#,
            r#", "pod": "configured", "untagged": "configured", "null_attributes": """#,
            r#", "a_field_of_another_version": {"x": 1}"#,
        ] {
            assert_eq!(choices(optional), Ok(Choices::default()), "{optional}");
        }
    }

    #[test]
    fn what_a_schedule_chooses_is_taken() {
        let chosen = choices(
            r#", "pod": "eu1", "untagged": "user_attribute", "null_attributes": "delete",
                "more_columns": "double: mp_custom_attribute", "pivoted_measures": "json",
                "attribute_types": "typed", "html": "strip", "historical_events": "always", "skip_sent": "yes", "plan_id": " plan ", "plan_version": "2""#,
        );
        assert_eq!(
            chosen,
            Ok(Choices {
                pod: Some(Pod::Eu1),
                untagged: Some(Untagged::UserAttribute),
                more_columns: "double: mp_custom_attribute"
                    .parse::<MoreColumns>()
                    .unwrap(),
                pivoted_measures: Some(PivotedMeasures::Json),
                null_attributes: Some(Nulls::Delete),
                attribute_types: Some(AttributeTypes::Typed),
                strip_html: Some(true),
                historical_events: Some(Historical::Always),
                skip_sent: true,
                only_changes: None,
                plan_id: Some("plan".to_owned()),
                plan_version: Some(2),
            })
        );
        let number = choices(r#", "plan_id": "p", "plan_version": 3"#).unwrap();
        assert_eq!(number.plan_version, Some(3));
    }

    #[test]
    fn a_choice_that_the_form_does_not_offer_is_refused() {
        let cases = r#"
            "skip_sent": "true"|Unknown choice "true" for Skip Events Already Sent: it must be "no" or "yes".
            "pod": "EU1"|Unknown choice "EU1" for Data Center: it must be "us1" or "us2" or "eu1" or "au1".
            "plan_version": "2"|A data plan version was given without a data plan id.
            "plan_id": "p", "plan_version": "v2"|The data plan version "v2" is not a whole number from 1 on.
            "plan_id": "p", "plan_version": 0|The data plan version "0" is not a whole number from 1 on.
            "more_columns": "double"|Line 1 of "More Columns", "double", is not a column and its tag, such as calculation_1: mp_user_attribute.
            "untagged": 5|The `form_params` section of Looker's request is not what an action hub expects."#;
        for case in cases.lines().skip(1) {
            let (optional, message) = case.trim().split_once('|').unwrap();
            let error = choices(&format!(", {optional}")).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn quoted_text_is_escaped_and_short() {
        let form = format!(r#"{{"data_type": "\n{}"}}"#, "x".repeat(500));
        let error = request(&[KIND, DATA, ("form_params", &form)])
            .unwrap_err()
            .to_string();
        assert!(!error.contains('\n') && error.len() < 150, "{error}");
    }

    #[test]
    fn header_values_that_are_no_ids_are_ignored() {
        for (value, expect) in [
            (&b"0123456789abcdef0123456789abcdef"[..], true),
            (b"", false),
            (b"a b", false),
            (b"\xff", false),
            (&[b'a'; 129], false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-looker-webhook-id", value.try_into().unwrap());
            assert_eq!(
                Origin::of(&headers).webhook_id.is_some(),
                expect,
                "{value:?}"
            );
        }
    }
}
