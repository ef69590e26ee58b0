//! looker-feed
fn main() {}
