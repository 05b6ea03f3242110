//! Kafka wire messages, frames, record batches, compression and error codes.
//!
//! [`messages`] are generated from the files in `schemas/` by `cargo xtask codegen`; [`Reader`] and
//! [`Writer`] carry them; [`frame`] puts headers and lengths around them. [`records`] is the payload
//! of produce and fetch, which messages carry as undecoded [`bytes::Bytes`].

pub mod error;
pub mod frame;
#[cfg(feature = "json")]
pub mod json;
pub mod messages;
pub mod records;
#[cfg(feature = "testing")]
pub mod testing;

mod api;
mod generated;
mod message;
mod wire;

pub use api::{Listeners, UnknownApiKey};
pub use error::ErrorCode;
pub use message::{Message, Request};
pub use messages::{AnyRequest, AnyResponse, ApiKey};
pub use wire::{
    DecodeError, DecodeErrorKind, EncodeError, EncodeErrorKind, Pieces, Reader, Str, VersionRange,
    Writer,
};
