//! Keys and values as types: traits, and the formats that Kafka's clients have built in.
//!
//! | Here | In Java | Bytes |
//! |---|---|---|
//! | [`Text`] | `StringSerializer` | UTF-8 |
//! | [`Raw`] | `ByteArraySerializer` | as they are |
//! | [`Number`] of `i16`, `i32`, `i64`, `f32`, `f64` | `ShortSerializer`, `IntegerSerializer`, ... | big endian |
//! | [`Number`] of `bool` | `BooleanSerializer` | one byte, 0 or 1 |
//! | [`Text`] of [`Uuid`] | `UUIDSerializer` | `8-4-4-4-12` digits |
//! | [`Json`] | `JsonSerializer` (Connect) | JSON text |
//!
//! A missing key or value is `None` and never reaches these.
//!
//! ```no_run
//! # async fn example(producer: fleuve_client::Producer, consumer: fleuve_client::Consumer) -> fleuve_client::Result<()> {
//! use fleuve_client::serialization::{Json, Number, Typed};
//!
//! let typed = Typed::new(Number, Json);
//! let order = serde_json::json!({ "item": "tea", "count": 2 });
//! producer.send_typed("orders", Some(&7i64), Some(&order), &typed).await?.await?;
//!
//! if let Some(records) = consumer.poll(std::time::Duration::from_secs(1)).await? {
//!     for record in records.typed::<i64, serde_json::Value, _, _>(&typed) {
//!         let record = record?;
//!         println!("{:?}: {:?}", record.key, record.value);
//!     }
//! }
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::marker::PhantomData;

use fleuve_types::Uuid;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::consumer::{Record, Records};
use crate::error::{Error, Result};
use crate::producer::{Delivery, Producer};

/// What a serializer or deserializer says is wrong; it goes into [`Error::Serialization`].
pub type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Turns values into bytes.
pub trait Serializer<T: ?Sized> {
    /// Appends the bytes of `value`, a key or value for `topic`, to `bytes`.
    fn serialize(
        &self,
        topic: &str,
        value: &T,
        bytes: &mut Vec<u8>,
    ) -> std::result::Result<(), Fault>;
}

/// Turns bytes into values.
pub trait Deserializer<T> {
    /// Reads the bytes of a key or value of `topic`.
    fn deserialize(&self, topic: &str, bytes: &[u8]) -> std::result::Result<T, Fault>;
}

/// UTF-8 text; bytes that are none become U+FFFD, as in Java.
#[derive(Clone, Copy, Debug, Default)]
pub struct Text;

/// Bytes as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Raw;

/// Numbers in big endian, and truth values in a byte.
#[derive(Clone, Copy, Debug, Default)]
pub struct Number;

/// JSON, of anything that `serde` knows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

impl Serializer<str> for Text {
    fn serialize(
        &self,
        _: &str,
        value: &str,
        bytes: &mut Vec<u8>,
    ) -> std::result::Result<(), Fault> {
        bytes.extend_from_slice(value.as_bytes());
        Ok(())
    }
}

impl Serializer<String> for Text {
    fn serialize(
        &self,
        _: &str,
        value: &String,
        bytes: &mut Vec<u8>,
    ) -> std::result::Result<(), Fault> {
        bytes.extend_from_slice(value.as_bytes());
        Ok(())
    }
}

impl Deserializer<String> for Text {
    fn deserialize(&self, _: &str, bytes: &[u8]) -> std::result::Result<String, Fault> {
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }
}

impl Serializer<Uuid> for Text {
    fn serialize(
        &self,
        _: &str,
        value: &Uuid,
        bytes: &mut Vec<u8>,
    ) -> std::result::Result<(), Fault> {
        // Java's text of a UUID; Kafka's own ids are written otherwise.
        for (index, byte) in value.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                bytes.push(b'-');
            }
            bytes.extend_from_slice(format!("{byte:02x}").as_bytes());
        }
        Ok(())
    }
}

impl Deserializer<Uuid> for Text {
    fn deserialize(&self, _: &str, bytes: &[u8]) -> std::result::Result<Uuid, Fault> {
        let text = std::str::from_utf8(bytes)?;
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
        let mut uuid = [0; 16];
        if digits.len() != 2 * uuid.len() || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(format!("{text:?} is not a UUID").into());
        }
        for (byte, pair) in uuid.iter_mut().zip(digits.chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair)?, 16)?;
        }
        Ok(Uuid(uuid))
    }
}

