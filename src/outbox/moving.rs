//! Moving an outbox from a directory into a shared one, and back.
//!
//! The directory gets a mark with the name of the move before anything is copied, so that no daemon
//! starts on it in between; then everything is staged, where no daemon sees it; one statement makes all
//! of it visible; and the mark says that it is done. A move that is broken off at any moment, and made
//! again, goes on where it was: the server knows whether the one statement has gone through.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::{DeliveryId, DestinationId};
use crate::outbox::carried::Carried;
use crate::outbox::delivery::Tally;
use crate::outbox::error::{Error, OpenError};
use crate::outbox::local::arriving::Arriving;
use crate::outbox::local::files::disk::Disk;
use crate::outbox::local::files::layout::Layout;
use crate::outbox::local::files::moved::Mark;
use crate::outbox::local::leaving::Leaving;
use crate::outbox::local::offline;
use crate::outbox::local::state::rows::Meta;
use crate::outbox::postgres;
use crate::outbox::postgres::copying::Copying;
use crate::outbox::postgres::take_in::{Counted, Stored, TakeIn};
use crate::outbox::postgres::take_out::TakeOut;
use crate::seal::{KeyId, Keyring};

/// A move was not made, or not to its end. Nothing of it counts then; it can be made again.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// The directory is in use, no outbox, or cannot be read.
    #[error(transparent)]
    Directory(#[from] OpenError),
    /// The shared outbox cannot be opened.
    #[error(transparent)]
    Shared(#[from] postgres::OpenError),
    /// Some of it is damaged: what is given up is a person's choice.
    #[error(
        "{} cannot be moved as it is: {why}; `looker-feed outbox salvage --path {} --to DIR` makes a sound one of it, which can be moved. Nothing was changed",
        path.display(), path.display()
    )]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What is damaged.
        why: String,
    },
    /// A move to another place has begun.
    #[error(
        "a move of {} to {to} has begun; end that one, or give it up with `looker-feed outbox move --give-up --from {} --to` and its address",
        path.display(), path.display()
    )]
    Elsewhere {
        /// The directory.
        path: PathBuf,
        /// Where to.
        to: String,
    },
    /// It was moved before.
    #[error("{} was moved to {to} before", path.display())]
    Done {
        /// The directory.
        path: PathBuf,
        /// Where to.
        to: String,
    },
    /// No move of it has begun.
    #[error("no move of {} has begun", .0.display())]
    NotBegun(PathBuf),
    /// An erasure has not ended.
    #[error("somebody is being erased from {}; start the daemon on it, and move it when the erasure has ended", .0.display())]
    Erasing(PathBuf),
    /// The mark on the directory could not be written.
    #[error("the mark of the move could not be written to {}", path.display())]
    Mark {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The new directory holds something.
    #[error("{} is not empty; give a directory that is not there yet. (An outbox that an earlier run has brought there whole is ready: start the daemon on it)", .0.display())]
    NotEmpty(PathBuf),
    /// The shared outbox is in use.
    #[error(
        "the database {server} is in use: {}", in_use(daemons, *asked)
    )]
    InUse {
        /// Hosts and database.
        server: String,
        /// Names of daemons.
        daemons: String,
        /// Things that people have asked for and that no daemon has done.
        asked: u64,
    },
    /// Reading the one or writing the other failed.
    #[error(
        "{0}; the same move can be made again and goes on where it was, or be given up with --give-up"
    )]
    Broken(#[from] Error),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
    /// What is there afterwards is not what was there before.
    #[error(
        "what is in {to} is not what was in {}: {what}. The directory is as it was, and marked as moved; keep it, and have this looked into",
        path.display()
    )]
    Different {
        /// The directory.
        path: PathBuf,
        /// The shared outbox.
        to: String,
        /// What differs.
        what: String,
    },
}

fn in_use(daemons: &str, asked: u64) -> String {
    match daemons.is_empty() {
        false => {
            format!("{daemons}. Stop all daemons first; one that was killed counts for a minute")
        }
        true => format!(
            "what people have asked for is not done yet ({asked}). Start a daemon, and stop it when it has done so"
        ),
    }
}

