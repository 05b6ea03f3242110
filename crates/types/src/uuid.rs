//! Kafka's 128-bit ids: topic ids, directory ids, the cluster id.
//!
//! Kafka writes them as 22 characters of URL-safe base64 without padding, which is also what its
//! tools print and what `meta.properties` and `partition.metadata` hold.

use std::fmt;
use std::str::FromStr;

/// A 128-bit id, printed the way Kafka prints ids.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

/// Reports that a text is not an id of 22 URL-safe base64 characters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id: expected 22 characters of URL-safe base64 for 16 bytes")]
pub struct ParseUuidError {
    text: String,
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const TEXT_LENGTH: usize = 22;

impl Uuid {
    /// The id that stands for "none" on the wire.
    pub const ZERO: Self = Self([0; 16]);

    /// Reports whether this is the id that stands for "none".
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }

    /// Makes a version 4 id of 16 random bytes.
    ///
    /// Kafka avoids ids whose text begins with `-`, because its command-line tools would take them
    /// for an option; callers draw again when [`Uuid::looks_like_option`] is true.
    pub fn from_random_bytes(mut bytes: [u8; 16]) -> Self {
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Self(bytes)
    }

    /// Reports whether the text form begins with `-`.
    pub fn looks_like_option(&self) -> bool {
        self.0[0] >> 2 == 62
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from_be_bytes(self.0);
        let mut text = [0u8; TEXT_LENGTH];
        for (index, character) in text.iter_mut().enumerate() {
            // 128 bits are 21 whole sextets and 2 bits, which the last character carries on top.
            let sextet = match 128 - 6 * (index as i32 + 1) {
                shift if shift >= 0 => (bits >> shift) & 0x3f,
                missing => (bits << -missing) & 0x3f,
            };
            *character = ALPHABET[sextet as usize];
        }
        f.pad(std::str::from_utf8(&text).expect("the alphabet is ASCII"))
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Uuid {
    type Err = ParseUuidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseUuidError { text: text.chars().take(64).collect() };
        let digits = text.trim_end_matches('=');
        if digits.len() != TEXT_LENGTH {
            return Err(error());
        }
        let mut bits = 0u128;
        for (index, character) in digits.bytes().enumerate() {
            let sextet =
                ALPHABET.iter().position(|&known| known == character).ok_or_else(error)? as u128;
            if index == TEXT_LENGTH - 1 {
                bits = (bits << 2) | (sextet >> 4);
            } else {
                bits = (bits << 6) | sextet;
            }
        }
        Ok(Self(bits.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_the_one_kafka_prints() {
        // `kafka.tools.StorageTool` prints this text for these bytes.
        let id = Uuid(*b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f");
        assert_eq!(id.to_string(), "AAECAwQFBgcICQoLDA0ODw");
        assert_eq!("AAECAwQFBgcICQoLDA0ODw".parse(), Ok(id));
        assert_eq!(Uuid([0xff; 16]).to_string(), "_____________________w");
    }

    #[test]
    fn every_random_id_survives_its_text_form() {
        let mut bytes = [7u8; 16];
        for round in 0..1000u32 {
            for (index, byte) in bytes.iter_mut().enumerate() {
                *byte = byte.wrapping_mul(31).wrapping_add(round as u8).wrapping_add(index as u8);
            }
            let id = Uuid::from_random_bytes(bytes);
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(id.looks_like_option(), id.to_string().starts_with('-'));
        }
    }

    #[test]
    fn foreign_text_is_refused_by_name() {
        for text in ["", "short", "AAECAwQFBgcICQoLDA0OD!", "AAECAwQFBgcICQoLDA0ODwAA"] {
            let error = text.parse::<Uuid>().expect_err("not an id");
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
