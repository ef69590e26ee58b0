//! Requests in flight.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::circuit::Pass;
use super::super::entry::Piece;

/// Names a request in flight.
pub type Ticket = u64;

/// A request in flight.
pub(super) struct Flight {
    pub piece: Piece,
    pub pass: Pass,
    /// The tick at which it was sent.
    pub sent: Duration,
    /// What it was sent with.
    pub account: Arc<[u8]>,
}

/// Requests in flight by ticket. No ticket is given out twice.
#[derive(Default)]
pub(super) struct Flights {
    flights: HashMap<Ticket, Flight>,
    next: Ticket,
}

impl Flights {
    pub fn len(&self) -> usize {
        self.flights.len()
    }

    pub fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    pub fn begin(&mut self, flight: Flight) -> Ticket {
        let ticket = self.next;
        self.next += 1;
        self.flights.insert(ticket, flight);
        ticket
    }

    /// `None` for one that has ended, or was given up.
    pub fn end(&mut self, ticket: Ticket) -> Option<Flight> {
        self.flights.remove(&ticket)
    }

    /// Gives all of them up.
    pub fn abandon(&mut self) -> impl Iterator<Item = Flight> {
        self.flights.drain().map(|(_, flight)| flight)
    }
}
