//! The native client against a real broker: one suite for every kind of broker and transport.
//!
//! It runs against an embedded broker, in process and over TCP; `tests/client/run.py` runs it
//! against Apache Kafka. A test that fails there is a wrong test.

mod administering;
mod consuming;
mod examples;
mod grouping;
mod observing;
mod producing;
mod securing;
mod sharing;
mod surviving;
mod target;
mod transacting;
mod uncopied;
