//! (room: outbox)
