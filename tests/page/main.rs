//! The status page as a person sees it, in headless Chromium over WebDriver, on the real binary;
//! and the metrics and alerts as Prometheus sees them.
//!
//! Needs Debian's `chromium`, `chromium-driver` and `prometheus`. Without them the tests say so and
//! end, but for CI, where they fail. Screenshots are left in `target/screenshots`.

mod acts;
mod browser;
mod fixtures;
mod history;
mod lists;
mod metrics;
mod stuck;
#[path = "../support/mod.rs"]
mod support;
