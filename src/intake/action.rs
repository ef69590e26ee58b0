//! What the hub says about its one action: the listing and the action. Field by field as
//! Looker's own Action Hub describes its mParticle action, so that a schedule made with that one
//! works with this one.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::config::{ActionSettings, identity_tags};

/// From this version on Looker streams the lite format.
const LITE_STREAM_SINCE: [u64; 3] = [6, 2, 0];

/// A plain mark of our own: three bars that pass through a funnel.
const ICON: &str = concat!(
    r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64">"##,
    r##"<rect width="64" height="64" rx="12" fill="#22314e"/>"##,
    r##"<path d="M12 16h40L38 34v16l-12 6V34z" fill="#fff"/></svg>"##,
);

/// The hub and its actions. `base` has no slash at its end.
pub(super) fn listing(
    label: &str,
    base: &str,
    user_agent: Option<&str>,
    settings: &ActionSettings,
) -> Value {
    json!({"label": label, "integrations": [action(base, user_agent, settings)]})
}

/// The one action.
pub(super) fn action(base: &str, user_agent: Option<&str>, settings: &ActionSettings) -> Value {
    let icon = STANDARD.encode(ICON);
    // One entry: any of the tags will do.
    let required = match settings.require_identity_tag {
        true => json!([{"any_tag": identity_tags().collect::<Vec<_>>()}]),
        false => json!([]),
    };
    json!({
        "name": "mparticle",
        "label": "mParticle",
        "description": "Send user or event data from Looker to mParticle.",
        "url": format!("{base}/actions/mparticle/execute"),
        "form_url": format!("{base}/actions/mparticle/form"),
        "token_url": "",
        "icon_data_uri": format!("data:image/svg+xml;base64,{icon}"),
        "params": [
            param("apiKey", "API Key", "API Key for mParticle", false, &settings.api_key_attribute),
            param("apiSecret", "API Secret", "API Secret for mParticle", true, &settings.api_secret_attribute),
        ],
        "required_fields": required,
        "supported_action_types": ["query"],
        "supported_formats": [format(user_agent)],
        "supported_formattings": ["unformatted"],
        "supported_visualization_formattings": ["noapply"],
        "supported_download_settings": ["url"],
        "uses_oauth": false,
        "delegate_oauth": false,
    })
}

/// A parameter of the action. Its value comes from the user attribute, if one is configured.
fn param(
    name: &str,
    label: &str,
    description: &str,
    sensitive: bool,
    user_attribute: &Option<String>,
) -> Value {
    let mut param = json!({
        "name": name,
        "label": label,
        "description": description,
        "required": true,
        "sensitive": sensitive,
    });
    if let Some(name) = user_attribute {
        param["user_attribute_name"] = json!(name);
    }
    param
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
