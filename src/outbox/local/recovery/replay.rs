//! The replay: what was found is put into the state, in one order, each step durable before the
//! next. A crash between two of them leaves what the next open starts from.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clock::UnixMillis;
use crate::model::DeliveryId;
use crate::outbox::attempt::{AttemptEnd, INTERRUPTED};
use crate::outbox::attempt_row::AttemptRow;
use crate::outbox::delivery::{Info, Tally, Totals};
use crate::outbox::local::files::disk::Disk;
use crate::outbox::local::files::format::Commit;
use crate::outbox::local::files::layout::Layout;
use crate::outbox::local::recovery::findings::{
    Accepted, Findings, Head, RewrittenSegment, ShortSegment, Unaccepted,
};
use crate::outbox::local::recovery::letters::{EntryLetters, FoundLetter};
use crate::outbox::local::state::change::{Change, Effects, Outcome};
use crate::outbox::local::state::delivery::{Delivery, Segment};
use crate::outbox::local::state::error::StateError;
use crate::outbox::local::state::index::Index;
use crate::outbox::local::state::rows::{DeliveryRow, Key, Meta, SegmentRow};
use crate::outbox::local::state::store::Store;
use crate::outbox::status::Damage;
use crate::seal::Keyring;

/// The state while findings are put into it.
pub(in crate::outbox) struct Replay<'a> {
    pub layout: &'a Layout,
    pub disk: &'a Disk,
    pub keys: &'a Keyring,
    /// Deliveries that are being received: their files are left alone.
    pub live: &'a HashSet<DeliveryId>,
    /// The state was lost: what the files say is all that is known.
    pub rebuilt: bool,
    pub now: UnixMillis,
    pub store: Store,
    pub index: Index,
    pub damage: Vec<Damage>,
    /// Deliveries that this replay has added from their segments.
    pub added: HashSet<DeliveryId>,
}

