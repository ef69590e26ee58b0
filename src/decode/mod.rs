//! (room: decode)
