//! Lists of the API, read part by part.

use std::io;

use clap::Args;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::outcome::{Failure, Found};
use super::screen::Screen;
use crate::cli::client::Client;
use crate::control::csv::{self, Record};
use crate::control::view::Listing;

/// What is asked of a list.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct ListArguments {
    /// Print JSON: one array
    #[arg(long)]
    pub json: bool,
    /// Print CSV (RFC 4180) with a head: all of them, if -n does not say how many
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
    /// Print at most so many [default: 50]
    #[arg(long, short = 'n', value_name = "N")]
    pub limit: Option<usize>,
}

impl ListArguments {
    /// A file that is silently cut would mislead; a screen has its end.
    pub fn most(self) -> usize {
        let usual = if self.csv { usize::MAX } else { 50 };
        self.limit.unwrap_or(usual)
    }
}

/// Reads a list part by part, up to the limit; the text is one JSON array of the entries as they
/// came.
pub(super) async fn list<T: DeserializeOwned>(
    client: &Client,
    path: &[&str],
    query: &[(&str, &str)],
    arguments: ListArguments,
) -> Result<(Vec<T>, String), Failure> {
    let mut items = Vec::new();
    let mut texts: Vec<String> = Vec::new();
    each(client, path, query, arguments.most(), |item, text| {
        items.push(item);
        texts.push(text.to_owned());
        Ok(())
    })
    .await?;
    Ok((items, format!("[{}]", texts.join(",\n"))))
}

/// Shows a list as it was asked: as CSV, as JSON, or as this table.
pub(super) async fn show<T: Record + DeserializeOwned>(
    client: &Client,
    screen: &mut Screen<'_>,
    path: &[&str],
    query: &[(&str, &str)],
    arguments: ListArguments,
    table: impl Fn(&mut Screen<'_>, &[T]) -> io::Result<()>,
) -> Result<Found, Failure> {
    if arguments.csv {
        return csv::<T>(client, screen, path, query, arguments).await;
    }
    let (items, text) = list(client, path, query, arguments).await?;
    match arguments.json {
        true => screen.json(&text)?,
        false => table(screen, &items)?,
    }
    Ok(Found::of(items.len() as u64))
}

/// Writes a list as CSV, while it is read.
pub(super) async fn csv<T: Record + DeserializeOwned>(
    client: &Client,
    screen: &mut Screen<'_>,
    path: &[&str],
    query: &[(&str, &str)],
    arguments: ListArguments,
) -> Result<Found, Failure> {
    let mut head = Some(csv::head::<T>());
    let most = arguments.most();
    let count = each(client, path, query, most, |item: T, _| {
        // The daemon has answered.
        if let Some(head) = head.take() {
            screen.csv(&head)?;
        }
        Ok(screen.csv(&csv::record(&item))?)
    })
    .await?;
    if let Some(head) = head.take() {
        screen.csv(&head)?;
    }
    Ok(Found::of(count as u64))
}

/// Hands out entry by entry with its JSON text, at most so many; says how many.
async fn each<T: DeserializeOwned>(
    client: &Client,
    path: &[&str],
    query: &[(&str, &str)],
    most: usize,
    mut take: impl FnMut(T, &str) -> Result<(), Failure>,
) -> Result<usize, Failure> {
    let mut taken = 0;
    let mut after: Option<String> = None;
    while taken < most {
        let limit = (most - taken).min(500).to_string();
        let mut query = query.to_vec();
        query.push(("limit", &limit));
        if let Some(after) = &after {
            query.push(("after", after));
        }
        let part: Listing<Box<RawValue>> = client.get(path, &query).await?;
        for text in part.items.into_iter().take(most - taken) {
            take(client.read(text.get())?, text.get())?;
            taken += 1;
        }
        after = part.next;
        if after.is_none() {
            break;
        }
    }
    Ok(taken)
}
