//! What an operator changes about a lane.

use super::super::moment::Moment;
use super::super::pace::Pace;
use super::Lane;

impl Lane {
    /// Calls the destination by another name.
    pub fn relabel(&mut self, label: String) {
        self.label = label;
    }

    /// Whether an operator has stopped the destination.
    pub fn paused_by_operator(&self) -> bool {
        self.circuit.held().is_some()
    }

    /// An operator stops the destination until [`Lane::resume`]. Requests in flight land.
    pub fn pause(&mut self, now: Moment) {
        self.circuit.pause(now);
    }

    /// Ends an operator's pause, and tries at once whatever else was waited for. What is paused
    /// because too much was rejected goes on all the same.
    pub fn resume(&mut self, now: Moment) {
        if self.circuit.resume(now.tick) {
            self.pace.restart(now.tick);
        }
    }

    /// Tries at once what is waiting for its time.
    pub fn retry_now(&mut self, now: Moment) {
        self.circuit.retry_now(now.tick);
    }

    /// Another bound on requests in flight, and another rate, which is come to from below.
    pub fn adjust(&mut self, now: Moment, max_in_flight: usize, batches_per_second: u32) {
        self.settings.max_in_flight = max_in_flight.max(1);
        if self.settings.pace.batches_per_second != batches_per_second {
            self.settings.pace.batches_per_second = batches_per_second;
            self.pace = Pace::new(self.settings.pace, now.tick);
        }
    }
}
