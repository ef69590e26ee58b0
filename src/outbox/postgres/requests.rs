//! What a person asks of a destination: cancel, replay, discard, edit; pause, resume, try now. It is
//! carried out by the owner, who alone knows what flies. If that is this daemon, or nobody, it is done
//! within the call. Otherwise it is written down, sealed, as a request; the owner sees it within a
//! second, and answers in the same statement that makes the change, so that it is carried out once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::action::{Action, Answer, CONTEXT, LaneWish, Removed};
use super::cancel::{cancel as cancel_delivery, cancel_given_back};
use super::change::Change;
use super::columns::column;
use super::columns::read_id;
use super::daemon::Inner;
use super::handle::SharedOutbox;
use super::held::{Held, Work};
use super::lease::{enter, leave};
use super::letters::{Answering, by_destination, edit, move_letters};
use super::rewriting::{erase_entries, erase_letters};
use super::session::Tries;
use crate::model::{DeliveryId, DestinationId};
use crate::outbox::codec::Malformed;
use crate::outbox::delivery::Tally;
use crate::outbox::error::Error;
use crate::outbox::lane_request::LaneRequest;
use crate::outbox::letter::LetterId;
use crate::outbox::letter::Moved;

/// Between two looks whether a request has been answered.
const LOOK: Duration = Duration::from_millis(200);
/// Letters that one request names at most.
const LETTERS: usize = 4096;

impl SharedOutbox {
    /// Cancels what is left of a delivery: returns what has been cancelled now, replayed dead letters
    /// included; `None`: the delivery is not listed. Its dead letters stay where they are and can be
    /// looked at and discarded, but not replayed.
    ///
    /// # Errors
    /// The server cannot be asked, or the owner of the destination has not answered in time: then it may
    /// be carried out all the same, and the call can be made again.
    pub fn cancel(&self, delivery: DeliveryId) -> Result<Option<Tally>, Error> {
        match self.act_on(delivery, Action::Cancel(delivery))? {
            None => Ok(None),
            Some(Answer::Cancelled(tally)) => Ok(tally),
            Some(other) => Err(unexpected(other)),
        }
    }

    /// Lets a delivery that is held go. `None`: it is not listed; `false`: it was not held.
    ///
    /// # Errors
    /// As for [`SharedOutbox::cancel`].
    pub fn release(&self, delivery: DeliveryId) -> Result<Option<bool>, Error> {
        match self.act_on(delivery, Action::Release(delivery))? {
            None => Ok(None),
            Some(Answer::Released(released)) => Ok(released),
            Some(other) => Err(unexpected(other)),
        }
    }

    /// Has something done where a delivery goes; `None`: it is not listed.
    fn act_on(&self, delivery: DeliveryId, action: Action) -> Result<Option<Answer>, Error> {
        let inner = Arc::clone(&self.inner);
        self.run(async move {
            let Some(destination) = destination_of(&inner, delivery).await? else {
                return Ok(None);
            };
            act(&inner, destination, action).await.map(Some)
        })
    }

    /// Sends dead letters again, with the payload they have. They queue behind what waits for their
    /// destination now. Those of a cancelled delivery stay where they are.
    ///
    /// # Errors
    /// As for [`SharedOutbox::cancel`]. Of many letters the first may have been moved.
    pub fn replay(&self, ids: &[LetterId]) -> Result<Moved, Error> {
        self.move_all(ids, Action::Replay)
    }

    /// Throws dead letters away.
    ///
    /// # Errors
    /// As for [`SharedOutbox::replay`].
    pub fn discard(&self, ids: &[LetterId]) -> Result<Moved, Error> {
        self.move_all(ids, Action::Discard)
    }

    /// Puts another payload into a dead letter and returns its new name; `None`: it is not there, or
    /// it waits to be sent again. Its rows, its tries and its reason stay.
    ///
    /// # Errors
    /// The payload is too large for a record; or as for [`SharedOutbox::cancel`].
    pub fn edit(&self, id: LetterId, payload: Vec<u8>) -> Result<Option<LetterId>, Error> {
        let inner = Arc::clone(&self.inner);
        self.run(async move {
            let whose = by_destination(&inner, &[id]).await?;
            let Some((&destination, _)) = whose.first_key_value() else {
                return Ok(None);
            };
            match act(&inner, destination, Action::Edit(id, payload)).await? {
                Answer::Edited(name) => Ok(name),
                other => Err(unexpected(other)),
            }
        })
    }

