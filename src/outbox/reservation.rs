//! The right to receive one delivery.

use std::sync::Arc;

use crate::model::DeliveryId;
use crate::outbox::attempt::{Arrived, Attempt};
use crate::outbox::error::Error;
use crate::outbox::local;
use crate::outbox::postgres;

/// The right to receive one delivery. Dropping it without a commit fails the delivery.
#[derive(Debug)]
pub struct Reservation {
    backend: Backend,
}

#[derive(Debug)]
enum Backend {
    Local(local::reservation::Reservation),
    Postgres(postgres::Reservation),
}

impl Reservation {
    pub(in crate::outbox) fn local(reservation: local::reservation::Reservation) -> Self {
        Self {
            backend: Backend::Local(reservation),
        }
    }

    pub(in crate::outbox) fn postgres(reservation: postgres::Reservation) -> Self {
        Self {
            backend: Backend::Postgres(reservation),
        }
    }

    /// Which delivery this is.
    pub fn id(&self) -> DeliveryId {
        match &self.backend {
            Backend::Local(reservation) => reservation.id(),
            Backend::Postgres(reservation) => reservation.id(),
        }
    }

    /// Where to count what arrives.
    pub fn arrived(&self) -> &Arc<Arrived> {
        match &self.backend {
            Backend::Local(reservation) => reservation.arrived(),
            Backend::Postgres(reservation) => reservation.arrived(),
        }
    }

    /// Adds to what is known of the delivery; durable with its end.
    ///
    /// # Errors
    /// It is too long, and nothing has changed.
    pub fn describe(&self, title: &str, about: &[u8]) -> Result<(), Error> {
        match &self.backend {
            Backend::Local(reservation) => reservation.describe(title, about),
            Backend::Postgres(reservation) => reservation.describe(title, about),
        }
    }

    /// Ends the delivery as failed, of a kind in the caller's numbers, and returns it as it is listed;
    /// `None`: it was committed and stays so, or it could not be sealed, and whoever opens the outbox
    /// next ends it. Does not block.
    pub fn fail(self, kind: u8, message: &str) -> Option<Attempt> {
        match self.backend {
            Backend::Local(reservation) => reservation.fail(kind, message),
            Backend::Postgres(reservation) => reservation.fail(kind, message),
        }
    }
}
