//! Compares what arrived with what was generated, value by value.

use serde_json::Value;

use super::shape::Shape;
use crate::model::DataType;

/// What arrived is not what was generated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Mismatch {
    /// What is wrong and where, as a sentence.
    pub what: String,
}

/// Checks that `batches` (the JSON of each, as a receiver kept it) hold every row of `shape`
/// exactly once, with the values of the row, its user and its device. Returns the rows.
pub fn audit<'a>(
    shape: &Shape,
    batches: impl IntoIterator<Item = &'a [u8]>,
) -> Result<u64, Mismatch> {
    let mut seen = Seen::new(shape);
    for batch in batches {
        let batch: Value = serde_json::from_slice(batch)
            .map_err(|error| mismatch(format!("A batch is not JSON: {error}.")))?;
        match shape.data_type {
            DataType::Event => events(shape, &batch, &mut seen)?,
            DataType::User => profile(shape, &batch, &mut seen)?,
        }
    }
    seen.complete()
}

/// One bit for each row (event shapes) or user (user shapes).
struct Seen {
    what: &'static str,
    bits: Vec<bool>,
    rows: u64,
}

impl Seen {
    fn new(shape: &Shape) -> Self {
        let (what, count) = match shape.data_type {
            DataType::Event => ("Row", shape.rows),
            DataType::User => ("User", shape.users.max(1).min(shape.rows)),
        };
        Self {
            what,
            bits: vec![false; count as usize],
            rows: shape.rows,
        }
    }

    fn mark(&mut self, number: u64) -> Result<(), Mismatch> {
        let what = self.what;
        let bit = self
            .bits
            .get_mut(number as usize)
            .ok_or_else(|| mismatch(format!("{what} {number} arrived and was never sent.")))?;
        if std::mem::replace(bit, true) {
            return Err(mismatch(format!("{what} {number} arrived twice.")));
        }
        Ok(())
    }

    fn complete(&self) -> Result<u64, Mismatch> {
        match self.bits.iter().position(|seen| !seen) {
            Some(number) => Err(mismatch(format!("{} {number} did not arrive.", self.what))),
            None => Ok(self.rows),
        }
    }
}

fn events(shape: &Shape, batch: &Value, seen: &mut Seen) -> Result<(), Mismatch> {
    for event in batch["events"].as_array().into_iter().flatten() {
        let data = &event["data"];
        let id = data["source_message_id"].as_str().unwrap_or_default();
        let number = id
            .rsplit('-')
            .next()
            .and_then(|number| number.parse().ok())
            .ok_or_else(|| mismatch(format!("An event has the message id {id:?}.")))?;
        seen.mark(number)?;
        let row = shape.row(number);
        let Some(want) = &row.event else {
            continue;
        };
        let custom = &data["custom_attributes"];
        let who = &batch["user_identities"];
        for (name, found, want) in [
            ("customer_id", &who["customer_id"], row.customer_id.as_str()),
            ("email", &who["email"], &row.email),
            ("brand", &batch["device_info"]["brand"], row.brand),
            ("event_name", &data["event_name"], want.name),
            ("custom_event_type", &data["custom_event_type"], want.kind),
            ("category", &custom["looker_events.category"], want.category),
            ("page", &custom["looker_events.page"], &want.page),
            ("price", &custom["looker_events.price"], &want.price),
            (
                "timestamp_unixtime_ms",
                &data["timestamp_unixtime_ms"],
                &want.timestamp_ms.to_string(),
            ),
        ] {
            same(number, name, found, want)?;
        }
        let attributes = &batch["user_attributes"];
        if !attributes.is_null() {
            same(number, "plan", &attributes["looker_users.plan"], row.plan)?;
            let value = &attributes["looker_users.ltv"];
            same(number, "ltv", value, &row.lifetime_value)?;
        }
    }
    Ok(())
}

fn profile(shape: &Shape, batch: &Value, seen: &mut Seen) -> Result<(), Mismatch> {
    let attributes = &batch["user_attributes"];
    let number = attributes["looker_users.visits"]
        .as_u64()
        .ok_or_else(|| mismatch(format!("A profile has no visits: {batch}.")))?;
    let row = shape.row(number);
    seen.mark(row.user)?;
    let who = &batch["user_identities"];
    for (name, found, want) in [
        ("customer_id", &who["customer_id"], row.customer_id.as_str()),
        ("email", &who["email"], &row.email),
        ("brand", &batch["device_info"]["brand"], row.brand),
        ("plan", &attributes["looker_users.plan"], row.plan),
        ("ltv", &attributes["looker_users.ltv"], &row.lifetime_value),
    ] {
        same(number, name, found, want)?;
    }
    let next = number + shape.users.max(1);
    if next < shape.rows && shape.order == super::RowOrder::Interleaved {
        return Err(mismatch(format!(
            "User {} has the values of row {number}, but row {next} came later.",
            row.user
        )));
    }
    Ok(())
}

fn same(row: u64, name: &str, found: &Value, want: &str) -> Result<(), Mismatch> {
    let equal = match found {
        Value::String(text) => text == want,
        // Equal numbers may be spelled differently once parsed.
        Value::Number(number) => {
            let number = number.to_string();
            number == want || number.parse::<f64>().ok() == want.parse::<f64>().ok()
        }
        _ => false,
    };
    if equal {
        return Ok(());
    }
    Err(mismatch(format!(
        "Row {row} has {name} {found}, and {want:?} was sent."
    )))
}

fn mismatch(what: String) -> Mismatch {
    Mismatch { what }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_a_doubled_and_a_changed_row_are_found() {
        let shape = Shape {
            rows: 2,
            users: 2,
            ..Shape::default()
        };
        let batch = |number: u64, category: &str| {
            let row = shape.row(number);
            let event = row.event.unwrap();
            serde_json::json!({
                "user_identities": {"customer_id": row.customer_id, "email": row.email},
                "device_info": {"brand": row.brand},
                "events": [{"data": {
                    "source_message_id": format!("00-{number}"),
                    "event_name": event.name, "custom_event_type": event.kind,
                    "timestamp_unixtime_ms": event.timestamp_ms,
                    "custom_attributes": {"looker_events.category": category,
                        "looker_events.page": event.page,
                        "looker_events.price": event.price.parse::<f64>().unwrap()},
                }}],
            })
            .to_string()
        };
        let category = |number| shape.row(number).event.unwrap().category;
        let good = [batch(0, category(0)), batch(1, category(1))];
        let check = |batches: &[String]| audit(&shape, batches.iter().map(String::as_bytes));
        assert_eq!(check(&good), Ok(2));
        for (batches, what) in [
            (vec![good[0].clone()], "did not arrive"),
            (vec![good[0].clone(), good[0].clone()], "twice"),
            (vec![batch(0, "else"), good[1].clone()], "category"),
            (vec![batch(2, category(2)), good[1].clone()], "never sent"),
        ] {
            let told = check(&batches).unwrap_err().what;
            assert!(told.contains(what), "{told}");
        }
    }
}
