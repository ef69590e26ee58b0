//! `find` and `erase`: a person by some of their identities. Both begin something in the daemon and follow it
//! to its end.

use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};

use super::outcome::{Failure, Found};
use super::screen::{Screen, dash, number};
use crate::cli::client::{Client, DaemonArgument};
use crate::cli::summary::bytes;
use crate::control::people::{Lookup, Place};

/// How often it is asked how far it is.
const LOOK: Duration = Duration::from_millis(500);

/// Whoever has one of these identities.
#[derive(Debug, Args)]
#[group(id = "whom", required = true, multiple = true)]
pub struct Whom {
    /// Customer id
    #[arg(long, value_name = "ID")]
    customer_id: Option<String>,
    /// E-mail address; capitals make no difference
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// mParticle's own id
    #[arg(long, value_name = "NUMBER")]
    mpid: Option<String>,
    /// Any other identity, by mParticle's name: mobile_number, facebook, other_id_2; can be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    identity: Vec<(String, String)>,
}

/// `find`
#[derive(Debug, Args)]
pub struct Find {
    #[command(flatten)]
    pub(super) daemon: DaemonArgument,
    #[command(flatten)]
    whom: Whom,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// `erase`
#[derive(Debug, Args)]
pub struct Erase {
    #[command(flatten)]
    pub(super) daemon: DaemonArgument,
    #[command(flatten)]
    whom: Whom,
    /// What the audit log calls the request, such as its number; never the person's name
    #[arg(long, value_name = "TEXT")]
    reference: Option<String>,
    /// Needed: what is erased cannot be brought back
    #[arg(long)]
    yes: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, value)| !name.is_empty() && !value.is_empty())
        .ok_or("it is a name and a value, like mobile_number=+15550100")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Whom {
    fn identities(&self) -> Map<String, Value> {
        let named = [
            ("customer_id", &self.customer_id),
            ("email", &self.email),
            ("mpid", &self.mpid),
        ];
        let named = named
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), json!(value.as_ref()?))));
        let others = self.identity.iter();
        named
            .chain(others.map(|(name, value)| (name.clone(), json!(value))))
            .collect()
    }
}

/// Says in which deliveries the person is.
pub(super) async fn find(
    client: &Client,
    screen: &mut Screen<'_>,
    arguments: &Find,
) -> Result<Found, Failure> {
    let body = json!({ "identities": arguments.whom.identities() });
    let begun: Lookup = client.post(&["people", "find"], &body).await?;
    let (ended, text) = follow(client, screen, begun, arguments.json).await?;
    if arguments.json {
        screen.json(&text)?;
    } else {
        screen.line(&ended.message)?;
        if !ended.places.is_empty() {
            places(screen, &ended.places)?;
        }
    }
    over(&ended)?;
    Ok(Found::of(ended.places.len() as u64))
}

/// Erases the person.
pub(super) async fn erase(
    client: &Client,
    screen: &mut Screen<'_>,
    arguments: &Erase,
) -> Result<Found, Failure> {
    if !arguments.yes {
        return Err(Failure::Usage(
            "what is erased is not sent and cannot be brought back: look with `find` first, and add --yes"
                .into(),
        ));
    }
    let body = json!({
        "identities": arguments.whom.identities(),
        "reference": arguments.reference,
    });
    let begun: Lookup = client.post(&["people", "erase"], &body).await?;
    let (ended, text) = follow(client, screen, begun, arguments.json).await?;
    if arguments.json {
        screen.json(&text)?;
    } else {
        screen.line(&ended.message)?;
    }
    over(&ended)?;
    Ok(Found::Something)
}

/// Until it has ended; on a terminal it says how far it is.
async fn follow(
    client: &Client,
    screen: &mut Screen<'_>,
    begun: Lookup,
    quiet: bool,
) -> Result<(Lookup, String), Failure> {
    let path = ["people", "lookups", &begun.id];
    let mut said = String::new();
    loop {
        let text = client.text(&path, &[]).await?;
        let now: Lookup = client.read(&text)?;
        if now.finished.is_some() {
            return Ok((now, text));
        }
        let line = match now.state.as_str() {
            "waiting" => "Waits for requests under way, or for deliveries that are being received."
                .to_owned(),
            _ => {
                let (read, all) = (bytes(now.read_bytes), bytes(now.total_bytes));
                format!("{read} of {all} read.")
            }
        };
        if screen.terminal && !quiet && line != said {
            screen.line(&line)?;
            screen.flush()?;
            said = line;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn over(ended: &Lookup) -> Result<(), Failure> {
    match ended.state.as_str() {
        "done" => Ok(()),
        _ => Err(Failure::Usage(format!("it did not end: {}", ended.message))),
    }
}

fn places(screen: &mut Screen<'_>, places: &[Place]) -> Result<(), Failure> {
    let cells = |place: &Place| {
        vec![
            place.delivery.clone(),
            number(place.waiting + place.in_flight),
            number(place.decided),
            number(place.dead),
            number(place.rejected),
            place.noted.clone().unwrap_or_else(dash),
            place.title.clone(),
        ]
    };
    let rows: Vec<_> = places.iter().map(cells).collect();
    let head = [
        "DELIVERY", "WAITING", "DECIDED", "DEAD", "REJECTED", "NOTED", "TITLE",
    ];
    screen.table(&head, &rows, "Nothing was found.")?;
    Ok(())
}
