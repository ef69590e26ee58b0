//! (room: looker)
