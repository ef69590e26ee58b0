//! What the admin side shows: the JSON of its API, for the page, the command line and scripts.
//! Only values; nothing here reaches into the data path.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use super::again::{AskAgain, AskedAgain, AskedOnce, LookerApi, RepeatOf};
pub use super::issue::{Health, Issue, Kind, Level, Standing};
use crate::clock::UnixMillis;

/// Everything at a glance: `GET /api/v1/overview`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    /// looker-feed's version.
    pub version: String,
    /// When the daemon was started.
    pub started: UnixMillis,
    /// When this was true.
    pub now: UnixMillis,
    /// Whether new deliveries are taken; if not, `not_ready` says why.
    pub ready: bool,
    /// Why new deliveries are not taken.
    pub not_ready: Option<String>,
    /// Deliveries that Looker is sending at this moment.
    pub receiving: Vec<Receiving>,
    /// Where requests go.
    pub destinations: Vec<Destination>,
    /// The store between.
    pub outbox: Outbox,
    /// Since the daemon was started.
    pub totals: Totals,
    /// Deliveries that failed.
    #[serde(default)]
    pub failures: Failures,
    /// What is done about them.
    #[serde(default)]
    pub ask_again: AskAgain,
    /// What became of traces; `None`: there are none.
    #[serde(default)]
    pub spans: Option<Spans>,
    /// What is wrong, rolled up. The admin side computes it: leave it empty.
    #[serde(default)]
    pub health: Health,
}

/// Spans for OpenTelemetry since the daemon was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spans {
    /// The collector has taken them.
    pub exported: u64,
    /// They did not fit into the queue, or the collector did not take them.
    pub dropped: u64,
}

/// A delivery that is still coming in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receiving {
    /// The schedule's title. Written by a person: escape it.
    pub title: String,
    /// Rows so far.
    pub rows: u64,
    /// Bytes so far.
    pub bytes: u64,
    /// When it began.
    pub since: UnixMillis,
}

/// One destination: credentials and address together. Its fractions must be finite: JSON has no
/// other numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Destination {
    /// 32 hexadecimal digits.
    pub id: String,
    /// For people: host and the last characters of the API key.
    pub label: String,
    /// `idle`, `flowing`, `waiting` (told to wait, or backing off), `down` (probed now and then),
    /// `paused` (refused credentials, too much rejected in a row, or an operator).
    pub state: String,
    /// Why it is waiting, down or paused, as a sentence.
    pub why: Option<String>,
    /// Since when it is down or paused; `None`: it is not, or that is not known.
    #[serde(default)]
    pub since: Option<UnixMillis>,
    /// When it is tried again.
    pub next_try: Option<UnixMillis>,
    /// The present pace, in batches a second; 0 also when there is no limit.
    pub rate: f64,
    /// The configured limit, in batches a second; 0: none.
    pub limit: f64,
    /// The daemon that sends there, where several share the outbox and it is another one than this.
    #[serde(default)]
    pub sender: Option<String>,
    /// Requests under way.
    pub in_flight: u64,
    /// Deliveries that have something to send; as in what follows, none that is held.
    pub deliveries: u64,
    /// Batches that are not settled.
    pub batches: u64,
    /// Rows that are not settled.
    pub rows: u64,
    /// Bytes of waiting requests on the disk.
    pub bytes: u64,
    /// When the oldest waiting delivery was received.
    pub oldest: Option<UnixMillis>,
    /// Requests sent since the daemon was started.
    pub requests_sent: u64,
    /// Batches in them, repeated ones included.
    #[serde(default)]
    pub batches_sent: u64,
    /// Batches accepted since the daemon was started.
    pub batches_accepted: u64,
    /// The pace that it is heading for, in batches a second: it begins low and grows; 0 without a
    /// limit.
    #[serde(default)]
    pub heading: f64,
    /// Batches accepted a second, measured over the last seconds. The admin side measures it:
    /// leave it 0.
    #[serde(default)]
    pub accepted_rate: f64,
    /// Time to empty the backlog, with the pace that it is heading for; `None` when nothing waits,
    /// or nothing moves. The admin side computes it: leave it `None`.
    #[serde(default)]
    pub seconds_left: Option<u64>,
    /// Replies by kind (`accepted`, `throttled`, `unavailable`, `rejected`, ...) since the start.
    pub replies: BTreeMap<String, u64>,
    /// The last thing that went wrong, as a sentence.
    pub last_error: Option<String>,
    /// When a request was accepted last.
    pub last_success: Option<UnixMillis>,
    /// Mean time from sending a request to its reply, recently, in milliseconds.
    pub latency_mean_ms: f64,
    /// The time within which 99 of 100 recent requests were answered, in milliseconds.
    pub latency_p99_ms: f64,
}

