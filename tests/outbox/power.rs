//! What a loss of power leaves: at every step, only what was fsynced, and then any part of what
//! was written beside it. A kill of the process cannot show a missing fsync; this can.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use looker_feed::outbox::{DeadFilter, Disk, Op, Outbox, RejectedRow, Settings};

use crate::kit::*;

/// A change, as it was made.
#[derive(Clone, Debug)]
enum Event {
    Create(PathBuf),
    Write(PathBuf, u64, Vec<u8>),
    Sync(PathBuf),
    SyncDirectory(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    /// A batch was handed to sled: from here on its directory may be what the next sync says.
    Batch,
    /// sled's directory as it was when its files were synced.
    State(BTreeMap<PathBuf, Vec<u8>>),
    /// What a caller has been told.
    Told(Told),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Begun(u8),
    Committed(u8, u64),
    Delivered(Vec<Vec<u8>>),
    Dead(Vec<u8>),
    Replayed(Vec<u8>),
    /// A dead letter has [`mended`] content from now on.
    Edited(Vec<u8>),
}

type Log = Arc<Mutex<Vec<Event>>>;

fn recorder(log: &Log) -> Disk {
    let log = Arc::clone(log);
    Disk::with_hook(move |op| {
        let event = match *op {
            Op::CreateDirectory(_)
            | Op::StateFlush(_)
            | Op::Cut { .. }
            | Op::Open(_)
            | Op::Length(_)
            | Op::List(_)
            | Op::Read { .. }
            | Op::StateOpen(_) => return Ok(()),
            Op::StateBatch(_) => Event::Batch,
            Op::Create(path) => Event::Create(path.to_owned()),
            Op::Write {
                path,
                offset,
                bytes,
            } => Event::Write(path.to_owned(), offset, bytes.to_vec()),
            Op::Sync(path) => Event::Sync(path.to_owned()),
            Op::SyncDirectory(path) => Event::SyncDirectory(path.to_owned()),
            Op::Rename { from, to } => Event::Rename(from.to_owned(), to.to_owned()),
            Op::Remove(path) => Event::Remove(path.to_owned()),
            Op::StateSync(path) => Event::State(files_of(path)),
        };
        log.lock().unwrap().push(event);
        Ok(())
    })
}

fn files_of(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    files
}

/// A file: what is on the platter, and writes that may not be.
#[derive(Clone, Debug, Default)]
struct File {
    durable: Vec<u8>,
    pending: Vec<(u64, Vec<u8>)>,
}

/// A directory entry that is not on the platter yet.
#[derive(Clone, Debug)]
enum Entry {
    Link(PathBuf, usize),
    Unlink(PathBuf),
}

/// The disk as it is being written.
#[derive(Clone, Debug, Default)]
struct Platter {
    files: Vec<File>,
    /// As the process sees it.
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// By directory, in order.
    pending_names: BTreeMap<PathBuf, Vec<Entry>>,
    state: BTreeMap<PathBuf, Vec<u8>>,
}

impl Platter {
    /// A disk that holds what is below `path`, all of it durable.
    fn of(path: &Path) -> Self {
        let mut platter = Self::default();
        for directory in ["", "segments", "dead", "rejected", "damaged"] {
            for (path, durable) in files_of(&path.join(directory)) {
                platter.names.insert(path, platter.files.len());
                let pending = Vec::new();
                platter.files.push(File { durable, pending });
            }
        }
        platter.durable_names.clone_from(&platter.names);
        platter.state = files_of(&path.join("state"));
        platter
    }

    fn take(&mut self, event: &Event) {
        match event {
            Event::Create(path) => {
                self.files.push(File::default());
                self.link(path, self.files.len() - 1);
            }
            Event::Write(path, offset, bytes) => {
                if let Some(&file) = self.names.get(path) {
                    self.files[file].pending.push((*offset, bytes.clone()));
                }
            }
            Event::Sync(path) => {
                if let Some(&file) = self.names.get(path) {
                    let file = &mut self.files[file];
                    for (offset, bytes) in std::mem::take(&mut file.pending) {
                        put(&mut file.durable, offset, &bytes);
                    }
                }
            }
            Event::SyncDirectory(path) => {
                for entry in self.pending_names.remove(path).unwrap_or_default() {
                    apply(&mut self.durable_names, &entry);
                }
            }
            Event::Rename(from, to) => {
                if let Some(&file) = self.names.get(from) {
                    self.unlink(from);
                    self.link(to, file);
                }
            }
            Event::Remove(path) => {
                if self.names.contains_key(path) {
                    self.unlink(path);
                }
            }
            Event::State(files) => self.state = files.clone(),
            Event::Told(_) | Event::Batch => {}
        }
    }

