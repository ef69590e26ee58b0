//! `deliveries`: those that were committed and those that failed, in one list.

use clap::Args;
use serde::Deserialize;

use super::list::{ListArguments, csv, list, show};
use super::meant::destination_of;
use super::outcome::{Failure, Found};
use super::print::{self, Listed};
use super::screen::Screen;
use super::when::Choice;
use crate::cli::client::{Client, DaemonArgument};
use crate::clock::UnixMillis;
use crate::control::view::{Delivery, FailedDelivery};

/// `deliveries`
#[derive(Debug, Args)]
pub struct Deliveries {
    #[command(flatten)]
    pub(super) daemon: DaemonArgument,
    /// Only those that failed, with their reasons. A CSV file holds these, or without this only those that
    /// were committed
    #[arg(long)]
    failed: bool,
    #[command(flatten)]
    choice: Choice,
    /// Only those to this destination: its id, the beginning of it, or a part of its label
    #[arg(long, value_name = "DESTINATION")]
    destination: Option<String>,
    #[command(flatten)]
    list: ListArguments,
}

/// Lists them, newest first.
pub(super) async fn deliveries(
    client: &Client,
    screen: &mut Screen<'_>,
    arguments: &Deliveries,
) -> Result<Found, Failure> {
    let mut query = arguments.choice.at(UnixMillis::now())?;
    if let Some(wanted) = &arguments.destination {
        query.push(("destination", destination_of(client, wanted).await?));
    }
    let query = query.iter().map(|(name, value)| (*name, &**value));
    let query: Vec<_> = query.collect();
    let (path, failed_path, how) = (["deliveries"], ["failed-deliveries"], arguments.list);
    if arguments.failed {
        return show(client, screen, &failed_path, &query, how, print::failed).await;
    }
    if how.csv {
        return csv::<Delivery>(client, screen, &path, &query, how).await;
    }
    let (failed, failed_text) = list::<FailedDelivery>(client, &failed_path, &query, how).await?;
    let (mut items, text) = list::<Delivery>(client, &path, &query, how).await?;
    if how.json {
        screen.json(&merged(&text, &failed_text, how.most())?)?;
        return Ok(Found::of((items.len() + failed.len()) as u64));
    }
    let failed = failed.into_iter().map(|one| Listed::Failed(Box::new(one)));
    let committed = items.drain(..).map(|one| Listed::Committed(Box::new(one)));
    let mut all: Vec<_> = failed.chain(committed).collect();
    all.sort_by_key(|one| std::cmp::Reverse(one.received()));
    all.truncate(how.most());
    print::deliveries(screen, &all)?;
    Ok(Found::of(all.len() as u64))
}

/// One array of the entries of two, as they came, newest first.
fn merged(one: &str, other: &str, limit: usize) -> Result<String, Failure> {
    #[derive(Deserialize)]
    struct Received {
        received: UnixMillis,
    }
    let mut all = Vec::new();
    for text in [one, other] {
        let items: Vec<Box<serde_json::value::RawValue>> = read(text)?;
        for item in items {
            let received: Received = read(item.get())?;
            all.push((received.received, item));
        }
    }
    all.sort_by_key(|(received, _)| std::cmp::Reverse(*received));
    let texts: Vec<_> = all.iter().take(limit).map(|(_, item)| item.get()).collect();
    Ok(format!("[{}]", texts.join(",\n")))
}

fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Failure> {
    serde_json::from_str(text)
        .map_err(|error| Failure::Usage(format!("the daemon's list cannot be read: {error}")))
}
