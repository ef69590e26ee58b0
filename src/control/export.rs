//! Downloads as JSON lines and as CSV, read from the daemon part by part while the client takes them, so
//! that their size costs no memory.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use axum::body::Body;
use axum::http::Response;
use axum::http::header::{CONTENT_DISPOSITION, HeaderValue};
use bytes::Bytes;
use serde::Serialize;

use super::answer::{Failure, content, json};
use super::csv::{self, Record};
use super::daemon::{Daemon, Page, Problem};
use super::request::Format;
use super::shared::Shared;
use super::view::Listing;

/// Dead letters read at once: a batch has up to 128 KB.
const LETTERS: usize = 16;

/// Rejected rows read at once: a row has up to 64 KB.
pub(super) const ROWS: usize = 32;

/// Entries of other lists read at once.
pub(super) const ENTRIES: usize = 500;

const JSONL: &str = "application/jsonl";

/// A part of a list, as lines.
type Part = (VecDeque<Bytes>, Option<String>);

/// All dead letters of a delivery, or of all, with their batches.
pub(super) async fn dead_letters(
    shared: Arc<Shared>,
    delivery: Option<String>,
) -> Result<Response<Body>, Failure> {
    let read = move |daemon: &dyn Daemon, after: Option<String>| {
        let page = Page {
            after,
            limit: LETTERS,
        };
        let listing = daemon.dead_letters(delivery.as_deref(), &page)?;
        let mut items = Vec::with_capacity(listing.items.len());
        for letter in listing.items {
            match daemon.dead_letter(&letter.id) {
                Ok(letter) => items.push(letter),
                // Replayed or discarded since the list was read.
                Err(Problem::Unknown(_)) => {}
                Err(problem) => return Err(problem),
            }
        }
        let next = listing.next;
        lines(&Listing { items, next })
    };
    stream(shared, read, None, JSONL, "looker-feed-dead-letters.jsonl").await
}

/// All rejected rows that were kept of a delivery.
pub(super) async fn rejected(
    shared: Arc<Shared>,
    delivery: String,
) -> Result<Response<Body>, Failure> {
    let read = move |daemon: &dyn Daemon, after: Option<String>| {
        let page = Page { after, limit: ROWS };
        lines(&daemon.rejected(&delivery, &page)?)
    };
    stream(shared, read, None, JSONL, "looker-feed-rejected-rows.jsonl").await
}

/// A list as it is asked for: the JSON of a page, or CSV from there on. See [`csv`].
pub(super) async fn list<T, R>(
    shared: Arc<Shared>,
    (page, limit, format): (Page, Option<usize>, Format),
    at_once: usize,
    file: &'static str,
    read: R,
) -> Result<Response<Body>, Failure>
where
    T: Record + Serialize + Send,
    R: Fn(&dyn Daemon, &Page) -> Result<Listing<T>, Problem> + Clone + Send + Sync + 'static,
{
    if format == Format::Csv {
        return csv(shared, (page.after, limit), at_once, file, read).await;
    }
    json(&shared.calls.ask(move |daemon| read(daemon, &page)).await?)
}

/// A list as CSV: from `after` on, `limit` entries, or all of them, `at_once` in a part.
pub(super) async fn csv<T, R>(
    shared: Arc<Shared>,
    (after, limit): (Option<String>, Option<usize>),
    at_once: usize,
    file: &'static str,
    read: R,
) -> Result<Response<Body>, Failure>
where
    T: Record,
    R: Fn(&dyn Daemon, &Page) -> Result<Listing<T>, Problem> + Clone + Send + Sync + 'static,
{
    let begin = after.clone();
    let left = Arc::new(AtomicUsize::new(limit.unwrap_or(usize::MAX)));
    let read = move |daemon: &dyn Daemon, next: Option<String>| {
        let is_first = next == begin;
        let page = Page {
            after: next,
            limit: at_once.min(left.load(Relaxed)),
        };
        let listing = read(daemon, &page)?;
        let mut lines = VecDeque::with_capacity(listing.items.len() + 1);
        if is_first {
            lines.push_back(Bytes::from(csv::head::<T>()));
        }
        let records = listing.items.iter().map(csv::record);
        lines.extend(records.map(Bytes::from));
        let before = left.fetch_sub(listing.items.len(), Relaxed);
        let is_full = before <= listing.items.len();
        Ok((lines, listing.next.filter(|_| !is_full)))
    };
    stream(shared, read, after, csv::CONTENT_TYPE, file).await
}

/// The first part is read before the answer begins, so that what fails at once has a status. What
/// fails later cuts the connection: a download that ends well is whole.
async fn stream<R>(
    shared: Arc<Shared>,
    read: R,
    after: Option<String>,
    kind: &'static str,
    file: &'static str,
) -> Result<Response<Body>, Failure>
where
    R: Fn(&dyn Daemon, Option<String>) -> Result<Part, Problem> + Clone + Send + Sync + 'static,
{
    let ask = move |after: Option<String>| {
        let (shared, read) = (Arc::clone(&shared), read.clone());
        async move { shared.calls.ask(move |daemon| read(daemon, after)).await }
    };
    let first = ask(after).await?;
    let stream = futures::stream::try_unfold(first, move |(mut lines, mut next)| {
        let ask = ask.clone();
        async move {
            // A part can be empty and not the last.
            while lines.is_empty() {
                let Some(after) = next.take() else {
                    return Ok(None);
                };
                (lines, next) = ask(Some(after)).await.map_err(io::Error::other)?;
            }
            let line = lines.pop_front();
            Ok::<_, io::Error>(line.map(|line| (line, (lines, next))))
        }
    });
    let mut response = content(kind, Body::from_stream(stream));
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{file}\"")) {
        response.headers_mut().insert(CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

fn lines<T: Serialize>(listing: &Listing<T>) -> Result<Part, Problem> {
    let line = |item: &T| {
        let mut line = serde_json::to_vec(item).map_err(|error| {
            Problem::Failed(format!("An entry cannot be written as JSON: {error}"))
        })?;
        // A batch stands as it was sent, and white space between its tokens may break lines.
        for byte in &mut line {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        line.push(b'\n');
        Ok(Bytes::from(line))
    };
    let lines: Result<_, Problem> = listing.items.iter().map(line).collect();
    Ok((lines?, listing.next.clone()))
}