    fn link(&mut self, path: &Path, file: usize) {
        self.names.insert(path.to_owned(), file);
        self.pend(path, Entry::Link(path.to_owned(), file));
    }

    fn unlink(&mut self, path: &Path) {
        self.names.remove(path);
        self.pend(path, Entry::Unlink(path.to_owned()));
    }

    fn pend(&mut self, path: &Path, entry: Entry) {
        let parent = path.parent().unwrap().to_owned();
        self.pending_names.entry(parent).or_default().push(entry);
    }

    /// Puts what is left after the power is gone below `to`. `keep` decides on each piece that
    /// was not synced.
    fn leave(&self, from: &Path, to: &Path, mut keep: impl FnMut() -> bool) {
        let mut names = self.durable_names.clone();
        for entries in self.pending_names.values() {
            // Entries of one directory come to the disk in their order.
            for entry in entries.iter().take_while(|_| keep()) {
                apply(&mut names, entry);
            }
        }
        for directory in ["segments", "dead", "rejected", "damaged", "state"] {
            fs::create_dir_all(to.join(directory)).unwrap();
        }
        for (path, file) in names {
            let file = &self.files[file];
            let mut bytes = file.durable.clone();
            for (offset, piece) in &file.pending {
                if keep() {
                    // A piece may be torn as well.
                    let length = if keep() { piece.len() } else { piece.len() / 2 };
                    put(&mut bytes, *offset, &piece[..length]);
                }
            }
            let target = to.join(path.strip_prefix(from).unwrap());
            // Copies of the state have directories of their own.
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::write(target, bytes).unwrap();
        }
        for (path, bytes) in &self.state {
            fs::write(to.join(path.strip_prefix(from).unwrap()), bytes).unwrap();
        }
    }
}

fn apply(names: &mut BTreeMap<PathBuf, usize>, entry: &Entry) {
    match entry {
        Entry::Link(path, file) => names.insert(path.clone(), *file),
        Entry::Unlink(path) => names.remove(path),
    };
}

fn put(into: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let offset = offset as usize;
    if into.len() < offset + bytes.len() {
        into.resize(offset + bytes.len(), 0);
    }
    into[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// No history, so that deliveries are forgotten on the way.
fn brief(path: &Path) -> Settings {
    Settings {
        history: 0,
        ..settings(path)
    }
}

fn mended(payload: &[u8]) -> Vec<u8> {
    [payload, b"!"].concat()
}

/// Everything the outbox does, once, with what its callers were told in between.
fn record(path: &Path) -> Vec<Event> {
    let log = Log::default();
    let tell = |told| log.lock().unwrap().push(Event::Told(told));
    let outbox = Outbox::open_on(brief(path), recorder(&log)).unwrap();
    let commit = |delivery: u8, entries: u64| {
        tell(Told::Begun(delivery));
        let mut staging = outbox.begin(new_delivery(delivery, 1)).unwrap();
        for ordinal in 0..entries {
            append(&mut staging, delivery, ordinal).unwrap();
        }
        let rejected = RejectedRow {
            row: 0,
            reason: "reason",
            text: b"text",
        };
        staging.reject(rejected).unwrap();
        staging.commit(totals(entries, 1)).unwrap();
        tell(Told::Committed(delivery, entries));
    };
    let send = |max: usize, make_dead: bool| {
        let claims = lease(&outbox, 1).claim(max).unwrap();
        let mut settlements = delivered(&claims);
        let mut slices: Vec<Vec<u8>> = claims
            .iter()
            .flat_map(|claim| claim.slices.iter().map(|slice| slice.to_vec()))
            .collect();
        if make_dead {
            settlements[0] = settlement(&claims[0], &[0]);
        }
        lease(&outbox, 1).settle(settlements).unwrap();
        if make_dead {
            tell(Told::Dead(slices.remove(0)));
        }
        tell(Told::Delivered(slices));
    };
    commit(1, 25);
    send(10, true);
    commit(2, 4);
    send(5, true);
    {
        tell(Told::Begun(9));
        let mut staging = outbox.begin(new_delivery(9, 1)).unwrap();
        for ordinal in 0..30 {
            append(&mut staging, 9, ordinal).unwrap();
        }
    }
    let page = outbox.dead_letters(DeadFilter::default(), None, 9).unwrap();
    outbox.replay(&[page.letters[0].id]).unwrap();
    tell(Told::Replayed(payload(1, 0, 0)));
    let (second, (_, body)) = (page.letters[1].id, {
        let letter = outbox.dead_letter(page.letters[1].id).unwrap();
        letter.unwrap()
    });
    outbox.edit(second, mended(&body)).unwrap().unwrap();
    tell(Told::Edited(body.to_vec()));
    send(20, false);
    send(4, false);
    send(4, false);
    commit(3, 2);
    send(2, false);
    commit(4, 2);
    send(2, false);
    commit(5, 2);
    outbox.close();
    let log = log.lock().unwrap();
    log.clone()
}

/// Opens what the power cut left and compares all of it with what the callers had been told.
/// `next` is what they were about to be told: it may have become true already.
fn check(path: &Path, told: &[Told], next: Option<&Told>, what: &str) {
    let outbox = Outbox::open(brief(path)).unwrap();
    assert_eq!(outbox.damage(), [], "{what}");
    check_sums(&outbox);
    let mut committed = BTreeMap::new();
    let mut begun = BTreeSet::new();
    let mut done: BTreeMap<Vec<u8>, &str> = BTreeMap::new();
    for one in told {
        match one {
            Told::Begun(delivery) => {
                begun.insert(*delivery);
            }
            Told::Committed(delivery, entries) => {
                committed.insert(*delivery, *entries);
            }
            Told::Delivered(slices) => {
                done.extend(slices.iter().map(|slice| (slice.clone(), "delivered")));
            }
            Told::Dead(slice) => {
                done.insert(slice.clone(), "dead");
            }
            Told::Replayed(slice) => {
                done.remove(slice);
            }
            Told::Edited(slice) => {
                assert_eq!(done.insert(slice.clone(), "edited"), Some("dead"));
            }
        }
    }
    let mut dead = BTreeSet::new();
    let mut edited = BTreeSet::new();
    for letter in outbox
        .dead_letters(DeadFilter::default(), None, 99)
        .unwrap()
        .letters
    {
        let (_, body) = outbox.dead_letter(letter.id).unwrap().unwrap();
        let name = body.strip_suffix(b"!").unwrap_or(&body).to_vec();
        if name.len() < body.len() {
            edited.insert(name.clone());
        }
        assert!(dead.insert(name), "{what}: a dead letter is there twice");
    }
    let before = outbox.deliveries(None, 99).unwrap().deliveries;
    let mut came = BTreeSet::new();
    for claim in drain(&outbox, 1) {
        for slice in &claim.slices {
            assert_ne!(
                done.get(&slice[..]),
                Some(&"delivered"),
                "{what}: sent again"
            );
            assert!(came.insert(slice.to_vec()), "{what}: handed out twice");
        }
    }
    for (delivery, entries) in &committed {
        let state = before.iter().find(|one| one.id == delivery_id(*delivery));
        if let Some(state) = state {
            assert_eq!(state.rows_in, totals(*entries, 1).rows_in, "{what}");
            let page = outbox.rejected(state.id, None, 9).unwrap();
            // The history may have been shortened by the drain above.
            assert!(
                page.is_none_or(|page| page.kept == 1),
                "{what}: rejected rows"
            );
        }
        for ordinal in 0..*entries {
            for slice in 0..shape(ordinal).len() {
                let name = payload(*delivery, ordinal, slice);
                let place = done.get(&name).copied();
                let place = match next {
                    Some(Told::Delivered(slices)) if slices.contains(&name) => Some("either"),
                    Some(Told::Dead(slice) | Told::Replayed(slice)) if *slice == name => {
                        Some("either")
                    }
                    // Settled together with the dead one that is told of first.
                    Some(Told::Dead(_)) if place.is_none() => Some("either"),
                    _ => place,
                };
                let fine = match place {
                    Some("delivered" | "either") => true,
                    Some("edited") => edited.contains(&name) && !came.contains(&name),
                    Some("dead") if next == Some(&Told::Edited(name.clone())) => {
                        dead.contains(&name) && !came.contains(&name)
                    }
                    Some(_) if edited.contains(&name) => false,
                    Some(_) => dead.contains(&name) && !came.contains(&name),
                    None => came.contains(&name) && !dead.contains(&name),
                };
                assert!(
                    fine,
                    "{what}: delivery {delivery} entry {ordinal} slice {slice}: {place:?}"
                );
            }
        }
        let waited = state.map_or(0, |state| state.waiting.rows);
        assert_eq!(waited, came_rows(&came, *delivery, *entries), "{what}");
    }
    for state in outbox.deliveries(None, 99).unwrap().deliveries {
        let delivery = state.id.0[0];
        assert!(
            begun.contains(&delivery) && delivery != 9,
            "{what}: {state:?}"
        );
        assert!(state.settled, "{what}");
    }
    check_sums(&outbox);
}

fn came_rows(came: &BTreeSet<Vec<u8>>, delivery: u8, entries: u64) -> u64 {
    let mut rows = 0;
    for ordinal in 0..entries {
        for (slice, weight) in shape(ordinal).into_iter().enumerate() {
            if came.contains(&payload(delivery, ordinal, slice)) {
                rows += u64::from(weight);
            }
        }
    }
    rows
}

fn told(events: &[Event]) -> Vec<Told> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Told(told) => Some(told.clone()),
            _ => None,
        })
        .collect()
}

