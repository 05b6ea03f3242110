//! The transaction coordinator under a driver that has no threads, no disk and a clock set by hand.

mod driver;
mod formats;
mod golden;
mod invariants;
mod limits;
mod script;
