//! Java's properties format, as far as configuration files use it.

use std::fmt;
use std::path::Path;

use super::keys::{Served, find_key, nearest_key};
use crate::error::{Error, Result};

/// Key and value texts of a client configuration, every key known to exist.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties {
    entries: Vec<(String, String)>,
}

/// Shows everything but secrets.
impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.iter().map(|(key, value)| {
            let secret = key.ends_with(".password")
                || key.ends_with(".secret")
                || matches!(key, "sasl.jaas.config" | "ssl.keystore.key");
            (key, if secret { "[hidden]" } else { value })
        });
        f.debug_map().entries(shown).finish()
    }
}

impl Properties {
    /// Makes an empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a properties file.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Error::config(format!("cannot read client configuration {}: {error}", path.display()))
        })?;
        Self::parse(&text).map_err(|error| Error::config(format!("{}: {error}", path.display())))
    }

    /// Reads the text of a properties file: `key=value` lines, `#` and `!` comments, `\` at the
    /// end of a line continues it.
    pub fn parse(text: &str) -> Result<Self> {
        let mut properties = Self::new();
        let mut lines = text.lines().enumerate();
        while let Some((index, line)) = lines.next() {
            let mut logical = line.trim_start().to_owned();
            if logical.is_empty() || logical.starts_with(['#', '!']) {
                continue;
            }
            while ends_with_continuation(&logical) {
                logical.pop();
                match lines.next() {
                    Some((_, next)) => logical.push_str(next.trim_start()),
                    None => break,
                }
            }
            let (key, value) = split(&logical);
            properties
                .set(&key, &value)
                .map_err(|error| Error::config(format!("line {}: {error}", index + 1)))?;
        }
        Ok(properties)
    }

    /// Sets `key`, replacing an earlier value; an unknown or unserved key is an error.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let Some(known) = find_key(key) else {
            let hint = match nearest_key(key) {
                Some(nearest) => format!("; did you mean {nearest}?"),
                None => String::new(),
            };
            return Err(Error::config(format!("unknown client configuration {key}{hint}")));
        };
        match known.served {
            Served::Yes | Served::Ignored => {}
            Served::NotYet => {
                return Err(Error::config(format!(
                    "{key} is a Kafka configuration that this client does not serve ({}); remove it",
                    known.reason
                )));
            }
        }
        self.entries.retain(|(present, _)| present != key);
        self.entries.push((key.to_owned(), value.to_owned()));
        Ok(())
    }

    /// Returns the value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.entries.iter().find(|(present, _)| present == key).map(|(_, value)| value.as_str())
    }

    /// Returns every key with its value, in the order given.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

fn ends_with_continuation(line: &str) -> bool {
    line.bytes().rev().take_while(|&byte| byte == b'\\').count() % 2 == 1
}

/// Splits a logical line at the first unescaped `=`, `:` or blank, and unescapes both parts.
fn split(line: &str) -> (String, String) {
    let mut escaped = false;
    let mut end = line.len();
    for (index, character) in line.char_indices() {
        if escaped {
            escaped = false;
        } else if character == '\\' {
            escaped = true;
        } else if character == '=' || character == ':' || character.is_whitespace() {
            end = index;
            break;
        }
    }
    let rest = line[end..].trim_start();
    let value = rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start();
    (unescape(&line[..end]), unescape(value.trim_end()))
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            plain.push(character);
            continue;
        }
        match characters.next() {
            Some('t') => plain.push('\t'),
            Some('n') => plain.push('\n'),
            Some('r') => plain.push('\r'),
            Some('f') => plain.push('\u{c}'),
            Some('u') => {
                let digits: String = characters.by_ref().take(4).collect();
                let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                plain.push(code.unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            Some(other) => plain.push(other),
            None => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_comments_continuations_and_escapes_read_as_java_reads_them() {
        let text = "# comment\n! another\n\nbootstrap.servers = a:1,\\\n   b:2\nclient.id:fleuve\\u0020cli\nacks all\n";
        let properties = Properties::parse(text).expect("valid");
        assert_eq!(properties.get("bootstrap.servers"), Some("a:1,b:2"));
        assert_eq!(properties.get("client.id"), Some("fleuve cli"));
        assert_eq!(properties.get("acks"), Some("all"));
        assert_eq!(properties.iter().count(), 3);
    }

    #[test]
    fn an_unknown_key_names_its_line_and_the_nearest_key() {
        let error = Properties::parse("acks=1\nbootstrap.server=x:1").expect_err("unknown");
        let text = error.to_string();
        assert!(
            text.contains("line 2") && text.contains("did you mean bootstrap.servers?"),
            "{text}"
        );
    }

    #[test]
    fn a_known_key_that_is_not_served_says_so() {
        let error = Properties::parse("ssl.cipher.suites=x").expect_err("not served");
        assert!(error.to_string().contains("does not serve"), "{error}");
        Properties::parse("key.serializer=org.apache.X").expect("known and without effect here");
    }
}