/// A state of sled's directory that may be on the disk before it has been synced.
type Coming<'a> = Option<&'a BTreeMap<PathBuf, Vec<u8>>>;

fn coming<'a>(events: &'a [Event], n: usize, before: Coming<'a>) -> Coming<'a> {
    match &events[n] {
        Event::Batch => events[n..].iter().find_map(|event| match event {
            Event::State(files) => Some(files),
            _ => None,
        }),
        Event::State(_) => None,
        _ => before,
    }
}

/// Cuts the power in four ways and hands what each leaves to `look`.
fn cut(
    platter: &Platter,
    coming: Coming<'_>,
    path: &Path,
    seed: &mut fastrand::Rng,
    mut look: impl FnMut(&Path, usize),
) {
    for variant in 0..4 {
        let left = beside(path, "left");
        let mut platter = platter.clone();
        // What sled has written and not synced may be on the disk all the same.
        if variant % 2 == 1
            && let Some(files) = coming
        {
            platter.state.clone_from(files);
        }
        match variant {
            0 => platter.leave(path, &left, || false),
            1 => platter.leave(path, &left, || true),
            _ => platter.leave(path, &left, || seed.bool()),
        }
        look(&left, variant);
        fs::remove_dir_all(&left).unwrap();
    }
}

fn beside(path: &Path, what: &str) -> PathBuf {
    let name = path.file_name().unwrap().to_str().unwrap();
    path.with_file_name(format!("{name}-{what}"))
}

