//! Stored messages as JSON, in the form of Kafka's tools: names are Kafka's, bytes are Base64.
//!
//! Only what stands in logs has this form; it is for people and for tools that look into files.

use bytes::Bytes;
use fleuve_types::Uuid;
use serde_json::Value;

use crate::message::Message;
use crate::wire::{Str, Version};

/// What a part of a message looks like in a version.
pub trait Json {
    /// Shows the value; `v` decides which fields there are.
    #[doc(hidden)]
    fn json(&self, v: Version) -> Value;
}

/// Shows a message of `version`.
pub fn show<M: Message + Json>(message: &M, version: i16) -> Value {
    message.json(M::layout(version))
}

macro_rules! plain {
    ($($kind:ty),*) => {$(
        impl Json for $kind {
            fn json(&self, _: Version) -> Value {
                (*self).into()
            }
        }
    )*};
}

plain!(bool, i8, i16, i32, i64, u16, u32, f64);

impl Json for Str {
    fn json(&self, _: Version) -> Value {
        self.as_str().into()
    }
}

impl Json for Uuid {
    fn json(&self, _: Version) -> Value {
        self.to_string().into()
    }
}

impl Json for Bytes {
    fn json(&self, _: Version) -> Value {
        base64(self).into()
    }
}

impl<T: Json> Json for Option<T> {
    fn json(&self, v: Version) -> Value {
        self.as_ref().map_or(Value::Null, |value| value.json(v))
    }
}

impl<T: Json> Json for Vec<T> {
    fn json(&self, v: Version) -> Value {
        self.iter().map(|item| item.json(v)).collect()
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            if digit > chunk.len() {
                text.push('=');
            } else {
                text.push(char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::offset_commit_value::OffsetCommitValue;

    #[test]
    fn a_version_shows_its_own_fields() {
        let value = OffsetCommitValue { offset: 7, metadata: "m".into(), ..Default::default() };
        let shown = |version| show(&value, version).to_string();
        assert_eq!(shown(0), r#"{"offset":7,"metadata":"m","commitTimestamp":0}"#);
        assert_eq!(
            shown(1),
            r#"{"offset":7,"metadata":"m","commitTimestamp":0,"expireTimestamp":-1}"#
        );
        let untagged = r#"{"offset":7,"leaderEpoch":0,"metadata":"m","commitTimestamp":0}"#;
        assert_eq!(shown(4).replace(":-1", ":0"), untagged, "an unset tag is left out");
    }

    #[test]
    fn base64_is_padded() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