/// How far a move has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveStep {
    /// Everything is read once, to see that it is sound.
    Checking,
    /// So many deliveries of so many are staged.
    Copied(u64, u64),
    /// All is staged, and is about to be made visible.
    Ending,
    /// All is visible. The mark is about to say so.
    Visible,
}

/// What an outbox holds, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Deliveries that are listed.
    pub deliveries: u64,
    /// Rows that Looker sent, of these.
    pub rows_in: u64,
    /// What waits to be sent.
    pub waiting: Tally,
    /// What is in the dead letters.
    pub dead: Tally,
    /// Records of dead letters, of those that are to be sent again too.
    pub letters: u64,
    /// Rejected rows that are kept.
    pub rejected: u64,
    /// Webhook ids that are remembered.
    pub webhooks: u64,
    /// Notes.
    pub notes: u64,
    /// Deliveries that failed.
    pub failed: u64,
}

/// What a move has come to.
#[derive(Clone, Debug)]
pub struct MovedOutbox {
    /// Where it is now, without user and password.
    pub to: String,
    /// An earlier run had made it visible, and only the mark was missing: nothing was compared.
    pub earlier: bool,
    /// What was in the directory.
    pub before: Holdings,
    /// What of that is in the shared outbox.
    pub after: Holdings,
    /// Daemons work on the shared outbox: some of it may have been sent already.
    pub in_use: bool,
    /// What was added to the numbers of dead letters, since others had theirs.
    pub letters_from: u64,
    /// The server.
    pub server: postgres::ServerFacts,
}

/// Moves the outbox in the directory `from`, which nobody has open, into a shared one: whole or not at
/// all. What is sealed stays as it is, so `settings.keys` must open it. Blocks for as long as it takes.
pub fn move_outbox(
    from: &Path,
    settings: postgres::Settings,
    told: &mut dyn FnMut(MoveStep),
) -> Result<MovedOutbox, MoveError> {
    let (layout, to) = (Layout::new(from), settings.server.to_string());
    let begun = begun(from, &layout, &to)?;
    told(MoveStep::Checking);
    check(from, &settings.keys)?;
    let leaving = Leaving::open(from, Arc::clone(&settings.keys))?;
    if begun.is_none() && leaving.is_erasing()? {
        return Err(MoveError::Erasing(from.to_owned()));
    }
    let id = match begun {
        Some(mark) => mark.id,
        None => random()?,
    };
    let mut into_settings = settings;
    into_settings.name = postgres::MOVER.to_owned();
    let into = TakeIn::open(into_settings, id)?;
    let mark = |done| {
        let mark = Mark {
            id,
            done,
            to: to.clone(),
        };
        mark.write(&Disk::default(), &layout)
            .map_err(|source| MoveError::Mark {
                path: from.to_owned(),
                source,
            })
    };
    mark(false)?;
    let moved = carry(&leaving, &into, told);
    let closed = moved.and_then(|(before, shift)| {
        let server = into.outbox().facts()?;
        mark(true)?;
        let earlier = before.is_none();
        let before = before.unwrap_or_default();
        let (after, alone) = match earlier {
            true => (Holdings::default(), true),
            false => (before.1, before.2),
        };
        Ok(MovedOutbox {
            to: to.clone(),
            earlier,
            before: before.0,
            after,
            in_use: !alone,
            letters_from: shift,
            server,
        })
    });
    into.outbox().close();
    leaving.close();
    let moved = closed?;
    compare(from, &moved)?;
    Ok(moved)
}

/// Gives up a move that has begun: what was staged is removed, and the directory is an outbox as before.
///
/// # Errors
/// None has begun, it is done, or the server cannot be asked.
pub fn give_up_move(from: &Path, settings: postgres::Settings) -> Result<(), MoveError> {
    let (layout, to) = (Layout::new(from), settings.server.to_string());
    let Some(mark) = begun(from, &layout, &to)? else {
        return Err(MoveError::NotBegun(from.to_owned()));
    };
    let leaving = Leaving::open(from, Arc::clone(&settings.keys))?;
    let mut into_settings = settings;
    into_settings.name = postgres::MOVER.to_owned();
    let into = TakeIn::open(into_settings, mark.id)?;
    let given_up = into.give_up();
    into.outbox().close();
    leaving.close();
    if !given_up? {
        return Err(MoveError::Done {
            path: from.to_owned(),
            to,
        });
    }
    Mark::remove(&Disk::default(), &layout).map_err(|source| MoveError::Mark {
        path: from.to_owned(),
        source,
    })
}

