//! Names that topics may have.

/// Reports that no topic may have this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// It has no characters.
    #[error("Topic name is invalid: the empty string is not allowed")]
    Empty,
    /// It is `.` or `..`, which are directories.
    #[error("Topic name is invalid: '{0}' is not allowed")]
    Dots(&'static str),
    /// It is longer than a directory name can be with the partition after it.
    #[error(
        "Topic name is invalid: the length of '{name}' is longer than the max allowed length {NAME_LENGTH_MAX}"
    )]
    TooLong {
        /// The name, cut off.
        name: String,
    },
    /// It contains a character that is not allowed.
    #[error(
        "Topic name is invalid: '{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
    )]
    Characters {
        /// The name, cut off.
        name: String,
    },
    /// It differs from another topic's only in characters that metric names merge.
    #[error("Topic '{name}' collides with existing topic: {existing}")]
    Collision {
        /// The name.
        name: String,
        /// The other topic.
        existing: String,
    },
}

/// The longest name: 255 bytes of a directory name without `-`, the partition, and `.` suffixes.
const NAME_LENGTH_MAX: usize = 249;

/// Checks a name by itself.
pub(super) fn check(name: &str) -> Result<(), InvalidName> {
    let shown = || name.chars().take(NAME_LENGTH_MAX + 1).collect();
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    match name {
        "" => Err(InvalidName::Empty),
        "." => Err(InvalidName::Dots(".")),
        ".." => Err(InvalidName::Dots("..")),
        _ if name.len() > NAME_LENGTH_MAX => Err(InvalidName::TooLong { name: shown() }),
        _ if !name.bytes().all(is_legal) => Err(InvalidName::Characters { name: shown() }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legal_names_pass_and_illegal_ones_say_why() {
        for name in ["a", "A.b_c-9", "...", "__consumer_offsets", &"x".repeat(249)] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        assert_eq!(check(""), Err(InvalidName::Empty));
        assert_eq!(check("."), Err(InvalidName::Dots(".")));
        assert_eq!(check(".."), Err(InvalidName::Dots("..")));
        assert!(matches!(check(&"x".repeat(250)), Err(InvalidName::TooLong { .. })));
        for name in ["a b", "a/b", "é", "a\0", "a:b", "a*"] {
            assert!(matches!(check(name), Err(InvalidName::Characters { .. })), "{name}");
        }
    }
}
