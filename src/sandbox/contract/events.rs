//! The shape of each kind of event.

use super::*;

/// `event_type` → the shape of `data`. The schema's enum also knows `pre_attribution` and
/// `push_reaction`, but gives no shape for them, so they cannot be sent.
pub(in crate::sandbox) static EVENTS: &[(&str, &Object)] = &[
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

/// The `data` of an event: `fields`, and those that every event may have.
const fn event(fields: &'static [Field]) -> Object {
    Object {
        fields: [fields, EVENT_DATA],
    }
}

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

const FLAGS: Rule = or_null(Kind::Map(&SCALARS));

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

pub(in crate::sandbox) static BREADCRUMB: Object =
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