/// The move that has begun, if it is one to the same place.
fn begun(from: &Path, layout: &Layout, to: &str) -> Result<Option<Mark>, MoveError> {
    let read = Mark::read(&Disk::default(), layout);
    let mark = read.map_err(|error| MoveError::Directory(error.at(from)))?;
    match mark {
        Some(mark) if mark.done => Err(MoveError::Done {
            path: from.to_owned(),
            to: mark.to,
        }),
        Some(mark) if mark.to != to => Err(MoveError::Elsewhere {
            path: from.to_owned(),
            to: mark.to,
        }),
        mark => Ok(mark),
    }
}

fn random() -> Result<[u8; 16], MoveError> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| MoveError::Random(error.to_string()))?;
    Ok(id)
}

/// Reads everything once, before anything is changed.
fn check(from: &Path, keys: &Keyring) -> Result<(), MoveError> {
    let found = offline::inspect(from, Some(keys))?;
    let damaged = |why: String| MoveError::Damaged {
        path: from.to_owned(),
        why,
    };
    if let Some(fault) = found.report.faults.first() {
        let others = found.report.faults.len() - 1;
        let more = match others {
            0 => String::new(),
            _ => format!(" (and {others} more)"),
        };
        let file = fault.file.display();
        return Err(damaged(format!("{file}: {}{more}", fault.what)));
    }
    match found.report.salvageable_batches {
        0 => Ok(()),
        batches => Err(damaged(format!(
            "batches that were given up as damaged can be read after all ({batches})"
        ))),
    }
}

type Both = (Holdings, Holdings, bool);

/// Copies and makes visible; `None`: that was done by an earlier run.
fn carry(
    leaving: &Leaving,
    into: &TakeIn,
    told: &mut dyn FnMut(MoveStep),
) -> Result<(Option<Both>, u64), MoveError> {
    if let Some(shift) = into.done()? {
        return Ok((None, shift));
    }
    let carried = Arc::new(leaving.contents()?);
    let (stored, keys) = copy(leaving, into, &carried, told)?;
    told(MoveStep::Ending);
    let before = holdings(&carried, stored.kept);
    let alone = into.alone()?;
    let shift = into.finish(Arc::clone(&carried), keys, stored)?;
    told(MoveStep::Visible);
    let after = from_counted(into.counted(Arc::clone(&carried))?);
    let alone = alone && into.alone()?;
    Ok((Some((before, after, alone)), shift))
}

/// Stages what is not staged yet. Everything is read again, so that the counts are those of the
/// directory.
fn copy(
    leaving: &Leaving,
    into: &TakeIn,
    carried: &Carried,
    told: &mut dyn FnMut(MoveStep),
) -> Result<(Stored, Vec<KeyId>), MoveError> {
    let there = into.staged()?;
    let mut letters: BTreeMap<DeliveryId, Vec<u64>> = BTreeMap::new();
    for letter in &carried.letters {
        letters.entry(letter.delivery).or_default().push(letter.id);
    }
    let total = carried.deliveries.len() as u64;
    let mut sum = Stored::default();
    let mut keys = BTreeMap::new();
    for (at, delivery) in carried.deliveries.iter().enumerate() {
        let id = delivery.info.id;
        let store = !there.contains(&id);
        if store {
            into.begin(delivery)?;
        }
        let mut copying = Copying::new(into, id, store);
        leaving.entries(delivery, |ordinal, record, tally| {
            copying.entry(ordinal, record, tally)
        })?;
        leaving.rejected(id, |record| copying.rejected(record))?;
        for letter in letters.remove(&id).unwrap_or_default() {
            let (record, key) = leaving.letter(letter)?;
            keys.insert(letter, key);
            copying.letter(letter, record)?;
        }
        let stored = copying.end()?;
        if store {
            into.whole(delivery, stored)?;
        }
        sum.blocks += stored.blocks;
        sum.entries += stored.entries;
        sum.kept += stored.kept;
        told(MoveStep::Copied(at as u64 + 1, total));
    }
    // Letters stand in the order of their ids, as the keys do.
    Ok((sum, keys.into_values().collect()))
}