fn next_told(events: &[Event], n: usize) -> Option<&Told> {
    events[n + 1..].iter().find_map(|event| match event {
        Event::Told(told) => Some(told),
        _ => None,
    })
}

#[test]
fn a_power_cut_at_any_step_keeps_every_promise() {
    let home = home();
    let path = home.path().join("outbox");
    let events = record(&path);
    assert!(events.len() > 80, "{}", events.len());
    let mut platter = Platter::default();
    let mut seed = fastrand::Rng::with_seed(7);
    let mut state = None;
    for (n, event) in events.iter().enumerate() {
        platter.take(event);
        state = coming(&events, n, state);
        let told = told(&events[..=n]);
        cut(&platter, state, &path, &mut seed, |left, variant| {
            let what = format!("event {n}, variant {variant}: {event:?}");
            check(left, &told, next_told(&events, n), &what);
        });
    }
}

#[test]
fn a_power_cut_or_an_error_during_the_open_after_a_power_cut_loses_nothing() {
    let home = home();
    let path = home.path().join("outbox");
    let events = record(&path);
    let mut platter = Platter::default();
    let mut seed = fastrand::Rng::with_seed(8);
    let mut state = None;
    for (n, event) in events.iter().enumerate() {
        platter.take(event);
        state = coming(&events, n, state);
        // What is written last before something is synced is what a kill may leave unsynced.
        let unsynced = match event {
            Event::Write(file, ..) => {
                matches!(events.get(n + 1), Some(Event::Sync(_)))
                    && (n % 3 == 0 || file.starts_with(path.join("dead")))
            }
            _ => false,
        };
        if n % 29 != 0 && !unsynced {
            continue;
        }
        let told = told(&events[..=n]);
        let next = next_told(&events, n);
        if unsynced {
            kill_then_cut(&platter, &path, &told, next, &format!("event {n}"));
            continue;
        }
        cut(&platter, state, &path, &mut seed, |left, variant| {
            let what = format!("event {n}, variant {variant}");
            open_cut(left, &told, next, &what);
            open_failing(left, &told, next, &what);
        });
    }
}

