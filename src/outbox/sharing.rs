//! What is asked of an outbox because several daemons may share it.

use std::collections::BTreeMap;

use super::{Backend, Outbox};
use crate::model::DestinationId;
use crate::outbox::error::Error;
use crate::outbox::lane_request::LaneRequest;
use crate::outbox::postgres::{Daemon, ServerFacts, Snapshots};
use crate::seal::KeyId;

impl Outbox {
    /// Tells the holder of a destination's lease something, if that is another daemon. Returns whether
    /// it is.
    ///
    /// # Errors
    /// The backend does not answer, or the other daemon has not in time: it will do as asked when it
    /// comes to it.
    pub fn tell_holder(
        &self,
        destination: DestinationId,
        request: LaneRequest,
    ) -> Result<bool, Error> {
        match &self.backend {
            Backend::Local(_) => Ok(false),
            Backend::Postgres(shared) => shared.tell_holder(destination, request),
        }
    }

    /// Whether several daemons can share it.
    pub fn is_shared(&self) -> bool {
        match &self.backend {
            Backend::Local(_) => false,
            Backend::Postgres(_) => true,
        }
    }

    /// Whether no destination of a shared outbox had anything to do a second ago: who only looks need not
    /// ask. Answers from memory.
    pub fn is_at_rest(&self) -> bool {
        match &self.backend {
            Backend::Local(_) => false,
            Backend::Postgres(shared) => shared.is_at_rest(),
        }
    }

    /// What schedules delivered last, as daemons that share the outbox keep it together; `None`: it is one
    /// process's, which keeps that itself.
    pub fn snapshots(&self) -> Option<Snapshots> {
        match &self.backend {
            Backend::Local(_) => None,
            Backend::Postgres(shared) => Some(shared.snapshots()),
        }
    }

    /// The daemons that share the outbox and have been heard of within the last minute, by their names;
    /// none where it is one process's.
    pub fn daemons(&self) -> Result<Vec<Daemon>, Error> {
        match &self.backend {
            Backend::Local(_) => Ok(Vec::new()),
            Backend::Postgres(shared) => shared.daemons(),
        }
    }

    /// What the server of a shared outbox says of itself now; `None`: there is none.
    pub fn server(&self) -> Result<Option<ServerFacts>, Error> {
        match &self.backend {
            Backend::Local(_) => Ok(None),
            Backend::Postgres(shared) => shared.facts().map(Some),
        }
    }

    /// The same as it said last, some seconds ago. Answers from memory.
    pub fn known_server(&self) -> Option<ServerFacts> {
        match &self.backend {
            Backend::Local(_) => None,
            Backend::Postgres(shared) => shared.known_facts(),
        }
    }

    /// The keys that something in a shared outbox is sealed under, and how many deliveries and letters
    /// need each; `None`: it is a directory's, see [`needed_keys`].
    pub fn shared_keys(&self) -> Result<Option<BTreeMap<KeyId, u64>>, Error> {
        match &self.backend {
            Backend::Local(_) => Ok(None),
            Backend::Postgres(shared) => shared.needed_keys().map(Some),
        }
    }

    /// Deletes now what nobody needs any more, which a shared outbox does every ten seconds by itself
    /// and the embedded one at once.
    pub fn sweep(&self) -> Result<(), Error> {
        match &self.backend {
            Backend::Local(_) => Ok(()),
            Backend::Postgres(shared) => shared.sweep(),
        }
    }

    /// Says that this daemon is about to stop: it takes no further destinations, and others need not
    /// leave it a share. Those that it has it gives back one by one.
    pub fn retire(&self) {
        match &self.backend {
            Backend::Local(_) => {}
            Backend::Postgres(shared) => shared.retire(),
        }
    }
}
