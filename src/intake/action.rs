//! What the hub says about its one action: the listing, the action, its form. Field by field as
//! Looker's own Action Hub describes its mParticle action, so that a schedule made with that one
//! works with this one.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::config::{Historical, Nulls, Pod, Untagged};

/// From this version on Looker streams the lite format.
const LITE_STREAM_SINCE: [u64; 3] = [6, 2, 0];

/// The option of a field that leaves the matter to the feed's configuration.
pub(super) const CONFIGURED: &str = "configured";

/// What an optional field offers beside [`CONFIGURED`]: name, label, meaning.
type Options<T, const N: usize> = [(&'static str, &'static str, T); N];

pub(super) const PODS: Options<Pod, 4> = [
    ("us1", "US1", Pod::Us1),
    ("us2", "US2", Pod::Us2),
    ("eu1", "EU1", Pod::Eu1),
    ("au1", "AU1", Pod::Au1),
];
pub(super) const UNTAGGED: Options<Untagged, 2> = [
    ("ignore", "Do not send them", Untagged::Ignore),
    (
        "user_attribute",
        "Send them as user attributes (User Profiles only)",
        Untagged::UserAttribute,
    ),
];
pub(super) const NULLS: Options<Nulls, 3> = [
    ("omit", "Leave them out", Nulls::Omit),
    ("null", "Send null", Nulls::Null),
    ("delete", "Delete the user attribute", Nulls::Delete),
];
pub(super) const HISTORICAL: Options<Historical, 3> = [
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
];
pub(super) const HTML: Options<bool, 2> = [
    ("keep", "Send it as it is", false),
    ("strip", "Send its text only", true),
];
pub(super) const SKIP_SENT: Options<bool, 2> = [("no", "No", false), ("yes", "Yes", true)];

/// A plain mark of our own: three bars that pass through a funnel.
const ICON: &str = concat!(
    r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64">"##,
    r##"<rect width="64" height="64" rx="12" fill="#22314e"/>"##,
    r##"<path d="M12 16h40L38 34v16l-12 6V34z" fill="#fff"/></svg>"##,
);

/// The hub and its actions. `base` has no slash at its end.
pub(super) fn listing(label: &str, base: &str, user_agent: Option<&str>) -> Value {
    json!({"label": label, "integrations": [action(base, user_agent)]})
}

/// The one action.
pub(super) fn action(base: &str, user_agent: Option<&str>) -> Value {
    let icon = STANDARD.encode(ICON);
    json!({
        "name": "mparticle",
        "label": "mParticle",
        "description": "Send user or event data from Looker to mParticle.",
        "url": format!("{base}/actions/mparticle/execute"),
        "form_url": format!("{base}/actions/mparticle/form"),
        "token_url": "",
        "icon_data_uri": format!("data:image/svg+xml;base64,{icon}"),
        "params": [
            {
                "name": "apiKey",
                "label": "API Key",
                "description": "API Key for mParticle",
                "required": true,
                "sensitive": false,
            },
            {
                "name": "apiSecret",
                "label": "API Secret",
                "description": "API Secret for mParticle",
                "required": true,
                "sensitive": true,
            },
        ],
        "required_fields": [],
        "supported_action_types": ["query"],
        "supported_formats": [format(user_agent)],
        "supported_formattings": ["unformatted"],
        "supported_visualization_formattings": ["noapply"],
        "supported_download_settings": ["url"],
        "uses_oauth": false,
        "delegate_oauth": false,
    })
}

