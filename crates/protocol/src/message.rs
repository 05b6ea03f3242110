//! What all messages have in common.

use crate::messages::ApiKey;
use crate::wire::{
    DecodeError, DecodeErrorKind, EncodeError, EncodeErrorKind, Reader, Version, VersionRange,
    Wire, Writer,
};

/// A message of Kafka's: a request, a response, a header, or something stored in records.
pub trait Message: Wire + Default + Clone + std::fmt::Debug + PartialEq {
    /// Kafka's name of the message, such as `FetchRequest`.
    const NAME: &'static str;

    /// The number that tells this message from its siblings, where it has one: the API key of
    /// requests and responses, the record type of metadata and coordinator records.
    const API_KEY: Option<i16>;

    /// The versions that Kafka 4.3 knows.
    const VALID_VERSIONS: VersionRange;

    /// The first version with compact lengths and tagged fields.
    const FLEXIBLE_FROM: Option<i16>;

    /// Tells `each` every error code in the message, 0 for none; of responses only.
    fn error_codes(&self, _each: &mut dyn FnMut(i16)) {}

    /// Where the message says how long the client is throttled; of responses only, and not of all.
    fn throttle_time_ms(&mut self) -> Option<&mut i32> {
        None
    }

    /// Takes a message of `version` out of `reader`; what follows it stays there.
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        if !Self::VALID_VERSIONS.contains(version) {
            return Err(reader.error(Self::NAME, DecodeErrorKind::UnknownVersion { version }));
        }
        reader.get(Self::layout(version), Self::NAME)
    }

    /// Writes the message to `writer` as `version` lays it out.
    ///
    /// After an error the writer holds half a message and is good for nothing.
    fn encode(&self, writer: &mut Writer, version: i16) -> Result<(), EncodeError> {
        if !Self::VALID_VERSIONS.contains(version) {
            let kind = EncodeErrorKind::UnknownVersion;
            return Err(EncodeError { field: Self::NAME, version, kind });
        }
        writer.put(self, Self::layout(version), Self::NAME);
        writer.take_error()
    }

    /// Says whether `version` is a flexible one.
    #[doc(hidden)]
    fn layout(version: i16) -> Version {
        let flexible = Self::FLEXIBLE_FROM.is_some_and(|first| version >= first);
        Version { number: version, flexible }
    }
}

/// A request, which names its API and the response that answers it.
pub trait Request: Message {
    /// The API that the request calls.
    const KEY: ApiKey;

    /// What answers it.
    type Response: Message;
}
