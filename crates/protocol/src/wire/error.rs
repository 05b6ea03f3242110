//! What can be wrong with a message, and where.

use super::Field;

/// Reports that bytes are not the message they were taken for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} at byte {position}: {kind}")]
pub struct DecodeError {
    /// The field that could not be read, from its message's name on.
    pub field: Field,
    /// Where reading stopped, counted from where the reader began.
    pub position: usize,
    /// What was wrong there.
    pub kind: DecodeErrorKind,
}

/// What was wrong with the bytes of a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeErrorKind {
    /// The bytes end inside the field.
    #[error("needs {needed} bytes, but {remaining} are left")]
    UnexpectedEnd {
        /// How many bytes the field takes.
        needed: usize,
        /// How many bytes there were.
        remaining: usize,
    },
    /// An array declares more elements than the bytes left could hold.
    #[error("declares {count} elements, but only {remaining} bytes are left")]
    TooManyElements {
        /// How many elements are declared.
        count: usize,
        /// How many bytes there were.
        remaining: usize,
    },
    /// The arrays of the message would take far more memory than the message has bytes.
    #[error("would take more memory than a message of its size may")]
    TooMuchMemory,
    /// Null stands where this version allows none.
    #[error("is null, which version {version} does not allow")]
    Null {
        /// The version being read.
        version: i16,
    },
    /// A text is not UTF-8.
    #[error("is not valid UTF-8")]
    NotUtf8,
    /// A text is longer than Kafka allows.
    #[error("is a string of {length} bytes, more than 32767")]
    StringTooLong {
        /// Its declared length.
        length: usize,
    },
    /// A variable-length integer does not end after five bytes, or is too large.
    #[error("is not a variable-length 32-bit integer")]
    BadVarint,
    /// A tagged field does not fill the size declared for it.
    #[error("leaves {unread} bytes of its declared size unread")]
    TaggedFieldTooShort {
        /// How many bytes were left over.
        unread: usize,
    },
    /// The message has no such version.
    #[error("has no version {version}")]
    UnknownVersion {
        /// The version asked for.
        version: i16,
    },
    /// No API has this key.
    #[error("no API has key {key}")]
    UnknownApiKey {
        /// The key found.
        key: i16,
    },
}

impl DecodeError {
    /// Returns the name of the message that could not be read.
    pub fn message(&self) -> &'static str {
        self.field.split('.').next().unwrap_or(self.field)
    }
}

/// Reports that a message cannot be written in the version asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} in version {version}: {kind}")]
pub struct EncodeError {
    /// The field that could not be written, from its message's name on.
    pub field: Field,
    /// The version being written.
    pub version: i16,
    /// What was wrong with it.
    pub kind: EncodeErrorKind,
}

/// What was wrong with a value to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeErrorKind {
    /// The field is set, but this version cannot carry it.
    #[error("is set, but this version has no such field")]
    NotInVersion,
    /// The field is null, which this version does not allow.
    #[error("is null, which this version does not allow")]
    Null,
    /// The value is longer than its length field can say.
    #[error("has length {length}, which the wire format cannot express")]
    TooLong {
        /// Its length.
        length: usize,
    },
    /// The message has no such version.
    #[error("the message has no such version")]
    UnknownVersion,
}

impl EncodeError {
    /// Returns the name of the message that could not be written.
    pub fn message(&self) -> &'static str {
        self.field.split('.').next().unwrap_or(self.field)
    }
}
