//! The thread that owns sled: it takes commands, gathers what is waiting, and makes all of it
//! durable with one batch, one flush and one fdatasync (group commit).
//!
//! After any failure of the state it refuses everything, lets go of sled, opens and checks the
//! whole directory anew as at a start, and goes on with what is on the disk then.

use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use super::Shared;
use super::accounts::Resealed;
use super::change::{Change, Effects, Outcome};
use super::claim::{Settled, Settlement};
use super::dead::{DeadWriter, LetterId};
use super::delivery::{Info, Receipt, Tally, Totals};
use super::error::{Error, StateError};
use super::format::Commit;
use super::index::{Delivery, Segment};
use super::letters::Moved;
use super::note::NoteKey;
use super::recover::{self, Recovered};
use super::segment::{SegmentFile, SegmentWriter, Summary};
use super::settle::Plan;
use super::state::{DeliveryRow, SegmentRow};
use super::store::Store;
use crate::clock::UnixMillis;
use crate::model::DeliveryId;

/// Commands that share one sync. More would only make the first of them wait longer.
const GROUP: usize = 256;
/// Old webhook ids are looked for this often when nothing else happens.
pub(super) const IDLE: Duration = Duration::from_secs(60);
/// First pause between two tries to reopen after a failure; it doubles up to the last.
const REOPEN_PAUSE: Duration = Duration::from_millis(50);
const REOPEN_PAUSE_MAX: Duration = Duration::from_secs(5);

pub(super) type Reply<T> = SyncSender<Result<T, Error>>;

/// What the owner is asked for.
pub(super) enum Command {
    Commit(Box<Prepared>, Reply<Receipt>),
    Settle(Vec<Settlement>, Reply<Settled>),
    Lost(Vec<Loss>, Reply<()>),
    /// Dead letters with their rows.
    Replay(Vec<(LetterId, u32)>, Reply<Moved>),
    Discard(Vec<(LetterId, u32)>, Reply<Moved>),
    /// A dead letter and its new payload.
    Edit(LetterId, Vec<u8>, Reply<Option<LetterId>>),
    Cancel(DeliveryId, Reply<Option<Tally>>),
    Reseal(Vec<Resealed>, Reply<()>),
    Note(NoteKey, Option<Arc<[u8]>>, Reply<()>),
    /// Something of a cancelled delivery was given back.
    Sweep,
    Close,
}

/// A delivery that is on the disk but for its last footer.
pub(super) struct Prepared {
    pub info: Arc<Info>,
    pub full: Vec<Summary>,
    pub writer: SegmentWriter,
    pub totals: Totals,
}

/// Something that turned out to be damaged.
pub(super) enum Loss {
    Entry {
        position: u64,
        ordinal: u32,
        tally: Tally,
    },
    Segment {
        position: u64,
        number: u32,
        /// `None`: the file is gone.
        file: Option<Arc<SegmentFile>>,
    },
    Letter(u64),
}

/// Ends a command, once it is known whether its change is durable.
type Ack = Box<dyn FnOnce(Result<&Effects, Error>)>;

/// What the thread holds.
pub(super) struct Owner {
    shared: Arc<Shared>,
    commands: Receiver<Command>,
    /// `None`: it failed and is to be opened anew.
    pub(super) store: Option<Store>,
    pub(super) dead: DeadWriter,
    /// Held, and let go with the thread.
    _lock: File,
    retry_at: Instant,
    retry_pause: Duration,
    /// A delivery may have become old.
    pub(super) history_due: bool,
    pub(super) webhooks_due: Instant,
    /// Something of a cancelled delivery may wait.
    pub(super) sweep_due: bool,
}

