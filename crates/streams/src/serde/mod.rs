//! From bytes and back: the [`Serde`] trait, the default serde of a type ([`StreamType`]), and the built-in ones.
//!
//! Byte layouts are Kafka's own serializers': integers and floats big-endian, strings UTF-8, `()` nothing at all.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;

use crate::record::Headers;

mod builtin;
mod change;
pub(crate) mod foreign;
mod json;
mod parts;
mod windowed;

pub use builtin::{BytesSerde, FixedSerde, NothingSerde, NullableSerde, TextSerde};
pub use change::ChangeSerde;
pub use json::Json;
pub(crate) use parts::Parts;
pub use windowed::{SessionWindowedSerde, TimeWindowedSerde};

/// Writes and reads values of one type. The topic and headers are context, as a schema registry needs it.
pub trait Serde<T>: Send + Sync + 'static {
    /// Appends the bytes of `value`, or answers [`Presence::Null`] and appends nothing.
    fn serialize(
        &self,
        topic: &str,
        headers: &mut Headers,
        value: &T,
        out: &mut Vec<u8>,
    ) -> Result<Presence, SerdeError>;

    /// Reads a value; `None` are the bytes of a null.
    fn deserialize(
        &self,
        topic: &str,
        headers: &Headers,
        bytes: Option<Bytes>,
    ) -> Result<T, SerdeError>;

    /// Shows a value in JSON, for people and programs that query a store without its types. Unless a serde knows
    /// better, its bytes are shown: as text if they are that, otherwise in hexadecimal.
    fn show(&self, value: &T) -> serde_json::Value {
        let mut bytes = Vec::new();
        match self.serialize("", &mut Headers::default(), value, &mut bytes) {
            Ok(Presence::Present) => match String::from_utf8(bytes) {
                Ok(text) => text.into(),
                Err(error) => {
                    let hex = error.as_bytes().iter().map(|byte| format!("{byte:02x}"));
                    serde_json::json!({ "hex": hex.collect::<String>() })
                }
            },
            Ok(Presence::Null) => serde_json::Value::Null,
            Err(error) => serde_json::json!({ "error": error.to_string() }),
        }
    }

    /// Reads a value as a person writes it. Unless a serde knows better, the text is taken for the value's bytes.
    fn parse(&self, topic: &str, text: &str) -> Result<T, SerdeError> {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        self.deserialize(topic, &Headers::default(), Some(bytes))
    }
}

/// Whether a value has bytes or is null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// The bytes were appended.
    Present,
    /// The value is null; null and empty differ in Kafka.
    Null,
}

/// A value that could not be written or read.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SerdeError {
    message: String,
}

impl SerdeError {
    /// An error with a message that says what was expected and what was found.
    pub fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string() }
    }
}

/// A type with a usual representation, so that most programs name no serde at all.
pub trait StreamType: Sized + Clone + Send + 'static {
    /// The representation.
    type Serde: Serde<Self> + Default;

    /// Whether this value is what Kafka calls null. Only `Option` and `()` can be.
    fn is_null(&self) -> bool {
        false
    }
}

/// A shared serde of `T`.
pub struct SerdeOf<T>(Arc<dyn Serde<T>>);

impl<T> Clone for SerdeOf<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: 'static> SerdeOf<T> {
    /// Shares a serde.
    pub fn new(serde: impl Serde<T>) -> Self {
        Self(Arc::new(serde))
    }

    /// The same serde with null for `None`.
    pub fn nullable(&self) -> SerdeOf<Option<T>> {
        SerdeOf::new(NullableSerde(self.clone()))
    }

    /// The bytes of `value`, or `None` for null.
    pub fn to_bytes(
        &self,
        topic: &str,
        headers: &mut Headers,
        value: &T,
    ) -> Result<Option<Bytes>, SerdeError> {
        // Written to memory that is there, and copied once its size is known: less than letting a new vector grow.
        let mut out = SCRATCH.take();
        out.clear();
        let bytes = match self.0.serialize(topic, headers, value, &mut out) {
            Ok(Presence::Present) => Ok(Some(Bytes::copy_from_slice(&out))),
            Ok(Presence::Null) => Ok(None),
            Err(error) => Err(error),
        };
        if out.capacity() <= SCRATCH_MAX {
            SCRATCH.set(out);
        }
        bytes
    }

    /// Appends the bytes of `value` to `out`.
    pub fn write(
        &self,
        topic: &str,
        headers: &mut Headers,
        value: &T,
        out: &mut Vec<u8>,
    ) -> Result<Presence, SerdeError> {
        self.0.serialize(topic, headers, value, out)
    }

    /// Reads a value.
    pub fn read(
        &self,
        topic: &str,
        headers: &Headers,
        bytes: Option<Bytes>,
    ) -> Result<T, SerdeError> {
        self.0.deserialize(topic, headers, bytes)
    }

    /// Shows a value in JSON.
    pub fn show(&self, value: &T) -> serde_json::Value {
        self.0.show(value)
    }

    /// Reads a value as a person writes it.
    pub fn parse(&self, topic: &str, text: &str) -> Result<T, SerdeError> {
        self.0.parse(topic, text)
    }
}

impl<T: 'static> Serde<T> for SerdeOf<T> {
    fn serialize(
        &self,
        topic: &str,
        headers: &mut Headers,
        value: &T,
        out: &mut Vec<u8>,
    ) -> Result<Presence, SerdeError> {
        self.0.serialize(topic, headers, value, out)
    }

    fn deserialize(
        &self,
        topic: &str,
        headers: &Headers,
        bytes: Option<Bytes>,
    ) -> Result<T, SerdeError> {
        self.0.deserialize(topic, headers, bytes)
    }

    fn show(&self, value: &T) -> serde_json::Value {
        self.0.show(value)
    }

    fn parse(&self, topic: &str, text: &str) -> Result<T, SerdeError> {
        self.0.parse(topic, text)
    }
}

impl<T: StreamType> SerdeOf<T> {
    /// The usual serde of the type.
    pub fn usual() -> Self {
        Self::new(T::Serde::default())
    }
}

impl<T> fmt::Debug for SerdeOf<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SerdeOf")
    }
}

thread_local! {
    /// What a value is written to before it gets memory of its own. Whoever uses it takes it away meanwhile.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Larger memory is not kept for the next value.
const SCRATCH_MAX: usize = 1 << 20;

/// Keeps a type parameter without owning a value of it.
pub(crate) type Marker<T> = PhantomData<fn() -> T>;