impl<T: AsRef<[u8]> + ?Sized> Serializer<T> for Raw {
    fn serialize(&self, _: &str, value: &T, bytes: &mut Vec<u8>) -> std::result::Result<(), Fault> {
        bytes.extend_from_slice(value.as_ref());
        Ok(())
    }
}

impl Deserializer<Vec<u8>> for Raw {
    fn deserialize(&self, _: &str, bytes: &[u8]) -> std::result::Result<Vec<u8>, Fault> {
        Ok(bytes.to_vec())
    }
}

macro_rules! big_endian {
    ($($number:ty)*) => {$(
        impl Serializer<$number> for Number {
            fn serialize(&self, _: &str, value: &$number, bytes: &mut Vec<u8>) -> std::result::Result<(), Fault> {
                bytes.extend_from_slice(&value.to_be_bytes());
                Ok(())
            }
        }

        impl Deserializer<$number> for Number {
            fn deserialize(&self, _: &str, bytes: &[u8]) -> std::result::Result<$number, Fault> {
                let size = bytes.len();
                let bytes = bytes.try_into().map_err(|_| {
                    format!("{size} bytes, and {} has {}", stringify!($number), size_of::<$number>())
                })?;
                Ok(<$number>::from_be_bytes(bytes))
            }
        }
    )*};
}

big_endian! { i16 i32 i64 f32 f64 }

impl Serializer<bool> for Number {
    fn serialize(
        &self,
        _: &str,
        value: &bool,
        bytes: &mut Vec<u8>,
    ) -> std::result::Result<(), Fault> {
        bytes.push(u8::from(*value));
        Ok(())
    }
}

impl Deserializer<bool> for Number {
    fn deserialize(&self, _: &str, bytes: &[u8]) -> std::result::Result<bool, Fault> {
        match bytes {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err("a truth value is one byte, 0 or 1".into()),
        }
    }
}

impl<T: Serialize + ?Sized> Serializer<T> for Json {
    fn serialize(&self, _: &str, value: &T, bytes: &mut Vec<u8>) -> std::result::Result<(), Fault> {
        Ok(serde_json::to_writer(bytes, value)?)
    }
}

impl<T: DeserializeOwned> Deserializer<T> for Json {
    fn deserialize(&self, _: &str, bytes: &[u8]) -> std::result::Result<T, Fault> {
        Ok(serde_json::from_slice(bytes)?)
    }
}

/// The formats of keys and values.
#[derive(Clone, Copy, Debug, Default)]
pub struct Typed<K, V> {
    /// Of keys.
    pub key: K,
    /// Of values.
    pub value: V,
}

impl<K, V> Typed<K, V> {
    /// Makes a pair of formats.
    pub fn new(key: K, value: V) -> Self {
        Self { key, value }
    }
}

/// A record whose key and value were read.
#[derive(Clone, Debug, PartialEq)]
pub struct TypedRecord<'a, K, V> {
    /// The key.
    pub key: Option<K>,
    /// The value.
    pub value: Option<V>,
    /// The record they were read from: offset, timestamp, headers.
    pub record: Record<'a>,
}

/// Iterator over typed records; see [`Records::typed`].
pub struct TypedIter<'a, K, V, KD, VD> {
    records: crate::consumer::Iter<'a>,
    of: &'a Records,
    formats: &'a Typed<KD, VD>,
    types: PhantomData<fn() -> (K, V)>,
}

impl Records {
    /// Iterates over the records with their keys and values read by `formats`.
    ///
    /// A record that cannot be read is an error that names its offset; iterating goes on behind it.
    pub fn typed<'a, K, V, KD: Deserializer<K>, VD: Deserializer<V>>(
        &'a self,
        formats: &'a Typed<KD, VD>,
    ) -> TypedIter<'a, K, V, KD, VD> {
        TypedIter { records: self.iter(), of: self, formats, types: PhantomData }
    }
}