/// The outbox on the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outbox {
    /// Bytes that its directory takes.
    pub bytes: u64,
    /// The configured bound, if there is one.
    pub max_bytes: Option<u64>,
    /// Free bytes of its disk.
    pub free_bytes: u64,
    /// Batches in the dead letters.
    pub dead_letters: u64,
    /// Rows rejected at mapping that are kept.
    pub rejected_rows: u64,
    /// Rows that are not sent since a person cancelled their delivery, of listed deliveries.
    #[serde(default)]
    pub cancelled_rows: u64,
    /// Deliveries that are held until somebody releases them.
    #[serde(default)]
    pub held_deliveries: u64,
    /// Where it is a database: its version, and how it replicates, as it said last.
    #[serde(default)]
    pub database: Option<String>,
    /// `None`: it writes. Else why it refuses to.
    pub refusing: Option<String>,
    /// What of it cannot be read now, and why; it is tried again by itself.
    pub unreadable: Option<String>,
    /// Bytes of damaged files that are kept, beside `bytes`.
    #[serde(default)]
    pub set_aside_bytes: u64,
    /// What was found damaged, as sentences that name deliveries and row counts.
    pub damage: Vec<String>,
}

/// Counters since the daemon was started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Deliveries committed.
    pub deliveries_accepted: u64,
    /// Deliveries that failed or were refused: the sum of `failed`.
    pub deliveries_refused: u64,
    /// Rows of committed deliveries.
    pub rows_in: u64,
    /// Rows of them that were rejected at mapping.
    pub rows_rejected: u64,
    /// Rows of them that were not sent, since what they say was delivered before.
    #[serde(default)]
    pub rows_unchanged: u64,
    /// Deliveries that failed, by [`FailedDelivery::reason`]; every reason is there.
    #[serde(default)]
    pub failed: BTreeMap<String, u64>,
}

/// Deliveries that failed and are on record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    /// How many.
    pub on_record: u64,
    /// When the newest of them failed.
    pub newest: Option<UnixMillis>,
    /// Of those of the last day, how many nobody mends: Looker is not asked for them again, no later
    /// delivery of the schedule has come in, and nobody has dismissed them.
    #[serde(default)]
    pub for_a_person: u64,
    /// When the first of these failed.
    #[serde(default)]
    pub since: Option<UnixMillis>,
    /// Rises whenever something is done about one of them.
    #[serde(default)]
    pub changes: u64,
}

