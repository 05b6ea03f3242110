//! The group coordinator under a driver that has no threads, no disk and a clock set by hand.

mod consumer;
mod consumer_formats;
mod consumer_histories;
mod consumer_storm;
mod driver;
mod formats;
mod golden;
mod invariants;
mod mixed_histories;
mod script;
mod share;
mod storm;
mod streams;
mod streams_histories;
mod topics;