impl Replay<'_> {
    /// Puts all of it into the state.
    pub fn run(&mut self, found: Findings) -> Result<(), StateError> {
        self.begin()?;
        self.withdraw(found.withdrawn)?;
        found.settled.iter().for_each(|path| self.remove(path));
        found.drafts.iter().for_each(|path| self.remove(path));
        self.take_erased(&found.rewritten, &found.erased_rows)?;
        for delivery in found.unaccepted {
            self.refuse(delivery);
        }
        for delivery in found.accepted {
            self.accept(delivery)?;
        }
        self.lengthen(&found.tails, found.shut)?;
        for (id, entries) in found.letters {
            match self.index.delivery(id) {
                Some((position, _)) => self.settle_dead(position, entries)?,
                None => self.accept_dead(id, entries, found.heads.get(&id).cloned())?,
            }
        }
        for (id, path) in found.rejected {
            let head = found.heads.get(&id).cloned();
            self.accept_rejected(id, &path, head)?;
        }
        self.give_up(found.short, found.cut_letters)?;
        self.cancel(found.cancelled)?;
        self.hold(found.held);
        self.end_attempts()?;
        if let Some(path) = found.probe {
            self.remove(&path);
        }
        for path in found.strays {
            self.set_aside(&path, "is not a file of the outbox");
        }
        Ok(())
    }

    /// Writes what positions and letters are counted by, so that a new state is one from here on.
    fn begin(&self) -> Result<(), StateError> {
        let mut batch = sled::Batch::default();
        let meta = Meta {
            next_position: self.index.next_position,
            next_letter: self.index.next_letter,
        };
        batch.insert(Key::Meta.encode(), meta.encode());
        self.store.apply(batch)
    }

    /// Takes out deliveries that were withdrawn, which may have left rows in sled when it was sled
    /// that failed; and those that are being received and have left some so.
    fn withdraw(
        &mut self,
        withdrawn: Vec<(DeliveryId, PathBuf, Vec<PathBuf>)>,
    ) -> Result<(), StateError> {
        let mut change = Change::default();
        for id in withdrawn.iter().map(|(id, ..)| id).chain(self.live) {
            if let Some((position, _)) = self.index.delivery(*id) {
                change.purge_delivery(&self.index, position);
            }
        }
        self.make(change)?;
        for (_, mark, files) in withdrawn {
            // The mark goes last: until then it says what the files are.
            files
                .iter()
                .chain([&mark])
                .for_each(|path| self.remove(path));
        }
        Ok(())
    }

    /// Brings the state into agreement with files that an erasure has written anew before a crash: what
    /// is missing in them is erased. The erasure itself goes on when its caller does.
    fn take_erased(
        &mut self,
        segments: &[RewrittenSegment],
        rows: &[(u64, u64)],
    ) -> Result<(), StateError> {
        let mut change = Change::default();
        for one in segments {
            let key = (one.position, one.number);
            change.rewritten(&self.index, key, &one.places, one.bytes);
        }
        for (position, rows) in rows {
            change.erase_rejected(&self.index, *position, *rows);
        }
        self.make(change)
    }

    /// Takes up marks of deliveries that are held, and removes those that have done their work.
    fn hold(&mut self, marks: Vec<(DeliveryId, PathBuf)>) {
        for (id, path) in marks {
            let open = |(_, delivery): (u64, &Delivery)| !delivery.segments.is_empty();
            if self.live.contains(&id) || self.index.delivery(id).is_some_and(open) {
                self.index.held.insert(id);
            } else {
                self.remove(&path);
            }
        }
    }

    /// Segments without a commit belong to a delivery that was never accepted, as long as the state
    /// can be trusted. When it was lost, or when it is the headers that are damaged, a person is to
    /// decide.
    fn refuse(&mut self, delivery: Unaccepted) {
        if !(self.rebuilt || delivery.commit) {
            tracing::info!(delivery = %delivery.id, "a delivery that was cut short is removed");
            delivery.files.iter().for_each(|path| self.remove(path));
            return;
        }
        for path in &delivery.files {
            self.set_aside(path, "may not have been accepted");
        }
        let what = "its segments do not say whether it was accepted; they were set aside";
        self.lost(Some(delivery.id), delivery.rows, what.to_owned());
    }

    /// Adds a delivery that was accepted: the crash came between its commit and sled's batch, or the
    /// state is being rebuilt.
    fn accept(&mut self, found: Accepted) -> Result<(), StateError> {
        let id = found.info.id;
        let Commit {
            position,
            committed,
            totals,
            ..
        } = found.commit;
        let mut change = Change::default();
        let position = match self.index.deliveries.contains_key(&position) {
            true => change.take_position(&self.index),
            false => position,
        };
        let mut missing = totals.mapped();
        let mut delivery = Delivery::new(DeliveryRow {
            info: Arc::new(found.info),
            totals,
            committed,
            kept: None,
        });
        for one in &found.segments {
            missing -= one.summary.tally;
            missing -= one.erased;
            delivery.counters_mut().erased += one.erased;
            let segment = Segment {
                row: SegmentRow {
                    summary: one.summary,
                    damaged: one.damaged,
                    ..SegmentRow::default()
                },
                settled: None,
                file: None,
            };
            delivery.segments.insert(segment);
        }
        if missing != Tally::default() {
            let what = if found.segments.iter().any(|one| one.damaged) {
                delivery.counters_mut().damaged += missing;
                "a segment of it is damaged"
            } else {
                // A segment is removed only when all in it has settled.
                delivery.counters_mut().delivered += missing;
                "segments of it are gone and taken as delivered"
            };
            self.lost(Some(id), missing.rows, what.to_owned());
        }
        if found.segments.iter().all(|one| one.summary.entries == 0) {
            for number in delivery.segments.numbers() {
                self.remove(&self.layout.segment(id, number));
            }
            delivery.segments.clear();
        }
        // They may be in the page cache only, when it was the process that died and not the machine.
        let numbers = delivery.segments.numbers();
        let files = numbers.map(|number| self.layout.segment(id, number));
        self.sync(&files.chain(found.rejected).collect::<Vec<_>>())?;
        tracing::info!(delivery = %id, "a committed delivery that the state did not know is taken up");
        change.add_delivery(&self.index, position, delivery);
        self.make(change)?;
        let mut change = Change::default();
        for one in found.segments.iter().filter(|one| one.damaged) {
            let (number, places) = (one.summary.number, one.places.as_ref());
            change.give_up_missing(&self.index, position, number, places);
        }
        self.make(change)?;
        self.added.insert(id);
        Ok(())
    }

    /// Makes the ends of dead-letter files durable, and says how long they are: the letters in them
    /// need a file when their batch is made.
    fn lengthen(
        &mut self,
        tails: &[(u32, PathBuf, u64)],
        shut: Vec<DeliveryId>,
    ) -> Result<(), StateError> {
        for delivery in shut {
            let what = "a dead letter of it was changed and is left out";
            self.lost(Some(delivery), 0, what.to_owned());
        }
        let mut change = Change::default();
        let mut files = Vec::new();
        for (number, path, length) in tails {
            change.set_dead_file(&self.index, *number, *length);
            files.push(path.clone());
        }
        self.sync(&files)?;
        self.make(change)
    }

    /// Settles entries by the dead letters that were found of them.
    fn settle_dead(&mut self, position: u64, entries: Vec<EntryLetters>) -> Result<(), StateError> {
        for entry in entries {
            let dead = entry.dead();
            let mut change = Change::default();
            // When its segment is gone, the dead letters are all that is known of an entry's weight;
            // the rest of the segment is given up afterwards.
            let weight = entry.weight.unwrap_or(dead);
            let outcome = Outcome {
                dead,
                ..Outcome::default()
            };
            let settles =
                change.settle_entry(&self.index, position, entry.ordinal, weight, outcome);
            if settles && self.added.contains(&entry.delivery) {
                // What was erased from its segment and lies here still. It is erased from here when
                // the erasure goes on.
                let mut more = dead;
                more -= weight;
                change.erased_was_dead(&self.index, position, more);
            }
            for found in entry.letters {
                if settles || self.dies_again(&mut change, position, &found) {
                    self.add_letter(&mut change, position, found);
                }
            }
            self.make(change)?;
        }
        Ok(())
    }

    /// Whether a letter of an entry that has settled before counts: it died again after a replay, or
    /// what was known of the first time was lost with the state.
    fn dies_again(&self, change: &mut Change, position: u64, found: &FoundLetter) -> bool {
        let (ordinal, dead) = (found.letter.ordinal, found.letter.tally);
        let outcome = Outcome {
            dead,
            ..Outcome::default()
        };
        let replaced = found
            .meta
            .replaces
            // Numbers of letters start over when the state is lost, and again when sled has gone
            // back in time.
            .filter(|id| {
                let letter = self.index.letters.get(id);
                let same = letter
                    .is_some_and(|letter| (letter.position, letter.ordinal) == (position, ordinal));
                same && !self.rebuilt
            })
            .is_some_and(|id| change.settle_letter(&self.index, id, outcome));
        let added = self.added.contains(&found.meta.delivery);
        if !replaced && added {
            change.delivered_was_dead(&self.index, position, dead);
        }
        // Otherwise the drain was told that this settlement failed, and has settled since.
        replaced || added
    }

    fn add_letter(&self, change: &mut Change, position: u64, found: FoundLetter) {
        let mut letter = found.letter;
        letter.position = position;
        change.add_letter(&self.index, letter);
    }

    /// Adds a delivery of which only dead letters are left: it had settled, and the state was lost.
    fn accept_dead(
        &mut self,
        id: DeliveryId,
        entries: Vec<EntryLetters>,
        head: Option<Head>,
    ) -> Result<(), StateError> {
        let letters = entries.into_iter().flat_map(|entry| entry.letters);
        let letters: Vec<FoundLetter> = letters.collect();
        let mut dead = Tally::default();
        letters.iter().for_each(|found| dead += found.letter.tally);
        let Some(meta) = letters.first().map(|found| &found.meta) else {
            return Ok(());
        };
        let erased = head.as_ref().map_or(0, |head| head.erased);
        let (info, totals) = match head {
            Some(head) => (head.info, head.commit.totals),
            None => {
                let info = Info {
                    id,
                    destination: meta.destination,
                    label: meta.label.as_str().into(),
                    account: meta.account.clone(),
                    webhook: None,
                    title: meta.title.as_str().into(),
                    link: None,
                    received: meta.received,
                };
                let totals = Totals {
                    rows_in: dead.rows,
                    batches: dead.batches,
                    requests: letters.len() as u64,
                    notes: vec!["Only the dead letters of this delivery are known.".to_owned()],
                    ..Totals::default()
                };
                (info, totals)
            }
        };
        let mut change = Change::default();
        let position = change.take_position(&self.index);
        let mut delivery = settled_delivery(info, totals, dead);
        delivery.counters_mut().erased_rejected = erased;
        change.add_delivery(&self.index, position, delivery);
        for found in letters {
            self.add_letter(&mut change, position, found);
        }
        self.make(change)
    }

    /// Rejected rows whose delivery is not there: of use only when the state was lost, and then they
    /// are what tells of the delivery.
    fn accept_rejected(
        &mut self,
        id: DeliveryId,
        path: &Path,
        head: Option<Head>,
    ) -> Result<(), StateError> {
        if self.index.by_id.contains_key(&id) {
            return Ok(());
        }
        if !self.rebuilt {
            self.remove(path);
            return Ok(());
        }
        let Some(head) = head else {
            self.lost(Some(id), 0, "its rejected rows are damaged".to_owned());
            self.set_aside(path, "is damaged");
            return Ok(());
        };
        let mut change = Change::default();
        let position = change.take_position(&self.index);
        let mut delivery = settled_delivery(head.info, head.commit.totals, Tally::default());
        delivery.counters_mut().erased_rejected = head.erased;
        change.add_delivery(&self.index, position, delivery);
        self.make(change)
    }

    /// Gives up, and names, what the state counts on and the disk does not have.
    fn give_up(&mut self, short: Vec<ShortSegment>, letters: Vec<u64>) -> Result<(), StateError> {
        let mut change = Change::default();
        for ShortSegment {
            position,
            number,
            length,
            places,
        } in short
        {
            // Not withdrawn, and not settled by its dead letters.
            let Some(delivery) = self.index.deliveries.get(&position) else {
                continue;
            };
            let Some(segment) = delivery.segments.get(number) else {
                continue;
            };
            let (id, row) = (delivery.row.info.id, segment.row);
            if row.is_settled() {
                continue;
            }
            let tally = change.give_up_missing(&self.index, position, number, places.as_ref());
            if row.damaged && tally == Tally::default() {
                // Named at an earlier open.
                continue;
            }
            let what = match length {
                None => format!("segment {number} is gone"),
                Some(length) => {
                    format!(
                        "segment {number} has {length} bytes of {}",
                        row.summary.bytes
                    )
                }
            };
            self.lost(Some(id), tally.rows, what);
        }
        for id in letters {
            let Some(letter) = change.give_up_letter(&self.index, id) else {
                continue;
            };
            let delivery = self.index.deliveries.get(&letter.position);
            let delivery = delivery.map(|delivery| delivery.row.info.id);
            let what = format!("dead letter {id} is gone with the end of its file");
            self.lost(delivery, letter.tally.rows, what);
        }
        self.make(change)
    }

    /// Cancels by the marks of which the state has not heard, and removes those that have done their
    /// work.
    fn cancel(&mut self, marks: Vec<(DeliveryId, PathBuf)>) -> Result<(), StateError> {
        let mut change = Change::default();
        for (id, path) in marks {
            match self.index.delivery(id) {
                Some((position, delivery)) if !delivery.segments.is_empty() => {
                    change.mark_cancelled(&self.index, position, self.now);
                }
                _ => self.remove(&path),
            }
        }
        self.make(change)
    }

    /// Ends as failed what the process before was receiving, and seals under the current key what is
    /// sealed under another.
    fn end_attempts(&mut self) -> Result<(), StateError> {
        let mut change = Change::default();
        for row in self.index.attempts.values_mut() {
            *row = Arc::new(AttemptRow::clone(row).unseal(self.keys));
        }
        for (id, row) in &self.index.attempts {
            if self.index.by_id.contains_key(id) {
                change.drop_attempt(*id);
                continue;
            }
            let mut ended = AttemptRow::clone(row);
            let interrupted = row.attempt.end.is_none() && !self.live.contains(id);
            if interrupted {
                ended.attempt.end = Some(AttemptEnd {
                    at: self.now,
                    kind: INTERRUPTED,
                    rows: 0,
                    bytes: 0,
                    message: String::new(),
                });
            }
            let old_key = row.opened && !self.keys.is_current(&row.sealed);
            if old_key {
                match AttemptRow::seal(ended.attempt.clone(), ended.webhook, self.keys) {
                    Ok(row) => ended = row,
                    Err(error) => {
                        tracing::warn!(delivery = %id, %error, "a failed delivery could not be resealed");
                    }
                }
            }
            if interrupted || old_key {
                change.put_attempt(Arc::new(ended));
            }
        }
        self.make(change)
    }

    /// Makes a change durable.
    fn make(&mut self, mut change: Change) -> Result<(), StateError> {
        change.close(&self.index, None);
        if change.is_empty() {
            return Ok(());
        }
        self.store.apply(change.batch(&self.index))?;
        let Effects { spent, .. } = change.apply(&mut self.index, self.layout);
        for (path, _, damaged) in spent {
            if damaged {
                self.set_aside(&path, "was damaged and has settled");
            } else {
                self.remove(&path);
            }
        }
        Ok(())
    }

    /// Removes what need not be there. One that stays is met again at the next open.
    fn remove(&self, path: &Path) {
        if let Err(error) = self.disk.remove(path) {
            tracing::warn!(file = %path.display(), %error, "a file of the outbox could not be removed");
        }
    }

    /// Moves what is damaged out of the way. One that stays is met again at the next open.
    fn set_aside(&self, path: &Path, why: &str) {
        match self.layout.set_aside(self.disk, path, self.now) {
            Ok(target) => tracing::warn!(
                file = %path.display(), now = %target.display(),
                "a file of the outbox {why} and was set aside"
            ),
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "a damaged file could not be set aside");
            }
        }
    }

    /// Makes files durable that the state is about to count on.
    fn sync(&self, files: &[PathBuf]) -> Result<(), StateError> {
        let directories: HashSet<_> = files.iter().filter_map(|path| path.parent()).collect();
        let mut files = files.iter();
        files
            .try_for_each(|path| self.disk.sync_path(path))
            .and_then(|()| {
                let mut directories = directories.into_iter();
                directories.try_for_each(|directory| self.disk.sync_directory(directory))
            })
            .map_err(|source| StateError::Io {
                doing: "files that were found could not be synced",
                source,
            })
    }

    fn lost(&mut self, delivery: Option<DeliveryId>, rows: u64, what: String) {
        self.damage.push(Damage {
            delivery,
            rows,
            what,
            found: self.now,
        });
    }
}

/// A delivery that has settled; what is not dead was delivered.
fn settled_delivery(info: Info, totals: Totals, dead: Tally) -> Delivery {
    let mut delivered = totals.mapped();
    delivered -= dead;
    let committed = info.received;
    let mut delivery = Delivery::new(DeliveryRow {
        info: Arc::new(info),
        totals,
        committed,
        kept: None,
    });
    delivery.counters_mut().delivered = delivered;
    delivery.counters_mut().dead = dead;
    delivery
}
