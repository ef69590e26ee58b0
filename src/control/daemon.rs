//! What the admin side asks of the daemon. The composition root implements it; this room knows
//! nothing else of the others.

use std::ops::ControlFlow;

use super::filter::Filter;
use super::people::{Lookup, Person};
use super::view;
use crate::clock::UnixMillis;

/// The daemon as an operator sees and steers it. Each call may block shortly, on the disk or on
/// another thread: it is made on the blocking pool, never more than a few at a time.
pub trait Daemon: Send + Sync + 'static {
    /// Whether the threads that everything else waits for are there and answer.
    ///
    /// # Errors
    /// [`Problem::Failed`]: only a restart helps.
    fn alive(&self) -> Result<(), Problem>;

    /// What time it is.
    fn now(&self) -> UnixMillis;

    /// Everything at a glance.
    fn overview(&self) -> view::Overview;

    /// Its destinations alone, which cost less, and when that was.
    fn destinations(&self) -> (UnixMillis, Vec<view::Destination>) {
        let overview = self.overview();
        (overview.now, overview.destinations)
    }

    /// Committed deliveries that the filter admits, newest first.
    ///
    /// # Errors
    /// See [`Problem`]; the same holds for all that follow.
    fn deliveries(
        &self,
        filter: &Filter,
        page: &Page,
    ) -> Result<view::Listing<view::Delivery>, Problem>;

    /// Hands the committed deliveries on record to `visit`, newest first and without their links, until
    /// it breaks off.
    fn on_record(
        &self,
        visit: &mut dyn FnMut(view::Delivery) -> Result<ControlFlow<()>, Problem>,
    ) -> Result<(), Problem>;

    /// Deliveries that failed and that the filter admits, newest first.
    fn failed_deliveries(
        &self,
        filter: &Filter,
        page: &Page,
    ) -> Result<view::Listing<view::FailedDelivery>, Problem>;

    /// One delivery that failed; [`Problem::Unknown`] when there is none.
    fn failed_delivery(&self, id: &str) -> Result<view::FailedDelivery, Problem>;

    /// Asks Looker for a failed delivery at once.
    fn ask_again(&self, id: &str) -> Result<view::Done, Problem>;

    /// Does not ask Looker for a failed delivery any more.
    fn do_not_ask(&self, id: &str) -> Result<view::Done, Problem>;

    /// The schedules of all committed deliveries that are on record.
    fn schedules(&self) -> Result<Vec<view::Schedule>, Problem>;

    /// One delivery; [`Problem::Unknown`] when there is none.
    fn delivery(&self, id: &str) -> Result<view::Delivery, Problem>;

    /// Rows of a delivery that were rejected at mapping and kept, in the order of their numbers.
    fn rejected(
        &self,
        delivery: &str,
        page: &Page,
    ) -> Result<view::Listing<view::RejectedRow>, Problem>;

    /// Dead letters without their batches, of one delivery or of all.
    fn dead_letters(
        &self,
        delivery: Option<&str>,
        page: &Page,
    ) -> Result<view::Listing<view::DeadLetter>, Problem>;

    /// One dead letter with its batch.
    fn dead_letter(&self, id: &str) -> Result<view::DeadLetter, Problem>;

    /// Puts another batch, as JSON text, into a dead letter, durably. When mParticle may have the
    /// old one, [`Problem::Refused`] unless the operator takes the chance that both arrive.
    fn edit(&self, id: &str, batch: &str, take_chance: bool) -> Result<view::Edited, Problem>;

    /// Sends dead letters again, with the ids that they had. Ids that are gone are left out of
    /// the count.
    fn replay(&self, which: &Which) -> Result<view::Done, Problem>;

    /// Gives dead letters up for good.
    fn discard(&self, which: &Which) -> Result<view::Done, Problem>;

    /// Cancels what is left of a delivery; requests under way still end as they do.
    fn cancel(&self, delivery: &str) -> Result<view::Done, Problem>;

    /// Lets a delivery go that is held.
    fn release(&self, delivery: &str) -> Result<view::Done, Problem>;

    /// Sends nothing more to a destination until it is resumed.
    fn pause(&self, destination: &str) -> Result<view::Done, Problem>;

    /// Ends a pause.
    fn resume(&self, destination: &str) -> Result<view::Done, Problem>;

    /// Begins to look for a person.
    fn find(&self, person: &Person) -> Result<Lookup, Problem>;

    /// Begins to erase a person. That it has begun is durable on return.
    fn erase(&self, person: &Person) -> Result<Lookup, Problem>;

    /// Searches and erasures of which something is known, the newest first.
    fn lookups(&self) -> Result<Vec<Lookup>, Problem>;

    /// One of them.
    fn lookup(&self, id: &str) -> Result<Lookup, Problem>;

    /// Ends a wait: the next request goes out now.
    fn retry_now(&self, destination: &str) -> Result<view::Done, Problem>;
}

/// Which part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The `next` of the part before, as the daemon gave it; `None`: from the start. It has come
    /// back from outside: [`Problem::Refused`] when it makes no sense.
    pub after: Option<String>,
    /// How many at most; 1 to 500.
    pub limit: usize,
}

impl Page {
    /// The first so many.
    pub fn first(limit: usize) -> Self {
        Self { after: None, limit }
    }
}

/// Which dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those with these ids.
    Ids(Vec<String>),
    /// Those of this delivery.
    Delivery(String),
    /// Those whose reason has this [`key`](super::groups::key).
    Reason(String),
    /// Every one.
    All,
}

/// A call could not be done. The texts are sentences for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// What the call names is not there (any more), or is not a name of ours.
    #[error("{0}")]
    Unknown(String),
    /// It is there, but this cannot be done to it now.
    #[error("{0}")]
    Refused(String),
    /// The disk or another part of the daemon failed.
    #[error("{0}")]
    Failed(String),
}