    /// See [`Outbox::tell_holder`](crate::outbox::Outbox::tell_holder).
    pub fn tell_holder(
        &self,
        destination: DestinationId,
        request: LaneRequest,
    ) -> Result<bool, Error> {
        let wish = match request {
            LaneRequest::Pause => LaneWish::Pause,
            LaneRequest::Resume => LaneWish::Resume,
            LaneRequest::Retry => LaneWish::Retry,
            // Those come of themselves.
            LaneRequest::Cancelled(_) | LaneRequest::Forget(_) | LaneRequest::GiveBack => {
                return Ok(false);
            }
        };
        let inner = Arc::clone(&self.inner);
        self.run(async move {
            match owner_of(&inner, destination).await? {
                None => Ok(false),
                Some(owner) if owner == inner.me => Ok(false),
                Some(_) => act(&inner, destination, Action::Lane(wish))
                    .await
                    .map(|_| true),
            }
        })
    }

    /// Has the owner of a destination, or this daemon if nobody is, erase something.
    ///
    /// # Errors
    /// As for [`SharedOutbox::cancel`].
    pub(super) fn have_erased(
        &self,
        destination: DestinationId,
        action: Action,
    ) -> Result<Removed, Error> {
        let inner = Arc::clone(&self.inner);
        self.run(async move {
            match act(&inner, destination, action).await? {
                Answer::Erased(removed) => Ok(removed),
                other => Err(unexpected(other)),
            }
        })
    }

    fn move_all(
        &self,
        ids: &[LetterId],
        action: impl Fn(Vec<LetterId>) -> Action + Send + 'static,
    ) -> Result<Moved, Error> {
        let inner = Arc::clone(&self.inner);
        let ids = ids.to_vec();
        self.run(async move {
            let mut moved = Moved::default();
            for (destination, ids) in by_destination(&inner, &ids).await? {
                for part in ids.chunks(LETTERS) {
                    match act(&inner, destination, action(part.to_vec())).await? {
                        Answer::Moved(part) => {
                            moved.letters += part.letters;
                            moved.rows += part.rows;
                        }
                        other => return Err(unexpected(other)),
                    }
                }
            }
            Ok(moved)
        })
    }
}

fn unexpected(answer: Answer) -> Error {
    Error::Database {
        doing: "the daemon that sends to the destination could not do it",
        why: match answer {
            Answer::Failed(words) => words.into(),
            other => format!("it answered {other:?}").into(),
        },
    }
}

async fn destination_of(
    inner: &Inner,
    delivery: DeliveryId,
) -> Result<Option<DestinationId>, Error> {
    let rows = inner
        .read(
            "the delivery could not be looked up",
            "SELECT destination FROM looker_feed.delivery WHERE id = $1 AND state = 1",
            &[&&delivery.0[..]],
        )
        .await?;
    let row = rows.first();
    row.map(|row| read_id(row, "destination").map(DestinationId))
        .transpose()
}

async fn owner_of(inner: &Inner, destination: DestinationId) -> Result<Option<[u8; 16]>, Error> {
    let rows = inner
        .read(
            "the owner could not be looked up",
            "SELECT owner FROM looker_feed.destination
             WHERE id = $1 AND owner IS NOT NULL AND lease_until > clock_timestamp()",
            &[&&destination.0[..]],
        )
        .await?;
    rows.first().map(|row| read_id(row, "owner")).transpose()
}

