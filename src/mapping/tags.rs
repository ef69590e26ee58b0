//! The LookML tags and what they mean: the table of the README, as types.

use crate::mapping::IdentityNames;

/// The identities that a column can be tagged with. The order is the order of precedence: the
/// first one that a row has decides where the row's user is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Identity {
    /// mParticle's own id: a whole number, and a member of the batch, not of `user_identities`.
    Mpid,
    CustomerId,
    Email,
    Facebook,
    Google,
    Microsoft,
    Twitter,
    Yahoo,
    Other,
    Other2,
    Other3,
    Other4,
    Other5,
    Other6,
    Other7,
    Other8,
    Other9,
    Other10,
    MobileNumber,
    PhoneNumber2,
    PhoneNumber3,
    Alias,
}

impl Identity {
    /// The member of `user_identities` (of the batch: [`Identity::Mpid`]). `Legacy` gives the
    /// names that Looker's own action wrote; it had none for those it did not know.
    pub fn wire_name(self, names: IdentityNames) -> &'static str {
        let legacy = names == IdentityNames::Legacy;
        match self {
            Self::Mpid => "mpid",
            Self::CustomerId if legacy => "customerid",
            Self::CustomerId => "customer_id",
            Self::Email => "email",
            Self::Facebook => "facebook",
            Self::Google => "google",
            Self::Microsoft => "microsoft",
            Self::Twitter => "twitter",
            Self::Yahoo => "yahoo",
            Self::Other => "other",
            Self::Other2 if legacy => "other2",
            Self::Other2 => "other_id_2",
            Self::Other3 if legacy => "other3",
            Self::Other3 => "other_id_3",
            Self::Other4 if legacy => "other4",
            Self::Other4 => "other_id_4",
            Self::Other5 => "other_id_5",
            Self::Other6 => "other_id_6",
            Self::Other7 => "other_id_7",
            Self::Other8 => "other_id_8",
            Self::Other9 => "other_id_9",
            Self::Other10 => "other_id_10",
            Self::MobileNumber => "mobile_number",
            Self::PhoneNumber2 => "phone_number_2",
            Self::PhoneNumber3 => "phone_number_3",
            Self::Alias => "alias",
        }
    }
}

/// What a column's tag asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tag {
    /// A member of `user_identities`, or `mpid`.
    Identity(Identity),
    /// `user_attributes."looker_<view>.<dimension>"`
    UserAttribute,
    /// `events[].data.event_name`
    EventName,
    /// `events[].data.custom_event_type`
    CustomEventType,
    /// `events[].data.event_id`
    EventId,
    /// `events[].data.timestamp_unixtime_ms`
    Timestamp,
    /// `events[].data.session_id`
    SessionId,
    /// `events[].data.session_uuid`
    SessionUuid,
    /// `events[].data.custom_attributes."looker_<view>.<dimension>"`
    CustomAttribute,
    /// `events[].event_type`
    EventType,
    /// `events[].data.screen_name`
    ScreenName,
    /// What only commerce events have.
    Commerce(CommerceTag),
    /// `device_info.<dimension>`
    DeviceInfo,
    /// `ip`
    Ip,
    /// `partner_identities.<dimension>`
    PartnerIdentity,
    /// `consent_state.gdpr.<dimension>`
    ConsentGdpr,
    /// `consent_state.ccpa.<dimension>`
    ConsentCcpa,
    /// `timestamp_unixtime_ms` of every consent
    ConsentTime,
    /// `context.location.latitude`
    Latitude,
    /// `context.location.longitude`
    Longitude,
}

impl Tag {
    /// Whether only events have that place.
    pub fn is_of_events(self) -> bool {
        match self {
            Self::EventName
            | Self::CustomEventType
            | Self::EventId
            | Self::Timestamp
            | Self::SessionId
            | Self::SessionUuid
            | Self::CustomAttribute
            | Self::EventType
            | Self::ScreenName
            | Self::Commerce(_) => true,
            Self::Identity(_)
            | Self::UserAttribute
            | Self::DeviceInfo
            | Self::Ip
            | Self::PartnerIdentity
            | Self::ConsentGdpr
            | Self::ConsentCcpa
            | Self::ConsentTime
            | Self::Latitude
            | Self::Longitude => false,
        }
    }
}

/// A place in a commerce event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommerceTag {
    /// `product_action.action`
    Action,
    /// `product_action.transaction_id`; rows that share it are one event.
    TransactionId,
    /// `product_action.total_amount`
    TotalAmount,
    /// `product_action.tax_amount`
    TaxAmount,
    /// `product_action.shipping_amount`
    ShippingAmount,
    /// `product_action.coupon_code`
    CouponCode,
    /// `currency_code`
    CurrencyCode,
    /// `product_action.products[].<member>`
    Product(ProductField),
    /// `product_action.products[].custom_attributes."looker_<view>.<dimension>"`
    ProductAttribute,
}

