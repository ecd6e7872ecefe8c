//! The daemons of two nodes on a fake fabric and a fake API server, with the operator of the protocol's text.
#![allow(clippy::unwrap_used)]

mod api;
mod crashes;
mod faults;
mod life;
mod news;
mod operator;
mod quarantine;
mod rebuild;
mod replace;
mod sim;