/// Has it done, here or by the owner, and waits for what comes of it.
async fn act(inner: &Inner, destination: DestinationId, action: Action) -> Result<Answer, Error> {
    let deadline = Instant::now() + inner.settings.within;
    let mut asked = None;
    loop {
        if let Some(held) = enter(inner, destination).await? {
            let answer = match asked {
                // It may have been carried out since.
                Some(id) => match answer(inner, id, destination).await? {
                    Some(answer) => Ok(answer),
                    None => {
                        let done = perform_asked(inner, &held, id, &action).await;
                        done.map(|answer| answer.unwrap_or(Answer::Told))
                    }
                },
                None => perform(inner, &held, &action, None).await,
            };
            if let Err(error) = leave(inner, &held).await {
                // It runs out by itself.
                tracing::warn!(%destination, %error, "a lease could not be given back");
            }
            match answer {
                // It was another's already: ask that one.
                Err(Error::LeaseLost) if Instant::now() < deadline => {}
                other => return other.and_then(or_failed),
            }
        }
        let id = match asked {
            Some(id) => id,
            None => *asked.insert(ask(inner, destination, &action).await?),
        };
        if let Some(answer) = answer(inner, id, destination).await? {
            return or_failed(answer);
        }
        if Instant::now() >= deadline {
            return Err(Error::Database {
                doing: "the daemon that sends to the destination has not answered",
                why: "it will do as asked when it comes to it".into(),
            });
        }
        sleep(LOOK).await;
    }
}

fn or_failed(answer: Answer) -> Result<Answer, Error> {
    match answer {
        Answer::Failed(_) => Err(unexpected(answer)),
        answer => Ok(answer),
    }
}

async fn ask(
    inner: &Inner,
    destination: DestinationId,
    action: &Action,
) -> Result<[u8; 16], Error> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| Error::Database {
        doing: "a request could not be named",
        why: error.to_string().into(),
    })?;
    let argument = inner.seal(&action.encode(), CONTEXT)?;
    // The version tells the owner that there is something.
    inner
        .write(
            "a request could not be written down",
            "WITH asked AS (INSERT INTO looker_feed.request (id, destination, argument, asked)
                VALUES ($1, $2, $3, clock_timestamp()) ON CONFLICT (id) DO NOTHING RETURNING id)
             UPDATE looker_feed.destination SET version = version + 1 WHERE id = $2 RETURNING 1",
            &[&&id[..], &&destination.0[..], &argument],
            Tries::UntilKnown,
        )
        .await?;
    Ok(id)
}

async fn answer(
    inner: &Inner,
    id: [u8; 16],
    destination: DestinationId,
) -> Result<Option<Answer>, Error> {
    let rows = inner
        .read(
            "a request could not be looked at",
            "SELECT answer FROM looker_feed.request WHERE id = $1 AND destination = $2",
            &[&&id[..], &&destination.0[..]],
        )
        .await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let answer: Option<&[u8]> = column(row, "answer")?;
    answer
        .map(|sealed| Answer::decode(&inner.unseal(sealed, CONTEXT)?).map_err(malformed))
        .transpose()
}

fn malformed(_: Malformed) -> Error {
    Error::Database {
        doing: "a request is not as the outbox writes it",
        why: "it is damaged, or was written by another version".into(),
    }
}

/// Carries out what has been asked of a destination that is held.
pub(super) async fn carry_out(inner: &Inner, held: &Arc<Held>) -> Result<(), Error> {
    let rows = inner
        .read(
            "requests could not be read",
            "SELECT id, argument FROM looker_feed.request
             WHERE destination = $1 AND answer IS NULL ORDER BY asked LIMIT 64",
            &[&&held.destination.0[..]],
        )
        .await?;
    for row in &rows {
        let id = read_id(row, "id")?;
        let argument: &[u8] = column(row, "argument")?;
        let action = inner
            .unseal(argument, CONTEXT)
            .and_then(|text| Action::decode(&text).map_err(malformed));
        match action {
            Ok(action) => {
                perform_asked(inner, held, id, &action).await?;
            }
            // Another daemon has the key.
            Err(Error::MissingKey { key }) => return Err(Error::MissingKey { key }),
            Err(error) => give_answer(inner, id, &Answer::Failed(error.to_string())).await?,
        }
    }
    Ok(())
}

/// Carries out a request and answers it.
async fn perform_asked(
    inner: &Inner,
    held: &Arc<Held>,
    id: [u8; 16],
    action: &Action,
) -> Result<Option<Answer>, Error> {
    let answer = match perform(inner, held, action, Some(id)).await {
        Ok(answer) => answer,
        // What passes is tried again.
        Err(error @ (Error::LeaseLost | Error::Database { .. } | Error::Closed)) => {
            return Err(error);
        }
        Err(error) => Answer::Failed(error.to_string()),
    };
    give_answer(inner, id, &answer).await?;
    Ok(Some(answer))
}

