//! Lists over the whole history: deliveries by filter, the runs of schedules, and dead letters and
//! rejected rows by reason.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::extract::State as Of;
use serde::Deserialize;

use super::answer::{Failure, json};
use super::daemon::{Daemon, Page, Problem};
use super::filter::{Filter, State};
use super::request::{Answer, Format, Name, Params, bad, checked, name, page_of, params};
use super::shared::Shared;
use super::view::{Delivery, Groups};
use super::{export, groups, runs};
use crate::clock::UnixMillis;

/// Longest title and search text, in bytes: a title has at most 400.
const TEXT: usize = 1000;

/// Entries that are read at once from a list.
const PART: usize = 500;

/// Dead letters that are grouped at most; what is behind them is said to be left out.
const LETTERS: usize = 50_000;

/// Rejected rows that are grouped at most, and deliveries that they are read of, the newest first:
/// each delivery is a file.
const ROWS: usize = 20_000;
const FILES: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    after: Option<String>,
    limit: Option<usize>,
    #[serde(default)]
    format: Format,
    state: Option<State>,
    schedule: Option<String>,
    destination: Option<String>,
    from: Option<UnixMillis>,
    until: Option<UnixMillis>,
    search: Option<String>,
}

impl Wanted {
    /// Which deliveries, and which part of them.
    fn read(self) -> Result<(Filter, Page, Option<usize>, Format), Failure> {
        let text = |text: Option<String>| {
            let text = text.filter(|text| !text.is_empty());
            text.map(|text| bounded(text, TEXT)).transpose()
        };
        let filter = Filter {
            state: self.state,
            schedule: text(self.schedule)?,
            destination: text(self.destination)?,
            from: self.from,
            until: self.until,
            search: text(self.search)?,
        };
        let page = page_of(self.after, self.limit)?;
        Ok((filter, page, self.limit, self.format))
    }
}

/// `GET /api/v1/deliveries`.
pub(super) async fn deliveries(Of(shared): Of<Arc<Shared>>, query: Params<Wanted>) -> Answer {
    let (filter, page, limit, format) = params(query)?.read()?;
    if format == Format::Csv {
        let fill = Arc::clone(&shared);
        let read = move |daemon: &dyn Daemon, page: &Page| {
            let mut overview = daemon.overview();
            let mut listing = daemon.deliveries(&filter, page)?;
            fill.complete(&mut overview);
            fill.complete_deliveries(&overview, &mut listing.items, false);
            Ok(listing)
        };
        let part = (page.after, limit);
        let file = "looker-feed-deliveries.csv";
        return export::csv(shared, part, export::ENTRIES, file, read).await;
    }
    let ahead = page.after.is_none() && filter.holds_all_open();
    let both =
        move |daemon: &dyn Daemon| Ok((daemon.overview(), daemon.deliveries(&filter, &page)?));
    let (mut overview, mut listing) = shared.calls.ask(both).await?;
    shared.complete(&mut overview);
    shared.complete_deliveries(&overview, &mut listing.items, ahead);
    json(&listing)
}

/// `GET /api/v1/failed-deliveries`.
pub(super) async fn failed(Of(shared): Of<Arc<Shared>>, query: Params<Wanted>) -> Answer {
    let (filter, page, limit, format) = params(query)?.read()?;
    if filter.state.is_some() {
        let why = "`state` is for deliveries that came in: those of this list have all failed.";
        return Err(bad(why.to_owned()));
    }
    let read = move |daemon: &dyn Daemon, page: &Page| daemon.failed_deliveries(&filter, page);
    let (part, file) = ((page, limit, format), "looker-feed-failed-deliveries.csv");
    export::list(shared, part, export::ENTRIES, file, read).await
}

fn bounded(text: String, most: usize) -> Result<String, Failure> {
    if text.len() <= most {
        return Ok(text);
    }
    Err(bad(format!(
        "A text in the address has more than {most} bytes."
    )))
}

