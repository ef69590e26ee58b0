//! (room: seal)
