//! The shape of a batch, as tables: what mParticle's published JSON Schema and OpenAPI file say,
//! and the limits of its docs. [`super::check`] walks a batch along them.
//!
//! Stricter than the schema in these points, each from the documents beside it:
//! - `environment` is required (OpenAPI).
//! - Unknown properties are refused in every object, also where the schema leaves it open (event
//!   `data`, products, contexts): mParticle ignores them, so a misspelt name would be lost unseen.
//! - Objects that the schema gives no `type` must be objects or null; a batch and an event's `data`
//!   must be objects.
//! - `source_request_id` is a string or null, identities are strings (OpenAPI); integers fit into
//!   64 bits (OpenAPI) and are written as integers.
//! - Limits of the docs: 100 attributes, names of 256 and values of 4096 characters, event names
//!   of 256 characters.
//!
//! Word lists that stand beside a `$ref` (`os`, orientations, push behaviour) do not hold: draft 7
//! ignores them, and mParticle's own sample has other words there.

/// Characters of an event's or attribute's name.
const NAME: usize = 256;
/// Characters of an attribute's value.
const VALUE: usize = 4_096;
/// Attributes of an event, of a product, of a user.
const ATTRIBUTES: usize = 100;
const ANY: usize = usize::MAX;

/// What a value must be.
#[derive(Clone, Copy)]
pub(super) struct Rule {
    pub(super) kind: Kind,
    /// Whether null will do as well.
    pub(super) null: bool,
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
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
pub(super) struct Object {
    /// Own properties, then those shared with other objects. At most 64 in all.
    pub(super) fields: [&'static [Field]; 2],
}

pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) rule: Rule,
    pub(super) required: bool,
}

/// An object with free names.
pub(super) struct Map {
    pub(super) value: Rule,
    /// Characters of a name.
    pub(super) name: usize,
    pub(super) entries: usize,
}

/// `event_type` → the shape of `data`. The schema's enum also knows `pre_attribution` and
/// `push_reaction`, but gives no shape for them, so they cannot be sent.
pub(super) const EVENTS: &[(&str, &Object)] = &[
    ("custom_event", &CUSTOM_EVENT),
    ("screen_view", &SCREEN_VIEW),
    ("commerce_event", &COMMERCE_EVENT),
    ("session_start", &SESSION_START),
    ("session_end", &SESSION_END),
    ("crash_report", &CRASH_REPORT),
    ("opt_out", &OPT_OUT),
    ("first_run", &FIRST_RUN),
    ("push_registration", &PUSH_REGISTRATION),
    ("application_state_transition", &STATE_TRANSITION),
    ("push_message", &PUSH_MESSAGE),
    ("network_performance", &NETWORK_PERFORMANCE),
    ("breadcrumb", &BREADCRUMB),
    ("profile", &PROFILE),
    ("user_attribute_change", &USER_ATTRIBUTE_CHANGE),
    ("user_identity_change", &USER_IDENTITY_CHANGE),
    ("uninstall", &UNINSTALL),
];

