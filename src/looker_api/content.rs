//! Results and fields: what a preview needs.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::client::{Call, LookerApi, text};
use super::error::ApiError;

/// The format that holds fields and tags beside the rows.
const FORMAT: &str = "json_detail";
/// Bytes of a result with few rows: wide ones have large cells.
const RESULT_BYTES: usize = 256 << 20;

/// A field of an Explore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExploreField {
    /// `view.field`
    pub name: String,
    /// `dimension` or `measure`.
    pub kind: &'static str,
    /// As people see it.
    pub label: String,
    /// LookML tags, in order.
    pub tags: Vec<String>,
    /// Not offered to people.
    pub hidden: bool,
}

#[derive(Deserialize)]
struct Explore {
    fields: Option<Fields>,
}

#[derive(Deserialize)]
struct Fields {
    dimensions: Option<Vec<Raw>>,
    measures: Option<Vec<Raw>>,
}

#[derive(Deserialize)]
struct Raw {
    name: String,
    label: Option<String>,
    tags: Option<Vec<String>>,
    hidden: Option<bool>,
}

impl LookerApi {
    /// Runs a Look; at most `rows` rows come back, as a `json_detail` document.
    pub async fn run_look(&self, id: &str, rows: u64) -> Result<Bytes, ApiError> {
        let path = ["looks", id, "run", FORMAT];
        self.run(&path, rows, &format!("the Look {id}")).await
    }

    /// Runs a query, named by its id or by its slug (the `qid` of an Explore's address).
    pub async fn run_query(&self, name: &str, rows: u64) -> Result<Bytes, ApiError> {
        let what = format!("the query {name}");
        let id = match name.bytes().all(|byte| byte.is_ascii_digit()) {
            true => name.to_owned(),
            false => {
                let path = ["queries", "slug", name];
                let fields = [("fields", "id")];
                let call = Call {
                    query: &fields,
                    ..Call::get(&path, "see this query", &what)
                };
                let query: Value = self.ask(call).await?;
                text(&query["id"]).ok_or(ApiError::NotFound { what: what.clone() })?
            }
        };
        self.run(&["queries", &id, "run", FORMAT], rows, &what)
            .await
    }

    async fn run(&self, path: &[&str], rows: u64, what: &str) -> Result<Bytes, ApiError> {
        let rows = rows.to_string();
        let query = [("limit", rows.as_str())];
        let call = Call {
            query: &query,
            most: RESULT_BYTES,
            ..Call::get(path, "run this query", what)
        };
        self.raw(call).await
    }

    /// The fields of an Explore, with their tags.
    pub async fn explore(&self, model: &str, explore: &str) -> Result<Vec<ExploreField>, ApiError> {
        let path = ["lookml_models", model, "explores", explore];
        let names = format!("the Explore {model}/{explore}");
        let fields = [("fields", "fields")];
        let call = Call {
            query: &fields,
            most: RESULT_BYTES,
            ..Call::get(&path, "see this Explore", &names)
        };
        let explore: Explore = self.ask(call).await?;
        let Some(fields) = explore.fields else {
            return Ok(Vec::new());
        };
        let of = |kind: &'static str, raw: Option<Vec<Raw>>| {
            raw.unwrap_or_default()
                .into_iter()
                .map(move |field| ExploreField {
                    label: field.label.unwrap_or_else(|| field.name.clone()),
                    name: field.name,
                    kind,
                    tags: field.tags.unwrap_or_default(),
                    hidden: field.hidden.unwrap_or(false),
                })
        };
        let dimensions = of("dimension", fields.dimensions);
        Ok(dimensions.chain(of("measure", fields.measures)).collect())
    }
}
