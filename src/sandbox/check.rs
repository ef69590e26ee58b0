//! Walks the text of a batch along the tables of [`super::contract`], without building a tree.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::contract::{BATCH, BREADCRUMB, EVENTS, Kind, Object, Rule, SCALAR};
use super::name::Name;
use super::refusal::{Refusal, Step};

/// What the walk learned of a batch that keeps to the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// `source_request_id`, when the batch has one.
    pub(super) id: Option<String>,
    /// Events of the batch; breadcrumbs inside a crash report are not among them.
    pub(super) events: u64,
    /// Events whose time is known and before the given one.
    pub(super) old_events: u64,
}

/// Checks one batch. Events are old when their time lies before `old_before`, in milliseconds
/// since 1970.
pub(super) fn check(batch: &str, old_before: i64) -> Result<Facts, Refusal> {
    let walk = Walk {
        old_before,
        refusal: RefCell::new(None),
        id: RefCell::new(None),
        event_time: Cell::new(None),
        events: Cell::new(0),
        old_events: Cell::new(0),
    };
    let mut text = serde_json::Deserializer::from_str(batch);
    let root = Rule {
        kind: Kind::Object(&BATCH),
        null: false,
    };
    let outcome = walk
        .on(&root)
        .deserialize(&mut text)
        .and_then(|()| text.end());
    match outcome {
        Ok(()) => Ok(Facts {
            id: walk.id.into_inner(),
            events: walk.events.get(),
            old_events: walk.old_events.get(),
        }),
        Err(error) => Err(walk
            .refusal
            .into_inner()
            .unwrap_or_else(|| Refusal::new(format!("is not valid JSON: {error}")))),
    }
}

/// State of one walk. Cells, since serde hands seeds over by value.
struct Walk {
    old_before: i64,
    refusal: RefCell<Option<Refusal>>,
    id: RefCell<Option<String>>,
    event_time: Cell<Option<i64>>,
    events: Cell<u64>,
    old_events: Cell<u64>,
}

impl Walk {
    fn on<'w>(&'w self, rule: &'w Rule) -> Check<'w> {
        Check { rule, walk: self }
    }

    fn refuse<E: de::Error>(&self, what: impl Into<String>) -> E {
        *self.refusal.borrow_mut() = Some(Refusal::new(what));
        E::custom("refused")
    }

    /// Refuses something inside the value at hand.
    fn refuse_at<E: de::Error>(&self, name: &str, what: impl Into<String>) -> E {
        let error = self.refuse(what);
        self.inside(Step::Name(name.to_owned()), error)
    }

    /// Notes one more step of the way to what was refused.
    fn inside<E>(&self, step: Step, error: E) -> E {
        if let Some(refusal) = self.refusal.borrow_mut().as_mut() {
            refusal.inside(step);
        }
        error
    }

    fn end_of_event(&self) {
        self.events.set(self.events.get() + 1);
        if self
            .event_time
            .take()
            .is_some_and(|time| time < self.old_before)
        {
            self.old_events.set(self.old_events.get() + 1);
        }
    }
}

/// One value to be checked against one rule.
#[derive(Clone, Copy)]
struct Check<'w> {
    rule: &'w Rule,
    walk: &'w Walk,
}