async fn give_answer(inner: &Inner, id: [u8; 16], answer: &Answer) -> Result<(), Error> {
    let sealed = inner.seal(&answer.encode(), CONTEXT)?;
    inner
        .write(
            "a request could not be answered",
            "UPDATE looker_feed.request SET answer = $2, argument = '' WHERE id = $1 AND answer IS NULL RETURNING 1",
            &[&&id[..], &sealed],
            Tries::UntilKnown,
        )
        .await
        .map(drop)
}

async fn perform(
    inner: &Inner,
    held: &Arc<Held>,
    action: &Action,
    request: Option<[u8; 16]>,
) -> Result<Answer, Error> {
    if let Action::Lane(wish) = action {
        held.tell_lane(match wish {
            LaneWish::Pause => LaneRequest::Pause,
            LaneWish::Resume => LaneRequest::Resume,
            LaneWish::Retry => LaneRequest::Retry,
        });
        inner.wake();
        return Ok(Answer::Told);
    }
    let mut work = held.work.lock().await;
    work.refresh(inner, held).await?;
    cancel_given_back(inner, held, &mut work).await?;
    match action {
        Action::Cancel(id) => cancel(inner, held, &mut work, *id, request).await,
        Action::Release(id) => release(inner, held, &mut work, *id, request).await,
        Action::Replay(ids) => move_letters(inner, held, &mut work, ids, true)
            .await
            .map(Answer::Moved),
        Action::Discard(ids) => move_letters(inner, held, &mut work, ids, false)
            .await
            .map(Answer::Moved),
        Action::Edit(id, payload) => {
            let answer = |name| inner.seal(&Answer::Edited(Some(name)).encode(), CONTEXT);
            let asked = request.map(|id| (id, &answer as &Answering<'_>));
            edit(inner, held, &mut work, *id, payload, asked)
                .await
                .map(Answer::Edited)
        }
        Action::EraseEntries(id, first, hits) => {
            erase_entries(inner, held, &mut work, (*id, *first), hits, request)
                .await
                .map(Answer::Erased)
        }
        Action::EraseLetters(hits) => erase_letters(inner, held, &mut work, hits, request)
            .await
            .map(Answer::Erased),
        Action::Lane(_) => Ok(Answer::Told),
    }
}

async fn cancel(
    inner: &Inner,
    held: &Held,
    work: &mut Work,
    id: DeliveryId,
    request: Option<[u8; 16]>,
) -> Result<Answer, Error> {
    work.fetch(inner, held, vec![id]).await?;
    let Some(open) = work.open.get(&id) else {
        return Ok(Answer::Cancelled(None));
    };
    if !open.is_open() {
        return Ok(Answer::Cancelled(Some(Tally::default())));
    }
    let mut change = Change::default();
    let tally = cancel_delivery(held, work, id, &mut change);
    if let Some(open) = change.open(work, id) {
        let counters = &mut open.progress.counters;
        counters
            .cancelled_at
            .get_or_insert(inner.settings.clock.now());
    }
    let answer = Answer::Cancelled(Some(tally));
    if let Some(request) = request {
        change.answer(request, inner.seal(&answer.encode(), CONTEXT)?);
    }
    change.carry_out(inner, held, work).await?;
    held.tell_lane(LaneRequest::Cancelled(id));
    inner.wake();
    Ok(answer)
}

async fn release(
    inner: &Inner,
    held: &Held,
    work: &mut Work,
    id: DeliveryId,
    request: Option<[u8; 16]>,
) -> Result<Answer, Error> {
    work.fetch(inner, held, vec![id]).await?;
    let mut change = Change::default();
    let Some(open) = change.open(work, id) else {
        return Ok(Answer::Released(None));
    };
    if !std::mem::take(&mut open.progress.held) {
        return Ok(Answer::Released(Some(false)));
    }
    let answer = Answer::Released(Some(true));
    if let Some(request) = request {
        change.answer(request, inner.seal(&answer.encode(), CONTEXT)?);
    }
    change.carry_out(inner, held, work).await?;
    // It may stand behind all that has been looked at.
    held.stale.store(true, Ordering::Release);
    inner.wake();
    Ok(answer)
}
