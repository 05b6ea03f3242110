//! The shape that records of the modern protocols have in common.
//!
//! A record belongs to a group as a whole, or to a part of it that its key names beside the group: a
//! member, or a regular expression. Each protocol says in a table which of its records is of which
//! kind, and gets from it how they are read, written and told from tombstones.

use bytes::Bytes;
use fleuve_protocol::{EncodeError, Message};

use crate::record::prefixed;

/// Every value has one version so far.
const VALUE_VERSION: i16 = 0;

/// Writes a value; none for tombstones.
pub(crate) fn encode_value(value: &Option<impl Message>) -> Result<Option<Bytes>, EncodeError> {
    value.as_ref().map(|value| prefixed(VALUE_VERSION, value)).transpose()
}

/// Lets a protocol's records be read and written, by a table of variant, kind and key.
macro_rules! group_records {
    (
        $record:ident {
            of_group { $($whole:ident = $whole_kind:literal: $whole_key:ident,)+ }
            of_part { $($part:ident = $part_kind:literal: $part_key:ident($name:ident is $field:ident),)+ }
        }
    ) => {
        impl $record {
            /// Reads a record whose key is of type `kind`; none if that is another protocol's.
            pub(crate) fn decode(
                kind: i16,
                key: &mut fleuve_protocol::Reader,
                value: Option<bytes::Bytes>,
            ) -> Result<Option<(fleuve_protocol::Str, Self)>, fleuve_protocol::DecodeError> {
                use fleuve_protocol::Message;
                use $crate::record::{KEY_VERSION, unprefixed};
                let read = match kind {
                    $($whole_kind => {
                        let key = $whole_key::decode(key, KEY_VERSION)?;
                        (key.group_id, Self::$whole(value.map(unprefixed).transpose()?))
                    })+
                    $($part_kind => {
                        let key = $part_key::decode(key, KEY_VERSION)?;
                        let value = value.map(unprefixed).transpose()?;
                        (key.group_id, Self::$part { $name: key.$field, value })
                    })+
                    _ => return Ok(None),
                };
                Ok(Some(read))
            }

            /// Whether it has no value.
            pub(crate) fn is_tombstone(&self) -> bool {
                match self {
                    $(Self::$whole(value) => value.is_none(),)+
                    $(Self::$part { value, .. } => value.is_none(),)+
                }
            }

            /// Writes key and value; the value is none for tombstones.
            pub(crate) fn encode(
                &self,
                group: &fleuve_protocol::Str,
            ) -> Result<(bytes::Bytes, Option<bytes::Bytes>), fleuve_protocol::EncodeError> {
                use $crate::modern::encode_value;
                use $crate::record::prefixed_key;
                let group_id = group.clone();
                match self {
                    $(Self::$whole(value) => {
                        let key = $whole_key { group_id };
                        Ok((prefixed_key($whole_kind, &key)?, encode_value(value)?))
                    })+
                    $(Self::$part { $name, value } => {
                        let key = $part_key { group_id, $field: $name.clone() };
                        Ok((prefixed_key($part_kind, &key)?, encode_value(value)?))
                    })+
                }
            }
        }
    };
}

pub(crate) use group_records;