impl<'a, K, V, KD: Deserializer<K>, VD: Deserializer<V>> Iterator for TypedIter<'a, K, V, KD, VD> {
    type Item = Result<TypedRecord<'a, K, V>>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = self.records.next()?;
        let partition = self.of.partition();
        let topic = &*partition.topic;
        let faulty = |part, fault: Fault| Error::Serialization {
            subject: format!("the {part} at offset {} of {partition}", record.offset.0),
            reason: fault.to_string(),
        };
        let key = record.key.map(|bytes| self.formats.key.deserialize(topic, bytes)).transpose();
        let key = key.map_err(|fault| faulty("key", fault));
        let value =
            record.value.map(|bytes| self.formats.value.deserialize(topic, bytes)).transpose();
        let value = value.map_err(|fault| faulty("value", fault));
        Some(key.and_then(|key| Ok(TypedRecord { key, value: value?, record })))
    }
}

impl Producer {
    /// Sends a record whose key and value `formats` writes; see [`Producer::send`].
    pub async fn send_typed<K: ?Sized, V: ?Sized, KS: Serializer<K>, VS: Serializer<V>>(
        &self,
        topic: &str,
        key: Option<&K>,
        value: Option<&V>,
        formats: &Typed<KS, VS>,
    ) -> Result<Delivery> {
        let faulty = |part: &str, fault: Fault| Error::Serialization {
            subject: format!("the {part} of a record for {topic}"),
            reason: fault.to_string(),
        };
        let (mut key_bytes, mut value_bytes) = (Vec::new(), Vec::new());
        if let Some(key) = key {
            let written = formats.key.serialize(topic, key, &mut key_bytes);
            written.map_err(|fault| faulty("key", fault))?;
        }
        if let Some(value) = value {
            let written = formats.value.serialize(topic, value, &mut value_bytes);
            written.map_err(|fault| faulty("value", fault))?;
        }
        let record = crate::producer::Record {
            key: key.is_some().then_some(&key_bytes[..]),
            value: value.is_some().then_some(&value_bytes[..]),
            ..crate::producer::Record::new(topic)
        };
        self.send(record).await
    }
}

impl<K: fmt::Debug, V: fmt::Debug, KD, VD> fmt::Debug for TypedIter<'_, K, V, KD, VD> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedIter").field("partition", self.of.partition()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<T: ?Sized, S: Serializer<T>>(format: &S, value: &T) -> Vec<u8> {
        let mut bytes = Vec::new();
        format.serialize("t", value, &mut bytes).expect("writable");
        bytes
    }

    #[test]
    fn bytes_are_the_ones_of_javas_serializers() {
        // From `IntegerSerializer`, `LongSerializer`, `DoubleSerializer` and so on.
        assert_eq!(bytes(&Number, &-2i32), [0xff, 0xff, 0xff, 0xfe]);
        assert_eq!(bytes(&Number, &258i16), [1, 2]);
        assert_eq!(bytes(&Number, &1i64), [0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(bytes(&Number, &1.5f64), [0x3f, 0xf8, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes(&Number, &true), [1]);
        assert_eq!(bytes(&Text, "é"), "é".as_bytes());
        assert_eq!(bytes(&Raw, &b"x"[..]), b"x");
        let uuid = Uuid([
            0x12, 0x3e, 0x45, 0x67, 0xe8, 0x9b, 0x12, 0xd3, 0xa4, 0x56, 0x42, 0x66, 0x14, 0x17,
            0x40, 0,
        ]);
        let text = bytes(&Text, &uuid);
        assert_eq!(text, b"123e4567-e89b-12d3-a456-426614174000");
        assert_eq!(Deserializer::<Uuid>::deserialize(&Text, "t", &text).expect("a UUID"), uuid);
        assert_eq!(bytes(&Json, &[1, 2]), b"[1,2]");
    }

    #[test]
    fn foreign_bytes_are_faults() {
        assert!(Deserializer::<i32>::deserialize(&Number, "t", &[0; 5]).is_err());
        assert!(Deserializer::<bool>::deserialize(&Number, "t", &[2]).is_err());
        assert!(Deserializer::<Uuid>::deserialize(&Text, "t", "é23e4567".as_bytes()).is_err());
        assert!(Deserializer::<Vec<i32>>::deserialize(&Json, "t", b"[1,").is_err());
        assert_eq!(
            Deserializer::<String>::deserialize(&Text, "t", b"a\xff").expect("text"),
            "a\u{fffd}"
        );
    }
}
