//! Searches for a person, and erasures: a thread each, while others ask how far it is. A few searches at
//! once, one erasure. Whom an erasure is about is kept, sealed, until it is over, so that it goes on after a
//! crash; nothing else of a person is kept here.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use fastrand::Rng;
use serde::{Deserialize, Serialize};

use super::person::Meant;
use crate::backoff::Backoff;
use crate::causes::with_causes;
use crate::changes::{Changes, Trace};
use crate::clock::UnixMillis;
use crate::control::people::{Lookup, Person, Place};
use crate::control::{AuditLog, Problem};
use crate::drain;
use crate::model::DeliveryId;
use crate::outbox::{self, Erased, Occurrence, Outbox, Scan};
use crate::seal::Keyring;
use crate::shutdown::Shutdown;

/// What the note of an erasure is sealed for.
const CONTEXT: &[u8] = b"looker-feed erasure v1";
/// Searches at once: each reads the whole outbox.
const SEARCHES: usize = 2;
/// Searches and erasures whose outcome is kept.
const KEPT: usize = 20;
/// Waits after a failure of an erasure.
const BACKOFF: Backoff = Backoff {
    base: Duration::from_secs(1),
    cap: Duration::from_secs(60),
};
/// Between two looks whether an erasure is left by a daemon that has ended, about.
const LEFT: Duration = Duration::from_secs(20);
/// A wait is looked up from this often, to see whether it is to end.
const LOOK: Duration = Duration::from_millis(100);

/// All of them. Cloning gives another handle.
#[derive(Clone)]
pub(super) struct Lookups(Arc<Inner>);

struct Inner {
    outbox: Outbox,
    changes: Changes,
    drain: drain::Handle,
    keys: Arc<Keyring>,
    audit: AuditLog,
    jobs: Mutex<Jobs>,
    /// It has been said that an erasure cannot be read.
    said: AtomicBool,
}

#[derive(Default)]
struct Jobs {
    stopping: bool,
    /// The newest last.
    all: VecDeque<Arc<Job>>,
    threads: Vec<JoinHandle<()>>,
}

struct Job {
    id: String,
    erases: bool,
    reference: Option<String>,
    started: UnixMillis,
    scan: Scan,
    outcome: Mutex<Outcome>,
}

#[derive(Default)]
struct Outcome {
    /// `None`: it works.
    state: Option<&'static str>,
    finished: Option<UnixMillis>,
    message: String,
    places: Vec<Place>,
}

/// What an erasure is about, as it is kept until it is over.
#[derive(Serialize, Deserialize)]
struct Note {
    id: String,
    started: UnixMillis,
    person: Person,
}

impl Lookups {
    pub fn new(
        outbox: Outbox,
        changes: Changes,
        drain: drain::Handle,
        keys: Arc<Keyring>,
        audit: AuditLog,
    ) -> Self {
        Self(Arc::new(Inner {
            outbox,
            changes,
            drain,
            keys,
            audit,
            jobs: Mutex::default(),
            said: AtomicBool::new(false),
        }))
    }

    /// Begins a search.
    pub fn find(&self, person: &Person) -> Result<Lookup, Problem> {
        let meant = Meant::new(person).map_err(Problem::Refused)?;
        let job = Arc::new(Job::new(new_id(), false, UnixMillis::now(), person));
        let mut jobs = self.0.jobs();
        let running = jobs.all.iter().filter(|job| job.works() && !job.erases);
        if running.count() >= SEARCHES {
            return Err(Problem::Refused(format!(
                "{SEARCHES} searches are under way, and each reads the whole outbox; try again when one has ended."
            )));
        }
        let (inner, own) = (Arc::clone(&self.0), Arc::clone(&job));
        jobs.start(&job, move || inner.search(&own, &meant))?;
        Ok(job.view())
    }

    /// Begins an erasure. That it has begun is durable on return.
    pub fn erase(&self, person: &Person) -> Result<Lookup, Problem> {
        let meant = Meant::new(person).map_err(Problem::Refused)?;
        let job = Arc::new(Job::new(new_id(), true, UnixMillis::now(), person));
        let mut jobs = self.0.jobs();
        let pending = self.0.outbox.pending_erasure().map_err(failed)?;
        let under_way = || {
            let said = "An erasure is under way; begin this one when that has ended.";
            Problem::Refused(said.to_owned())
        };
        if pending.is_some() {
            return Err(under_way());
        }
        let note = Note {
            id: job.id.clone(),
            started: job.started,
            person: person.clone(),
        };
        let unsealed = |error: &dyn std::error::Error| Problem::Failed(with_causes(error));
        let note = serde_json::to_vec(&note).map_err(|error| unsealed(&error))?;
        let sealed = self.0.keys.seal_text(&note, CONTEXT);
        let sealed = sealed.map_err(|error| unsealed(&error))?;
        if !self.0.outbox.begin_erasure(&sealed).map_err(failed)? {
            return Err(under_way());
        }
        let (inner, own) = (Arc::clone(&self.0), Arc::clone(&job));
        jobs.start(&job, move || inner.erase(&own, &meant))?;
        Ok(job.view())
    }