impl Owner {
    pub fn new(
        shared: Arc<Shared>,
        commands: Receiver<Command>,
        store: Store,
        dead: DeadWriter,
        lock: File,
    ) -> Self {
        Self {
            shared,
            commands,
            store: Some(store),
            dead,
            _lock: lock,
            retry_at: Instant::now(),
            retry_pause: REOPEN_PAUSE,
            history_due: true,
            webhooks_due: Instant::now(),
            sweep_due: true,
        }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Works until it is told to close.
    pub fn run(mut self) {
        self.maintain();
        loop {
            let wait = if self.store.is_some() {
                IDLE
            } else {
                self.retry_at.saturating_duration_since(Instant::now())
            };
            let mut group = Vec::new();
            match self.commands.recv_timeout(wait) {
                Ok(command) => group.push(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while group.len() < GROUP
                && let Ok(command) = self.commands.try_recv()
            {
                group.push(command);
            }
            let closing = group
                .iter()
                .any(|command| matches!(command, Command::Close));
            if self.store.is_none() && !closing {
                self.reopen();
            }
            self.process(group);
            self.maintain();
            if closing {
                return;
            }
            if self.store.is_none() {
                self.reopen();
            }
        }
    }

    fn process(&mut self, group: Vec<Command>) {
        let mut change = Change::default();
        let mut acks: Vec<Ack> = Vec::new();
        let mut plans = Vec::new();
        let mut edits = Vec::new();
        for command in group {
            match command {
                Command::Commit(prepared, reply) => {
                    self.commit(*prepared, reply, &mut change, &mut acks)
                }
                Command::Settle(settlements, reply) => {
                    plans.push((self.plan_settlement(&settlements), reply));
                }
                Command::Lost(losses, reply) => {
                    self.lose(&losses, &mut change);
                    acks.push(ack(reply, |_| ()));
                }
                Command::Replay(ids, reply) => {
                    let moved = self.move_letters(&ids, true, &mut change);
                    acks.push(ack(reply, move |_| moved));
                }
                Command::Discard(ids, reply) => {
                    let moved = self.move_letters(&ids, false, &mut change);
                    acks.push(ack(reply, move |_| moved));
                }
                Command::Edit(id, payload, reply) => edits.push((id, payload, reply)),
                Command::Cancel(id, reply) => match self.cancel(id, &mut change) {
                    Ok(found) => acks.push(self.cancelled(found, reply)),
                    Err(error) => {
                        let _ = reply.send(Err(error));
                    }
                },
                Command::Reseal(resealed, reply) => {
                    self.reseal(resealed, &mut change);
                    acks.push(ack(reply, |_| ()));
                }
                Command::Note(key, text, reply) => match self.note(key, text, &mut change) {
                    Ok(()) => acks.push(ack(reply, |_| ())),
                    Err(error) => {
                        let _ = reply.send(Err(error));
                    }
                },
                Command::Sweep => self.sweep(&mut change),
                Command::Close => {}
            }
        }
        self.settle(plans, &mut change, &mut acks);
        // After the settlements: what those wrote to the dead-letter file is durable by now, so that
        // an edit that fails cuts off nothing but itself.
        for (id, payload, reply) in edits {
            match self.edit(id, &payload, &mut change) {
                Ok(edited) => acks.push(ack(reply, move |_| edited)),
                Err(error) => {
                    let _ = reply.send(Err(error));
                }
            }
        }
        self.make_durable(change, acks);
    }

    /// Writes the footer that makes the delivery accepted, and adds it to the change.
    fn commit(
        &mut self,
        mut prepared: Prepared,
        reply: Reply<Receipt>,
        change: &mut Change,
        acks: &mut Vec<Ack>,
    ) {
        if let Err(error) = self.shared.check_healthy() {
            let _ = reply.send(Err(error));
            return;
        }
        let position = change.take_position(&self.shared.index());
        let committed = UnixMillis::now();
        let commit = Commit {
            position,
            committed,
            segments: prepared.full.len() as u32 + 1,
            totals: prepared.totals.clone(),
        };
        let last = match prepared.writer.finish(Some(commit)) {
            Ok(last) => last,
            Err(error) => {
                let withdrawn = self.withdraw(&prepared.info, prepared.full.len() as u32);
                if withdrawn {
                    // sled never heard of this delivery: no mark is needed.
                    let mark = self.shared.layout.aborted(prepared.info.id);
                    if let Err(error) = self.shared.disk.remove(&mark) {
                        tracing::warn!(%error, "the mark of an aborted delivery could not be removed; the next start removes it");
                    }
                }
                let _ = reply.send(Err(Error::io("the delivery could not be synced")(error)));
                return;
            }
        };
        let mut delivery = Delivery::new(DeliveryRow {
            info: Arc::clone(&prepared.info),
            totals: prepared.totals,
            committed,
        });
        let mut receipt = Receipt {
            delivery: prepared.info.id,
            committed,
            rows: 0,
            batches: 0,
            requests: 0,
            bytes: 0,
        };
        for summary in prepared.full.iter().copied().chain([last]) {
            receipt.rows += summary.tally.rows;
            receipt.batches += summary.tally.batches;
            receipt.requests += u64::from(summary.entries);
            receipt.bytes += summary.bytes;
            let segment = Segment {
                row: SegmentRow {
                    summary,
                    ..SegmentRow::default()
                },
                settled: None,
                file: None,
            };
            delivery.segments.insert(summary.number, segment);
        }
        // A delivery without entries has settled already; its segment has said all it had to.
        let empty = receipt.requests == 0;
        if empty {
            delivery.segments.clear();
        }
        change.add_delivery(&self.shared.index(), position, delivery);
        let shared = Arc::clone(&self.shared);
        let (info, number) = (prepared.info, last.number);
        acks.push(Box::new(move |outcome| {
            let answer = match outcome {
                Ok(_) => {
                    if empty {
                        shared.remove_spent(&shared.layout.segment(info.id, number), 0, false);
                        receipt.bytes = 0;
                    }
                    Ok(receipt)
                }
                Err(error) => {
                    shared.withdraw(&info, number);
                    Err(error)
                }
            };
            let _ = reply.send(answer);
        }));
    }

    fn cancelled(&self, found: Option<(u64, Tally)>, reply: Reply<Option<Tally>>) -> Ack {
        let shared = Arc::clone(&self.shared);
        Box::new(move |outcome| {
            if let Some((position, _)) = found {
                shared.index().cancelling.remove(&position);
            }
            let _ = reply.send(outcome.map(|_| found.map(|(_, tally)| tally)));
        })
    }

    fn withdraw(&self, info: &Info, number: u32) -> bool {
        self.shared.withdraw(info, number)
    }

    fn settle(
        &mut self,
        plans: Vec<(Result<Plan, Error>, Reply<Settled>)>,
        change: &mut Change,
        acks: &mut Vec<Ack>,
    ) {
        // A failure anywhere in the dead-letter file is one of all that was put there.
        let mut dead = Ok(());
        if plans
            .iter()
            .any(|(plan, _)| plan.as_ref().is_ok_and(Plan::has_letters))
        {
            dead = self.sync_dead();
        }
        for (plan, _) in &plans {
            if let (Ok(()), Err(error @ Error::Io { .. })) = (&dead, plan) {
                dead = Err(error.clone());
            }
        }
        let mut letters = false;
        for (plan, reply) in plans {
            let plan = match (plan, &dead) {
                (Err(error), _) => Err(error),
                (Ok(plan), Err(error)) if plan.has_letters() => Err(error.clone()),
                (Ok(plan), _) => Ok(plan),
            };
            match plan {
                Ok(plan) => {
                    letters |= plan.has_letters();
                    let settled = plan.apply(&self.shared, change);
                    acks.push(ack(reply, move |effects| settled.finish(effects)));
                }
                Err(error) => {
                    let _ = reply.send(Err(error));
                }
            }
        }
        if letters && let Some((number, length)) = self.dead.current() {
            change.set_dead_file(number, Some(length));
        }
        self.dead.roll();
    }

    /// Makes durable what was put into the dead-letter file.
    pub(super) fn sync_dead(&mut self) -> Result<(), Error> {
        let synced = self.dead.sync();
        synced.map_err(|error| {
            self.shared
                .refuse_writes(&format!("a sync of the dead letters failed: {error}"));
            self.store = None;
            Error::io("dead letters could not be written")(error)
        })
    }

    pub(super) fn lose(&mut self, losses: &[Loss], change: &mut Change) {
        let index = self.shared.index();
        for loss in losses {
            let (position, rows, what) = match loss {
                Loss::Entry {
                    position,
                    ordinal,
                    tally,
                } => {
                    let outcome = Outcome {
                        damaged: *tally,
                        ..Outcome::default()
                    };
                    if !change.settle_entry(&index, *position, *ordinal, *tally, outcome) {
                        continue;
                    }
                    (*position, tally.rows, format!("request {ordinal}"))
                }
                Loss::Segment {
                    position,
                    number,
                    file,
                } => {
                    let known = index
                        .deliveries
                        .get(position)
                        .and_then(|delivery| delivery.segments.get(number))
                        .is_none_or(|segment| segment.row.damaged);
                    let file = file.as_deref();
                    let tally = change.give_up_missing(&index, *position, *number, file);
                    if known && tally == Tally::default() {
                        continue;
                    }
                    (*position, tally.rows, format!("segment {number}"))
                }
                Loss::Letter(id) => match change.give_up_letter(&index, *id) {
                    Some(letter) => (
                        letter.position,
                        letter.tally.rows,
                        format!("dead letter {id}"),
                    ),
                    None => continue,
                },
            };
            let delivery = index
                .deliveries
                .get(&position)
                .map(|delivery| delivery.row.info.id);
            self.shared.report_damage(delivery, rows, what);
        }
    }

    pub(super) fn make_durable(&mut self, mut change: Change, acks: Vec<Ack>) {
        let batch = {
            let index = self.shared.index();
            change.close(&index, Some(UnixMillis::now()));
            (!change.is_empty()).then(|| change.batch(&index))
        };
        let outcome = match (batch, &self.store) {
            (None, _) => Ok(Effects::default()),
            (Some(_), None) => Err(self.shared.refusal()),
            (Some(batch), Some(store)) => match store.apply(batch) {
                Ok(()) => {
                    self.shared.capacity.set_state(store.size());
                    Ok(change.apply(&mut self.shared.index(), &self.shared.layout))
                }
                Err(error) => Err(self.fail(error)),
            },
        };
        match outcome {
            Ok(effects) => {
                for (path, bytes, damaged) in &effects.spent {
                    self.shared.remove_spent(path, *bytes, *damaged);
                }
                self.remove_marks(&effects.finished);
                self.history_due |= effects.wake;
                if effects.wake {
                    self.shared.changed.send_modify(|changes| *changes += 1);
                }
                for ack in acks {
                    ack(Ok(&effects));
                }
            }
            Err(error) => {
                for ack in acks {
                    ack(Err(error.clone()));
                }
            }
        }
    }

    pub(super) fn fail(&mut self, error: StateError) -> Error {
        let error = Error::State {
            source: Arc::new(error),
        };
        self.shared
            .refuse_writes(&format!("{error}: {}", source_text(&error)));
        self.store = None;
        self.retry_at = Instant::now();
        error
    }

    /// Opens everything anew after a failure. Claims and deliveries on their way in stay.
    fn reopen(&mut self) {
        if Instant::now() < self.retry_at {
            return;
        }
        self.retry_at = Instant::now() + self.retry_pause;
        self.retry_pause = (self.retry_pause * 2).min(REOPEN_PAUSE_MAX);
        let live = self.shared.index().receiving.clone();
        let recovered = recover::recover(
            &self.shared.settings,
            &self.shared.layout,
            &self.shared.disk,
            &live.keys().copied().collect(),
        );
        match recovered {
            Ok(Recovered {
                store,
                mut index,
                damage,
                next_dead_file,
            }) => {
                for damage in damage {
                    self.shared.note_damage(damage);
                }
                self.shared.capacity.set_state(store.size());
                self.store = Some(store);
                self.dead = DeadWriter::new(
                    &self.shared.disk,
                    &self.shared.layout,
                    next_dead_file,
                    &self.shared.settings,
                );
                let mut current = self.shared.index();
                index.take_over(&mut current);
                *current = index;
                drop(current);
                self.retry_pause = REOPEN_PAUSE;
                self.sweep_due = true;
                self.shared.accept_writes();
                self.shared.changed.send_modify(|changes| *changes += 1);
            }
            Err(error) => {
                tracing::warn!(%error, source = source_text(&error), "the outbox could not be reopened yet");
            }
        }
    }
}

impl Drop for Owner {
    /// Before the lock goes with the owner, by a panic too: nobody may write from here on.
    fn drop(&mut self) {
        self.shared.close();
    }
}

fn ack<T: 'static>(reply: Reply<T>, value: impl FnOnce(&Effects) -> T + 'static) -> Ack {
    Box::new(move |outcome| {
        // One who no longer waits for the answer needs none.
        let _ = reply.send(outcome.map(value));
    })
}

/// What caused an error, as one line.
pub(super) fn source_text(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut next = error.source();
    while let Some(source) = next {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}
