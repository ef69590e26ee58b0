//! (room: drain)