    /// Goes on with an erasure that has not ended and that nobody works on. Of an outbox that is one
    /// process's, to be called once, at the start. Blocks on the disk.
    pub fn resume(&self) {
        let taken = self.0.outbox.take_erasure();
        let said = self.0.said.swap(taken.is_err(), Ordering::Relaxed);
        let sealed = match taken {
            Ok(Some(sealed)) => sealed,
            Ok(None) => return,
            Err(_) if said => return,
            Err(error) => {
                tracing::error!(
                    error = with_causes(&error),
                    "it cannot be read whether somebody is to be erased{}",
                    if self.0.outbox.is_shared() {
                        "; it is tried again"
                    } else {
                        "; restart when it can"
                    }
                );
                return;
            }
        };
        let opened = self.0.keys.open_text(&sealed, CONTEXT);
        let note = opened.map_err(|error| error.to_string()).and_then(|text| {
            serde_json::from_slice::<Note>(&text).map_err(|error| error.to_string())
        });
        let begun = note.and_then(|note| {
            let meant = Meant::new(&note.person)?;
            let job = Arc::new(Job::new(note.id, true, note.started, &note.person));
            let (inner, own) = (Arc::clone(&self.0), Arc::clone(&job));
            tracing::info!(erasure = job.id, "an erasure that was cut short goes on");
            let started = self.0.jobs().start(&job, move || inner.erase(&own, &meant));
            started.map_err(|problem| problem.to_string())
        });
        if let Err(error) = begun {
            tracing::error!(error, "an erasure that was cut short cannot go on");
        }
    }

    /// Goes on with erasures of other daemons that have ended, until `stop`.
    pub async fn follow(self, mut stop: Shutdown) {
        if !self.0.outbox.is_shared() {
            return stop.wait().await;
        }
        loop {
            let pause = LEFT.mul_f64(0.75 + fastrand::f64() / 2.0);
            tokio::select! {
                () = stop.wait() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let lookups = self.clone();
            if tokio::task::spawn_blocking(move || lookups.resume())
                .await
                .is_err()
            {
                tracing::error!("going on with an erasure has failed; it is tried again");
            }
        }
    }

    /// All of which something is known, the newest first.
    pub fn all(&self) -> Vec<Lookup> {
        let jobs = self.0.jobs();
        jobs.all.iter().rev().map(|job| job.view()).collect()
    }

    /// One of them.
    pub fn one(&self, id: &str) -> Result<Lookup, Problem> {
        let jobs = self.0.jobs();
        let found = jobs.all.iter().find(|job| job.id == id);
        found.map(|job| job.view()).ok_or_else(|| {
            Problem::Unknown(format!(
                "There is no search and no erasure {id}; the last {KEPT} since the start are kept."
            ))
        })
    }

    /// Ends all, and returns when they have ended. An erasure goes on at the next start.
    pub fn stop(&self) {
        let threads = {
            let mut jobs = self.0.jobs();
            jobs.stopping = true;
            jobs.all.iter().for_each(|job| job.scan.stop());
            std::mem::take(&mut jobs.threads)
        };
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!(
                    "a search or an erasure has panicked; please report it with the log"
                );
            }
        }
    }
}

impl Jobs {
    fn start(
        &mut self,
        job: &Arc<Job>,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), Problem> {
        if self.stopping {
            return Err(Problem::Refused("The daemon is being stopped.".to_owned()));
        }
        self.threads.retain(|thread| !thread.is_finished());
        let thread = std::thread::Builder::new().name("lookup".to_owned());
        let thread = thread
            .spawn(work)
            .map_err(|error| Problem::Failed(format!("The system gives no thread: {error}.")))?;
        self.threads.push(thread);
        self.all.push_back(Arc::clone(job));
        if self.all.len() > KEPT
            && let Some(old) = self.all.iter().position(|job| !job.works())
        {
            self.all.remove(old);
        }
        Ok(())
    }
}

impl Inner {
    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn search(&self, job: &Job, meant: &Meant) {
        let found = self.outbox.find(meant, &job.scan);
        let found =
            found.map_err(|error| (matches!(error, outbox::Error::Stopped), with_causes(&error)));
        let traced = found.and_then(|found| {
            let traces = self.changes.find(meant);
            traces
                .map(|traces| (found, traces))
                .map_err(|error| (false, error.to_string()))
        });
        match traced {
            Ok((found, traces)) => {
                let places = self.places(&found, &traces);
                let message = match places.len() {
                    0 => "Not found in anything that is here. What has been sent is not kept."
                        .to_owned(),
                    1 => "Found in one delivery.".to_owned(),
                    many => format!("Found in {many} deliveries."),
                };
                job.end("done", message, places);
            }
            Err((true, _)) => job.end("stopped", "The daemon was stopped.".to_owned(), Vec::new()),
            Err((false, why)) => job.end("failed", why, Vec::new()),
        }
    }

