//! Serdes of numbers, text, bytes, nothing and optional values.

use bytes::Bytes;

use super::{Marker, Presence, Serde, SerdeError, StreamType};
use crate::record::Headers;

/// Numbers of fixed width, big-endian, as Kafka's Long, Integer, Short, Double and Float serializers.
#[derive(Debug)]
pub struct FixedSerde<T>(Marker<T>);

impl<T> Default for FixedSerde<T> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

macro_rules! fixed {
    ($($type:ty),*) => {$(
        impl Serde<$type> for FixedSerde<$type> {
            fn serialize(
                &self,
                _: &str,
                _: &mut Headers,
                value: &$type,
                out: &mut Vec<u8>,
            ) -> Result<Presence, SerdeError> {
                out.extend_from_slice(&value.to_be_bytes());
                Ok(Presence::Present)
            }

            fn deserialize(&self, _: &str, _: &Headers, bytes: Option<Bytes>) -> Result<$type, SerdeError> {
                let bytes = required(bytes, stringify!($type))?;
                let fixed = bytes.as_ref().try_into().map_err(|_| {
                    SerdeError::new(format_args!(
                        "{} needs {} bytes, there are {}",
                        stringify!($type),
                        size_of::<$type>(),
                        bytes.len()
                    ))
                })?;
                Ok(<$type>::from_be_bytes(fixed))
            }

            fn show(&self, value: &$type) -> serde_json::Value {
                (*value).into()
            }

            fn parse(&self, _: &str, text: &str) -> Result<$type, SerdeError> {
                text.parse().map_err(|error| {
                    SerdeError::new(format_args!("{text} is no {}: {error}", stringify!($type)))
                })
            }
        }

        impl StreamType for $type {
            type Serde = FixedSerde<$type>;
        }
    )*};
}

fixed!(i64, i32, i16, u64, u32, u16, f64, f32);

/// UTF-8 text.
#[derive(Debug, Default)]
pub struct TextSerde;

impl Serde<String> for TextSerde {
    fn serialize(
        &self,
        _: &str,
        _: &mut Headers,
        value: &String,
        out: &mut Vec<u8>,
    ) -> Result<Presence, SerdeError> {
        out.extend_from_slice(value.as_bytes());
        Ok(Presence::Present)
    }

    fn deserialize(
        &self,
        _: &str,
        _: &Headers,
        bytes: Option<Bytes>,
    ) -> Result<String, SerdeError> {
        let bytes = required(bytes, "text")?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(SerdeError::new(format_args!("not UTF-8 text: {error}"))),
        }
    }
}

impl StreamType for String {
    type Serde = TextSerde;
}

/// Bytes as they are, without a copy.
#[derive(Debug, Default)]
pub struct BytesSerde;

impl Serde<Bytes> for BytesSerde {
    fn serialize(
        &self,
        _: &str,
        _: &mut Headers,
        value: &Bytes,
        out: &mut Vec<u8>,
    ) -> Result<Presence, SerdeError> {
        out.extend_from_slice(value);
        Ok(Presence::Present)
    }

    fn deserialize(&self, _: &str, _: &Headers, bytes: Option<Bytes>) -> Result<Bytes, SerdeError> {
        required(bytes, "bytes")
    }
}

impl StreamType for Bytes {
    type Serde = BytesSerde;
}

/// Ignores whatever is there, and writes null: for keys or values that a program does not look at.
#[derive(Debug, Default)]
pub struct NothingSerde;

impl Serde<()> for NothingSerde {
    fn serialize(
        &self,
        _: &str,
        _: &mut Headers,
        (): &(),
        _: &mut Vec<u8>,
    ) -> Result<Presence, SerdeError> {
        Ok(Presence::Null)
    }

    fn deserialize(&self, _: &str, _: &Headers, _: Option<Bytes>) -> Result<(), SerdeError> {
        Ok(())
    }
}

impl StreamType for () {
    type Serde = NothingSerde;

    fn is_null(&self) -> bool {
        true
    }
}

/// Adds null to another serde.
#[derive(Debug, Default)]
pub struct NullableSerde<S>(pub S);

impl<T: 'static, S: Serde<T>> Serde<Option<T>> for NullableSerde<S> {
    fn serialize(
        &self,
        topic: &str,
        headers: &mut Headers,
        value: &Option<T>,
        out: &mut Vec<u8>,
    ) -> Result<Presence, SerdeError> {
        match value {
            Some(value) => self.0.serialize(topic, headers, value, out),
            None => Ok(Presence::Null),
        }
    }

    fn deserialize(
        &self,
        topic: &str,
        headers: &Headers,
        bytes: Option<Bytes>,
    ) -> Result<Option<T>, SerdeError> {
        match bytes {
            Some(bytes) => self.0.deserialize(topic, headers, Some(bytes)).map(Some),
            None => Ok(None),
        }
    }

    fn show(&self, value: &Option<T>) -> serde_json::Value {
        value.as_ref().map_or(serde_json::Value::Null, |value| self.0.show(value))
    }

    fn parse(&self, topic: &str, text: &str) -> Result<Option<T>, SerdeError> {
        self.0.parse(topic, text).map(Some)
    }
}

impl<T: StreamType> StreamType for Option<T> {
    type Serde = NullableSerde<T::Serde>;

    fn is_null(&self) -> bool {
        self.as_ref().is_none_or(StreamType::is_null)
    }
}

fn required(bytes: Option<Bytes>, what: &str) -> Result<Bytes, SerdeError> {
    bytes.ok_or_else(|| SerdeError::new(format_args!("null where {what} is needed")))
}