impl<'de> DeserializeSeed<'de> for Check<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Check<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rule.kind.name())
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        if self.rule.null {
            return Ok(());
        }
        Err(self.wrong("null"))
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        match self.rule.kind {
            Kind::Boolean | Kind::Scalar(_) | Kind::ScalarOrList(_) => Ok(()),
            _ => Err(self.wrong("a boolean")),
        }
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<(), E> {
        match self.rule.kind {
            Kind::EventTime => self.walk.event_time.set(Some(number)),
            Kind::Integer | Kind::Number | Kind::Scalar(_) | Kind::ScalarOrList(_) => {}
            _ => return Err(self.wrong("a number")),
        }
        Ok(())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<(), E> {
        match i64::try_from(number) {
            Ok(number) => self.visit_i64(number),
            Err(_) => self.visit_f64(number as f64),
        }
    }

    /// Numbers with a fraction or an exponent, and integers beyond 64 bits.
    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        match self.rule.kind {
            Kind::Number | Kind::Scalar(_) | Kind::ScalarOrList(_) => Ok(()),
            _ => Err(self.wrong("a number with a fraction, an exponent or too many digits")),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        let what = match self.rule.kind {
            Kind::Scalar(most) | Kind::ScalarOrList(most) | Kind::Text(most) => {
                if is_within(text, most) {
                    return Ok(());
                }
                format!("is longer than {most} characters")
            }
            Kind::RequestId => {
                *self.walk.id.borrow_mut() = Some(text.to_owned());
                return Ok(());
            }
            Kind::Word(words) if words.contains(&text) => return Ok(()),
            Kind::Uuid if is_uuid(text) => return Ok(()),
            Kind::Ip if is_ip(text) => return Ok(()),
            Kind::Word(_) | Kind::Uuid | Kind::Ip => format!("must be {}", self.rule.kind.name()),
            _ => return Err(self.wrong("a string")),
        };
        Err(self.walk.refuse(what))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let scalar = Rule {
            kind: match self.rule.kind {
                Kind::ScalarOrList(most) => Kind::Scalar(most),
                other => other,
            },
            ..SCALAR
        };
        let event = Rule {
            kind: Kind::Event,
            null: false,
        };
        let item = match self.rule.kind {
            Kind::List(item) => item,
            Kind::ScalarOrList(_) => &scalar,
            Kind::Events => &event,
            _ => return Err(self.wrong("a list")),
        };
        let mut index = 0;
        loop {
            match list.next_element_seed(self.walk.on(item)) {
                Ok(Some(())) => index += 1,
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.walk.inside(Step::Index(index), error)),
            }
            if matches!(self.rule.kind, Kind::Events) {
                self.walk.end_of_event();
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        match self.rule.kind {
            Kind::Object(object) => self.object(object, map),
            Kind::Map(rule) => self.entries(rule, map),
            Kind::Event => self.event(None, map),
            Kind::Breadcrumb => {
                // The report's own time must survive that of its breadcrumbs.
                let time = self.walk.event_time.get();
                let outcome = self.event(Some(("breadcrumb", &BREADCRUMB)), map);
                self.walk.event_time.set(time);
                outcome
            }
            _ => Err(self.wrong("an object")),
        }
    }
}

impl Check<'_> {
    fn wrong<E: de::Error>(&self, is: &str) -> E {
        let kind = self.rule.kind.name();
        self.walk.refuse(format!("must be {kind}, not {is}"))
    }

    fn object<'de, A: MapAccess<'de>>(self, object: &Object, mut map: A) -> Result<(), A::Error> {
        let mut seen = 0_u64;
        while let Some(name) = map.next_key_seed(Name)? {
            let Some((bit, rule)) = object.field(&name) else {
                let what = match &*name {
                    "schema_version" => "is output only: leave it out",
                    _ => "is not a known property",
                };
                return Err(self.walk.refuse_at(&name, what));
            };
            if seen & bit != 0 {
                return Err(self.walk.refuse_at(&name, "occurs twice"));
            }
            seen |= bit;
            if let Err(error) = map.next_value_seed(self.walk.on(rule)) {
                return Err(self.walk.inside(Step::Name(name.into_owned()), error));
            }
        }
        match object.missing(seen) {
            Some(name) => Err(self.walk.refuse_at(name, "is required")),
            None => Ok(()),
        }
    }

    fn entries<'de, A: MapAccess<'de>>(
        self,
        rule: &super::contract::Map,
        mut map: A,
    ) -> Result<(), A::Error> {
        let mut names = Vec::new();
        while let Some(name) = map.next_key_seed(Name)? {
            if names.len() == rule.entries {
                let what = format!("has more than {} entries", rule.entries);
                return Err(self.walk.refuse(what));
            }
            if !is_within(&name, rule.name) {
                let what = format!("has a name longer than {} characters", rule.name);
                return Err(self.walk.refuse(what));
            }
            if let Err(error) = map.next_value_seed(self.walk.on(&rule.value)) {
                return Err(self.walk.inside(Step::Name(name.into_owned()), error));
            }
            names.push(name);
        }
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(self.walk.refuse_at(&pair[0], "occurs twice")),
            None => Ok(()),
        }
    }

    /// `event_type` decides on the shape of `data`, but may come after it: then `data` is kept as
    /// text until the type is known.
    fn event<'de, A: MapAccess<'de>>(
        self,
        only: Option<(&'static str, &'static Object)>,
        mut map: A,
    ) -> Result<(), A::Error> {
        let walk = self.walk;
        let mut data_rule: Option<Rule> = None;
        let mut early_data: Option<&RawValue> = None;
        let mut data_seen = false;
        while let Some(name) = map.next_key_seed(Name)? {
            match &*name {
                "event_type" if data_rule.is_none() => {
                    let word = map.next_value_seed(Name).map_err(|_| -> A::Error {
                        walk.refuse_at("event_type", "must be a string")
                    })?;
                    let known = match only {
                        Some((only, object)) => (only == word).then_some(object),
                        None => EVENTS
                            .iter()
                            .find(|(known, _)| *known == word)
                            .map(|(_, object)| *object),
                    };
                    let Some(object) = known else {
                        let what = "must be the type of an event that can be sent";
                        return Err(walk.refuse_at("event_type", what));
                    };
                    data_rule = Some(Rule {
                        kind: Kind::Object(object),
                        null: false,
                    });
                }
                "data" if !data_seen => {
                    data_seen = true;
                    match &data_rule {
                        Some(rule) => map
                            .next_value_seed(walk.on(rule))
                            .map_err(|error| walk.inside(Step::Name("data".into()), error))?,
                        None => early_data = Some(map.next_value()?),
                    }
                }
                "event_type" | "data" => return Err(walk.refuse_at(&name, "occurs twice")),
                _ => return Err(walk.refuse_at(&name, "is not a known property")),
            }
        }
        let Some(rule) = data_rule else {
            return Err(walk.refuse_at("event_type", "is required"));
        };
        if !data_seen {
            return Err(walk.refuse_at("data", "is required"));
        }
        if let Some(data) = early_data {
            let mut text = serde_json::Deserializer::from_str(data.get());
            walk.on(&rule).deserialize(&mut text).map_err(|error| {
                if walk.refusal.borrow().is_none() {
                    let _: A::Error = walk.refuse(format!("is not valid JSON: {error}"));
                }
                walk.inside(Step::Name("data".into()), de::Error::custom("refused"))
            })?;
        }
        Ok(())
    }
}