/// One delivery that failed, of which nothing was sent: `GET /api/v1/failed-deliveries` and
/// `/api/v1/failed-deliveries/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedDelivery {
    /// 32 hexadecimal digits.
    pub id: String,
    /// Always `failed`, so that it can stand in one list with other deliveries.
    pub state: String,
    /// The schedule's title; empty if the request did not say. Written by a person: escape it.
    pub title: String,
    /// Back to the schedule in Looker. From outside: check it before it becomes a link.
    pub link: Option<String>,
    /// The Looker that sent it, as it names itself.
    pub instance: Option<String>,
    /// The schedule's id there.
    pub schedule: Option<String>,
    /// The id of the destination that it was to go to, if it came so far that this is known.
    #[serde(default)]
    pub destination: Option<String>,
    /// When it was received.
    pub received: UnixMillis,
    /// When it failed.
    pub ended: UnixMillis,
    /// What kind of failure it was: `request`, `cut`, `looker`, `address`, `query`, `document`,
    /// `columns`, `rows`, `changes`, `disk`, `refusing`, `busy`, `stopping`, `program`, `missed`,
    /// `interrupted`.
    pub reason: String,
    /// Whether the same delivery may well succeed another time, with nothing changed.
    pub passing: bool,
    /// The sentence that Looker was told. It can quote the document: escape it.
    pub message: String,
    /// Rows that had come.
    pub rows: u64,
    /// Bytes that had come.
    pub bytes: u64,
    /// What is done about it; `None`: nothing.
    #[serde(default)]
    pub again: Option<AskedAgain>,
    /// Why Looker is not asked for it by itself; `None`: it is, or this is itself a repeat.
    #[serde(default)]
    pub why_not: Option<String>,
    /// Of what it was a repeat.
    #[serde(default)]
    pub repeat_of: Option<RepeatOf>,
}

/// One committed delivery: `GET /api/v1/deliveries` and `/api/v1/deliveries/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// 32 hexadecimal digits.
    pub id: String,
    /// The destination's id.
    pub destination: String,
    /// The destination's label.
    pub destination_label: String,
    /// The schedule's title. Written by a person: escape it.
    pub title: String,
    /// Back to the schedule in Looker. From outside: check it before it becomes a link.
    pub link: Option<String>,
    /// When it was received.
    pub received: UnixMillis,
    /// When it was safe on the disk.
    #[serde(default)]
    pub committed: UnixMillis,
    /// `waiting`, `sending`, `done` (nothing left to send), `cancelled` (the same, and a person
    /// cancelled what was left).
    pub state: String,
    /// When its last entry settled.
    pub finished: Option<UnixMillis>,
    /// Rows that Looker sent: the sum of the numbers of `rows`, at every moment.
    pub rows_in: u64,
    /// Where they are.
    pub rows: Rows,
    /// Sets of identities.
    pub users: u64,
    /// Batches in all.
    pub batches: u64,
    /// Batches that mParticle accepted.
    pub batches_delivered: u64,
    /// Requests in all.
    pub requests: u64,
    /// Rows of `rows.dead` that wait in the dead letters for a person; the others were discarded.
    #[serde(default)]
    pub dead_waiting: u64,
    /// Where it stands, for people. The admin side fills this and the next two.
    #[serde(default)]
    pub standing: Standing,
    /// How bad that is.
    #[serde(default)]
    pub level: Level,
    /// Why it does not go on, as a sentence, when it is `blocked`.
    #[serde(default)]
    pub blocked: Option<String>,
    /// Time until the last of it is sent, with the pace that its destination is heading for and
    /// behind what was received before it; `None` when that cannot be said. The admin side computes
    /// it: leave it `None`.
    #[serde(default)]
    pub seconds_left: Option<u64>,
    /// What a person should know, as sentences.
    pub notes: Vec<String>,
    /// It is not sent before somebody releases it.
    #[serde(default)]
    pub held: bool,
    /// Of which failed delivery it is a repeat.
    #[serde(default)]
    pub repeat_of: Option<RepeatOf>,
}

/// Where a delivery's rows are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// Accepted by mParticle.
    pub delivered: u64,
    /// On the disk, to be sent.
    pub waiting: u64,
    /// In requests under way.
    pub in_flight: u64,
    /// In the dead letters, or discarded from them by a person.
    pub dead: u64,
    /// Rejected at mapping.
    pub rejected: u64,
    /// Lost to damage of the disk, and named.
    pub damaged: u64,
    /// Not sent, since a person cancelled the delivery.
    #[serde(default)]
    pub cancelled: u64,
    /// Not sent, since what they say was delivered before.
    #[serde(default)]
    pub unchanged: u64,
    /// Of somebody who was erased before they were sent.
    #[serde(default)]
    pub erased: u64,
}

