//! The walk of [`super::check`] against mParticle's published schema: batches generated from the
//! schema, and broken at random, get the same verdict from both.
//!
//! `strict` is the published schema with each point of [`super::contract`] in which the stand-in is
//! stricter written into it, so that the verdicts must be equal both ways; what the stand-in lets
//! in must also pass the schema as published. Without the schema file (it is not part of the
//! repository) these tests say so and end.

use serde_json::{Map, Value, json};

use super::check::check;

const SCHEMA: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../shared/data/mparticle/eventsapi.schema.json"
);
const SAMPLE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../shared/data/mparticle/eventsapi.sample.json"
);

/// Longer than a name, and longer than a value, may be.
const LONG: [usize; 4] = [256, 257, 4_096, 4_097];

fn load(path: &str) -> Option<Value> {
    let Ok(text) = std::fs::read_to_string(path) else {
        eprintln!("skipped: {path} is not there");
        return None;
    };
    Some(serde_json::from_str(&text).unwrap())
}

fn validator(schema: &Value) -> jsonschema::Validator {
    jsonschema::options()
        .should_validate_formats(true)
        .build(schema)
        .unwrap()
}

#[test]
fn generated_and_broken_batches_get_the_verdict_of_the_published_schema() {
    let Some(published) = load(SCHEMA) else {
        return;
    };
    let strict_schema = strict(published.clone());
    let (published, strict) = (validator(&published), validator(&strict_schema));
    let (mut accepted, mut refused) = (0, 0);
    for seed in 0..3_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut batch = generate(&strict_schema, &strict_schema, &mut random);
        for _ in 0..seed % 3 {
            mutate(&mut batch, &mut random);
        }
        let text = batch.to_string();
        let verdict = check(&text, 0);
        let expected = strict.validate(&batch);
        assert_eq!(
            verdict.is_ok(),
            expected.is_ok(),
            "seed {seed}: {verdict:?}, {:?}\n{text}",
            expected.err().map(|error| error.to_string())
        );
        if let Ok(facts) = verdict {
            accepted += 1;
            assert!(published.is_valid(&batch), "seed {seed}: {text}");
            let events = batch["events"].as_array().map_or(0, Vec::len);
            assert_eq!(facts.events, events as u64, "seed {seed}");
            assert_eq!(facts.id.as_deref(), batch["source_request_id"].as_str());
        } else {
            refused += 1;
        }
    }
    assert!(accepted > 1_000 && refused > 500, "{accepted} {refused}");
}

#[test]
fn every_place_of_the_schema_judges_every_kind_of_value_alike() {
    let Some(published) = load(SCHEMA) else {
        return;
    };
    let schema = strict(published);
    let mut probe = Probe {
        strict: validator(&schema),
        root: &schema,
        accepted: 0,
        refused: 0,
    };
    probe.visit(&schema, &|batch| batch);
    let Probe {
        accepted, refused, ..
    } = probe;
    assert!(accepted > 3_000 && refused > 3_000, "{accepted} {refused}");
}

/// Walks the schema and puts every kind of value at every place of an else minimal batch.
struct Probe<'a> {
    strict: jsonschema::Validator,
    root: &'a Value,
    accepted: u32,
    refused: u32,
}

