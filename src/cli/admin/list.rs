//! Lists of the API, read part by part.

use clap::Args;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::outcome::Failure;
use crate::cli::client::Client;
use crate::control::view::Listing;

/// What is asked of a list.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct ListArguments {
    /// Print JSON: one array
    #[arg(long)]
    pub json: bool,
    /// Print at most so many
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
    pub limit: usize,
}

/// Reads a list part by part, up to the limit; the text is one JSON array of the entries as they
/// came.
pub(super) async fn list<T: DeserializeOwned>(
    client: &Client,
    path: &[&str],
    query: &[(&str, &str)],
    arguments: ListArguments,
) -> Result<(Vec<T>, String), Failure> {
    list_of(client, path, query, arguments, |_| true).await
}

/// The same, of those that `admits` says.
pub(super) async fn list_of<T: DeserializeOwned>(
    client: &Client,
    path: &[&str],
    query: &[(&str, &str)],
    arguments: ListArguments,
    admits: impl Fn(&T) -> bool,
) -> Result<(Vec<T>, String), Failure> {
    let mut items = Vec::new();
    let mut texts: Vec<String> = Vec::new();
    let mut after: Option<String> = None;
    while items.len() < arguments.limit {
        let limit = (arguments.limit - items.len()).min(500).to_string();
        let mut query = query.to_vec();
        query.push(("limit", &limit));
        if let Some(after) = &after {
            query.push(("after", after));
        }
        let part: Listing<Box<RawValue>> = client.get(path, &query).await?;
        for text in part.items {
            let item = client.read(text.get())?;
            if admits(&item) {
                items.push(item);
                texts.push(text.get().to_owned());
            }
        }
        after = part.next;
        if after.is_none() {
            break;
        }
    }
    Ok((items, format!("[{}]", texts.join(",\n"))))
}
