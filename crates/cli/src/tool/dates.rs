//! Times as Java's `SimpleDateFormat` writes them, whose patterns the tools that measure take.
//!
//! Numbers only, which is all that these tools need: `MMM`, `EEE` and their kin are refused. Times
//! are UTC's.

use std::fmt::Write;

use crate::failure::Failure;
use crate::quantities::format_time;

/// The pattern that is in force unless another is given.
pub(super) const USUAL: &str = "yyyy-MM-dd HH:mm:ss:SSS";

/// A pattern, taken apart.
#[derive(Clone, Debug)]
pub(super) struct DateFormat(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Number { unit: Unit, digits: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    Millisecond,
}

impl DateFormat {
    /// Takes a pattern apart.
    pub(super) fn parse(pattern: &str) -> Result<Self, Failure> {
        let mut parts: Vec<Part> = Vec::new();
        let text = |parts: &mut Vec<Part>, character| match parts.last_mut() {
            Some(Part::Text(text)) => text.push(character),
            _ => parts.push(Part::Text(String::from(character))),
        };
        let mut characters = pattern.chars().peekable();
        let mut is_quoted = false;
        while let Some(character) = characters.next() {
            if character == '\'' {
                match characters.next_if_eq(&'\'') {
                    Some(quote) => text(&mut parts, quote),
                    None => is_quoted = !is_quoted,
                }
                continue;
            }
            if is_quoted || !character.is_ascii_alphabetic() {
                text(&mut parts, character);
                continue;
            }
            let mut digits = 1;
            while characters.next_if_eq(&character).is_some() {
                digits += 1;
            }
            let unit = match character {
                'y' => Unit::Year,
                'M' if digits <= 2 => Unit::Month,
                'd' => Unit::Day,
                'H' => Unit::Hour,
                'm' => Unit::Minute,
                's' => Unit::Second,
                'S' => Unit::Millisecond,
                _ => {
                    return Err(Failure::new(format!(
                        "--date-format {pattern}: expected numbers only, as {USUAL}"
                    )));
                }
            };
            parts.push(Part::Number { unit, digits });
        }
        if is_quoted {
            return Err(Failure::new(format!("--date-format {pattern}: a quote is not closed")));
        }
        Ok(Self(parts))
    }

    /// Writes a time in ms since 1970.
    pub(super) fn format(&self, ms: i64) -> String {
        // 2026-11-21T10:00:00.000Z; years have more digits from 10000 on.
        let time = format_time(ms);
        let year_end = time.len() - "-11-21T10:00:00.000Z".len();
        let (year, rest) = time.split_at(year_end);
        let mut out = String::new();
        for part in &self.0 {
            let (text, digits) = match part {
                Part::Text(text) => (text.as_str(), 0),
                Part::Number { unit, digits } => {
                    let text = match unit {
                        Unit::Year if *digits == 2 => &year[year_end.saturating_sub(2)..],
                        Unit::Year => year,
                        Unit::Month => &rest[1..3],
                        Unit::Day => &rest[4..6],
                        Unit::Hour => &rest[7..9],
                        Unit::Minute => &rest[10..12],
                        Unit::Second => &rest[13..15],
                        Unit::Millisecond => &rest[16..19],
                    };
                    (text, *digits)
                }
            };
            // Leading zeros are as many as the pattern has letters.
            let text = match digits {
                0 => text,
                _ => Some(text.trim_start_matches('0')).filter(|it| !it.is_empty()).unwrap_or("0"),
            };
            // Writing to a string does not fail.
            let _ = write!(out, "{text:0>digits$}");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_java_writes_them() {
        // 2009-02-13T23:31:30.007Z
        let ms = 1_234_567_890_007;
        for (pattern, expected) in [
            (USUAL, "2009-02-13 23:31:30:007"),
            ("yy.M.d H:m:s.S", "09.2.13 23:31:30.7"),
            ("yyyy'T'HH 'o''clock'", "2009T23 o'clock"),
            ("''SSSS", "'0007"),
            ("", ""),
        ] {
            let format = DateFormat::parse(pattern).expect(pattern);
            assert_eq!(format.format(ms), expected, "{pattern}");
        }
        for pattern in ["MMM", "EEE", "'open", "hh a"] {
            assert!(DateFormat::parse(pattern).is_err(), "{pattern}");
        }
    }
}
