//! (room: intake)