/// `GET /api/v1/deliveries/{id}`.
pub(super) async fn delivery(Of(shared): Of<Arc<Shared>>, id: Name) -> Answer {
    let id = name(id)?;
    let asked = shared.calls.ask(move |daemon| {
        let delivery = daemon.delivery(&id)?;
        let ahead = behind_others(daemon, &delivery)?;
        Ok((daemon.overview(), delivery, ahead))
    });
    let (mut overview, delivery, ahead) = asked.await?;
    shared.complete(&mut overview);
    // What stands before it is known from the list; if it is not there, only its own state is.
    let found = ahead.iter().any(|one| one.id == delivery.id);
    let mut all = if found { ahead } else { vec![delivery.clone()] };
    shared.complete_deliveries(&overview, &mut all, found);
    let listed = all.into_iter().find(|one| one.id == delivery.id);
    json(&Delivery {
        link: delivery.link,
        ..listed.unwrap_or_default()
    })
}

/// The newest open deliveries of the same destination, when this one is open.
fn behind_others(daemon: &dyn Daemon, delivery: &Delivery) -> Result<Vec<Delivery>, Problem> {
    if !matches!(delivery.state.as_str(), "waiting" | "sending") {
        return Ok(Vec::new());
    }
    let filter = Filter {
        state: Some(State::Open),
        destination: Some(delivery.destination.clone()),
        ..Filter::default()
    };
    Ok(daemon.deliveries(&filter, &Page::first(PART))?.items)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    after: Option<String>,
    limit: Option<usize>,
}

/// `GET /api/v1/audit`.
pub(super) async fn audit(Of(shared): Of<Arc<Shared>>, query: Params<Part>) -> Answer {
    let part = params(query)?;
    let page = page_of(part.after, part.limit)?;
    json(&shared.audited(page).await?)
}

/// `GET /api/v1/schedules`.
pub(super) async fn schedules(Of(shared): Of<Arc<Shared>>) -> Answer {
    let asked = shared.calls.ask(|daemon| {
        let mut runs = runs::Runs::default();
        daemon.on_record(&mut |delivery| {
            runs.add(delivery);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(runs.ended(daemon.now()))
    });
    json(&asked.await?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfDelivery {
    delivery: Option<String>,
}

/// `GET /api/v1/dead-letters/groups`.
pub(super) async fn letter_groups(
    Of(shared): Of<Arc<Shared>>,
    query: Params<OfDelivery>,
) -> Answer {
    let delivery = params(query)?.delivery.map(checked).transpose()?;
    let asked = shared.calls.ask(move |daemon| {
        let mut groups = groups::Groups::default();
        let (mut after, mut seen) = (None, 0);
        loop {
            let page = Page { after, limit: PART };
            let part = daemon.dead_letters(delivery.as_deref(), &page)?;
            seen += part.items.len();
            part.items.iter().for_each(|letter| groups.letter(letter));
            after = part.next;
            if after.is_none() || seen >= LETTERS {
                break;
            }
        }
        Ok(Groups {
            groups: groups.ended(),
            partial: after.is_some(),
        })
    });
    json(&asked.await?)
}

/// `GET /api/v1/rejected-rows/groups`.
pub(super) async fn rejected_groups(Of(shared): Of<Arc<Shared>>) -> Answer {
    let asked = shared.calls.ask(|daemon| {
        let mut groups = groups::Groups::default();
        let (mut files, mut seen, mut partial) = (0, 0, false);
        daemon.on_record(&mut |delivery| {
            if delivery.rows.rejected == 0 {
                return Ok(ControlFlow::Continue(()));
            }
            if files == FILES || seen >= ROWS {
                partial = true;
                return Ok(ControlFlow::Break(()));
            }
            files += 1;
            let mut after = None;
            loop {
                let page = Page { after, limit: PART };
                let part = match daemon.rejected(&delivery.id, &page) {
                    // Forgotten since the list was read.
                    Err(Problem::Unknown(_)) => break,
                    part => part?,
                };
                seen += part.items.len();
                for row in &part.items {
                    groups.row(&row.reason, &row.text, &delivery.id, &delivery.title);
                }
                after = part.next;
                if after.is_none() || seen >= ROWS {
                    partial |= after.is_some();
                    break;
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(Groups {
            groups: groups.ended(),
            partial,
        })
    });
    json(&asked.await?)
}
