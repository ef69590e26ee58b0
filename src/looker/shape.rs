//! Generated deliveries: how many rows and users, and the document that Looker would send.

use bytes::Bytes;
use serde_json::json;

use super::row::{self, Event, ExpectedRow, User, Word};
use crate::model::{DataType, FieldKind};

/// Bytes of a chunk, about.
const CHUNK: usize = 64 << 10;

/// No generated row is longer, pretty or not.
const LONGEST_ROW: usize = 2 << 10;

/// A delivery that can be generated. Equal shapes give equal bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Rows of the delivery.
    pub rows: u64,
    /// Distinct users among them; all occur when there are as many rows. 0 is taken as 1.
    pub users: u64,
    /// Makes other values of the same form.
    pub seed: u64,
    /// Events: 11 columns, about 413 bytes a row. Users: 7 columns.
    pub data_type: DataType,
    /// Where the rows of a user stand.
    pub order: RowOrder,
    /// Indented over many lines, as some Looker versions do; else no space at all.
    pub pretty: bool,
}

/// Where the rows of a user stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowOrder {
    /// Spread over the whole delivery, as far from each other as can be.
    Interleaved,
    /// One after the other.
    Sorted,
}

/// A column of a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// `view.dimension`
    pub name: &'static str,
    /// The one `mp_` tag.
    pub tag: &'static str,
    /// Which list of `fields` it stands in.
    pub kind: FieldKind,
    /// Whether its values are JSON numbers; else strings.
    pub is_number: bool,
}

impl Default for Shape {
    /// 100,000 events, 5 a user, interleaved, not indented.
    fn default() -> Self {
        Self {
            rows: 100_000,
            users: 20_000,
            seed: 1,
            data_type: DataType::Event,
            order: RowOrder::Interleaved,
            pretty: false,
        }
    }
}

impl Shape {
    /// What row `number` holds; rows beyond the last have values too.
    pub fn row(&self, number: u64) -> ExpectedRow {
        let user = User::new(self.seed, self.user_of(number));
        row::expected(user, number, self.data_type == DataType::Event)
    }

    /// The columns, in the order of their keys in a row.
    pub fn columns(&self) -> &'static [Column] {
        match self.data_type {
            DataType::Event => &EVENT_COLUMNS,
            DataType::User => &USER_COLUMNS,
        }
    }

    /// Which user row `number` belongs to, from 0.
    fn user_of(&self, number: u64) -> u64 {
        let users = self.users.max(1);
        match self.order {
            RowOrder::Interleaved => number % users,
            RowOrder::Sorted if self.rows <= users => number,
            RowOrder::Sorted => {
                (u128::from(number) * u128::from(users) / u128::from(self.rows)) as u64
            }
        }
    }
}

/// The result document of a shape in chunks of about 64 KiB: metadata first, `data` last.
pub fn document(shape: &Shape) -> impl Iterator<Item = Bytes> + Send + use<> {
    Document {
        pieces: Pieces::new(shape),
        shape: shape.clone(),
        next_row: 0,
        stage: Stage::Header,
    }
}

const fn column(name: &'static str, tag: &'static str, kind: FieldKind, is_number: bool) -> Column {
    Column {
        name,
        tag,
        kind,
        is_number,
    }
}

use FieldKind::{Dimension, Measure};

static EVENT_COLUMNS: [Column; 11] = [
    column("users.id", "mp_customer_id", Dimension, false),
    column("users.email", "mp_email", Dimension, false),
    column("events.name", "mp_event_name", Dimension, false),
    column("events.type", "mp_custom_event_type", Dimension, false),
    column("events.time", "mp_timestamp_unixtime_ms", Dimension, true),
    column("events.category", "mp_custom_attribute", Dimension, false),
    column("events.page", "mp_custom_attribute", Dimension, false),
    column("users.plan", "mp_user_attribute", Dimension, false),
    column("devices.brand", "mp_device_info", Dimension, false),
    column("events.price", "mp_custom_attribute", Measure, true),
    column("users.ltv", "mp_user_attribute", Measure, true),
];

