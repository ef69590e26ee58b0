//! What is meant by the beginning of an id, or by a part of a label: tables show no more of an id than tells
//! deliveries apart.

use serde::Deserialize;

use super::list::{ListArguments, list};
use super::outcome::Failure;
use crate::cli::client::{Client, ClientError};
use crate::control::view::Overview;

/// One of a list, by its id.
#[derive(Deserialize)]
struct Listed {
    id: String,
}

/// The id of the delivery that begins so.
pub(super) async fn whole_id(client: &Client, begin: &str) -> Result<String, Failure> {
    id_of(client, "deliveries", begin).await
}

/// The same in one of the lists of deliveries.
pub(super) async fn id_of(client: &Client, listed: &str, begin: &str) -> Result<String, Failure> {
    // A whole one, or nothing that an id could begin with.
    let is_begin = begin.len() < 32 && begin.bytes().all(|byte| byte.is_ascii_hexdigit());
    if begin.is_empty() || !is_begin {
        return Ok(begin.to_owned());
    }
    let all = ListArguments {
        json: false,
        csv: false,
        limit: Some(usize::MAX),
    };
    let (deliveries, _) = list::<Listed>(client, &[listed], &[], all).await?;
    let ids = deliveries.into_iter().map(|delivery| delivery.id);
    let fits: Vec<_> = ids.filter(|id| id.starts_with(begin)).collect();
    match fits.as_slice() {
        [one] => Ok(one.clone()),
        [] => Ok(begin.to_owned()),
        many => Err(Failure::Usage(format!(
            "`{begin}` begins the ids of {} deliveries: give more of it",
            many.len()
        ))),
    }
}

/// The same for a delivery that may be named.
pub(super) async fn whole_ids(
    client: &Client,
    begin: Option<&str>,
) -> Result<Option<String>, Failure> {
    match begin {
        Some(begin) => Ok(Some(whole_id(client, begin).await?)),
        None => Ok(None),
    }
}

/// The id of the one destination that is meant: by its id, the beginning of it, or a part of its label.
pub(super) async fn destination_of(client: &Client, wanted: &str) -> Result<String, Failure> {
    let now: Overview = client.get(&["overview"], &[]).await?;
    let fits = |exact: bool| {
        now.destinations
            .iter()
            .filter(move |destination| match exact {
                true => destination.id == wanted,
                false => destination.id.starts_with(wanted) || destination.label.contains(wanted),
            })
    };
    let mut found: Vec<_> = fits(true).collect();
    if found.is_empty() && !wanted.is_empty() {
        found = fits(false).collect();
    }
    match found[..] {
        [destination] => Ok(destination.id.clone()),
        [] => {
            let why =
                format!("There is no destination `{wanted}`: `looker-feed status` lists them.");
            Err(ClientError::NotFound(why).into())
        }
        _ => Err(Failure::Usage(format!(
            "`{wanted}` fits {} destinations: give an id",
            found.len()
        ))),
    }
}
