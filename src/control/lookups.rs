//! The calls that look for a person, erase one, and ask how far that is.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Request, State};
use serde::Deserialize;

use super::answer::{Failure, json, told};
use super::people::Person;
use super::request::{Answer, Name, bad, body, name};
use super::shared::Shared;

/// Identities of one call.
const MOST: usize = 20;

/// Bytes of an identity. mParticle takes no longer one.
const LONGEST: usize = 1024;

/// Bytes of a request's body.
const BODY: usize = 64 << 10;

/// Characters of a reference.
const REFERENCE: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    identities: BTreeMap<String, String>,
    reference: Option<String>,
}

async fn person(request: Request) -> Result<Person, Failure> {
    let asked: Asked = body(request, BODY).await?;
    if asked.identities.is_empty() || asked.identities.len() > MOST {
        return Err(bad(format!(
            "`identities` has 1 to {MOST} members, such as {{\"email\": \"…\", \"customer_id\": \"…\"}}."
        )));
    }
    let mut identities = Vec::new();
    for (name, value) in asked.identities {
        let value = value.trim().to_owned();
        if value.is_empty() || value.len() > LONGEST || value.chars().any(char::is_control) {
            let name = name.escape_debug();
            let said = format!("The identity `{name}` has 1 to {LONGEST} visible characters.");
            return Err(bad(said));
        }
        identities.push((name, value));
    }
    let reference = asked.reference.filter(|text| !text.trim().is_empty());
    let is_odd =
        |text: &String| text.chars().count() > REFERENCE || text.chars().any(char::is_control);
    if reference.as_ref().is_some_and(is_odd) {
        let said = format!("`reference` has at most {REFERENCE} visible characters.");
        return Err(bad(said));
    }
    Ok(Person {
        identities,
        reference,
    })
}

pub(super) async fn find(State(shared): State<Arc<Shared>>, request: Request) -> Answer {
    let person = person(request).await?;
    let begun = shared.calls.ask(move |daemon| daemon.find(&person)).await?;
    told(&begun, &begun.message)
}

pub(super) async fn erase(State(shared): State<Arc<Shared>>, request: Request) -> Answer {
    let person = person(request).await?;
    tracing::warn!("an operator erases a person");
    let asked = shared.calls.ask(move |daemon| daemon.erase(&person));
    let begun = asked.await?;
    told(&begun, &begun.message)
}

pub(super) async fn lookups(State(shared): State<Arc<Shared>>) -> Answer {
    json(&shared.calls.ask(|daemon| daemon.lookups()).await?)
}

pub(super) async fn lookup(State(shared): State<Arc<Shared>>, id: Name) -> Answer {
    let id = name(id)?;
    json(&shared.calls.ask(move |daemon| daemon.lookup(&id)).await?)
}
