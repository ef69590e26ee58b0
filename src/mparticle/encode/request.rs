//! A request that is being filled with batches, and goes out when the next one does not fit.

use super::Settings;
use super::sink::{Batches, Made, Sink};
use crate::mparticle::route::Route;

/// The request that is being filled.
#[derive(Debug, Default)]
pub(super) struct Request {
    /// Whole batches, and behind their bytes the one that is being written.
    batches: Batches,
    /// Takes what is behind the batches while those go out.
    next: Vec<u8>,
    events: usize,
    route: Route,
}

impl Request {
    /// An empty one.
    pub(super) fn of(route: Route) -> Self {
        Self {
            route,
            ..Self::default()
        }
    }

    /// Where the last whole batch ends.
    fn end_of_batches(&self) -> usize {
        self.batches.ends.last().map_or(0, |(end, _)| *end)
    }

    /// The next batch is written to the end of what this returns.
    pub(super) fn begin(&mut self) -> &mut Vec<u8> {
        let end = self.end_of_batches();
        self.batches.bytes.truncate(end);
        &mut self.batches.bytes
    }

    /// The batch has been written. If the request cannot hold it beside the others, those go out.
    pub(super) fn end<S: Sink>(
        &mut self,
        rows: u32,
        events: usize,
        settings: &Settings,
        sink: &mut S,
        made: &mut Made,
    ) -> Result<(), S::Error> {
        made.batches += 1;
        made.events += events as u64;
        if self.route == Route::Historical {
            made.historical.batches += 1;
            made.historical.events += events as u64;
        }
        let start = self.end_of_batches();
        let end = self.batches.bytes.len();
        made.bytes += (end - start) as u64;
        // A comma after each batch, and the brackets.
        let punctuation = self.batches.len() + 2;
        let full = self.batches.len() == settings.max_batches_per_request
            || self.events + events > settings.max_events_per_request
            || end + punctuation > settings.max_request_bytes;
        if full && start > 0 {
            self.flush(sink, made)?;
        }
        self.batches.ends.push((self.batches.bytes.len(), rows));
        self.events += events;
        Ok(())
    }

    /// Hands the whole batches on.
    pub(super) fn flush<S: Sink>(&mut self, sink: &mut S, made: &mut Made) -> Result<(), S::Error> {
        let end = self.end_of_batches();
        if end == 0 {
            return Ok(());
        }
        self.next.clear();
        let behind = self.batches.bytes.get(end..).unwrap_or_default();
        self.next.extend_from_slice(behind);
        self.batches.bytes.truncate(end);
        sink.request(self.route, &mut self.batches)?;
        made.requests += 1;
        if self.route == Route::Historical {
            made.historical.requests += 1;
        }
        self.batches.ends.clear();
        std::mem::swap(&mut self.batches.bytes, &mut self.next);
        self.events = 0;
        Ok(())
    }
}