/// A whole batch.
pub(super) static BATCH: Object = object(&[
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

pub(super) const SCALAR: Rule = or_null(Kind::Scalar(ANY));
pub(super) const INTEGER: Rule = or_null(Kind::Integer);
const NUMBER: Rule = or_null(Kind::Number);
const BOOLEAN: Rule = or_null(Kind::Boolean);
const UUID: Rule = or_null(Kind::Uuid);
const TEXT: Rule = not_null(Kind::Text(ANY));
const FLAGS: Rule = or_null(Kind::Map(&SCALARS));

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

/// The `data` of an event: `fields`, and those that every event may have.
const fn event(fields: &'static [Field]) -> Object {
    Object {
        fields: [fields, EVENT_DATA],
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
static EVENT_ATTRIBUTES: Map = attributes(or_null(Kind::Scalar(VALUE)));
static PRODUCT_ATTRIBUTES: Map = attributes(not_null(Kind::Text(VALUE)));

const IDENTITY_TYPES: &[&str] = &[
    "other",
    "customer_id",
    "facebook",
    "twitter",
    "google",
    "microsoft",
    "yahoo",
    "email",
    "alias",
    "facebook_custom_audience_id",
    "other_id_2",
    "other_id_3",
    "other_id_4",
    "other_id_5",
    "other_id_6",
    "other_id_7",
    "other_id_8",
    "other_id_9",
    "other_id_10",
    "mobile_number",
    "phone_number_2",
    "phone_number_3",
];

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

const EVENT_DATA: &[Field] = &[
    may("timestamp_unixtime_ms", or_null(Kind::EventTime)),
    may("source_message_id", TEXT),
    may("custom_attributes", or_null(Kind::Map(&EVENT_ATTRIBUTES))),
    may("event_id", INTEGER),
    may("session_id", INTEGER),
    may("session_uuid", UUID),
    may("session_start_unixtime_ms", INTEGER),
    may("event_start_unixtime_ms", INTEGER),
    may("location", LOCATION),
    may("device_current_state", or_null(Kind::Object(&DEVICE_STATE))),
    may("is_goal_defined", BOOLEAN),
    may("lifetime_value_change", NUMBER),
    may("lifetime_value_attribute_name", SCALAR),
    may("data_connection_type", SCALAR),
    may("event_num", INTEGER),
    may("view_controller", SCALAR),
    may("is_main_thread", BOOLEAN),
    may("canonical_name", SCALAR),
    may(
        "event_system_notification_info",
        or_null(Kind::Object(&NOTIFICATION)),
    ),
];

static NOTIFICATION: Object = object(&[must("type", word(&["gdpr_change"]))]);

static DEVICE_STATE: Object = object(&[
    may("time_since_start_ms", INTEGER),
    may("battery_level", NUMBER),
    may("data_connection_type", SCALAR),
    may("data_connection_type_detail", SCALAR),
    may("gps_state", BOOLEAN),
    may("total_system_memory_usage_bytes", INTEGER),
    may("disk_space_free_bytes", INTEGER),
    may("external_disk_space_free_bytes", INTEGER),
    may("cpu", SCALAR),
    may("system_memory_available_bytes", NUMBER),
    may("system_memory_low", BOOLEAN),
    may("system_memory_threshold_bytes", NUMBER),
    may("application_memory_available_bytes", NUMBER),
    may("application_memory_max_bytes", NUMBER),
    may("application_memory_total_bytes", NUMBER),
    may("device_orientation", SCALAR),
    may("status_bar_orientation", SCALAR),
]);

static CUSTOM_EVENT: Object = event(&[
    must("event_name", not_null(Kind::Text(NAME))),
    must(
        "custom_event_type",
        word(&[
            "navigation",
            "location",
            "search",
            "transaction",
            "user_content",
            "user_preference",
            "social",
            "other",
            "media",
        ]),
    ),
    may("custom_flags", FLAGS),
]);

static SCREEN_VIEW: Object = event(&[
    must("screen_name", not_null(Kind::Text(NAME))),
    may("activity_type", SCALAR),
    may("custom_flags", FLAGS),
]);

static COMMERCE_EVENT: Object = event(&[
    may("product_action", or_null(Kind::Object(&PRODUCT_ACTION))),
    may("promotion_action", or_null(Kind::Object(&PROMOTION_ACTION))),
    may(
        "product_impressions",
        or_null(Kind::List(&or_null(Kind::Object(&IMPRESSION)))),
    ),
    may("shopping_cart", or_null(Kind::Object(&SHOPPING_CART))),
    may("currency_code", SCALAR),
    may("screen_name", not_null(Kind::Text(NAME))),
    may("is_non_interactive", BOOLEAN),
    may("event_name", not_null(Kind::Text(NAME))),
    may(
        "custom_event_type",
        word(&[
            "navigation",
            "location",
            "search",
            "transaction",
            "user_content",
            "user_preference",
            "social",
            "other",
            "media",
            "add_to_cart",
            "remove_from_cart",
            "checkout",
            "checkout_option",
            "click",
            "view_detail",
            "purchase",
            "refund",
            "promotion_view",
            "promotion_click",
            "add_to_wishlist",
            "remove_from_wishlist",
            "impression",
            "attribution",
            "consent_granted",
            "consent_denied",
        ]),
    ),
    may("custom_flags", FLAGS),
]);

const PRODUCTS: Rule = not_null(Kind::List(&PRODUCT));
const PRODUCTS_OR_NULL: Rule = or_null(Kind::List(&PRODUCT));
const PRODUCT: Rule = or_null(Kind::Object(&PRODUCT_FIELDS));

static PRODUCT_FIELDS: Object = object(&[
    may("id", TEXT),
    may("name", TEXT),
    may("brand", SCALAR),
    may("category", SCALAR),
    may("variant", SCALAR),
    may("position", INTEGER),
    may("price", NUMBER),
    may("quantity", NUMBER),
    may("coupon_code", SCALAR),
    may("added_to_cart_time_ms", INTEGER),
    may("total_product_amount", NUMBER),
    may("custom_attributes", or_null(Kind::Map(&PRODUCT_ATTRIBUTES))),
]);

static PRODUCT_ACTION: Object = object(&[
    must(
        "action",
        word(&[
            "add_to_cart",
            "remove_from_cart",
            "checkout",
            "checkout_option",
            "click",
            "view_detail",
            "purchase",
            "refund",
            "add_to_wishlist",
            "remove_from_wish_list",
        ]),
    ),
    may("checkout_step", INTEGER),
    may("checkout_options", SCALAR),
    may("product_action_list", SCALAR),
    may("product_list_source", SCALAR),
    may("transaction_id", TEXT),
    may("affiliation", SCALAR),
    may("total_amount", NUMBER),
    may("tax_amount", NUMBER),
    may("shipping_amount", NUMBER),
    may("coupon_code", SCALAR),
    may("products", PRODUCTS_OR_NULL),
]);

static PROMOTION_ACTION: Object = object(&[
    must("action", word(&["view", "click"])),
    may(
        "promotions",
        not_null(Kind::List(&or_null(Kind::Object(&PROMOTION)))),
    ),
]);

static PROMOTION: Object = object(&[
    may("id", TEXT),
    may("name", TEXT),
    may("creative", SCALAR),
    may("position", SCALAR),
]);

static IMPRESSION: Object = object(&[
    must("product_impression_list", TEXT),
    must("products", PRODUCTS_OR_NULL),
]);

static SHOPPING_CART: Object = object(&[must("products", PRODUCTS)]);

// `session_id` is among the properties that every event may have.
static SESSION_START: Object = event(&[]);
static SESSION_END: Object = event(&[must("session_duration_ms", INTEGER)]);
static OPT_OUT: Object = event(&[must("is_opted_out", BOOLEAN)]);
static FIRST_RUN: Object = event(&[]);
static UNINSTALL: Object = event(&[]);

static CRASH_REPORT: Object = event(&[
    must("severity", SCALAR),
    must("message", SCALAR),
    may(
        "breadcrumbs",
        or_null(Kind::List(&not_null(Kind::Breadcrumb))),
    ),
    may("class_name", SCALAR),
    may("stack_trace", SCALAR),
    may("exception_handled", BOOLEAN),
    may("topmost_context", SCALAR),
    may("pl_crash_report_file_base64", SCALAR),
    may("ios_image_base_address", INTEGER),
    may("ios_image_size", INTEGER),
    may("session_number", INTEGER),
]);

static PUSH_REGISTRATION: Object =
    event(&[must("register", BOOLEAN), must("registration_token", TEXT)]);

static STATE_TRANSITION: Object = event(&[
    must(
        "application_transition_type",
        word(&[
            "application_initialized",
            "application_exit",
            "application_background",
            "application_foreground",
        ]),
    ),
    may("successfully_closed", BOOLEAN),
    may("is_first_run", BOOLEAN),
    may("is_upgrade", BOOLEAN),
    may("push_notification_payload", SCALAR),
    may("launch_referral", SCALAR),
]);

static PUSH_MESSAGE: Object = event(&[
    must("push_message_token", SCALAR),
    must("push_message_type", word(&["sent", "received", "action"])),
    must("push_notification_payload", SCALAR),
    may("message", SCALAR),
    may("network", SCALAR),
    may("application_state", SCALAR),
    may("action_identifier", SCALAR),
    may("push_message_behavior", SCALAR),
]);

static NETWORK_PERFORMANCE: Object = event(&[
    must("url", TEXT),
    must("response_code", INTEGER),
    may("http_verb", TEXT),
    may("time_elapsed", INTEGER),
    may("bytes_in", INTEGER),
    may("bytes_out", INTEGER),
    may("data", SCALAR),
]);

pub(super) static BREADCRUMB: Object =
    event(&[must("label", TEXT), may("session_number", INTEGER)]);

static PROFILE: Object = event(&[
    must("previous_mpid", INTEGER),
    must("current_mpid", INTEGER),
    must(
        "profile_event_type",
        word(&["signup", "login", "logout", "update", "delete"]),
    ),
]);

static USER_ATTRIBUTE_CHANGE: Object = event(&[
    must("user_attribute_name", not_null(Kind::Text(NAME))),
    may("new", or_null(Kind::ScalarOrList(VALUE))),
    may("old", or_null(Kind::ScalarOrList(VALUE))),
    may("deleted", BOOLEAN),
    may("is_new_attribute", BOOLEAN),
]);

static USER_IDENTITY_CHANGE: Object = event(&[
    must("new", or_null(Kind::Object(&USER_IDENTITY))),
    must("old", or_null(Kind::Object(&USER_IDENTITY))),
]);

static USER_IDENTITY: Object = object(&[
    must("identity_type", word(IDENTITY_TYPES)),
    must("identity", SCALAR),
    must("timestamp_unixtime_ms", INTEGER),
    may("created_this_batch", BOOLEAN),
]);