fn holdings(carried: &Carried, rejected: u64) -> Holdings {
    let mut sum = Holdings {
        deliveries: carried.deliveries.len() as u64,
        letters: carried.letters.len() as u64,
        rejected,
        webhooks: carried.webhooks.len() as u64,
        notes: carried.notes.len() as u64,
        failed: carried.attempts.len() as u64,
        ..Holdings::default()
    };
    for delivery in &carried.deliveries {
        sum.rows_in += delivery.totals.rows_in;
        sum.waiting += delivery.waiting();
        sum.dead += delivery.counters.dead;
    }
    sum
}

fn from_counted(counted: Counted) -> Holdings {
    Holdings {
        deliveries: counted.deliveries,
        rows_in: counted.rows_in,
        waiting: counted.waiting,
        dead: counted.dead,
        letters: counted.letters,
        rejected: counted.kept,
        webhooks: counted.webhooks,
        notes: counted.notes,
        failed: counted.attempts,
    }
}

/// Moves a shared outbox that no daemon uses into a directory that is not there yet: whole or not at all.
/// A run that is broken off is made again from the beginning. Blocks for as long as it takes.
pub fn move_back(
    settings: postgres::Settings,
    to: &Path,
    told: &mut dyn FnMut(MoveStep),
) -> Result<MovedOutbox, MoveError> {
    let (server, keys) = (settings.server.to_string(), Arc::clone(&settings.keys));
    let io = |source| MoveError::Mark {
        path: to.to_owned(),
        source,
    };
    if std::fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(MoveError::NotEmpty(to.to_owned()));
    }
    let out = TakeOut::open(settings)?;
    let moved = bring(&out, &server, to, &keys, told);
    out.outbox().close();
    let moved = moved?;
    let disk = Disk::default();
    disk.remove(to).map_err(io)?;
    disk.rename(&unfinished(to), to).map_err(io)?;
    let parent = to.parent().filter(|path| !path.as_os_str().is_empty());
    disk.sync_directory(parent.unwrap_or(Path::new(".")))
        .map_err(io)?;
    Ok(moved)
}

/// Where it is made until it is whole.
fn unfinished(to: &Path) -> PathBuf {
    let mut name = to.as_os_str().to_owned();
    name.push(".moving");
    PathBuf::from(name)
}

fn bring(
    out: &TakeOut,
    from: &str,
    to: &Path,
    keys: &Arc<Keyring>,
    told: &mut dyn FnMut(MoveStep),
) -> Result<MovedOutbox, MoveError> {
    let (daemons, asked) = out.in_use()?;
    if !daemons.is_empty() || asked > 0 {
        return Err(MoveError::InUse {
            server: from.to_owned(),
            daemons: daemons.join(", "),
            asked,
        });
    }
    let unfinished = unfinished(to);
    Disk::default()
        .remove(&unfinished)
        .map_err(|source| MoveError::Mark {
            path: unfinished.clone(),
            source,
        })?;
    let carried = out.contents()?;
    let kept = fill(out, &carried, &unfinished, keys, told)?;
    told(MoveStep::Ending);
    // As a start would read it.
    let arrived = Leaving::open(&unfinished, Arc::clone(keys))?;
    let after = arrived.contents();
    arrived.close();
    let server = out.outbox().facts()?;
    let moved = MovedOutbox {
        to: to.display().to_string(),
        earlier: false,
        before: holdings(&carried, kept),
        after: holdings(&after?, kept),
        in_use: false,
        letters_from: 0,
        server,
    };
    compare(&unfinished, &moved)?;
    if !out.mark()? {
        return Err(MoveError::InUse {
            server: from.to_owned(),
            daemons: "one that has just started".to_owned(),
            asked: 0,
        });
    }
    told(MoveStep::Visible);
    Ok(moved)
}

