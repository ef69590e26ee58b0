//! What the name and the type of a column in Looker say of the times in it.

use crate::model::Field;

/// Timeframes whose values are the beginning of a longer time, or no time at all.
const COARSE: [&str; 5] = ["week", "month", "quarter", "year", "fiscal"];
/// Words of a name that say that a column holds days.
const DAYS: [&str; 5] = ["date", "day", "dt", "ymd", "yyyymmdd"];

/// Whether a column holds days, so that a number such as 20261120 in it is one.
pub(super) fn holds_days(field: &Field) -> bool {
    let is_date = matches!(field.lookml_type.as_deref(), Some("date" | "date_date"));
    is_date
        || words(dimension(field)).any(|word| DAYS.contains(&word.to_ascii_lowercase().as_str()))
}

/// What to say of a column of times whose timeframe is a week, a month or longer.
pub(super) fn coarse_timeframe(field: &Field) -> Option<String> {
    let typed = field
        .lookml_type
        .as_deref()
        .and_then(|lookml| lookml.strip_prefix("date_"));
    let last = words(dimension(field)).last();
    let found = |text: &str| COARSE.into_iter().find(|coarse| text.contains(coarse));
    let timeframe = typed
        .and_then(found)
        .or_else(|| COARSE.into_iter().find(|coarse| last == Some(coarse)))?;
    Some(format!(
        "its timeframe seems to be {timeframe}, so that its events get the time at which that begins; choose the timeframe time or raw of its dimension group instead"
    ))
}

fn dimension(field: &Field) -> &str {
    field.name.rsplit('.').next().unwrap_or(&field.name)
}

fn words(name: &str) -> impl Iterator<Item = &str> {
    name.split(|letter: char| !letter.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FieldKind;

    #[test]
    fn names_and_types_tell_days_from_weeks() {
        for (name, lookml_type, days, coarse) in [
            ("e.created_date", None, true, None),
            ("e.created", Some("date_date"), true, None),
            ("e.Event_Day", Some("number"), true, None),
            ("e.dt", None, true, None),
            ("date.at", None, false, None),
            ("e.update_id", None, false, None),
            ("e.created_week", None, false, Some("week")),
            (
                "e.created",
                Some("date_fiscal_quarter"),
                false,
                Some("quarter"),
            ),
            ("e.created_time", Some("date_time"), false, None),
            ("month", None, false, Some("month")),
        ] {
            let field = Field {
                name: name.to_owned(),
                kind: FieldKind::Dimension,
                tags: Vec::new(),
                lookml_type: lookml_type.map(str::to_owned),
            };
            assert_eq!(holds_days(&field), days, "{name}");
            let remark = coarse_timeframe(&field);
            let said = coarse.map(|coarse| format!("its timeframe seems to be {coarse},"));
            match (remark, said) {
                (Some(remark), Some(said)) => assert!(remark.starts_with(&said), "{remark}"),
                (remark, said) => assert_eq!(remark, said, "{name}"),
            }
        }
    }
}