/// A member of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum ProductField {
    Id,
    Name,
    Brand,
    Category,
    Variant,
    Price,
    Quantity,
}

/// Every tag that is understood, as it is written in LookML.
pub const TAGS: [(&str, Tag); 55] = [
    ("mp_customer_id", Tag::Identity(Identity::CustomerId)),
    ("mp_email", Tag::Identity(Identity::Email)),
    ("mp_facebook", Tag::Identity(Identity::Facebook)),
    ("mp_google", Tag::Identity(Identity::Google)),
    ("mp_microsoft", Tag::Identity(Identity::Microsoft)),
    ("mp_twitter", Tag::Identity(Identity::Twitter)),
    ("mp_yahoo", Tag::Identity(Identity::Yahoo)),
    ("mp_other", Tag::Identity(Identity::Other)),
    ("mp_other2", Tag::Identity(Identity::Other2)),
    ("mp_other3", Tag::Identity(Identity::Other3)),
    ("mp_other4", Tag::Identity(Identity::Other4)),
    ("mp_other5", Tag::Identity(Identity::Other5)),
    ("mp_other6", Tag::Identity(Identity::Other6)),
    ("mp_other7", Tag::Identity(Identity::Other7)),
    ("mp_other8", Tag::Identity(Identity::Other8)),
    ("mp_other9", Tag::Identity(Identity::Other9)),
    ("mp_other10", Tag::Identity(Identity::Other10)),
    ("mp_mobile_number", Tag::Identity(Identity::MobileNumber)),
    ("mp_phone_number_2", Tag::Identity(Identity::PhoneNumber2)),
    ("mp_phone_number_3", Tag::Identity(Identity::PhoneNumber3)),
    ("mp_alias", Tag::Identity(Identity::Alias)),
    ("mp_mpid", Tag::Identity(Identity::Mpid)),
    ("mp_user_attribute", Tag::UserAttribute),
    ("mp_event_name", Tag::EventName),
    ("mp_custom_event_type", Tag::CustomEventType),
    ("mp_event_id", Tag::EventId),
    ("mp_timestamp_unixtime_ms", Tag::Timestamp),
    ("mp_session_id", Tag::SessionId),
    ("mp_session_uuid", Tag::SessionUuid),
    ("mp_custom_attribute", Tag::CustomAttribute),
    ("mp_event_type", Tag::EventType),
    ("mp_screen_name", Tag::ScreenName),
    ("mp_product_action", commerce(CommerceTag::Action)),
    ("mp_transaction_id", commerce(CommerceTag::TransactionId)),
    ("mp_total_amount", commerce(CommerceTag::TotalAmount)),
    ("mp_tax_amount", commerce(CommerceTag::TaxAmount)),
    ("mp_shipping_amount", commerce(CommerceTag::ShippingAmount)),
    ("mp_coupon_code", commerce(CommerceTag::CouponCode)),
    ("mp_currency_code", commerce(CommerceTag::CurrencyCode)),
    ("mp_product_id", product(ProductField::Id)),
    ("mp_product_name", product(ProductField::Name)),
    ("mp_product_brand", product(ProductField::Brand)),
    ("mp_product_category", product(ProductField::Category)),
    ("mp_product_variant", product(ProductField::Variant)),
    ("mp_product_price", product(ProductField::Price)),
    ("mp_product_quantity", product(ProductField::Quantity)),
    (
        "mp_product_custom_attribute",
        commerce(CommerceTag::ProductAttribute),
    ),
    ("mp_device_info", Tag::DeviceInfo),
    ("mp_partner_identity", Tag::PartnerIdentity),
    ("mp_consent_gdpr", Tag::ConsentGdpr),
    ("mp_consent_ccpa", Tag::ConsentCcpa),
    ("mp_consent_timestamp", Tag::ConsentTime),
    ("mp_ip", Tag::Ip),
    ("mp_latitude", Tag::Latitude),
    ("mp_longitude", Tag::Longitude),
];

const fn commerce(tag: CommerceTag) -> Tag {
    Tag::Commerce(tag)
}

const fn product(field: ProductField) -> Tag {
    commerce(CommerceTag::Product(field))
}

/// Looks a tag up; `None` for one that is not understood.
pub fn tag(text: &str) -> Option<Tag> {
    let found = TAGS.iter().find(|(name, _)| *name == text);
    found.map(|(_, tag)| *tag)
}

/// The tags of identities: a delivery needs a column with one of them.
pub fn identity_tags() -> impl Iterator<Item = &'static str> {
    let identity = |tag| matches!(tag, Tag::Identity(_));
    let tags = TAGS.iter().filter(move |(_, tag)| identity(*tag));
    tags.map(|(name, _)| *name)
}