fn open_cut(left: &Path, told: &[Told], next: Option<&Told>, what: &str) {
    let mut platter = Platter::of(left);
    let log = Log::default();
    let again = beside(left, "again");
    copy_all(left, &again);
    // Recorded on a copy, told of the original.
    drop(Outbox::open_on(brief(&again), recorder(&log)).unwrap());
    fs::remove_dir_all(&again).unwrap();
    let events: Vec<Event> = log
        .lock()
        .unwrap()
        .iter()
        .map(|event| event.moved(&again, left))
        .collect();
    assert!(events.len() > 3);
    let mut seed = fastrand::Rng::with_seed(9);
    let mut state = None;
    for (n, event) in events.iter().enumerate() {
        platter.take(event);
        state = coming(&events, n, state);
        cut(&platter, state, left, &mut seed, |left, variant| {
            check(
                left,
                told,
                next,
                &format!("{what}, open {n}, variant {variant}: {event:?}"),
            );
        });
    }
}

/// The process dies and is started again, and only then the power goes: what the first one had
/// not synced the second one has seen all the same.
fn kill_then_cut(platter: &Platter, path: &Path, told: &[Told], next: Option<&Told>, what: &str) {
    let again = beside(path, "again");
    platter.leave(path, &again, || true);
    let log = Log::default();
    drop(Outbox::open_on(brief(&again), recorder(&log)).unwrap());
    fs::remove_dir_all(&again).unwrap();
    let events: Vec<Event> = log
        .lock()
        .unwrap()
        .iter()
        .map(|event| event.moved(&again, path))
        .collect();
    let mut platter = platter.clone();
    let mut seed = fastrand::Rng::with_seed(10);
    let mut state = None;
    for (n, event) in events.iter().enumerate() {
        platter.take(event);
        state = coming(&events, n, state);
        cut(&platter, state, path, &mut seed, |left, variant| {
            let what = format!("{what}, killed, open {n}, variant {variant}: {event:?}");
            check(left, told, next, &what);
        });
    }
}

fn open_failing(left: &Path, told: &[Told], next: Option<&Told>, what: &str) {
    for nth in 0.. {
        let again = beside(left, "again");
        copy_all(left, &again);
        let calls = Arc::new(Mutex::new(0));
        let counter = Arc::clone(&calls);
        let disk = Disk::with_hook(move |_| {
            let mut calls = counter.lock().unwrap();
            *calls += 1;
            if *calls == nth + 1 {
                Err(std::io::Error::from_raw_os_error(5))
            } else {
                Ok(())
            }
        });
        drop(Outbox::open_on(brief(&again), disk));
        check(
            &again,
            told,
            next,
            &format!("{what}, open with error {nth}"),
        );
        fs::remove_dir_all(&again).unwrap();
        if *calls.lock().unwrap() <= nth {
            assert!(nth > 3);
            return;
        }
    }
}

impl Event {
    /// The same below another directory.
    fn moved(&self, from: &Path, to: &Path) -> Self {
        let at = |path: &PathBuf| match path.strip_prefix(from) {
            Ok(rest) if rest.as_os_str().is_empty() => to.to_owned(),
            Ok(rest) => to.join(rest),
            Err(_) => path.clone(),
        };
        match self {
            Self::Create(path) => Self::Create(at(path)),
            Self::Write(path, offset, bytes) => Self::Write(at(path), *offset, bytes.clone()),
            Self::Sync(path) => Self::Sync(at(path)),
            Self::SyncDirectory(path) => Self::SyncDirectory(at(path)),
            Self::Rename(old, new) => Self::Rename(at(old), at(new)),
            Self::Remove(path) => Self::Remove(at(path)),
            Self::State(files) => Self::State(
                files
                    .iter()
                    .map(|(path, bytes)| (at(path), bytes.clone()))
                    .collect(),
            ),
            Self::Batch => Self::Batch,
            Self::Told(told) => Self::Told(told.clone()),
        }
    }
}
