//! The stand-in's schedules: what they deliver, where, and what became of each run.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use url::Url;

use super::execute::{Answer, Execute, Plan, Source, execute};
use super::publish::{Failure, Publisher};
use super::shape::Shape;
use crate::clock::UnixMillis;

/// A run that has not been answered for so long has failed.
const RUN_WITHIN: Duration = Duration::from_secs(300);

/// A schedule, as its owner made it.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Its name, which is its deliveries' title.
    pub title: String,
    /// What it delivers.
    pub shape: Shape,
    /// The Look that it runs; its query has the same number.
    pub look: u64,
    /// The action's parameter `apiKey`.
    pub api_key: String,
    /// What its form was saved with; then neither the shape's type of data nor the usual environment
    /// counts.
    pub form: Option<BTreeMap<String, String>>,
    /// Its owner: the id of a [`User`](super::api::User).
    pub owner: u64,
    /// Looker runs it by itself.
    pub enabled: bool,
    /// How its next runs go wrong; `None`: one that does not.
    pub failures: VecDeque<Option<Failure>>,
    /// Of so many next runs the answer is lost on its way to Looker, which takes them for failed.
    pub answers_lost: u32,
}

impl Schedule {
    /// One that goes well, of user 1.
    pub fn new(title: &str, shape: Shape, look: u64) -> Self {
        Self {
            title: title.to_owned(),
            shape,
            look,
            api_key: "key-of-the-account".to_owned(),
            form: None,
            owner: 1,
            enabled: true,
            failures: VecDeque::new(),
            answers_lost: 0,
        }
    }
}

/// One run of a schedule.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its id.
    pub id: u64,
    /// The schedule that it is of, which may be a copy made to run once.
    pub plan: u64,
    /// The schedule that this is a copy of, or itself.
    pub original: u64,
    /// When it began.
    pub created: UnixMillis,
    /// When it ended, and whether well.
    pub ended: Option<(UnixMillis, bool)>,
}

/// A schedule with an id.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub schedule: Schedule,
    pub run_once: bool,
    pub original: u64,
}

/// The schedules of a stand-in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Schedules {
    publisher: Publisher,
    state: Arc<Mutex<State>>,
    runs: Arc<Mutex<JoinSet<()>>>,
}

/// The address of the hub, and its token.
type Hub = (Url, String);

#[derive(Debug, Default)]
struct State {
    hub: Option<Hub>,
    next: u64,
    plans: BTreeMap<u64, Known>,
    jobs: Vec<Job>,
}

impl Schedules {
    pub(super) fn new(publisher: Publisher) -> Self {
        Self {
            publisher,
            state: Arc::new(Mutex::new(State {
                next: 100,
                ..State::default()
            })),
            runs: Arc::default(),
        }
    }

    /// Where deliveries go from now on, and the key for it.
    pub fn point_at(&self, hub: &Url, token: &str) {
        self.state().hub = Some((hub.clone(), token.to_owned()));
    }

    /// Adds a schedule and returns its id.
    pub fn add(&self, schedule: Schedule) -> u64 {
        let mut state = self.state();
        let id = state.take_id();
        let known = Known {
            schedule,
            run_once: false,
            original: id,
        };
        state.plans.insert(id, known);
        id
    }

    /// Changes a schedule.
    pub fn change(&self, id: u64, change: impl FnOnce(&mut Schedule)) {
        if let Some(known) = self.state().plans.get_mut(&id) {
            change(&mut known.schedule);
        }
    }

    /// Removes a schedule.
    pub fn remove(&self, id: u64) {
        self.state().plans.remove(&id);
    }

    /// Runs a schedule, as its time does, and returns whether it was delivered.
    pub async fn run(&self, id: u64) -> bool {
        self.carry(id).await
    }

    /// A person sends a schedule once by hand: a copy of it runs. Returns whether it was delivered.
    pub async fn send_by_hand(&self, id: u64) -> bool {
        match self.copy(id) {
            Some(copy) => self.carry(copy).await,
            None => false,
        }
    }

