//! The shape of a batch, as tables: what mParticle's published JSON Schema and OpenAPI file say,
//! and the limits of its docs. [`super::check`] walks a batch along them.
//!
//! Stricter than the schema in these points, each from the documents beside it:
//! - `environment` is required (OpenAPI).
//! - Unknown properties are refused in every object, also where the schema leaves it open (event
//!   `data`, products, contexts): there a misspelt name would be accepted and lost unseen.
//! - Objects that the schema gives no `type` must be objects or null; a batch and an event's `data`
//!   must be objects.
//! - `source_request_id` is a string or null, identities are strings (OpenAPI); integers fit into
//!   64 bits (OpenAPI) and are written as integers.
//! - Limits of the docs: 100 attributes, names of 256 and values of 4096 characters, event names
//!   of 256 characters.
//!
//! Word lists that stand beside a `$ref` (`os`, orientations, push behaviour) do not hold: draft 7
//! ignores them, and mParticle's own sample has other words there.

mod events;

pub(in crate::sandbox) use events::{BREADCRUMB, EVENTS};

/// Characters of an event's or attribute's name.
const NAME: usize = 256;
/// Characters of an attribute's value.
const VALUE: usize = 4_096;
/// Attributes of an event, of a product, of a user.
const ATTRIBUTES: usize = 100;
const ANY: usize = usize::MAX;

/// What a value must be.
#[derive(Clone, Copy)]
pub(in crate::sandbox) struct Rule {
    pub(in crate::sandbox) kind: Kind,
    /// Whether null will do as well.
    pub(in crate::sandbox) null: bool,
}

