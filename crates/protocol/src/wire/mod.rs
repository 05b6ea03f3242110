//! How single values stand on the wire, and what reads and writes them.
//!
//! [`Reader`] and [`Writer`] carry the position and the errors; the [`Wire`] trait says for each
//! type how it is laid out; generated messages are made of nothing but these calls. A reader of a
//! generated file needs to know only this folder.

mod error;
mod pieces;
mod reader;
mod text;
mod value;
mod version;
mod writer;

pub use error::{DecodeError, DecodeErrorKind, EncodeError, EncodeErrorKind};
pub use pieces::Pieces;
pub use reader::Reader;
pub use text::Str;
pub use version::VersionRange;
pub use writer::Writer;

pub(crate) use value::{Struct, Wire};
pub(crate) use version::Version;
pub(crate) use writer::Tags;

/// Path of a field from its message's name on, such as `FetchRequest.topics.topic_id`.
pub(crate) type Field = &'static str;
