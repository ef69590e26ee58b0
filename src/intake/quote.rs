//! Text of a request, taken out of it and shown in messages.

use serde_json::Value;

/// Text that is quoted in a message is cut here.
const MAX_QUOTE: usize = 40;

/// A text, or a number as one: Looker sends ids as either.
pub(super) fn text(value: Option<Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Text of a request as a message may show it: short, and without control characters.
pub(super) fn quoted(text: &str) -> String {
    let short: String = text.chars().take(MAX_QUOTE).collect();
    format!("{short:?}")
}
