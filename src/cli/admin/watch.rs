//! `status --watch`: on a terminal a screen like that of `top`, in a pipe a line each time.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::frame::{Look, frame};
use super::outcome::{Failure, Found};
use super::screen::Screen;
use super::status;
use crate::causes::with_causes;
use crate::cli::client::{Client, ClientError};
use crate::cli::paint::Paint;
use crate::cli::stop_signal;
use crate::cli::terminal::Terminal;
use crate::clock::UnixMillis;
use crate::control::view::{Delivery, Listing, Overview};

/// How often it looks.
const EVERY: Duration = Duration::from_secs(2);
/// Looks that the line of rates goes back.
const RATES: usize = 60;
/// Deliveries of one kind that a screen could show.
const MOST: usize = 100;

/// Until it is interrupted.
pub(super) async fn watch(
    client: &Client,
    screen: &mut Screen<'_>,
    as_json: bool,
) -> Result<Found, Failure> {
    if screen.terminal && !as_json {
        return on_terminal(client, screen.paint()).await;
    }
    loop {
        let text = client.text(&["overview"], &[]).await?;
        if as_json {
            screen.json(&text)?;
        } else {
            screen.line(&status::summary(&client.read(&text)?))?;
        }
        screen.flush()?;
        tokio::time::sleep(EVERY).await;
    }
}

/// Until `q` is pressed or a signal comes. A daemon that is gone for a while is waited for.
async fn on_terminal(client: &Client, paint: Paint) -> Result<Found, Failure> {
    let failed = |error| Failure::Output("the terminal".into(), error);
    // One that is not there at all is said at once, and not on a screen that goes with the message.
    let mut shown = look(client).await?;
    let mut rates = VecDeque::new();
    remember(&mut rates, &shown.0);
    let mut silent: Option<(UnixMillis, String)> = None;
    let stop = stop_signal();
    let mut stop = std::pin::pin!(stop);
    let mut resized = signal(SignalKind::window_change()).map_err(failed)?;
    let mut terminal = Terminal::take().map_err(failed)?;
    let mut keys = terminal.keys();
    let mut next = Box::pin(after(EVERY, client));
    let ended = loop {
        let lines = frame(
            &Look {
                now: &shown.0,
                deliveries: &shown.1,
                rates: rates.make_contiguous(),
                silent: silent.as_ref().map(|(since, why)| (*since, &**why)),
                clock: UnixMillis::now(),
            },
            terminal.size(),
            paint,
        );
        if let Err(error) = terminal.draw(&lines) {
            break Err(failed(error));
        }
        tokio::select! {
            key = keys.next() => match key {
                b'q' | b'Q' => break Ok(Found::Something),
                b' ' => next = Box::pin(after(Duration::ZERO, client)),
                _ => {}
            },
            _ = &mut stop => break Ok(Found::Something),
            _ = resized.recv() => {}
            looked = &mut next => {
                match looked {
                    Ok(now) => {
                        remember(&mut rates, &now.0);
                        shown = now;
                        silent = None;
                    }
                    Err(error) => {
                        let since = silent.map_or(shown.0.now, |(since, _)| since);
                        silent = Some((since, with_causes(&error)));
                    }
                }
                next = Box::pin(after(EVERY, client));
            }
        }
    };
    drop(next);
    keys.end().await;
    ended
}

/// What is shown, after a wait.
async fn after(wait: Duration, client: &Client) -> Result<(Overview, Vec<Delivery>), ClientError> {
    tokio::time::sleep(wait).await;
    look(client).await
}

/// The overview, deliveries that are not over, and the latest that are.
async fn look(client: &Client) -> Result<(Overview, Vec<Delivery>), ClientError> {
    let now = client.get(&["overview"], &[]).await?;
    let mut all = Vec::new();
    let limit = MOST.to_string();
    for state in ["open", "done"] {
        let query = [("state", state), ("limit", &limit)];
        let part: Listing<Delivery> = client.get(&["deliveries"], &query).await?;
        all.extend(part.items);
    }
    Ok((now, all))
}

fn remember(rates: &mut VecDeque<f64>, now: &Overview) {
    if rates.len() == RATES {
        rates.pop_front();
    }
    rates.push_back(now.destinations.iter().map(|one| one.accepted_rate).sum());
}