impl Probe<'_> {
    /// `wrap` makes a batch of a value for `node`.
    fn visit(&mut self, node: &Value, wrap: &dyn Fn(Value) -> Value) {
        if let Some(name) = node.get("$ref").and_then(Value::as_str) {
            let root = self.root;
            let target = root.pointer(name.trim_start_matches('#')).unwrap();
            return self.visit(target, wrap);
        }
        for kind in 0..JUNK {
            self.judge(&wrap(junk(kind, &mut fastrand::Rng::with_seed(0))));
        }
        for word in node["enum"].as_array().unwrap_or(&Vec::new()) {
            self.judge(&wrap(word.clone()));
        }
        for key in ["oneOf", "anyOf"] {
            for way in node[key].as_array().unwrap_or(&Vec::new()) {
                self.visit(way, wrap);
            }
        }
        if node["items"].is_object() {
            self.visit(&node["items"], &|item| wrap(json!([item])));
        }
        if node["additionalProperties"].is_object() {
            let rule = &node["additionalProperties"];
            self.visit(rule, &|value| wrap(json!({"name": value})));
        }
        let Some(properties) = node["properties"].as_object() else {
            return;
        };
        let least = minimal(node, self.root);
        self.judge(&wrap(least.clone()));
        for (name, rule) in properties {
            let with = |value: Value| {
                let mut object = least.clone();
                object[name] = value;
                wrap(object)
            };
            self.visit(rule, &with);
            let mut without = least.clone();
            if without.as_object_mut().unwrap().remove(name).is_some() {
                self.judge(&wrap(without));
            }
            let mut renamed = least.clone();
            renamed[format!("{name}_")] = json!(1);
            self.judge(&wrap(renamed));
        }
    }

    fn judge(&mut self, batch: &Value) {
        let verdict = check(&batch.to_string(), 0);
        assert_eq!(check(&backwards(batch), 0).is_ok(), verdict.is_ok());
        let expected = self.strict.validate(batch);
        let expected = expected.map_err(|error| error.to_string());
        assert_eq!(
            verdict.is_ok(),
            expected.is_ok(),
            "{verdict:?}, {expected:?}: {batch}"
        );
        match verdict.is_ok() {
            true => self.accepted += 1,
            false => self.refused += 1,
        }
    }
}

/// The value as JSON, keys of objects from the last to the first: `event_type` before `data`.
fn backwards(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(backwards).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(object) => {
            let entry = |(name, value)| format!("{}:{}", json!(name), backwards(value));
            let entries: Vec<_> = object.iter().rev().map(entry).collect();
            format!("{{{}}}", entries.join(","))
        }
        other => other.to_string(),
    }
}

/// The least that `node` accepts.
fn minimal(node: &Value, root: &Value) -> Value {
    let whole = generate(node, root, &mut fastrand::Rng::with_seed(0));
    if node["properties"].is_null() {
        return whole;
    }
    let required = node["required"].as_array().cloned().unwrap_or_default();
    let properties = &node["properties"];
    let least = |name: &Value| {
        let name = name.as_str().unwrap();
        let value = follow(&properties[name], root);
        (name.to_owned(), minimal(value, root))
    };
    Value::Object(required.iter().map(least).collect())
}

fn follow<'a>(node: &'a Value, root: &'a Value) -> &'a Value {
    match node.get("$ref").and_then(Value::as_str) {
        Some(name) => root.pointer(name.trim_start_matches('#')).unwrap(),
        None => node,
    }
}

#[test]
fn the_published_sample_is_accepted() {
    let Some(sample) = load(SAMPLE) else {
        return;
    };
    let facts = check(&sample.to_string(), i64::MAX).unwrap();
    let events = sample["events"].as_array().unwrap();
    assert_eq!(facts.events, events.len() as u64);
    assert_eq!(facts.old_events, facts.events);
}

#[test]
fn every_property_of_the_published_schema_is_known() {
    let Some(published) = load(SCHEMA) else {
        return;
    };
    // A null is refused or accepted by its type, but never as unknown.
    for name in published["properties"].as_object().unwrap().keys() {
        let batch = json!({"environment": "development", name: null});
        if let Err(refusal) = check(&batch.to_string(), 0) {
            assert!(!refusal.to_string().contains("not a known"), "{refusal}");
        }
    }
}