#[derive(Clone, Copy)]
pub(in crate::sandbox) enum Kind {
    /// String, number or boolean; strings of at most so many characters.
    Scalar(usize),
    /// A scalar or a list of scalars.
    ScalarOrList(usize),
    /// A string of at most so many characters.
    Text(usize),
    Integer,
    /// An integer that the walk remembers as the event's time.
    EventTime,
    /// A string that the walk remembers as the batch's id.
    RequestId,
    Number,
    Boolean,
    Uuid,
    /// An IPv4 or IPv6 address.
    Ip,
    /// One of these words.
    Word(&'static [&'static str]),
    Object(&'static Object),
    Map(&'static Map),
    List(&'static Rule),
    /// The batch's list of events.
    Events,
    /// `event_type` and `data`, one of [`EVENTS`].
    Event,
    /// An event of type `breadcrumb`.
    Breadcrumb,
}

/// An object with known properties; no others are let in.
pub(in crate::sandbox) struct Object {
    /// Own properties, then those shared with other objects. At most 64 in all.
    pub(in crate::sandbox) fields: [&'static [Field]; 2],
}

pub(in crate::sandbox) struct Field {
    pub(in crate::sandbox) name: &'static str,
    pub(in crate::sandbox) rule: Rule,
    pub(in crate::sandbox) required: bool,
}

/// An object with free names.
pub(in crate::sandbox) struct Map {
    pub(in crate::sandbox) value: Rule,
    /// Characters of a name.
    pub(in crate::sandbox) name: usize,
    pub(in crate::sandbox) entries: usize,
}

/// A whole batch.
pub(in crate::sandbox) static BATCH: Object = object(&[
    may("source_request_id", or_null(Kind::RequestId)),
    must("environment", word(&["development", "production"])),
    may("user_identities", or_null(Kind::Object(&IDENTITIES))),
    may("user_attributes", or_null(Kind::Map(&USER_ATTRIBUTES))),
    may("device_info", or_null(Kind::Object(&DEVICE_INFO))),
    may("events", or_null(Kind::Events)),
    may("application_info", or_null(Kind::Object(&APPLICATION))),
    may("deleted_user_attributes", or_null(Kind::List(&TEXT))),
    may("api_key", SCALAR),
    may("api_keys", or_null(Kind::List(&TEXT))),
    may("ip", not_null(Kind::Ip)),
    may("integration_attributes", or_null(Kind::Map(&MAPS))),
    may("context", or_null(Kind::Object(&CONTEXT))),
    may("partner_identity", SCALAR),
    may("partner_identities", or_null(Kind::Map(&SCALARS))),
    may("source_info", or_null(Kind::Object(&SOURCE_INFO))),
    may("mp_deviceid", UUID),
    may("attribution_info", or_null(Kind::Object(&ATTRIBUTION))),
    may("timestamp_unixtime_ms", INTEGER),
    may("batch_id", INTEGER),
    may("mpid", INTEGER),
    may("origin_mpid", INTEGER),
    may("sdk_version", SCALAR),
    may("consent_state", or_null(Kind::Object(&CONSENT))),
    may("job_id", SCALAR),
]);

pub(in crate::sandbox) const SCALAR: Rule = or_null(Kind::Scalar(ANY));
pub(in crate::sandbox) const INTEGER: Rule = or_null(Kind::Integer);
const NUMBER: Rule = or_null(Kind::Number);
const BOOLEAN: Rule = or_null(Kind::Boolean);
const UUID: Rule = or_null(Kind::Uuid);
const TEXT: Rule = not_null(Kind::Text(ANY));

const fn or_null(kind: Kind) -> Rule {
    Rule { kind, null: true }
}

const fn not_null(kind: Kind) -> Rule {
    Rule { kind, null: false }
}

const fn word(words: &'static [&'static str]) -> Rule {
    not_null(Kind::Word(words))
}

const fn may(name: &'static str, rule: Rule) -> Field {
    Field {
        name,
        rule,
        required: false,
    }
}

const fn must(name: &'static str, rule: Rule) -> Field {
    Field {
        name,
        rule,
        required: true,
    }
}

const fn object(fields: &'static [Field]) -> Object {
    Object {
        fields: [fields, &[]],
    }
}

const fn map(value: Rule) -> Map {
    Map {
        value,
        name: ANY,
        entries: ANY,
    }
}

const fn attributes(value: Rule) -> Map {
    Map {
        value,
        name: NAME,
        entries: ATTRIBUTES,
    }
}

static SCALARS: Map = map(SCALAR);
static MAPS: Map = map(not_null(Kind::Map(&SCALARS)));
static USER_ATTRIBUTES: Map = attributes(or_null(Kind::ScalarOrList(VALUE)));

static IDENTITIES: Object = object(&[
    may("customer_id", TEXT),
    may("email", TEXT),
    may("other", TEXT),
    may("facebook", TEXT),
    may("twitter", TEXT),
    may("google", TEXT),
    may("microsoft", TEXT),
    may("yahoo", TEXT),
    may("alias", TEXT),
    may("facebook_custom_audience_id", TEXT),
    may("other_id_2", TEXT),
    may("other_id_3", TEXT),
    may("other_id_4", TEXT),
    may("other_id_5", TEXT),
    may("other_id_6", TEXT),
    may("other_id_7", TEXT),
    may("other_id_8", TEXT),
    may("other_id_9", TEXT),
    may("other_id_10", TEXT),
    may("mobile_number", TEXT),
    may("phone_number_2", TEXT),
    may("phone_number_3", TEXT),
]);

static DEVICE_INFO: Object = object(&[
    may("brand", SCALAR),
    may("product", SCALAR),
    may("device", SCALAR),
    may("android_uuid", SCALAR),
    may("device_manufacturer", SCALAR),
    may(
        "platform",
        word(&[
            "iOS",
            "Android",
            "web",
            "tvOS",
            "roku",
            "out_of_band",
            "alexa",
            "smart_tv",
            "fire_tv",
            "xbox",
        ]),
    ),
    may("os_version", SCALAR),
    may("device_model", SCALAR),
    may("screen_height", INTEGER),
    may("screen_width", INTEGER),
    may("screen_dpi", INTEGER),
    may("device_country", SCALAR),
    may("locale_language", SCALAR),
    may("locale_country", SCALAR),
    may("network_country", SCALAR),
    may("network_carrier", SCALAR),
    may("network_code", SCALAR),
    may("network_mobile_country_code", SCALAR),
    may("timezone_offset", INTEGER),
    may("build_identifier", SCALAR),
    may("http_header_user_agent", SCALAR),
    may("ios_advertising_id", UUID),
    may(
        "att_authorization_status",
        word(&["authorized", "denied", "not_determined", "restricted"]),
    ),
    may("att_timestamp_unixtime_ms", INTEGER),
    may("push_token", SCALAR),
    may("cpu_architecture", SCALAR),
    may("is_tablet", BOOLEAN),
    may("push_notification_sound_enabled", BOOLEAN),
    may("push_notification_vibrate_enabled", BOOLEAN),
    may("radio_access_technology", SCALAR),
    may("supports_telephony", BOOLEAN),
    may("has_nfc", BOOLEAN),
    may("bluetooth_enabled", BOOLEAN),
    may("bluetooth_version", SCALAR),
    may("ios_idfv", UUID),
    may("android_advertising_id", UUID),
    may("build_version_release", SCALAR),
    may("limit_ad_tracking", BOOLEAN),
    may("amp_id", SCALAR),
    may("is_dst", BOOLEAN),
    may("roku_advertising_id", UUID),
    may("roku_publisher_id", UUID),
    may("microsoft_advertising_id", SCALAR),
    may("microsoft_publisher_id", SCALAR),
    may("fire_advertising_id", UUID),
]);

static APPLICATION: Object = object(&[
    may("application_name", SCALAR),
    may("application_version", SCALAR),
    may("application_build_number", SCALAR),
    may("install_referrer", SCALAR),
    may("package", SCALAR),
    may("os", SCALAR),
    may("apple_search_ads_attributes", or_null(Kind::Map(&MAPS))),
]);

static CONTEXT: Object = object(&[
    may("data_plan", or_null(Kind::Object(&DATA_PLAN))),
    may("location", LOCATION),
]);

static DATA_PLAN: Object = object(&[must("plan_id", TEXT), may("plan_version", INTEGER)]);

static SOURCE_INFO: Object = object(&[
    must(
        "channel",
        word(&[
            "native",
            "javascript",
            "pixel",
            "desktop",
            "partner",
            "server_to_server",
        ]),
    ),
    may("partner", SCALAR),
    may("replay_request_id", SCALAR),
    may("replay_job_id", SCALAR),
    may("is_historical", BOOLEAN),
]);

static ATTRIBUTION: Object = object(&[
    must("service_provider", SCALAR),
    must("publisher", SCALAR),
    must("campaign", SCALAR),
]);

static CONSENT: Object = object(&[
    may("gdpr", not_null(Kind::Map(&CONSENT_PURPOSES))),
    may("ccpa", not_null(Kind::Map(&CONSENT_PURPOSES))),
]);

static CONSENT_PURPOSES: Map = map(or_null(Kind::Object(&CONSENT_PURPOSE)));

static CONSENT_PURPOSE: Object = object(&[
    may("regulation", SCALAR),
    may("document", SCALAR),
    must("consented", BOOLEAN),
    must("timestamp_unixtime_ms", INTEGER),
    may("location", SCALAR),
    may("hardware_id", SCALAR),
]);

const LOCATION: Rule = or_null(Kind::Object(&GEO_LOCATION));

static GEO_LOCATION: Object = object(&[
    must("latitude", NUMBER),
    must("longitude", NUMBER),
    may("accuracy", NUMBER),
    may("dma_code", INTEGER),
    may("country_code", SCALAR),
    may("region_code", SCALAR),
    may("postal_code", SCALAR),
    may("location_source", SCALAR),
    may("city_name", SCALAR),
]);
