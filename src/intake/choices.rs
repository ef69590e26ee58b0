//! What a schedule's owner chooses in the form: its fields as Looker sends them, and what they mean.

use serde::Deserialize;
use serde_json::Value;

use super::changes;
use super::error::RequestError;
use super::quote::{quoted, text};
use super::receiver::Choices;
use crate::config::{
    AttributeTypes, Historical, MoreColumns, Nulls, PivotedMeasures, Pod, Untagged,
};
use crate::model::{DataType, Environment};

/// The option of a field that leaves the matter to the feed's configuration.
pub(super) const CONFIGURED: &str = "configured";

/// A field that offers a few options, beside those that leave it as it is.
pub(super) struct Choice<T: 'static> {
    pub(super) name: &'static str,
    pub(super) label: &'static str,
    /// Name, label, meaning.
    pub(super) options: &'static [(&'static str, &'static str, T)],
}

pub(super) const DATA_TYPE: Choice<DataType> = Choice {
    name: "data_type",
    label: "Data Type",
    options: &[
        ("user_data", "User Profiles", DataType::User),
        ("event_data", "Events", DataType::Event),
    ],
};
pub(super) const ENVIRONMENT: Choice<Environment> = Choice {
    name: "environment",
    label: "Environment",
    options: &[
        ("production", "Production", Environment::Production),
        ("development", "Test/Development", Environment::Development),
    ],
};
const YES_NO: &[(&str, &str, bool)] = &[("no", "No", false), ("yes", "Yes", true)];
pub(super) const SKIP_SENT: Choice<bool> = Choice {
    name: "skip_sent",
    label: "Skip Events Already Sent",
    options: YES_NO,
};
pub(super) const ONLY_CHANGES: Choice<bool> = Choice {
    name: "only_changes",
    label: "Send Only Changes",
    options: YES_NO,
};
pub(super) const MAY_LEAVE: Choice<bool> = Choice {
    name: "audience_may_leave",
    label: "Users Who May Leave",
    options: &[("any", "Any number", true)],
};
pub(super) const NULLS: Choice<Nulls> = Choice {
    name: "null_attributes",
    label: "Null Attributes",
    options: &[
        ("omit", "Leave them out", Nulls::Omit),
        ("null", "Send null", Nulls::Null),
        ("delete", "Delete the user attribute", Nulls::Delete),
    ],
};
pub(super) const UNTAGGED: Choice<Untagged> = Choice {
    name: "untagged",
    label: "Columns Without a Tag",
    options: &[
        ("ignore", "Do not send them", Untagged::Ignore),
        (
            "user_attribute",
            "Send them as user attributes (User Profiles only)",
            Untagged::UserAttribute,
        ),
        (
            "event_attribute",
            "Send them as event attributes (Events only)",
            Untagged::EventAttribute,
        ),
    ],
};
pub(super) const PIVOTED: Choice<PivotedMeasures> = Choice {
    name: "pivoted_measures",
    label: "Pivoted Measures",
    options: &[
        ("refuse", "Refuse the delivery", PivotedMeasures::Refuse),
        (
            "attributes",
            "Send an attribute for each pivot value",
            PivotedMeasures::Attributes,
        ),
        (
            "json",
            "Send one attribute, the text of a JSON object",
            PivotedMeasures::Json,
        ),
    ],
};
pub(super) const TYPES: Choice<AttributeTypes> = Choice {
    name: "attribute_types",
    label: "Attribute Types",
    options: &[
        ("as_is", "As Looker wrote them", AttributeTypes::AsIs),
        (
            "typed",
            "By the type of their column",
            AttributeTypes::Typed,
        ),
    ],
};
pub(super) const HTML: Choice<bool> = Choice {
    name: "html",
    label: "HTML in Values",
    options: &[
        ("keep", "Send it as it is", false),
        ("strip", "Send its text only", true),
    ],
};
pub(super) const HISTORICAL: Choice<Historical> = Choice {
    name: "historical_events",
    label: "Historical Events",
    options: &[
        (
            "auto",
            "Events older than 30 days are sent as historical ones",
            Historical::Auto,
        ),
        ("never", "No event is", Historical::Never),
        (
            "always",
            "All events are; those younger than 73 hours are rejected",
            Historical::Always,
        ),
    ],
};
pub(super) const POD: Choice<Pod> = Choice {
    name: "pod",
    label: "Data Center",
    options: &[
        ("us1", "US1", Pod::Us1),
        ("us2", "US2", Pod::Us2),
        ("eu1", "EU1", Pod::Eu1),
        ("au1", "AU1", Pod::Au1),
    ],
};