impl Rows {
    /// All of them.
    pub fn total(&self) -> u64 {
        let unsent = self.waiting + self.in_flight + self.cancelled + self.unchanged;
        let unsent = unsent + self.erased;
        self.delivered + unsent + self.dead + self.rejected + self.damaged
    }
}

/// One batch that mParticle refused for good: `GET /api/v1/dead-letters`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Names it for replay and discard.
    pub id: String,
    /// The delivery's id.
    pub delivery: String,
    /// The schedule's title.
    pub title: String,
    /// Why, with the server's words.
    pub reason: String,
    /// How often it was sent.
    pub attempts: u32,
    /// When it was sent first.
    pub first_try: UnixMillis,
    /// When it was sent last.
    pub last_try: UnixMillis,
    /// Whether mParticle may have it all the same: it was sent, and no answer refused it.
    #[serde(default)]
    pub may_have_arrived: bool,
    /// Rows in it.
    pub rows: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// The batch itself; only in `GET /api/v1/dead-letters/{id}` and in the export.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
}

/// A batch as it was sent, to the letter: numbers keep their digits and keys their order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Batch(pub Box<RawValue>);

impl Batch {
    /// Takes JSON text over.
    pub fn from_text(text: String) -> Result<Self, serde_json::Error> {
        RawValue::from_string(text).map(Self)
    }
}

impl PartialEq for Batch {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Eq for Batch {}

/// One row that was rejected at mapping: `GET /api/v1/deliveries/{id}/rejected`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedRow {
    /// The row's number in the delivery, from 1.
    pub row: u64,
    /// Why.
    pub reason: String,
    /// The row as Looker sent it.
    pub text: String,
}

/// What a changing call did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// How many things it changed.
    pub changed: u64,
    /// What it did, as a sentence.
    pub message: String,
}

/// What became of an edited dead letter: `PUT /api/v1/dead-letters/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edited {
    /// 1; 0 when the text says what was there already.
    pub changed: u64,
    /// What names it from now on.
    pub id: String,
    /// What was done, as a sentence.
    pub message: String,
}

/// The deliveries of one schedule that are on record. Looker's schedules are told apart by title.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// The schedule's title. Written by a person: escape it.
    pub title: String,
    /// How many deliveries of it are on record.
    pub deliveries: u64,
    /// When the newest of them was received.
    pub newest: UnixMillis,
}

/// A part of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing<T> {
    /// At most as many as asked for.
    pub items: Vec<T>,
    /// Where the next part begins, to be handed back as `after`; `None`: this was the last.
    pub next: Option<String>,
}

/// What the live page is told: one event of `GET /api/v1/events`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pulse {
    /// Everything at a glance.
    pub overview: Overview,
    /// The newest deliveries, and some that are over, newest first.
    pub deliveries: Vec<Delivery>,
    /// Deliveries that are not over, as many as fit a page: what is stuck, then the oldest.
    #[serde(default)]
    pub open: Vec<Delivery>,
    /// Why the deliveries could not be read.
    pub problem: Option<String>,
}

/// The last hours or days: `GET /api/v1/history`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// How far samples lie apart, in seconds, when nothing held the sampler up.
    pub every_seconds: u64,
    /// Oldest first.
    pub samples: Vec<Sample>,
}

