//! (room: group)
