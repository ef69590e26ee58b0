//! The admin side.

pub mod view;
