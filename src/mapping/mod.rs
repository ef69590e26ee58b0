//! (room: mapping)
