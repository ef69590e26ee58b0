//! mParticle's documented limits ("Default Service Limits", "HTTP API").

/// Attributes of one event, and user attributes of one batch.
pub const ATTRIBUTES: usize = 100;
/// Batches of one request.
pub const BATCHES_PER_REQUEST: usize = 100;
/// Events of one request.
pub const EVENTS_PER_REQUEST: usize = 100;
/// Bytes of one request. The documents say 256 KB; taken as the smaller reading.
pub const REQUEST_BYTES: usize = 256_000;
/// Bytes of one batch. The documents say 128 KB; taken as the smaller reading.
pub const BATCH_BYTES: usize = 128_000;