impl Object {
    /// The property's bit and rule.
    fn field(&self, name: &str) -> Option<(u64, &'static Rule)> {
        let fields = self.fields.iter().flat_map(|part| part.iter());
        fields
            .enumerate()
            .find(|(_, field)| field.name == name)
            .map(|(nth, field)| (1 << nth, &field.rule))
    }

    /// A required property that is not among the `seen` ones.
    fn missing(&self, seen: u64) -> Option<&'static str> {
        let fields = self.fields.iter().flat_map(|part| part.iter());
        fields
            .enumerate()
            .find(|(nth, field)| field.required && seen & (1 << nth) == 0)
            .map(|(_, field)| field.name)
    }
}

impl Kind {
    /// As in "must be …".
    fn name(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Scalar(_) => "a string, number or boolean",
            Self::ScalarOrList(_) => "a string, number, boolean or a list of these",
            Self::Text(_) | Self::RequestId => "a string",
            Self::Integer | Self::EventTime => "an integer of at most 64 bits",
            Self::Number => "a number",
            Self::Boolean => "a boolean",
            Self::Uuid => "a UUID",
            Self::Ip => "an IPv4 or IPv6 address",
            Self::Word(words) => return Cow::Owned(format!("one of {}", words.join(", "))),
            Self::Object(_) | Self::Map(_) => "an object",
            Self::List(_) => "a list",
            Self::Events => "a list of events",
            Self::Event | Self::Breadcrumb => "an event",
        })
    }
}