/// The form that a schedule's owner fills in. Schedules that were saved with the first two fields
/// only, as Looker's own action has them, go on working: every other field may be missing.
pub(super) fn form() -> Value {
    let required = |name, label, description, options| {
        json!({
            "name": name, "label": label, "description": description,
            "type": "select", "required": true, "options": options,
        })
    };
    let optional = |name, label, description| {
        json!({
            "name": name, "label": label, "description": description,
            "type": "string", "required": false,
        })
    };
    json!({"fields": [
        required(
            "data_type",
            "Data Type",
            "Specify data type: User Profiles or Events",
            json!([
                {"name": "user_data", "label": "User Profiles"},
                {"name": "event_data", "label": "Events"},
            ]),
        ),
        required(
            "environment",
            "Environment",
            "Specify environment to send to: Test/Development or Production",
            json!([
                {"name": "production", "label": "Production"},
                {"name": "development", "label": "Test/Development"},
            ]),
        ),
        select(
            "skip_sent",
            "Skip Events Already Sent",
            "Events that an earlier delivery has brought do not arrive again, although the rows come again. Needs a column tagged mp_timestamp_unixtime_ms or mp_event_id. Sends one event a batch, which takes longer.",
            &SKIP_SENT,
            "no",
        ),
        select(
            "null_attributes",
            "Null Attributes",
            "What to send for an attribute that is null",
            &NULLS,
            CONFIGURED,
        ),
        select(
            "untagged",
            "Columns Without a Tag",
            "What to do with columns that have no mp_ tag in LookML",
            &UNTAGGED,
            CONFIGURED,
        ),
        select(
            "html",
            "HTML in Values",
            "What to do with values that hold HTML",
            &HTML,
            CONFIGURED,
        ),
        select(
            "historical_events",
            "Historical Events",
            "mParticle takes events older than 30 days at an address of their own",
            &HISTORICAL,
            CONFIGURED,
        ),
        select("pod", "Data Center", "The mParticle pod to send to", &PODS, CONFIGURED),
        optional("plan_id", "Data Plan ID", "The mParticle data plan to check against"),
        optional("plan_version", "Data Plan Version", "A whole number; without it, the latest"),
    ]})
}

/// An optional field; if its default is [`CONFIGURED`], that is an option too.
fn select<T>(
    name: &str,
    label: &str,
    description: &str,
    options: &[(&str, &str, T)],
    default: &str,
) -> Value {
    let configured = (default == CONFIGURED).then_some((CONFIGURED, "As configured"));
    let options: Vec<_> = configured
        .into_iter()
        .chain(options.iter().map(|(name, label, _)| (*name, *label)))
        .map(|(name, label)| json!({"name": name, "label": label}))
        .collect();
    json!({
        "name": name, "label": label, "description": description,
        "type": "select", "required": false, "default": default, "options": options,
    })
}

/// The format that this version of Looker can send.
fn format(user_agent: Option<&str>) -> &'static str {
    match user_agent.and_then(version) {
        Some(version) if version >= LITE_STREAM_SINCE => "json_detail_lite_stream",
        _ => "json_detail",
    }
}

/// Reads `LookerOutgoingWebhook/7.3.0`; also `7.3.00004561`, which strict parsers of versions refuse.
fn version(user_agent: &str) -> Option<[u64; 3]> {
    let (_, version) = user_agent.split_once("LookerOutgoingWebhook/")?;
    let version = version
        .split(|c: char| !c.is_ascii_digit() && c != '.')
        .next()?;
    let mut parts = version.split('.').map(str::parse);
    let major = parts.next()?.ok()?;
    let mut rest = || parts.next().map_or(Some(0), Result::ok);
    Some([major, rest()?, rest()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_follows_lookers_version() {
        for (user_agent, lite) in [
            (Some("LookerOutgoingWebhook/7.3.0"), true),
            (Some("LookerOutgoingWebhook/7.3.00004561"), true),
            (Some("LookerOutgoingWebhook/6.2.0"), true),
            (Some("LookerOutgoingWebhook/25.10"), true),
            (Some("LookerOutgoingWebhook/6.2.0-rc1 (x)"), true),
            (Some("LookerOutgoingWebhook/6.1.99"), false),
            (Some("LookerOutgoingWebhook/5.24.12"), false),
            (Some("LookerOutgoingWebhook/"), false),
            (Some("LookerOutgoingWebhook/x.y.z"), false),
            (Some("LookerOutgoingWebhook/7..1"), false),
            (
                Some("LookerOutgoingWebhook/99999999999999999999999.1"),
                false,
            ),
            (Some("curl/8.0.0"), false),
            (Some(""), false),
            (None, false),
        ] {
            let expect = if lite {
                "json_detail_lite_stream"
            } else {
                "json_detail"
            };
            assert_eq!(format(user_agent), expect, "{user_agent:?}");
        }
    }
}
