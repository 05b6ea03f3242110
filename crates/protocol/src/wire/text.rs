//! Text that borrows from the frame it came in.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::str::Utf8Error;

use bytes::Bytes;
use bytestring::ByteString;

/// UTF-8 text in shared bytes: a clone counts a reference and copies nothing.
///
/// A text decoded from a frame keeps the whole frame alive. Whoever stores one for longer than the
/// request lives takes a copy with [`Str::detach`].
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Str(ByteString);

impl Str {
    /// The empty text.
    pub const EMPTY: Self = Self(ByteString::new());

    /// Makes a text of a literal, without allocating.
    pub const fn from_static(text: &'static str) -> Self {
        Self(ByteString::from_static(text))
    }

    /// Makes a text by copying `text`.
    pub fn copy_from(text: &str) -> Self {
        Self(ByteString::from(text))
    }

    /// Makes a text of shared bytes, which must be UTF-8.
    pub fn from_utf8(bytes: Bytes) -> Result<Self, Utf8Error> {
        ByteString::try_from(bytes).map(Self)
    }

    /// Copies the text into memory of its own, so that it no longer keeps a frame alive.
    pub fn detach(&self) -> Self {
        Self::copy_from(self)
    }

    /// Returns the text as a plain slice.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the shared bytes of the text.
    pub fn into_bytes(self) -> Bytes {
        self.0.into_bytes()
    }

    /// Returns the shared bytes of the text.
    pub(super) fn as_shared(&self) -> &Bytes {
        self.0.as_bytes()
    }
}

impl Deref for Str {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::hash::Hash for Str {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        // As `str` does, because `Borrow<str>` promises so.
        self.as_str().hash(state);
    }
}

impl AsRef<str> for Str {
    fn as_ref(&self) -> &str {
        self
    }
}

impl AsRef<[u8]> for Str {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl Borrow<str> for Str {
    fn borrow(&self) -> &str {
        self
    }
}

impl From<&'static str> for Str {
    fn from(text: &'static str) -> Self {
        Self::from_static(text)
    }
}

impl From<String> for Str {
    fn from(text: String) -> Self {
        Self(ByteString::from(text))
    }
}

impl From<Str> for String {
    fn from(text: Str) -> Self {
        text.as_str().to_owned()
    }
}

impl From<Str> for std::sync::Arc<str> {
    fn from(text: Str) -> Self {
        text.as_str().into()
    }
}

impl From<&std::sync::Arc<str>> for Str {
    fn from(text: &std::sync::Arc<str>) -> Self {
        Self::copy_from(text)
    }
}

impl PartialEq<str> for Str {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Str {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl PartialEq<String> for Str {
    fn eq(&self, other: &String) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<Str> for str {
    fn eq(&self, other: &Str) -> bool {
        self == other.as_str()
    }
}

impl PartialEq<Str> for &str {
    fn eq(&self, other: &Str) -> bool {
        *self == other.as_str()
    }
}

impl fmt::Display for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}

impl fmt::Debug for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn a_clone_shares_and_a_detached_copy_does_not() {
        let frame = Bytes::from(b"say topic".to_vec());
        let text = Str::from_utf8(frame.slice(4..)).expect("UTF-8");
        assert_eq!(text, "topic");
        assert_eq!(text.clone().as_ptr(), frame[4..].as_ptr());
        assert_ne!(text.detach().as_ptr(), text.as_ptr());
        assert_eq!(text.detach(), text);
    }

    #[test]
    fn a_map_keyed_by_texts_is_asked_with_plain_slices() {
        let map = HashMap::from([(Str::from("topic"), 1)]);
        assert_eq!(map.get("topic"), Some(&1));
        assert_eq!(map.get("other"), None);
    }
}
