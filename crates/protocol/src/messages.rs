//! All messages of Kafka 4.3: one module each, named after the message.
//!
//! Names, defaults and layouts are Kafka's: `messages::fetch_request::FetchRequest`. Structs know
//! nothing of versions; a version matters when a message is decoded or encoded. A field that a
//! version lacks gets its default when decoded, and must hold its default when encoded unless its
//! schema calls it ignorable.
//!
//! A nullable field without a declared default starts empty and not null, as in Kafka.

pub use crate::generated::*;
