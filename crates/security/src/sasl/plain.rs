//! PLAIN (RFC 4616): `[authorization id] NUL name NUL password`, as they are.

use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;
use fleuve_os::Random;
use ring::hmac;

use super::{Refusal, Step};

/// Longer than any name or password that somebody means.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// The users of PLAIN on one listener.
///
/// Passwords are kept only as tags under a key that this process made up, so that comparing them
/// takes the same time however much of them is right, and a dump of memory does not show them.
pub struct PlainUsers {
    key: hmac::Key,
    tags: HashMap<String, hmac::Tag>,
    /// What passwords of users who do not exist are compared with.
    decoy: hmac::Tag,
}

impl PlainUsers {
    /// Keeps names and passwords.
    pub fn new<'a>(
        users: impl IntoIterator<Item = (&'a str, &'a str)>,
        random: &dyn Random,
    ) -> Self {
        let mut secret = [0; 64];
        random.fill(&mut secret);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret[..32]);
        let tag = |(user, password): (&str, &str)| {
            (user.to_owned(), hmac::sign(&key, password.as_bytes()))
        };
        let tags = users.into_iter().map(tag).collect();
        let decoy = hmac::sign(&key, &secret[32..]);
        Self { key, tags, decoy }
    }

    pub(super) fn authenticate(&self, message: &[u8]) -> Result<Step, Refusal> {
        if message.len() > MESSAGE_BYTES_MAX {
            return Err(Refusal("the message is too long"));
        }
        let message = std::str::from_utf8(message).map_err(|_| Refusal("not a text"))?;
        let parts: Vec<&str> = message.split('\0').collect();
        let [authorization_id, user, password] = parts[..] else {
            return Err(Refusal("expected three parts, separated by NUL"));
        };
        if user.is_empty() || password.is_empty() {
            return Err(Refusal("name or password is missing"));
        }
        let expected = self.tags.get(user);
        let compared = expected.unwrap_or(&self.decoy);
        let matches = hmac::verify(&self.key, password.as_bytes(), compared.as_ref()).is_ok();
        if !matches || expected.is_none() {
            return Err(Refusal("Invalid username or password"));
        }
        if !authorization_id.is_empty() && authorization_id != user {
            return Err(Refusal(
                "Client requested an authorization id that is different from username",
            ));
        }
        Ok(Step::Done { user: user.to_owned(), message: Bytes::new(), until_ms: None, owner: None })
    }
}

impl fmt::Debug for PlainUsers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlainUsers").field("count", &self.tags.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use fleuve_os::OsRandom;

    use super::*;

    fn users() -> PlainUsers {
        PlainUsers::new([("ada", "lovelace"), ("bob", "x")], &OsRandom)
    }

    #[test]
    fn the_right_password_gets_in_and_nothing_else_does() {
        let users = users();
        let done = Step::Done {
            user: "ada".to_owned(),
            message: Bytes::new(),
            until_ms: None,
            owner: None,
        };
        assert_eq!(users.authenticate(b"\0ada\0lovelace").as_ref(), Ok(&done));
        assert_eq!(users.authenticate(b"ada\0ada\0lovelace").as_ref(), Ok(&done));
        let refused: [&[u8]; 11] = [
            b"",
            b"\0ada",
            b"\0ada\0",
            b"\0\0lovelace",
            b"\0ada\0lovelace\0",
            b"\0ada\0lovelac",
            b"\0ada\0x",
            b"\0eve\0lovelace",
            b"bob\0ada\0lovelace",
            b"\0ada\0\xff",
            &[0; MESSAGE_BYTES_MAX + 1],
        ];
        for message in refused {
            assert!(users.authenticate(message).is_err());
        }
    }

    #[test]
    fn a_wrong_password_and_a_user_who_does_not_exist_look_the_same() {
        let users = users();
        assert_eq!(users.authenticate(b"\0ada\0wrong"), users.authenticate(b"\0eve\0wrong"));
    }
}