/// Characters are counted as Unicode scalar values; the docs do not say what one is.
fn is_within(text: &str, most: usize) -> bool {
    text.len() <= most || text.chars().nth(most).is_none()
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn is_ip(text: &str) -> bool {
    text.parse::<Ipv4Addr>().is_ok() || text.parse::<Ipv6Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with this batch, the rest of which is fine.
    fn refusal(batch: &str) -> String {
        match check(batch, 0) {
            Ok(facts) => panic!("accepted: {batch} {facts:?}"),
            Err(refusal) => refusal.to_string(),
        }
    }

    fn event(data: &str) -> String {
        format!(
            r#"{{"environment":"development","events":[{{"event_type":"custom_event","data":
            {{"event_name":"a","custom_event_type":"other",{data}}}}}]}}"#
        )
    }

    #[test]
    fn a_refusal_names_the_place_and_what_is_wanted() {
        for case in [
            r#"{} => environment is required"#,
            r#"5 => must be an object, not a number"#,
            r#"{"environment":"test"} => environment must be one of development, production"#,
            r#"{"schema_version":2} => schema_version is output only: leave it out"#,
            r#"{"environment":"production","environment":"production"} => environment occurs twice"#,
            r#"{"user_identities":{"customerid":"1"}} => user_identities.customerid is not a known property"#,
            r#"{"user_identities":{"email":null}} => user_identities.email must be a string, not null"#,
            r#"{"user_attributes":{"a":1,"b":2,"\u0061":3}} => user_attributes.a occurs twice"#,
            r#"{"user_attributes":{"a":["x",{}]}} => user_attributes.a[1] must be a string, number or boolean, not an object"#,
            r#"{"events":[{"event_type":"pre_attribution","data":{}}]} => events[0].event_type must be the type of an event that can be sent"#,
            r#"{"events":[{"event_type":7,"data":{}}]} => events[0].event_type must be a string"#,
            r#"{"events":[{"data":{}}]} => events[0].event_type is required"#,
            r#"{"events":[{"event_type":"uninstall"}]} => events[0].data is required"#,
            r#"{"events":[{"event_type":"uninstall","data":{}},{"data":{"url":5},"event_type":"network_performance"}]} => events[1].data.url must be a string, not a number"#,
            r#"{"device_info":{"ios_idfv":"nonsense"}} => device_info.ios_idfv must be a UUID"#,
            r#"{"device_info":{"screen_dpi":1.0}} => device_info.screen_dpi must be an integer of at most 64 bits, not a number with a fraction, an exponent or too many digits"#,
        ] {
            let (batch, want) = case.split_once(" => ").unwrap();
            assert_eq!(refusal(batch), want, "{batch}");
        }
        for (data, want) in [
            (
                r#""timestamp_unixtime_ms":"1""#,
                "timestamp_unixtime_ms must be an integer of at most 64 bits, not a string",
            ),
            (r#""timestamp":1"#, "timestamp is not a known property"),
        ] {
            assert_eq!(refusal(&event(data)), format!("events[0].data.{want}"));
        }
    }

    #[test]
    fn integers_are_written_as_integers_of_64_bits() {
        for (number, fits) in [
            ("9223372036854775807", true),
            ("-9223372036854775808", true),
            ("9223372036854775808", false),
            ("-9223372036854775809", false),
            ("1.0", false),
            ("1e3", false),
            ("true", false),
        ] {
            let batch = event(&format!(r#""event_id":{number}"#));
            assert_eq!(check(&batch, 0).is_ok(), fits, "{number}");
        }
    }

    #[test]
    fn limits_count_characters_and_entries() {
        for (characters, fits) in [(4_096, true), (4_097, false)] {
            let value = "é".repeat(characters);
            let batch = event(&format!(r#""custom_attributes":{{"a":"{value}"}}"#));
            assert_eq!(check(&batch, 0).is_ok(), fits, "{characters}");
        }
        for (characters, fits) in [(256, true), (257, false)] {
            let name = "é".repeat(characters);
            let batch = event(&format!(r#""custom_attributes":{{"{name}":1}}"#));
            assert_eq!(check(&batch, 0).is_ok(), fits, "{characters}");
        }
        for (count, fits) in [(100, true), (101, false)] {
            let entries: Vec<_> = (0..count).map(|n| format!(r#""a{n}":1"#)).collect();
            let batch = event(&format!(r#""custom_attributes":{{{}}}"#, entries.join(",")));
            assert_eq!(check(&batch, 0).is_ok(), fits, "{count}");
        }
    }

    #[test]
    fn broken_text_is_refused_and_never_panics() {
        for batch in [
            "",
            "{",
            r#"{"environment":"production"} x"#,
            r#"{"environment":"\ud800"}"#,
            r#"{"user_attributes":{"a":1e999},"environment":"production"}"#,
            r#"{"events":[{"data":{"event_num":1e999},"event_type":"uninstall"}]}"#,
        ] {
            let refusal = refusal(batch);
            assert!(refusal.contains("is not valid JSON"), "{refusal}");
        }
    }

    #[test]
    fn events_are_old_only_with_a_known_time_before_the_given_one() {
        let batch = r#"{"environment":"production","events":[
            {"event_type":"uninstall","data":{"timestamp_unixtime_ms":99}},
            {"data":{"timestamp_unixtime_ms":99},"event_type":"uninstall"},
            {"event_type":"uninstall","data":{"timestamp_unixtime_ms":100}},
            {"event_type":"uninstall","data":{}},
            {"event_type":"crash_report","data":{"severity":"s","message":"m","timestamp_unixtime_ms":100,
              "breadcrumbs":[{"event_type":"breadcrumb","data":{"label":"l","timestamp_unixtime_ms":1}}]}}]}"#;
        let facts = check(batch, 100).unwrap();
        assert_eq!((facts.events, facts.old_events), (5, 2));
    }

    #[test]
    fn no_object_has_more_properties_than_bits() {
        for (name, object) in EVENTS {
            let count = object.fields.iter().map(|part| part.len()).sum::<usize>();
            assert!(count <= 64, "{name}");
        }
    }
}