/// The published schema, with what the stand-in asks beyond it.
fn strict(mut schema: Value) -> Value {
    let definitions = schema["definitions"].clone();
    let event_data = definitions["EventData"].clone();
    for definition in schema["definitions"].as_object_mut().unwrap().values_mut() {
        close_event(definition, &event_data);
    }
    tighten(&mut schema);

    schema["type"] = json!("object");
    schema["required"] = json!(["environment"]);
    let properties = &mut schema["properties"];
    properties["source_request_id"] = json!({"type": ["string", "null"]});
    for identity in properties["user_identities"]["properties"]
        .as_object_mut()
        .unwrap()
        .values_mut()
    {
        *identity = json!({"type": "string"});
    }
    let scalar = json!({"type": ["string", "null", "boolean", "number"], "maxLength": 4096});
    let scalar_or_list = json!({"anyOf": [scalar, {"type": "array", "items": scalar}]});
    limit_attributes(&mut properties["user_attributes"], &scalar_or_list);

    let definitions = schema["definitions"].as_object_mut().unwrap();
    definitions["Integer"] = json!({"anyOf": [
        {"type": "null"}, {"type": "integer", "minimum": i64::MIN, "maximum": i64::MAX}]});
    limit_attributes(
        &mut definitions["Product"]["properties"]["custom_attributes"],
        &json!({"type": "string", "maxLength": 4096}),
    );
    for definition in definitions.values_mut() {
        let Some(data) = definition.pointer_mut("/properties/data/properties") else {
            continue;
        };
        let Some(data) = data.as_object_mut() else {
            continue;
        };
        if let Some(attributes) = data.get_mut("custom_attributes") {
            limit_attributes(attributes, &scalar);
        }
        for name in ["event_name", "screen_name", "user_attribute_name"] {
            if let Some(rule) = data.get_mut(name) {
                rule["maxLength"] = json!(256);
            }
        }
        for name in ["new", "old"] {
            if data
                .get(name)
                .is_some_and(|rule| rule["$ref"] == "#/definitions/StringOrArray")
            {
                data[name] = scalar_or_list.clone();
            }
        }
    }
    schema
}

fn limit_attributes(rule: &mut Value, value: &Value) {
    rule["maxProperties"] = json!(100);
    rule["propertyNames"] = json!({"maxLength": 256});
    rule["additionalProperties"] = value.clone();
}

/// An event's `data` is common and own properties in an `allOf`, which leaves it open: one object
/// instead.
fn close_event(definition: &mut Value, event_data: &Value) {
    let Some(data) = definition.pointer_mut("/properties/data") else {
        return;
    };
    let parts = match data.get("allOf") {
        Some(parts) => parts.as_array().cloned().unwrap(),
        None if data
            .get("$ref")
            .is_some_and(|name| name == "#/definitions/EventData") =>
        {
            vec![data.clone()]
        }
        None => return,
    };
    let mut whole = json!({"type": "object", "properties": {}, "required": []});
    for part in parts {
        let part = if part.get("$ref").is_some() {
            event_data.clone()
        } else {
            part
        };
        for (name, rule) in part["properties"].as_object().unwrap() {
            whole["properties"][name] = rule.clone();
        }
        for name in part["required"].as_array().unwrap_or(&Vec::new()) {
            whole["required"].as_array_mut().unwrap().push(name.clone());
        }
    }
    *data = whole;
}

/// Everywhere: no unknown properties, a type for every object.
fn tighten(node: &mut Value) {
    match node {
        Value::Array(items) => items.iter_mut().for_each(tighten),
        Value::Object(object) => {
            if object.get("properties").is_some_and(Value::is_object)
                && !object.contains_key("$ref")
                && object["properties"]
                    .as_object()
                    .unwrap()
                    .values()
                    .all(Value::is_object)
            {
                object.insert("additionalProperties".into(), json!(false));
                object
                    .entry("type")
                    .or_insert_with(|| json!(["object", "null"]));
            }
            object.values_mut().for_each(tighten);
        }
        _ => {}
    }
}

/// A value that the schema's `node` accepts.
fn generate(node: &Value, root: &Value, random: &mut fastrand::Rng) -> Value {
    if let Some(name) = node.get("$ref").and_then(Value::as_str) {
        let target = root.pointer(name.trim_start_matches('#')).unwrap();
        return generate(target, root, random);
    }
    if let Some(words) = node.get("enum").and_then(Value::as_array) {
        return random.choice(words).unwrap().clone();
    }
    if let Some(format) = node.get("format").and_then(Value::as_str) {
        return match format {
            "ipv4" => json!("192.0.2.7"),
            "ipv6" => json!("2001:db8::7"),
            other => panic!("unknown format {other}"),
        };
    }
    for key in ["oneOf", "anyOf"] {
        if let Some(ways) = node.get(key).and_then(Value::as_array) {
            return generate(random.choice(ways).unwrap(), root, random);
        }
    }
    let kinds = match &node["type"] {
        Value::Array(kinds) => kinds.clone(),
        kind => vec![kind.clone()],
    };
    match random.choice(&kinds).unwrap().as_str().unwrap() {
        "null" => Value::Null,
        "boolean" => json!(random.bool()),
        "integer" => json!(random.choice([0, 1, -1, i64::MAX, i64::MIN]).unwrap()),
        "number" => json!(random.choice([0.5, -1.25e-9, 1e300, 7.5]).unwrap()),
        "string" if node.get("pattern").is_some() => {
            json!("84E1b361-A282-4ADF-8A6D-1D31E6DD5A9E")
        }
        "string" => json!(random.choice(["", "shoes", "é\"\\\n\u{1f600}"]).unwrap()),
        "array" => {
            let count = random.usize(0..4);
            let item = |_| generate(&node["items"], root, random);
            (0..count).map(item).collect()
        }
        "object" => generate_object(node, root, random),
        other => panic!("unknown type {other}"),
    }
}

