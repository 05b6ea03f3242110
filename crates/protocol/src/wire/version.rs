//! Versions of messages.

use std::fmt;

/// The version being read or written, and whether it is a flexible one.
///
/// Flexible versions (KIP-482) have compact lengths and tagged fields. The flag is decided once per
/// message, because it holds for every struct inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// The version's number.
    pub number: i16,
    /// Whether lengths are compact and structs end in tagged fields.
    pub flexible: bool,
}

impl Version {
    /// The same version with the old length prefixes, for the one field that keeps them: the client
    /// id, which must be readable by brokers that do not know the version of the request.
    pub(crate) const fn inflexible(self) -> Self {
        Self { flexible: false, ..self }
    }
}

/// An inclusive range of versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VersionRange {
    /// The lowest version.
    pub min: i16,
    /// The highest version.
    pub max: i16,
}

impl VersionRange {
    /// Makes the range from `min` to `max`, both included.
    pub const fn new(min: i16, max: i16) -> Self {
        Self { min, max }
    }

    /// Reports whether `version` lies in the range.
    pub const fn contains(self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }

    /// Lists the versions in the range, lowest first.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = i16> {
        self.min..=self.max
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.min, self.max)
    }
}