static USER_COLUMNS: [Column; 7] = [
    column("users.id", "mp_customer_id", Dimension, false),
    column("users.email", "mp_email", Dimension, false),
    column("users.plan", "mp_user_attribute", Dimension, false),
    column("users.country", "mp_user_attribute", Dimension, false),
    column("devices.brand", "mp_device_info", Dimension, false),
    column("users.ltv", "mp_user_attribute", Measure, true),
    column("users.visits", "mp_user_attribute", Measure, true),
];

struct Document {
    shape: Shape,
    pieces: Pieces,
    next_row: u64,
    stage: Stage,
}

enum Stage {
    Header,
    Rows,
    Ended,
}

/// All that is the same in every row, written once: piece `i` stands before the value of column
/// `i`, the last one ends the row.
struct Pieces {
    before: Vec<Vec<u8>>,
    between_rows: &'static [u8],
    end: &'static [u8],
}

impl Pieces {
    fn new(shape: &Shape) -> Self {
        let (open, key, value, after, close) = match shape.pretty {
            true => ("\n    {", "\n      ", ": { \"value\": ", " }", "\n    }"),
            false => ("{", "", ":{\"value\":", "}", "}"),
        };
        let mut before = Vec::new();
        let mut piece = String::from(open);
        for column in shape.columns() {
            let quote = if column.is_number { "" } else { "\"" };
            piece += &format!("{key}\"{}\"{value}{quote}", column.name);
            before.push(std::mem::take(&mut piece).into_bytes());
            piece = format!("{quote}{after},");
        }
        piece.pop();
        piece += close;
        before.push(piece.into_bytes());
        Self {
            before,
            between_rows: b",",
            end: if shape.pretty { b"\n  ]\n}\n" } else { b"]}" },
        }
    }
}

impl Iterator for Document {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut out = Vec::with_capacity(CHUNK + LONGEST_ROW);
        match self.stage {
            Stage::Header => {
                out.extend_from_slice(header(&self.shape).as_bytes());
                self.stage = Stage::Rows;
            }
            Stage::Rows => {}
            Stage::Ended => return None,
        }
        while out.len() < CHUNK {
            if self.next_row == self.shape.rows {
                out.extend_from_slice(self.pieces.end);
                self.stage = Stage::Ended;
                break;
            }
            if self.next_row > 0 {
                out.extend_from_slice(self.pieces.between_rows);
            }
            self.write_row(&mut out);
            self.next_row += 1;
        }
        Some(Bytes::from(out))
    }
}

impl Document {
    fn write_row(&self, out: &mut Vec<u8>) {
        let number = self.next_row;
        let user = User::new(self.shape.seed, self.shape.user_of(number));
        let mut cells = Cells {
            pieces: self.pieces.before.iter(),
            out,
        };
        cells.next(|out| user.write_customer_id(out));
        cells.next(|out| user.write_email(out));
        match self.shape.data_type {
            DataType::Event => {
                let event = Event::new(self.shape.seed, number);
                cells.text(event.name());
                cells.text(event.kind());
                cells.next(|out| row::write_number(out, event.timestamp_ms()));
                cells.word(event.category());
                cells.next(|out| event.write_page(out));
                cells.word(user.plan());
                cells.word(user.brand());
                cells.next(|out| event.write_price(out));
                cells.next(|out| user.write_lifetime_value(out));
            }
            DataType::User => {
                cells.word(user.plan());
                cells.word(user.country());
                cells.word(user.brand());
                cells.next(|out| user.write_lifetime_value(out));
                cells.next(|out| row::write_number(out, number));
            }
        }
        cells.next(|_| {});
    }
}

/// Writes the values of a row, each after its piece.
struct Cells<'a> {
    pieces: std::slice::Iter<'a, Vec<u8>>,
    out: &'a mut Vec<u8>,
}

impl Cells<'_> {
    fn next(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(piece) = self.pieces.next() {
            self.out.extend_from_slice(piece);
        }
        write(self.out);
    }

    fn text(&mut self, text: &str) {
        self.next(|out| out.extend_from_slice(text.as_bytes()));
    }

    fn word(&mut self, word: &Word) {
        self.text(word.raw);
    }
}