    /// All runs so far.
    pub fn jobs(&self) -> Vec<Job> {
        self.state().jobs.clone()
    }

    /// How many copies of a schedule have run or run now.
    pub fn copies(&self, original: u64) -> usize {
        let jobs = self.jobs();
        let copies = jobs
            .iter()
            .filter(|job| job.original == original && job.plan != original);
        copies.count()
    }

    /// A copy that is to run once.
    pub(super) fn copy(&self, id: u64) -> Option<u64> {
        let mut state = self.state();
        let known = state.plans.get(&id)?.clone();
        let copy = state.take_id();
        let known = Known {
            run_once: true,
            ..known
        };
        state.plans.insert(copy, known);
        Some(copy)
    }

    /// Runs a copy by the way.
    pub(super) fn start(&self, id: u64) {
        let schedules = self.clone();
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        while runs.try_join_next().is_some() {}
        runs.spawn(async move {
            schedules.carry(id).await;
        });
    }

    /// What the Look or query of this number gives.
    pub(super) fn shape_of(&self, look: u64) -> Option<Shape> {
        let state = self.state();
        let mut plans = state.plans.values();
        let known = plans.find(|known| known.schedule.look == look)?;
        Some(known.schedule.shape.clone())
    }

    pub(super) fn known(&self, id: u64) -> Option<Known> {
        self.state().plans.get(&id).cloned()
    }

    /// The same, with the hub's answer; `None`: there was none.
    pub async fn run_and_tell(&self, id: u64) -> Option<Answer> {
        self.answered(id).await.1
    }

    async fn carry(&self, id: u64) -> bool {
        self.answered(id).await.0
    }

    async fn answered(&self, id: u64) -> (bool, Option<Answer>) {
        let Some((job, hub, request)) = self.begin(id) else {
            return (false, None);
        };
        let answered = match hub {
            Some((hub, token)) => execute(&hub, &token, request).await.ok(),
            None => None,
        };
        let mut state = self.state();
        let success = answered.as_ref().is_some_and(Answer::is_success);
        let delivered = success && !state.loses_answer(id);
        if let Some(job) = state.jobs.iter_mut().find(|one| one.id == job) {
            job.ended = Some((UnixMillis::now(), delivered));
        }
        (delivered, answered)
    }

    fn begin(&self, id: u64) -> Option<(u64, Option<Hub>, Execute)> {
        let mut state = self.state();
        let known = state.plans.get(&id)?.clone();
        let failure = match state.plans.get_mut(&known.original) {
            Some(original) => original.schedule.failures.pop_front().flatten(),
            None => None,
        };
        let schedule = &known.schedule;
        let url = match failure {
            None => self.publisher.publish(schedule.shape.clone()),
            Some(failure) => self
                .publisher
                .publish_failing_shape(schedule.shape.clone(), failure),
        };
        let mut link = self.publisher.base().clone();
        link.set_path(&format!("looks/{}", schedule.look));
        let mut request = Execute::new(Source::Url(url), &schedule.api_key, "secret-of-it");
        request.data_type = schedule.shape.data_type;
        request.form.clone_from(&schedule.form);
        request.timeout = RUN_WITHIN;
        request.instance = self.publisher.base().to_string();
        request.plan = Plan {
            id,
            title: schedule.title.clone(),
            link: link.to_string(),
            query: schedule.look,
        };
        let job = state.take_id();
        state.jobs.push(Job {
            id: job,
            plan: id,
            original: known.original,
            created: UnixMillis::now(),
            ended: None,
        });
        Some((job, state.hub.clone(), request))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn loses_answer(&mut self, id: u64) -> bool {
        let original = self.plans.get(&id).map(|known| known.original);
        let original = original.and_then(|id| self.plans.get_mut(&id));
        let left = original.map(|known| &mut known.schedule.answers_lost);
        match left {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        }
    }

    fn take_id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}
