//! The drain's lane, policy, pace and circuit in virtual time, against a scripted server.

mod doubt;
mod estimates;
mod halving;
mod outage;
mod rate;
mod schedules;
mod world;