/// Everything before the first row, keys in the order of the captured streams.
fn header(shape: &Shape) -> String {
    let list = |kind| {
        let columns = shape.columns().iter().filter(|column| column.kind == kind);
        columns.map(field).collect::<Vec<_>>()
    };
    let fields = json!({
        "dimensions": list(Dimension), "measures": list(Measure),
        "pivots": [], "table_calculations": [],
    });
    let filter = json!({"events.time": {
        "value": "NOT NULL", "field": field(&EVENT_COLUMNS[4]),
    }});
    let explore = json!({"description": null, "label": "Events and Users", "name": "events"});
    let sql = "SELECT\n    users.id AS users_customer_id,\n    -- and so on\n    1\nFROM events";
    let keys = "added_params aggregate_table_used_info applied_column_limit applied_filter_expression \
        applied_filters applied_limit cache_key cached_derived_tables can_see_sql column_truncated \
        description errors expired explore fields fill_fields from_cache has_row_totals has_totals \
        name number_format null_sort_treatment pivot_hack_undone ran_at runtime sql sql_explain \
        sql_error supports_pivot_in_db timezone totals_data truncated warnings";
    let mut values = json!({
        "applied_filters": filter, "explore": explore, "fields": fields, "fill_fields": [],
        "has_row_totals": false, "has_totals": false, "runtime": "", "sql": sql, "timezone": "UTC",
    });
    let mut text = String::from("{");
    for key in keys.split(' ') {
        let value = values[key].take();
        if shape.pretty {
            text += &format!("\n  \"{key}\": {value:#},");
        } else {
            text += &format!("\"{key}\":{value},");
        }
    }
    text += if shape.pretty {
        "\n  \"data\": ["
    } else {
        "\"data\":["
    };
    text
}