impl<T: Copy> Choice<T> {
    /// The option that was chosen; `None`: as it is configured.
    fn read(&self, given: &Option<String>) -> Result<Option<T>, RequestError> {
        let given = match given.as_deref() {
            None | Some("" | CONFIGURED) => return Ok(None),
            Some(given) => given,
        };
        match self.options.iter().find(|(name, ..)| *name == given) {
            Some((.., meaning)) => Ok(Some(*meaning)),
            None => Err(RequestError::Choice {
                label: self.label,
                found: quoted(given),
                known: self
                    .options
                    .iter()
                    .map(|(name, ..)| format!("\"{name}\""))
                    .collect::<Vec<_>>()
                    .join(" or "),
            }),
        }
    }
}

/// The form's fields. Looker sends text; where numbers are what people write by hand, those are taken
/// too. What else there is was made for another version, and is passed over.
#[derive(Default, Deserialize)]
pub(super) struct Form {
    data_type: Option<String>,
    environment: Option<String>,
    pod: Option<String>,
    untagged: Option<String>,
    more_columns: Option<String>,
    pivoted_measures: Option<String>,
    null_attributes: Option<String>,
    attribute_types: Option<String>,
    html: Option<String>,
    historical_events: Option<String>,
    skip_sent: Option<String>,
    only_changes: Option<String>,
    full_refresh_days: Option<Value>,
    audience_attribute: Option<String>,
    audience_may_leave: Option<String>,
    plan_id: Option<String>,
    plan_version: Option<Value>,
}

impl Form {
    /// The fields of a form that was filled in.
    pub(super) fn of(filled: &Value) -> Result<Self, RequestError> {
        // An array would pass for a struct with serde, member by member.
        if !filled.is_object() {
            return Err(RequestError::Shape("form_params"));
        }
        Self::deserialize(filled).map_err(|_| RequestError::Shape("form_params"))
    }

    /// Profiles or events.
    pub(super) fn data_type(&self) -> Result<DataType, RequestError> {
        match self.data_type.as_deref() {
            Some("user_data") => Ok(DataType::User),
            Some("event_data") => Ok(DataType::Event),
            None | Some("") => Err(RequestError::NoDataType),
            Some(other) => Err(RequestError::DataType(quoted(other))),
        }
    }

    /// mParticle's environment.
    pub(super) fn environment(&self) -> Result<Environment, RequestError> {
        match self.environment.as_deref() {
            Some("production") => Ok(Environment::Production),
            Some("development") => Ok(Environment::Development),
            None | Some("") => Err(RequestError::NoEnvironment),
            Some(other) => Err(RequestError::Environment(quoted(other))),
        }
    }

    /// The optional fields, each by itself and as far as they depend on each other.
    pub(super) fn choices(&self) -> Result<Choices, RequestError> {
        let line = |text: Option<&str>| {
            let text = text.map(str::trim).filter(|text| !text.is_empty());
            text.map(str::to_owned)
        };
        let plan_id = line(self.plan_id.as_deref());
        let plan_version = match line(text(self.plan_version.clone()).as_deref()) {
            None => None,
            Some(_) if plan_id.is_none() => return Err(RequestError::NoPlan),
            Some(version) => match version.parse() {
                Ok(version @ 1..) => Some(version),
                _ => return Err(RequestError::PlanVersion(quoted(&version))),
            },
        };
        let more_columns: MoreColumns = match &self.more_columns {
            Some(text) => text.parse()?,
            None => MoreColumns::default(),
        };
        Ok(Choices {
            pod: POD.read(&self.pod)?,
            untagged: UNTAGGED.read(&self.untagged)?,
            more_columns,
            pivoted_measures: PIVOTED.read(&self.pivoted_measures)?,
            null_attributes: NULLS.read(&self.null_attributes)?,
            attribute_types: TYPES.read(&self.attribute_types)?,
            strip_html: HTML.read(&self.html)?,
            historical_events: HISTORICAL.read(&self.historical_events)?,
            skip_sent: SKIP_SENT.read(&self.skip_sent)?.unwrap_or_default(),
            only_changes: changes::Fields {
                only: ONLY_CHANGES.read(&self.only_changes)?.unwrap_or_default(),
                days: line(text(self.full_refresh_days.clone()).as_deref()),
                attribute: line(self.audience_attribute.as_deref()),
                may_shrink: MAY_LEAVE
                    .read(&self.audience_may_leave)?
                    .unwrap_or_default(),
            }
            .read()?,
            plan_id,
            plan_version,
        })
    }
}

/// Whether the choices can be made for this type of data.
pub(super) fn fit(choices: &Choices, data_type: DataType) -> Result<(), RequestError> {
    if choices.only_changes.is_some() {
        changes::fit(data_type)?;
    }
    Ok(choices.more_columns.check(data_type)?)
}

/// The optional fields of a form, checked against its type of data if it names one.
///
/// # Errors
/// A field holds what the form does not offer, or the form is none.
pub(super) fn choices(filled: &Value) -> Result<Choices, RequestError> {
    let form = Form::of(filled)?;
    let choices = form.choices()?;
    match form.data_type() {
        Err(RequestError::NoDataType) => {}
        data_type => fit(&choices, data_type?)?,
    }
    Ok(choices)
}
