//! The form that a schedule's owner fills in, as Looker shows it in its own dialog.
//!
//! Looker asks for it when the dialog opens, and again at each change of a field that is `interactive`,
//! with what has been filled in so far. Then it shows only the fields that matter for the choices made,
//! and an `error` if they cannot work together. As long as no type of data is chosen all fields are
//! there, so that what a saved schedule says always has its field.

use serde_json::{Map, Value, json};

use super::choices::{
    CONFIGURED, Choice, DATA_TYPE, ENVIRONMENT, Form, HISTORICAL, HTML, MAY_LEAVE, NULLS,
    ONLY_CHANGES, PIVOTED, POD, SKIP_SENT, TYPES, UNTAGGED, fit,
};
use super::error::RequestError;
use super::quote::text;
use super::receiver::{Choices, Refusal};
use crate::config::{FormKind, Pod, Untagged};
use crate::model::DataType;

/// What Looker sends with its request for the form: nothing, or the fields as they are filled in.
#[derive(Default)]
pub(super) struct Filled(Map<String, Value>);

impl Filled {
    /// Reads the request's body.
    pub(super) fn read(body: &[u8]) -> Result<Self, RequestError> {
        #[derive(serde::Deserialize)]
        struct Request {
            form_params: Option<Value>,
        }
        if body.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        // An array would pass for a struct with serde, member by member.
        if !body.trim_ascii_start().starts_with(b"{") {
            return Err(RequestError::NotJson);
        }
        let request: Request = serde_json::from_slice(body).map_err(|_| RequestError::NotJson)?;
        match request.form_params {
            None | Some(Value::Null) => Ok(Self::default()),
            Some(Value::Object(fields)) => Ok(Self(fields)),
            Some(_) => Err(RequestError::Shape("form_params")),
        }
    }

    /// What a field says, if anything.
    fn text(&self, name: &str) -> Option<String> {
        text(self.0.get(name).cloned()).filter(|text| !text.is_empty())
    }

    /// The type of data, if one is chosen, and why the choices cannot work.
    fn check(
        &self,
        allowed: impl Fn(&Choices) -> Result<(), Refusal>,
    ) -> (Option<DataType>, Option<String>) {
        let form = match Form::of(&Value::Object(self.0.clone())) {
            Ok(form) => form,
            Err(error) => return (None, Some(error.to_string())),
        };
        let data_type = form.data_type();
        let known = data_type.as_ref().ok().copied();
        // What has not been filled in yet is not a mistake.
        let begun = |error: RequestError| match error {
            RequestError::NoDataType | RequestError::NoEnvironment => Ok(()),
            error => Err(error),
        };
        let choices = || {
            data_type.map(|_| ()).or_else(begun)?;
            form.environment().map(|_| ()).or_else(begun)?;
            let choices = form.choices()?;
            if let Some(data_type) = known {
                fit(&choices, data_type)?;
            }
            Ok(choices)
        };
        let error = match choices() {
            Ok(choices) => allowed(&choices).err().map(|refusal| refusal.message),
            Err(error) => Some(RequestError::to_string(&error)),
        };
        (known, error)
    }
}

/// When a field matters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    All,
    Users,
    /// Users of whom only changes are sent.
    Changes,
    Events,
    /// As long as mParticle's address is that of one of its data centres.
    Pods,
}

struct Field {
    name: &'static str,
    of: Of,
    /// Options as name and label; none: text.
    options: Vec<(&'static str, &'static str)>,
    /// What stands for "nothing was chosen".
    default: Option<&'static str>,
    /// The rest of what Looker is told.
    more: Value,
}

/// The form as it is to be shown for what has been filled in. `allowed` says what else stands against
/// choices.
pub(super) fn form(
    kind: FormKind,
    filled: Result<Filled, RequestError>,
    allowed: impl Fn(&Choices) -> Result<(), Refusal>,
) -> Value {
    if kind == FormKind::Plain {
        return json!({"fields": plain().map(|field| shown(field, None))});
    }
    let (filled, unreadable) = match filled {
        Ok(filled) => (filled, None),
        Err(error) => (Filled::default(), Some(error.to_string())),
    };
    let (data_type, error) = filled.check(&allowed);
    let error = unreadable.or(error);
    let only_changes = filled.text(ONLY_CHANGES.name).as_deref() == Some("yes");
    let pod = Choices {
        pod: Some(Pod::Us1),
        ..Choices::default()
    };
    let pods = allowed(&pod).is_ok();
    let matters = |of: Of| match of {
        Of::All => true,
        Of::Users => data_type != Some(DataType::Event),
        Of::Changes => data_type.is_none() || (data_type == Some(DataType::User) && only_changes),
        Of::Events => data_type != Some(DataType::User),
        Of::Pods => pods,
    };
    let mut fields = Vec::new();
    for field in plain().into_iter().chain(optional(data_type)) {
        let value = filled.text(field.name);
        let says = value.as_deref() != field.default && value.is_some();
        // Whoever has to take a choice back needs its field.
        if matters(field.of) || (says && error.is_some()) {
            let interactive = [DATA_TYPE.name, ONLY_CHANGES.name, POD.name].contains(&field.name);
            let mut field = shown(field, value);
            if let Some(field) = field.as_object_mut().filter(|_| interactive) {
                field.insert("interactive".to_owned(), json!(true));
            }
            fields.push(field);
        }
    }
    match error {
        None => json!({"fields": fields}),
        Some(error) => json!({"fields": fields, "error": error}),
    }
}