/// Copies everything into a fresh outbox; returns how many rejected rows there are.
fn fill(
    out: &TakeOut,
    carried: &Carried,
    into: &Path,
    keys: &Arc<Keyring>,
    told: &mut dyn FnMut(MoveStep),
) -> Result<u64, MoveError> {
    let mut arriving = Arriving::new(into, Arc::clone(keys))?;
    let places = places(carried);
    let total = carried.deliveries.len() as u64;
    let mut kept = 0;
    for (at, delivery) in carried.deliveries.iter().enumerate() {
        let turn = (delivery.info.destination, delivery.turn);
        let position = places.get(&turn).copied().unwrap_or_default();
        let rejected = out.rejected(delivery.info.id)?;
        kept += rejected.len() as u64;
        arriving.delivery(delivery, position, &rejected, |requests| {
            out.entries(delivery, |ordinal, record, tally| {
                requests.entry(ordinal, record, tally)
            })
        })?;
        told(MoveStep::Copied(at as u64 + 1, total));
    }
    for letter in &carried.letters {
        let (record, key) = out.letter(letter)?;
        let place = |turn| places.get(&(letter.destination, turn)).copied();
        arriving.letter(letter, &record, key, letter.queued.and_then(place))?;
    }
    let next = Meta {
        next_position: places.len() as u64,
        next_letter: carried.next_letter,
    };
    let (notes, hooks) = (&carried.notes, &carried.webhooks);
    arriving.end(&carried.accounts, notes, hooks, &carried.attempts, next)?;
    Ok(kept)
}

/// A place for each turn of all destinations: each destination's in their order, and deliveries as nearly
/// as can be in that of their commits.
fn places(carried: &Carried) -> BTreeMap<(DestinationId, u64), u64> {
    let mut turns: BTreeMap<(DestinationId, u64), u64> = BTreeMap::new();
    for delivery in &carried.deliveries {
        let turn = (delivery.info.destination, delivery.turn);
        turns.insert(turn, delivery.committed.0);
    }
    for letter in &carried.letters {
        if let Some(turn) = letter.queued {
            turns.entry((letter.destination, turn)).or_insert(0);
        }
    }
    let mut latest: (Option<DestinationId>, u64) = (None, 0);
    let mut order: Vec<(u64, (DestinationId, u64))> = Vec::new();
    for (turn, committed) in turns {
        if latest.0 != Some(turn.0) {
            latest = (Some(turn.0), 0);
        }
        latest.1 = latest.1.max(committed);
        order.push((latest.1, turn));
    }
    order.sort();
    (0..)
        .zip(order)
        .map(|(place, (_, turn))| (turn, place))
        .collect()
}

/// What was there before must be there after. Where daemons work, what they change is left out.
fn compare(path: &Path, moved: &MovedOutbox) -> Result<(), MoveError> {
    let (before, after) = (&moved.before, &moved.after);
    let mut pairs = vec![
        ("deliveries", before.deliveries, after.deliveries),
        ("rows", before.rows_in, after.rows_in),
        ("rejected rows", before.rejected, after.rejected),
        ("webhook ids", before.webhooks, after.webhooks),
    ];
    if !moved.in_use {
        pairs.extend([
            ("waiting rows", before.waiting.rows, after.waiting.rows),
            (
                "waiting batches",
                before.waiting.batches,
                after.waiting.batches,
            ),
            ("rows in dead letters", before.dead.rows, after.dead.rows),
            ("dead batches", before.dead.batches, after.dead.batches),
            ("records of dead letters", before.letters, after.letters),
            ("notes", before.notes, after.notes),
            ("failed deliveries", before.failed, after.failed),
        ]);
    }
    let different = pairs.iter().find(|(_, before, after)| before != after);
    match different {
        None => Ok(()),
        Some((what, before, after)) => Err(MoveError::Different {
            path: path.to_owned(),
            to: moved.to.clone(),
            what: format!("{before} {what} were there, {after} are"),
        }),
    }
}
