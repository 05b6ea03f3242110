//! Reading the Java properties format, in which `server.properties` is written.
//!
//! ```text
//! logical line = natural line ( "\" newline  [white space] natural line )*
//! # or ! first = comment, never continued
//! key          = up to the first unescaped "=", ":" or white space
//! escapes      = \t \n \r \f \uXXXX; before anything else the backslash just goes
//! ```
//!
//! Every entry keeps the number of the natural line it begins on, for messages. Java reads these
//! files as ISO 8859-1; we take UTF-8 and fall back to that when the bytes are not UTF-8.

use std::borrow::Cow;

/// One entry of a properties file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// The line it begins on, counted from 1.
    pub line: usize,
    /// The key, escapes resolved.
    pub key: String,
    /// The value, escapes resolved; white space at its end is part of it.
    pub value: String,
}

/// Reports text that is not in the properties format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct SyntaxError {
    /// The line of the entry, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// Turns the bytes of a properties file into text.
pub fn decode_text(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text.strip_prefix('\u{feff}').unwrap_or(text)),
        Err(_) => Cow::Owned(bytes.iter().copied().map(char::from).collect()),
    }
}

/// Reads all entries in their order; wrong ones are reported beside the right ones.
pub fn parse(text: &str) -> (Vec<Property>, Vec<SyntaxError>) {
    let mut properties = Vec::new();
    let mut errors = Vec::new();
    let mut lines = NaturalLines { rest: text, number: 0 };
    while let Some((line, first)) = lines.next() {
        let first = first.trim_start_matches(WHITE_SPACE);
        // A line of nothing but a backslash continues nothing, so what follows begins anew.
        if first.is_empty() || first == "\\" || first.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = Cow::Borrowed(first);
        while ends_with_continuation(&logical) {
            let mut joined = logical.into_owned();
            joined.pop();
            let next = lines.next();
            joined.push_str(next.map_or("", |(_, text)| text.trim_start_matches(WHITE_SPACE)));
            logical = Cow::Owned(joined);
            if next.is_none() {
                break;
            }
        }
        let (key, value) = split(&logical);
        match (unescape(key), unescape(value)) {
            (Ok(key), Ok(value)) => properties.push(Property { line, key, value }),
            (Err(problem), _) | (_, Err(problem)) => errors.push(SyntaxError { line, problem }),
        }
    }
    (properties, errors)
}

const WHITE_SPACE: [char; 3] = [' ', '\t', '\x0c'];

/// Lines ended by `\n`, `\r` or `\r\n`, numbered from 1.
struct NaturalLines<'a> {
    rest: &'a str,
    number: usize,
}

impl<'a> Iterator for NaturalLines<'a> {
    type Item = (usize, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let end = self.rest.find(['\n', '\r']).unwrap_or(self.rest.len());
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest
            .strip_prefix("\r\n")
            .or_else(|| rest.strip_prefix(['\n', '\r']))
            .unwrap_or_default();
        self.number += 1;
        Some((self.number, line))
    }
}

/// Reports whether an odd number of backslashes stands at the end.
fn ends_with_continuation(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// Cuts a logical line into key and value, both still escaped.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line
        .find(|character: char| {
            let ends_key = !escaped && matches!(character, '=' | ':' | ' ' | '\t' | '\x0c');
            escaped = character == '\\' && !escaped;
            ends_key
        })
        .unwrap_or(line.len());
    let (key, rest) = line.split_at(end);
    let rest = rest.trim_start_matches(WHITE_SPACE);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (key, rest.trim_start_matches(WHITE_SPACE))
}

fn unescape(text: &str) -> Result<String, &'static str> {
    if !text.contains('\\') {
        return Ok(text.to_owned());
    }
    // UTF-16 units, because characters outside the basic plane are written as two escapes.
    let mut units = Vec::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        let mut buffer = [0; 2];
        if character != '\\' {
            units.extend_from_slice(character.encode_utf16(&mut buffer));
            continue;
        }
        match characters.next() {
            Some('t') => units.push(u16::from(b'\t')),
            Some('n') => units.push(u16::from(b'\n')),
            Some('r') => units.push(u16::from(b'\r')),
            Some('f') => units.push(0x0c),
            Some('u') => units.push(unicode_escape(&mut characters)?),
            Some(other) => units.extend_from_slice(other.encode_utf16(&mut buffer)),
            None => {}
        }
    }
    String::from_utf16(&units).map_err(|_| "a \\u escape names half of a character only")
}