/// The type that mParticle's schema gives a member of `device_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceType {
    /// Any string; numbers and booleans are sent as text.
    Text,
    /// A whole number.
    Integer,
    /// A time, as the number of milliseconds since 1970.
    Time,
    /// `true` or `false`.
    Boolean,
    /// 8-4-4-4-12 hexadecimal digits.
    Uuid,
    /// One of these words, in this spelling.
    Word(&'static [&'static str]),
}

const PLATFORMS: &[&str] = &[
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
];
const TRACKING: &[&str] = &["authorized", "denied", "not_determined", "restricted"];

/// `DeviceInformation` of mParticle's published schema.
const DEVICE_INFO: [(&str, DeviceType); 45] = [
    ("brand", DeviceType::Text),
    ("product", DeviceType::Text),
    ("device", DeviceType::Text),
    ("android_uuid", DeviceType::Text),
    ("device_manufacturer", DeviceType::Text),
    ("platform", DeviceType::Word(PLATFORMS)),
    ("os_version", DeviceType::Text),
    ("device_model", DeviceType::Text),
    ("screen_height", DeviceType::Integer),
    ("screen_width", DeviceType::Integer),
    ("screen_dpi", DeviceType::Integer),
    ("device_country", DeviceType::Text),
    ("locale_language", DeviceType::Text),
    ("locale_country", DeviceType::Text),
    ("network_country", DeviceType::Text),
    ("network_carrier", DeviceType::Text),
    ("network_code", DeviceType::Text),
    ("network_mobile_country_code", DeviceType::Text),
    ("timezone_offset", DeviceType::Integer),
    ("build_identifier", DeviceType::Text),
    ("http_header_user_agent", DeviceType::Text),
    ("ios_advertising_id", DeviceType::Uuid),
    ("att_authorization_status", DeviceType::Word(TRACKING)),
    ("att_timestamp_unixtime_ms", DeviceType::Time),
    ("push_token", DeviceType::Text),
    ("cpu_architecture", DeviceType::Text),
    ("is_tablet", DeviceType::Boolean),
    ("push_notification_sound_enabled", DeviceType::Boolean),
    ("push_notification_vibrate_enabled", DeviceType::Boolean),
    ("radio_access_technology", DeviceType::Text),
    ("supports_telephony", DeviceType::Boolean),
    ("has_nfc", DeviceType::Boolean),
    ("bluetooth_enabled", DeviceType::Boolean),
    ("bluetooth_version", DeviceType::Text),
    ("ios_idfv", DeviceType::Uuid),
    ("android_advertising_id", DeviceType::Uuid),
    ("build_version_release", DeviceType::Text),
    ("limit_ad_tracking", DeviceType::Boolean),
    ("amp_id", DeviceType::Text),
    ("is_dst", DeviceType::Boolean),
    ("roku_advertising_id", DeviceType::Uuid),
    ("roku_publisher_id", DeviceType::Uuid),
    ("microsoft_advertising_id", DeviceType::Text),
    ("microsoft_publisher_id", DeviceType::Text),
    ("fire_advertising_id", DeviceType::Uuid),
];

/// The member of `device_info` with this name and its type; `None` when mParticle has no such
/// member.
pub fn device_field(name: &str) -> Option<(&'static str, DeviceType)> {
    DEVICE_INFO.into_iter().find(|(known, _)| *known == name)
}

/// The words that `product_action.action` may be. The last is mParticle's own spelling.
pub const PRODUCT_ACTIONS: [&str; 10] = [
    "purchase",
    "refund",
    "add_to_cart",
    "remove_from_cart",
    "checkout",
    "checkout_option",
    "click",
    "view_detail",
    "add_to_wishlist",
    "remove_from_wish_list",
];

/// The words that `custom_event_type` may be.
pub const EVENT_TYPES: [&str; 9] = [
    "navigation",
    "location",
    "search",
    "transaction",
    "user_content",
    "user_preference",
    "social",
    "other",
    "media",
];

/// Whether this JSON string is one of [`EVENT_TYPES`], as most are.
#[inline]
pub(super) fn is_event_type(literal: &[u8]) -> bool {
    matches!(
        literal,
        b"\"navigation\""
            | b"\"location\""
            | b"\"search\""
            | b"\"transaction\""
            | b"\"user_content\""
            | b"\"user_preference\""
            | b"\"social\""
            | b"\"other\""
            | b"\"media\""
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_events_is_known_as_it_stands() {
        for word in EVENT_TYPES {
            assert!(is_event_type(format!("\"{word}\"").as_bytes()), "{word}");
            assert!(!is_event_type(word.as_bytes()), "{word}");
        }
        assert!(!is_event_type(b"\"Search\""));
    }
}