fn generate_object(node: &Value, root: &Value, random: &mut fastrand::Rng) -> Value {
    let none = Vec::new();
    let required = node["required"].as_array().unwrap_or(&none);
    let mut object = Map::new();
    for (name, rule) in node["properties"].as_object().unwrap_or(&Map::new()) {
        if required.iter().any(|one| one == name) || random.u8(0..6) == 0 {
            object.insert(name.clone(), generate(rule, root, random));
        }
    }
    if node["additionalProperties"].is_object() {
        for name in ["a", "looker_users.ltv", "é \"x\""] {
            if random.bool() {
                let value = generate(&node["additionalProperties"], root, random);
                object.insert(name.into(), value);
            }
        }
    }
    Value::Object(object)
}

/// One change somewhere in the value; it may or may not break it.
fn mutate(value: &mut Value, random: &mut fastrand::Rng) {
    let children = match value {
        Value::Array(items) => items.len(),
        Value::Object(object) => object.len(),
        _ => 0,
    };
    if children > 0 && random.u8(0..5) != 0 {
        let child = random.usize(0..children);
        return match value {
            Value::Array(items) => mutate(&mut items[child], random),
            Value::Object(object) => mutate(object.values_mut().nth(child).unwrap(), random),
            _ => unreachable!("it has children"),
        };
    }
    match value {
        Value::Object(object) if random.bool() => mutate_object(object, random),
        Value::Array(items) if random.bool() => items.push(junk(random.u8(0..JUNK), random)),
        Value::String(text) if random.bool() => {
            text.push_str(random.choice(["x", "é", " "]).unwrap());
        }
        other => *other = junk(random.u8(0..JUNK), random),
    }
}

fn mutate_object(object: &mut Map<String, Value>, random: &mut fastrand::Rng) {
    let name = object
        .keys()
        .nth(random.usize(0..object.len().max(1)))
        .cloned();
    match (random.u8(0..5), name) {
        (0, Some(name)) => {
            object.remove(&name);
        }
        (1, Some(name)) => {
            let value = object.remove(&name).unwrap();
            object.insert(format!("{name}_"), value);
        }
        (2, _) => {
            for n in 0..random.usize(95..105) {
                object.insert(format!("n{n}"), json!("x"));
            }
        }
        (3, _) => {
            let name = "é".repeat(*random.choice(&LONG).unwrap());
            object.insert(name, json!("x"));
        }
        _ => {
            let names = [
                "schema_version",
                "email",
                "environment",
                "event_type",
                "unknown",
            ];
            object.insert(
                (*random.choice(&names).unwrap()).into(),
                junk(random.u8(0..JUNK), random),
            );
        }
    }
}

/// Kinds of [`junk`].
const JUNK: u8 = 12;

fn junk(kind: u8, random: &mut fastrand::Rng) -> Value {
    match kind {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(random.i64(..)),
        3 => json!(i64::MAX as u64 + 1),
        4 => json!(1.5),
        5 => json!("10.0.0.1"),
        6 => json!([]),
        7 => json!({}),
        8 => json!(["a", 1, null, true]),
        9 => json!({"a": {"b": 1}}),
        10 => json!("é".repeat(*random.choice(&LONG).unwrap())),
        _ => json!("84e1b361-A282-4ADF-8A6D-1D31E6DD5A9E"),
    }
}