fn unicode_escape(characters: &mut std::str::Chars<'_>) -> Result<u16, &'static str> {
    (0..4)
        .try_fold(0u16, |unit, _| {
            let digit = characters.next().and_then(|digit| digit.to_digit(16))?;
            Some((unit << 4) | digit as u16)
        })
        .ok_or("a \\u escape needs four hexadecimal digits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entries(text: &str) -> Vec<(usize, String, String)> {
        let (properties, errors) = parse(text);
        assert_eq!(errors, []);
        properties.into_iter().map(|p| (p.line, p.key, p.value)).collect()
    }

    fn entry(line: usize, key: &str, value: &str) -> (usize, String, String) {
        (line, key.to_owned(), value.to_owned())
    }

    #[test]
    fn separators_are_equals_colon_or_white_space() {
        assert_eq!(
            entries("a=1\nb:2\nc 3\nd = 4\n  e\t:\t5\nf\ng==6\nh= \n"),
            [
                entry(1, "a", "1"),
                entry(2, "b", "2"),
                entry(3, "c", "3"),
                entry(4, "d", "4"),
                entry(5, "e", "5"),
                entry(6, "f", ""),
                entry(7, "g", "=6"),
                entry(8, "h", ""),
            ]
        );
    }

    #[test]
    fn comments_and_blank_lines_are_skipped_and_line_ends_may_be_mixed() {
        assert_eq!(
            entries("# one \\\r\n! two\r\r  \n\x0c\na=1\r\nb=2 # not a comment \rc=3"),
            [entry(6, "a", "1"), entry(7, "b", "2 # not a comment "), entry(8, "c", "3")]
        );
    }

    #[test]
    fn a_backslash_at_the_end_continues_the_line() {
        assert_eq!(
            entries("a=1,\\\n    2,\\\r\n    3\nb=x\\\\\nc=y\\\n\nd=z\\"),
            [entry(1, "a", "1,2,3"), entry(4, "b", "x\\"), entry(5, "c", "y"), entry(7, "d", "z"),]
        );
    }

    #[test]
    fn a_lone_backslash_continues_nothing() {
        assert_eq!(entries("\\\n# comment\n \\\na=1"), [entry(4, "a", "1")]);
    }

    #[test]
    fn escapes_are_resolved_in_keys_and_values() {
        assert_eq!(
            entries("a\\=b\\:c\\ d=\\t\\n\\r\\f\\q\\\\\ne=\\u0041\\uD83D\\uDE00\\u00e9\n"),
            [entry(1, "a=b:c d", "\t\n\r\x0cq\\"), entry(2, "e", "A😀é")]
        );
    }

    #[test]
    fn broken_escapes_are_reported_with_their_line() {
        let (properties, errors) = parse("a=1\nb=\\u12\nc=\\ud83d\nd=4");
        assert_eq!(properties.len(), 2);
        assert_eq!(errors.iter().map(|error| error.line).collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_read_as_java_reads_them() {
        assert_eq!(decode_text(b"a=\xe9"), "a=é");
        assert_eq!(decode_text("\u{feff}a=é".as_bytes()), "a=é");
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "[\\x00-\\x7f\\\\=:# \\n\\ré😀]{0,200}") {
            let lines = text.len() + 1;
            let (properties, errors) = parse(&text);
            prop_assert!(properties.iter().all(|property| property.line <= lines));
            prop_assert!(properties.len() + errors.len() <= lines);
        }

        #[test]
        fn escaped_entries_come_back(key in "[a-z.=: \\\\]{1,20}", value in "[ -~]{0,40}") {
            let escape = |text: &str| -> String {
                text.chars().flat_map(|c| ['\\', c]).collect::<String>()
                    .replace("\\t", "t").replace("\\n", "n").replace("\\r", "r")
                    .replace("\\f", "f").replace("\\u", "u")
            };
            let (properties, errors) = parse(&format!("{}={}", escape(&key), escape(&value)));
            prop_assert_eq!(errors, []);
            prop_assert_eq!(&properties[0].key, &key);
            prop_assert_eq!(&properties[0].value, &value);
        }
    }
}
