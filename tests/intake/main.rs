//! The Action Hub over real sockets: a scripted receiver behind it, a scripted Looker to download
//! from, and a client in front.

mod connection;
mod door;
mod download;
mod endpoints;
mod execute;
mod logs;
mod push;
mod support;