    /// Tries until it is done, or the daemon is stopped.
    fn erase(&self, job: &Job, meant: &Meant) {
        let mut rng = Rng::new();
        for tries in 1.. {
            let why = match self.erase_once(job, meant) {
                Ok(message) => {
                    let call = format!("erasure {}", job.id);
                    let named = job.reference.as_deref();
                    let named = named.map(|text| format!(" Reference: {text}."));
                    let said = message.clone() + &named.unwrap_or_default();
                    self.audit.record("looker-feed", &call, &said);
                    tracing::info!(erasure = job.id, message, "an erasure is done");
                    return job.end("done", message, Vec::new());
                }
                Err(_) if job.scan.is_stopped() => {
                    let message = "The daemon was stopped; it goes on at the next start.";
                    return job.end("stopped", message.to_owned(), Vec::new());
                }
                Err(why) => why,
            };
            tracing::warn!(
                erasure = job.id,
                error = why,
                "an erasure has met a failure; it is tried again"
            );
            job.outcome().message = format!("It is tried again after a failure: {why}.");
            let wait = BACKOFF.probe(tries, &mut rng);
            let until = std::time::Instant::now() + wait;
            while !job.scan.is_stopped() && std::time::Instant::now() < until {
                std::thread::sleep(LOOK.min(wait));
            }
        }
    }

    fn erase_once(&self, job: &Job, meant: &Meant) -> Result<String, String> {
        let give_back = |destination, delivery| self.drain.give_back(destination, delivery);
        let erased = self.outbox.erase(meant, &job.scan, &give_back);
        let erased = erased.map_err(|error| with_causes(&error))?;
        let noted = self
            .changes
            .erase(meant, &|| job.scan.is_stopped())
            .map_err(|error| error.to_string())?;
        self.outbox
            .end_erasure()
            .map_err(|error| with_causes(&error))?;
        Ok(said(&erased, noted))
    }

    fn places(&self, found: &[Occurrence], traces: &[Trace]) -> Vec<Place> {
        let mut places: BTreeMap<DeliveryId, Place> = BTreeMap::new();
        for one in found {
            let place = places.entry(one.delivery).or_default();
            place.waiting = one.waiting.rows;
            place.in_flight = one.in_flight.rows;
            place.decided = one.decided.rows;
            place.dead = one.dead.rows;
            place.rejected = one.rejected;
        }
        for trace in traces {
            let place = places.entry(trace.delivery).or_default();
            let noted = match (trace.left, trace.sent) {
                (true, _) => "left",
                (false, true) => "sent",
                (false, false) => "unchanged",
            };
            place.noted = Some(noted.to_owned());
        }
        // Ids begin with the time.
        let newest_first = places.into_iter().rev();
        newest_first
            .map(|(id, mut place)| {
                place.delivery = id.to_string();
                if let Ok(Some(state)) = self.outbox.delivery(id) {
                    place.title = state.title;
                    place.received = Some(state.received);
                    place.finished = state.finished;
                }
                place
            })
            .collect()
    }
}

impl Job {
    fn new(id: String, erases: bool, started: UnixMillis, person: &Person) -> Self {
        Self {
            id,
            erases,
            reference: person.reference.clone(),
            started,
            scan: Scan::default(),
            outcome: Mutex::default(),
        }
    }

    fn outcome(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn works(&self) -> bool {
        self.outcome().state.is_none()
    }

    fn end(&self, state: &'static str, message: String, places: Vec<Place>) {
        *self.outcome() = Outcome {
            state: Some(state),
            finished: Some(UnixMillis::now()),
            message,
            places,
        };
    }

    fn view(&self) -> Lookup {
        let outcome = self.outcome();
        let (read_bytes, total_bytes) = self.scan.progress();
        let works = match self.scan.waits() {
            true => "waiting",
            false => "running",
        };
        let begun = match self.erases {
            true => format!("The erasure {} is under way.", self.id),
            false => format!("The search {} is under way.", self.id),
        };
        Lookup {
            id: self.id.clone(),
            erases: self.erases,
            state: outcome.state.unwrap_or(works).to_owned(),
            reference: self.reference.clone(),
            started: self.started,
            finished: outcome.finished,
            read_bytes,
            total_bytes: total_bytes.max(read_bytes),
            message: match outcome.message.is_empty() {
                true => begun,
                false => outcome.message.clone(),
            },
            places: outcome.places.clone(),
        }
    }
}

/// What an erasure did, as sentences.
fn said(erased: &Erased, noted: u64) -> String {
    let mut text = format!(
        "Erased: {} rows that waited, {} in dead letters, {} rejected, {} batches that had been decided and were still in a file, and what was noted of {noted} deliveries.",
        erased.waiting.rows, erased.dead.rows, erased.rejected, erased.copies
    );
    if erased.set_aside > 0 {
        text.push_str(&format!(
            " {} damaged files that are kept in the outbox's directory `damaged` were not searched: remove them when nobody needs them.",
            erased.set_aside
        ));
    }
    text
}

fn new_id() -> String {
    format!("{:016x}", Rng::new().u64(..))
}

fn failed(error: outbox::Error) -> Problem {
    Problem::Failed(with_causes(&error))
}
