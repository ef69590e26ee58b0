//! A request that is being filled with batches, and goes out when the next one does not fit.

use super::{Batch, Made, Settings, Sink};
use crate::mparticle::era::Era;

/// The request that is being filled.
#[derive(Debug, Default)]
pub(super) struct Request {
    /// The batches' JSON, one after the other.
    pub(super) bytes: Vec<u8>,
    /// End and rows of each batch in `bytes`.
    batches: Vec<(usize, u32)>,
    events: usize,
    era: Era,
}

impl Request {
    /// An empty one.
    pub(super) fn of(era: Era) -> Self {
        Self {
            era,
            ..Self::default()
        }
    }

    /// Where the last whole batch ends.
    fn end_of_batches(&self) -> usize {
        self.batches.last().map_or(0, |(end, _)| *end)
    }

    /// The next batch is written to the end of `bytes`.
    pub(super) fn begin(&mut self) {
        self.bytes.truncate(self.end_of_batches());
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
        if self.era == Era::Historical {
            made.historical.batches += 1;
            made.historical.events += events as u64;
        }
        let start = self.end_of_batches();
        made.bytes += (self.bytes.len() - start) as u64;
        // A comma after each batch, and the brackets.
        let punctuation = self.batches.len() + 2;
        let full = self.batches.len() == settings.max_batches_per_request
            || self.events + events > settings.max_events_per_request
            || self.bytes.len() + punctuation > settings.max_request_bytes;
        if full && start > 0 {
            self.flush_to(start, sink, made)?;
        }
        self.batches.push((self.bytes.len(), rows));
        self.events += events;
        Ok(())
    }

    pub(super) fn flush<S: Sink>(&mut self, sink: &mut S, made: &mut Made) -> Result<(), S::Error> {
        let end = self.end_of_batches();
        if end == 0 {
            return Ok(());
        }
        self.flush_to(end, sink, made)
    }

    fn flush_to<S: Sink>(
        &mut self,
        end: usize,
        sink: &mut S,
        made: &mut Made,
    ) -> Result<(), S::Error> {
        let mut start = 0;
        let batches: Vec<_> = self
            .batches
            .iter()
            .map(|&(end, rows)| {
                let json = &self.bytes[start..end];
                start = end;
                Batch { json, rows }
            })
            .collect();
        sink.request(self.era, &batches)?;
        made.requests += 1;
        if self.era == Era::Historical {
            made.historical.requests += 1;
        }
        self.bytes.drain(..end);
        self.batches.clear();
        self.events = 0;
        Ok(())
    }
}