/// A column's entry in `fields`, with the keys that the captured streams have.
fn field(column: &Column) -> serde_json::Value {
    let (view, dimension) = column.name.split_once('.').unwrap_or(("", column.name));
    let is_measure = column.kind == Measure;
    let mut entry = json!({
        "align": if column.is_number { "right" } else { "left" },
        "can_filter": true, "can_time_filter": false,
        "category": if is_measure { "measure" } else { "dimension" },
        "default_filter_value": null, "description": format!("The {dimension} of {view}"),
        "dimension_group": null, "dynamic": false, "enumerations": null, "error": null,
        "field_group_label": null, "field_group_variant": dimension, "fill_style": null,
        "filters": null, "fiscal_month_offset": 0, "has_allowed_values": false, "hidden": false,
        "is_filter": false, "is_fiscal": false, "is_numeric": column.is_number,
        "is_timeframe": null, "label": format!("{view} {dimension}"), "label_from_parameter": null,
    });
    // In two parts, since the macro's depth is limited.
    let rest = json!({
        "label_short": dimension,
        "lookml_link": format!("/projects/shop/files/views%2F{view}.view.lkml?line=27"),
        "map_layer": null, "measure": is_measure, "name": column.name, "parameter": false,
        "permanent": null, "primary_key": false, "project_name": "shop",
        "requires_refresh_on_sort": false, "scope": view, "sortable": true,
        "source_file": format!("views/{view}.view.lkml"),
        "source_file_path": format!("shop/views/{view}.view.lkml"),
        "sql": format!("TRIM(${{TABLE}}.{dimension}) "), "sql_case": null,
        "strict_value_format": false, "suggest_dimension": column.name, "suggest_explore": "events",
        "suggestable": true, "suggestions": null, "tags": [column.tag], "time_interval": null,
        "type": if column.is_number { "number" } else { "string" },
        "user_attribute_filter_types": ["string", "advanced_filter_string"], "value_format": null,
        "view": view, "view_label": view, "week_start_day": "monday", "times_used": 0,
        "original_view": view, "sorted": null, "synonyms": [],
    });
    if let (Some(entry), serde_json::Value::Object(rest)) = (entry.as_object_mut(), rest) {
        entry.extend(rest);
    }
    entry
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::*;

    fn bytes(shape: &Shape) -> Vec<u8> {
        document(shape).flatten().collect()
    }

    fn shapes() -> Vec<Shape> {
        let mut shapes = Vec::new();
        for data_type in [DataType::Event, DataType::User] {
            for order in [RowOrder::Interleaved, RowOrder::Sorted] {
                for pretty in [false, true] {
                    for (rows, users) in [(0, 5), (1, 1), (1_000, 7), (1_000, 1), (10, 20)] {
                        shapes.push(Shape {
                            rows,
                            users,
                            seed: rows + users,
                            data_type,
                            order,
                            pretty,
                        });
                    }
                }
            }
        }
        shapes
    }

    #[test]
    fn the_document_holds_the_expected_rows() {
        for shape in shapes() {
            let document: Value = serde_json::from_slice(&bytes(&shape)).unwrap();
            let rows = document["data"].as_array().unwrap();
            assert_eq!(rows.len() as u64, shape.rows);
            for (number, row) in rows.iter().enumerate() {
                let expected = shape.row(number as u64);
                let cells: Vec<Value> = shape
                    .columns()
                    .iter()
                    .map(|column| row[column.name]["value"].clone())
                    .collect();
                assert_eq!(cells, values(&expected), "{shape:?} {number}");
                assert_eq!(row.as_object().unwrap().len(), shape.columns().len());
            }
        }
    }

    /// The row's values in column order, put together from the decoded fields.
    fn values(row: &ExpectedRow) -> Vec<Value> {
        let number = |literal: &str| serde_json::from_str::<Value>(literal).unwrap();
        let lifetime_value = number(&row.lifetime_value);
        let mut values = vec![json!(row.customer_id), json!(row.email)];
        match (&row.event, &row.profile) {
            (Some(event), None) => values.extend([
                json!(event.name),
                json!(event.kind),
                json!(event.timestamp_ms),
                json!(event.category),
                json!(event.page),
                json!(row.plan),
                json!(row.brand),
                number(&event.price),
                lifetime_value,
            ]),
            (None, Some(profile)) => values.extend([
                json!(row.plan),
                json!(profile.country),
                json!(row.brand),
                lifetime_value,
                json!(profile.visits),
            ]),
            other => panic!("{other:?}"),
        }
        values
    }

    #[test]
    fn an_event_row_has_about_413_bytes_and_the_header_10_to_25_kb() {
        let shape = Shape {
            rows: 10_000,
            users: 2_000,
            ..Shape::default()
        };
        let header = header(&shape).len();
        assert!((10_000..25_000).contains(&header), "{header}");
        let row = (bytes(&shape).len() - header) / 10_000;
        assert!((405..=421).contains(&row), "{row}");
        assert!(document(&shape).all(|chunk| chunk.len() <= CHUNK + LONGEST_ROW));
    }

    #[test]
    fn all_users_occur_evenly_and_keep_their_values_in_either_order() {
        for order in [RowOrder::Interleaved, RowOrder::Sorted] {
            let shape = Shape {
                rows: 1_003,
                users: 100,
                order,
                ..Shape::default()
            };
            let mut users: BTreeMap<u64, Vec<ExpectedRow>> = BTreeMap::new();
            for number in 0..shape.rows {
                let row = shape.row(number);
                users.entry(row.user).or_default().push(row);
            }
            assert_eq!(users.len(), 100);
            for (_, rows) in users {
                assert!((10..=11).contains(&rows.len()), "{}", rows.len());
                assert!(rows.iter().all(|row| row.email == rows[0].email));
                assert!(
                    rows.iter()
                        .all(|row| row.customer_id == rows[0].customer_id)
                );
            }
        }
    }

    #[test]
    fn the_seed_makes_other_users_and_the_same_seed_the_same_bytes() {
        let shape = |seed| Shape {
            rows: 100,
            seed,
            ..Shape::default()
        };
        assert_eq!(bytes(&shape(1)), bytes(&shape(1)));
        assert_ne!(shape(1).row(0).customer_id, shape(2).row(0).customer_id);
    }
}