/// One moment of the last hours, over all destinations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When it was taken; rates and counts are since the sample before.
    pub at: UnixMillis,
    /// Batches accepted a second.
    pub accepted_rate: f64,
    /// Rows of committed deliveries, a second.
    pub rows_in_rate: f64,
    /// Batches that are not settled.
    pub backlog_batches: u64,
    /// Replies that said "too fast".
    pub throttled: u64,
    /// Mean time from request to reply in milliseconds: of the slowest destination.
    pub latency_mean_ms: f64,
    /// The time that 99 of 100 requests stay below: of the slowest destination.
    pub latency_p99_ms: f64,
    /// Batches a second that may be sent to the destinations that had something to send; 0: none
    /// had, or one has no limit.
    #[serde(default)]
    pub limit: f64,
}

/// Schedules and their runs: `GET /api/v1/schedules`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedules {
    /// Those whose newest run is the newest first.
    pub schedules: Vec<ScheduleRuns>,
    /// How many more there are.
    pub left_out: u64,
}

/// Runs of one schedule. Looker's schedules are told apart by title and
/// destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleRuns {
    /// The schedule's title. Written by a person: escape it.
    pub title: String,
    /// The destination's id.
    pub destination: String,
    /// The destination's label.
    pub destination_label: String,
    /// Deliveries of it that are on record.
    pub deliveries: u64,
    /// The middle of the row counts of the runs before the newest; `None`: too few of them.
    pub usual_rows: Option<u64>,
    /// The middle of the intervals, in seconds; `None`: too few, or not regular.
    pub usual_seconds: Option<u64>,
    /// When the next run is expected.
    pub next_expected: Option<UnixMillis>,
    /// The next run should have come.
    pub late: bool,
    /// The newest run differs from the usual row count by more than half.
    pub unusual: bool,
    /// The newest runs, newest first.
    pub runs: Vec<Run>,
}

/// One delivery of a schedule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The delivery's id.
    pub id: String,
    /// When it was received.
    pub received: UnixMillis,
    /// When its last entry settled.
    pub finished: Option<UnixMillis>,
    /// Rows that Looker sent.
    pub rows_in: u64,
    /// Where they are.
    pub rows: Rows,
    /// How it stands.
    pub standing: Standing,
}

/// Dead letters or rejected rows with one reason: `GET /api/v1/dead-letters/groups` and
/// `/api/v1/rejected-rows/groups`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonGroup {
    /// The reason without what differs from one to the next; names the group.
    pub reason: String,
    /// One reason in full. May hold mParticle's words: escape it.
    pub example: String,
    /// Batches, or rows that were rejected.
    pub count: u64,
    /// Rows in them.
    pub rows: u64,
    /// Deliveries that they are of.
    pub delivery_count: u64,
    /// Id and title of some of those deliveries, at most [`Self::DELIVERIES`].
    pub deliveries: Vec<(String, String)>,
    /// One of the dead letters.
    pub example_id: Option<String>,
    /// One of the rejected rows, as Looker sent it.
    pub example_text: Option<String>,
    /// When one of the dead letters was sent last.
    pub newest: Option<UnixMillis>,
}

impl ReasonGroup {
    /// Deliveries that a group names.
    pub const DELIVERIES: usize = 10;
}

/// All that is in groups, or the newest of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groups {
    /// The largest first.
    pub groups: Vec<ReasonGroup>,
    /// There is more than was looked at, so that the counts are too low.
    pub partial: bool,
}

/// One changing call: `GET /api/v1/audit`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// When it was answered.
    pub at: UnixMillis,
    /// The name of the caller's token, or that none was needed.
    pub who: String,
    /// Method and path.
    pub call: String,
    /// The status that it was answered with.
    pub status: u16,
    /// What it did, or why it did nothing. May hold what the caller sent: escape it.
    pub said: String,
}

/// One key of the configuration that is in effect: `GET /api/v1/configuration`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// `section.key`.
    pub key: String,
    /// Its value as text; `None`: not set, or a secret.
    pub value: Option<String>,
    /// It is a secret, and set.
    pub secret: bool,
    /// It stands elsewhere than in the shipped defaults.
    pub changed: bool,
    /// Where it stands: the shipped defaults, a file and a line, or a variable.
    pub source: String,
}