/// One field; what has been filled in is its default.
fn shown(field: Field, value: Option<String>) -> Value {
    let Field {
        name,
        options,
        default,
        more: mut shown,
        ..
    } = field;
    shown["name"] = json!(name);
    let is_option = |value: &str| options.iter().any(|(name, _)| *name == value);
    let value = value.filter(|value| options.is_empty() || is_option(value));
    if let Some(value) = value.as_deref().or(default) {
        shown["default"] = json!(value);
    }
    if !options.is_empty() {
        let options = options.iter();
        let options: Vec<_> = options
            .map(|(name, label)| json!({"name": name, "label": label}))
            .collect();
        shown["options"] = json!(options);
    }
    shown
}

/// The two fields of Looker's own action. Nothing is chosen before a person chooses it: a wrong guess
/// would send a trial to real users, or hide real data among trials.
fn plain() -> [Field; 2] {
    let required = |name, label, description, options| Field {
        name,
        of: Of::All,
        options,
        default: None,
        more: json!({"label": label, "description": description, "type": "select", "required": true}),
    };
    [
        required(
            DATA_TYPE.name,
            DATA_TYPE.label,
            "Specify data type: User Profiles or Events",
            named(&DATA_TYPE),
        ),
        required(
            ENVIRONMENT.name,
            ENVIRONMENT.label,
            "Specify environment to send to: Test/Development or Production",
            named(&ENVIRONMENT),
        ),
    ]
}

/// All that may be left as it is. Schedules that were saved without them go on working.
fn optional(data_type: Option<DataType>) -> Vec<Field> {
    vec![
        yes_no(
            Of::Events,
            &SKIP_SENT,
            "Events that an earlier delivery has brought do not arrive again, although the rows come again. Needs a column tagged mp_timestamp_unixtime_ms or mp_event_id. Sends one event a batch, which takes longer.",
        ),
        yes_no(
            Of::Users,
            &ONLY_CHANGES,
            "User Profiles only: users who are as they were in the last delivery of this schedule are not sent again. Needs a schedule; its first delivery sends all.",
        ),
        line(
            Of::Changes,
            "full_refresh_days",
            "Full Refresh (Days)",
            "With Send Only Changes: after so many days all users are sent again; empty: as configured",
        ),
        line(
            Of::Changes,
            "audience_attribute",
            "Audience Attribute",
            "With Send Only Changes: a user attribute that is true for the users of the result, and set to false for users who are not in it any more",
        ),
        select(
            Of::Changes,
            &MAY_LEAVE,
            "How many users of an audience may leave with one delivery before it is refused as a mistake",
        ),
        Field {
            more: json!({
                "label": "More Columns", "type": "textarea", "required": false,
                "description": "Columns to send that have no tag in LookML, or another one, such as table calculations and custom fields: one \"column: tag\" a line, for example \"calculation_1: mp_user_attribute\". A column is called as in the result's JSON: view.field, a calculation by its name.",
            }),
            ..line(Of::All, "more_columns", "", "")
        },
        untagged(data_type),
        select(
            Of::All,
            &PIVOTED,
            "What to do with a measure that is to be an attribute, in a query with pivots, where each row holds several values of it",
        ),
        select(
            Of::All,
            &NULLS,
            "What to send for an attribute that is null",
        ),
        select(
            Of::All,
            &TYPES,
            "Whether attributes are sent by the type of their column in Looker: yesno as true and false, times as ISO 8601, numbers as numbers",
        ),
        select(Of::All, &HTML, "What to do with values that hold HTML"),
        select(
            Of::Events,
            &HISTORICAL,
            "mParticle takes events older than 30 days at an address of their own",
        ),
        select(Of::Pods, &POD, "The mParticle pod to send to"),
        line(
            Of::All,
            "plan_id",
            "Data Plan ID",
            "The mParticle data plan to check against",
        ),
        line(
            Of::All,
            "plan_version",
            "Data Plan Version",
            "A whole number; without it, the latest",
        ),
    ]
}

/// What the other type of data could do with them is not offered.
fn untagged(data_type: Option<DataType>) -> Field {
    let mut field = select(
        Of::All,
        &UNTAGGED,
        "What to do with columns that have no mp_ tag in LookML",
    );
    let other = data_type.map(|data_type| match data_type {
        DataType::User => Untagged::EventAttribute,
        DataType::Event => Untagged::UserAttribute,
    });
    let options = UNTAGGED.options.iter();
    for (name, ..) in options.filter(|(.., meaning)| Some(*meaning) == other) {
        field.options.retain(|(option, _)| option != name);
    }
    field
}

fn select<T>(of: Of, choice: &Choice<T>, description: &str) -> Field {
    let mut options = vec![(CONFIGURED, "As configured")];
    options.extend(named(choice));
    Field {
        name: choice.name,
        of,
        options,
        default: Some(CONFIGURED),
        more: json!({
            "label": choice.label, "description": description, "type": "select", "required": false,
        }),
    }
}

fn yes_no(of: Of, choice: &Choice<bool>, description: &str) -> Field {
    Field {
        options: named(choice),
        default: Some("no"),
        ..select(of, choice, description)
    }
}

fn line(of: Of, name: &'static str, label: &str, description: &str) -> Field {
    Field {
        name,
        of,
        options: Vec::new(),
        default: Some(""),
        more: json!({
            "label": label, "description": description, "type": "string", "required": false,
        }),
    }
}

fn named<T>(choice: &Choice<T>) -> Vec<(&'static str, &'static str)> {
    let options = choice.options.iter();
    options.map(|(name, label, _)| (*name, *label)).collect()
}
