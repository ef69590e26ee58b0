//! What deliveries are made with: the configuration, and on top of it what a schedule chooses in
//! Looker's form.

use std::time::Duration;

use url::Url;

use super::refusal::refusal;
use crate::ingest;
use crate::intake::{Choices, DeliveryRequest, Refusal};
use crate::mapping;
use crate::model::FailureKind;
use crate::mparticle::encode::DataPlan;

/// What deliveries are made with.
#[derive(Debug)]
pub struct Settings {
    /// mParticle's base address.
    pub endpoint: Url,
    /// The address is that of a pod, so that a schedule may choose another one. An address of
    /// one's own (a stand-in, a proxy) is never left: a trial must not reach real data.
    pub is_pod: bool,
    /// The choices of a mapping, as far as a schedule makes none; the type of data is always the
    /// schedule's.
    pub mapping: mapping::Settings,
    /// The data plan, unless a schedule names one.
    pub data_plan: Option<DataPlan>,
    /// Bounds and memory of a delivery.
    pub ingest: ingest::Settings,
    /// After so long a schedule that sends only changes sends all, if it does not say otherwise.
    pub full_refresh: Duration,
    /// A delivery is held whose rows differ by more than this percentage from what is usual; 0: none is.
    pub hold_percent: u32,
    /// Only deliveries with these titles; none: all.
    pub hold_schedules: Vec<String>,
}

impl Settings {
    /// Where a delivery goes.
    pub(super) fn endpoint_of(&self, choices: &Choices) -> Result<Url, Refusal> {
        let Some(pod) = choices.pod else {
            return Ok(self.endpoint.clone());
        };
        if !self.is_pod {
            return Err(refusal(
                FailureKind::Request,
                "This looker-feed sends to one fixed address (`mparticle.endpoint` in its configuration), so a data center cannot be chosen. Choose \"As configured\" in the schedule.",
            ));
        }
        Url::parse(&pod.base_address())
            .map_err(|error| refusal(FailureKind::Program, &error.to_string()))
    }

    pub(super) fn mapping_of(&self, request: &DeliveryRequest) -> mapping::Settings {
        mapping::Settings {
            data_type: request.data_type,
            ..chosen(&request.choices, self.mapping.clone())
        }
    }

    pub(super) fn data_plan_of(&self, choices: &Choices) -> Option<DataPlan> {
        chosen_plan(choices, self.data_plan.as_ref())
    }
}

/// The mapping of a schedule that makes these choices, where this one is configured.
pub fn chosen(choices: &Choices, configured: mapping::Settings) -> mapping::Settings {
    let (pivots, types) = (choices.pivoted_measures, choices.attribute_types);
    mapping::Settings {
        untagged: choices.untagged.unwrap_or(configured.untagged),
        pivoted_measures: pivots.unwrap_or(configured.pivoted_measures),
        nulls: choices.null_attributes.unwrap_or(configured.nulls),
        skip_sent: choices.skip_sent,
        attribute_types: types.unwrap_or(configured.attribute_types),
        strip_html: choices.strip_html.unwrap_or(configured.strip_html),
        historical: choices.historical_events.unwrap_or(configured.historical),
        ..configured
    }
}

/// The data plan of a schedule that makes these choices, where this one is configured.
pub fn chosen_plan(choices: &Choices, configured: Option<&DataPlan>) -> Option<DataPlan> {
    match &choices.plan_id {
        Some(id) => Some(DataPlan {
            id: id.clone(),
            version: choices.plan_version,
        }),
        None => configured.cloned(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::{AttributeTypes, Historical, Nulls, Pod, Untagged};
    use crate::group;
    use crate::model::DataType;

    fn settings(is_pod: bool) -> Settings {
        Settings {
            endpoint: Url::parse("https://s2s.us1.mparticle.com/v2").unwrap(),
            is_pod,
            mapping: mapping::Settings {
                untagged: Untagged::UserAttribute,
                trim_identities: true,
                ..mapping::Settings::new(DataType::User)
            },
            data_plan: Some(DataPlan {
                id: "ours".to_owned(),
                version: Some(1),
            }),
            ingest: ingest::Settings {
                decode: crate::decode::Limits::default(),
                group: group::Settings {
                    memory: group::Memory::new(1),
                    space: crate::seal::Space::new(""),
                },
                encode: crate::mparticle::encode::Settings::default(),
                admission: ingest::Admission::new(1, Duration::from_secs(1), group::Memory::new(1)),
            },
            full_refresh: Duration::from_secs(1),
            hold_percent: 0,
            hold_schedules: Vec::new(),
        }
    }

    /// A request of which only this matters.
    pub fn request(data_type: DataType, choices: Choices) -> DeliveryRequest {
        DeliveryRequest {
            api_key: "k".to_owned(),
            api_secret: crate::config::Secret::new("s".to_owned()),
            data_type,
            environment: crate::model::Environment::Production,
            webhook_id: None,
            title: String::new(),
            link: None,
            instance: None,
            schedule_id: None,
            choices,
        }
    }

    #[test]
    fn a_schedule_goes_to_the_pod_that_it_chooses_and_never_leaves_a_fixed_address() {
        let eu = Choices {
            pod: Some(Pod::Eu1),
            ..Choices::default()
        };
        let chosen = settings(true).endpoint_of(&eu).unwrap();
        assert_eq!(chosen.as_str(), "https://s2s.eu1.mparticle.com/v2");
        let refused = settings(false).endpoint_of(&eu).unwrap_err();
        assert!(refused.message.contains("fixed address"), "{refused}");
        for is_pod in [true, false] {
            let kept = settings(is_pod).endpoint_of(&Choices::default()).unwrap();
            assert_eq!(kept.as_str(), "https://s2s.us1.mparticle.com/v2");
        }
    }

    #[test]
    fn what_a_schedule_does_not_choose_is_as_it_is_configured() {
        let settings = settings(true);
        let kept = settings.mapping_of(&request(DataType::Event, Choices::default()));
        assert_eq!(kept.data_type, DataType::Event);
        assert_eq!(kept.untagged, Untagged::UserAttribute);
        assert_eq!((kept.nulls, kept.skip_sent), (Nulls::Omit, false));
        let plan = settings.data_plan_of(&Choices::default());
        assert_eq!(plan, settings.data_plan);

        let choices = Choices {
            untagged: Some(Untagged::Ignore),
            null_attributes: Some(Nulls::Delete),
            attribute_types: Some(AttributeTypes::Typed),
            historical_events: Some(Historical::Never),
            skip_sent: true,
            plan_id: Some("theirs".to_owned()),
            ..Choices::default()
        };
        let chosen = settings.mapping_of(&request(DataType::Event, choices.clone()));
        assert_eq!(chosen.untagged, Untagged::Ignore);
        assert_eq!((chosen.nulls, chosen.skip_sent), (Nulls::Delete, true));
        assert_eq!(kept.attribute_types, AttributeTypes::AsIs);
        assert_eq!(chosen.attribute_types, AttributeTypes::Typed);
        assert_eq!(kept.historical, Historical::Auto);
        assert_eq!(chosen.historical, Historical::Never);
        assert!(chosen.trim_identities);
        let plan = settings.data_plan_of(&choices).unwrap();
        assert_eq!((&*plan.id, plan.version), ("theirs", None));
    }
}
