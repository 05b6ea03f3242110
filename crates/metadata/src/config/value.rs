//! Values of keys: parsing them as Kafka does, checking their range, and writing them back.

use std::fmt;

use super::key::{Key, Rule, ValueType};

/// A checked value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A truth value.
    Boolean(bool),
    /// A whole number of any width.
    Integer(i64),
    /// A fraction.
    Double(f64),
    /// Text, the name of a class, or a password.
    Text(String),
    /// The items of a list.
    List(Vec<String>),
}

/// Reports that a value does not fit its key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid value `{value}` for `{key}`: must be {expected}")]
pub struct InvalidValue {
    /// The key's name.
    pub key: String,
    /// The value as given; stars for passwords.
    pub value: String,
    /// What would be right.
    pub expected: String,
}

impl Value {
    /// Parses and checks `text` as a value of `key`.
    pub fn parse(key: &Key, text: &str) -> Result<Self, InvalidValue> {
        let trimmed = text.trim();
        let value = match key.value_type {
            ValueType::Boolean => parse_boolean(trimmed).map(Self::Boolean),
            ValueType::Short => parse_integer(trimmed, i16::MIN.into(), i16::MAX.into()),
            ValueType::Int => parse_integer(trimmed, i32::MIN.into(), i32::MAX.into()),
            ValueType::Long => parse_integer(trimmed, i64::MIN, i64::MAX),
            ValueType::Double => {
                trimmed.parse().ok().filter(|v: &f64| !v.is_nan()).map(Self::Double)
            }
            ValueType::Text | ValueType::Class => Some(Self::Text(trimmed.to_owned())),
            ValueType::Password => Some(Self::Text(text.to_owned())),
            ValueType::List => Some(Self::List(parse_list(trimmed))),
        };
        match value {
            Some(value) if value.obeys(&key.rule) => Ok(value),
            _ => Err(InvalidValue {
                key: key.name.to_owned(),
                value: if key.is_sensitive() { "********".to_owned() } else { text.to_owned() },
                expected: expectation(key),
            }),
        }
    }

    /// Returns the number, for keys whose type is an integer.
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }

    fn obeys(&self, rule: &Rule) -> bool {
        match (rule, self) {
            (Rule::AtLeast(least), Self::Integer(number)) => number >= least,
            (Rule::Between(least, most), Self::Integer(number)) => (least..=most).contains(&number),
            (Rule::Fraction(least, most), Self::Double(number)) => (least..=most).contains(&number),
            (Rule::GzipLevel, Self::Integer(level)) => *level == -1 || (1..=9).contains(level),
            (Rule::OneOf(words), Self::Text(text)) => words.contains(&text.as_str()),
            (Rule::OneOfAnyCase(words), Self::Text(text)) => {
                words.iter().any(|word| word.eq_ignore_ascii_case(text))
            }
            (Rule::NotEmpty, Self::Text(text)) => !text.is_empty(),
            (Rule::Distinct { of, may_be_empty }, Self::List(items)) => {
                (*may_be_empty || !items.is_empty())
                    && items.iter().all(|item| {
                        !item.is_empty() && (of.is_empty() || of.contains(&item.as_str()))
                    })
                    && has_no_repetition(items)
            }
            (Rule::ThrottledReplicas, Self::List(items)) => {
                *items == ["*"] || items.iter().all(|item| is_throttled_replica(item))
            }
            (Rule::OffsetReset, Self::Text(text)) => is_offset_reset(text),
            _ => true,
        }
    }
}

impl fmt::Display for Value {
    /// Writes the value as Kafka reports it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Double(value) => f.write_str(&java_double(*value)),
            Self::Text(value) => f.write_str(value),
            Self::List(items) => f.write_str(&items.join(",")),
        }
    }
}

/// Splits a list as Kafka does: at commas, white space around items removed.
pub(super) fn parse_list(text: &str) -> Vec<String> {
    if text.is_empty() {
        return Vec::new();
    }
    text.split(',').map(|item| item.trim().to_owned()).collect()
}

fn parse_boolean(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

fn parse_integer(text: &str, least: i64, most: i64) -> Option<Value> {
    text.parse().ok().filter(|number| (least..=most).contains(number)).map(Value::Integer)
}

fn has_no_repetition(items: &[String]) -> bool {
    let mut sorted: Vec<&String> = items.iter().collect();
    sorted.sort_unstable();
    sorted.windows(2).all(|pair| pair[0] != pair[1])
}

fn is_throttled_replica(item: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    item.split_once(':')
        .is_some_and(|(partition, broker)| is_number(partition) && is_number(broker))
}

fn is_offset_reset(text: &str) -> bool {
    match text.strip_prefix("by_duration:") {
        Some(duration) => is_iso_duration(&duration.to_ascii_lowercase()),
        None => text == "latest" || text == "earliest",
    }
}

/// Recognises `PnDTnHnMn.nS` with at least one part, as `java.time.Duration` reads it.
fn is_iso_duration(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('p') else { return false };
    let (days, time) = match rest.split_once('t') {
        Some((days, time)) => (days, Some(time)),
        None => (rest, None),
    };
    let days_fit = days.is_empty() || is_duration_part(days, &['d']);
    let time_fits =
        time.is_none_or(|time| !time.is_empty() && is_duration_part(time, &['h', 'm', 's']));
    days_fit && time_fits && (!days.is_empty() || time.is_some())
}

/// Recognises numbers each followed by one of `units`, in the units' order.
fn is_duration_part(mut text: &str, units: &[char]) -> bool {
    for unit in units {
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let mut rest = &text[digits..];
        if *unit == 's'
            && let Some(fraction) = rest.strip_prefix('.')
        {
            rest = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
        }
        if digits > 0
            && let Some(after) = rest.strip_prefix(*unit)
        {
            text = after;
        }
    }
    text.is_empty()
}

/// Says what a value of `key` must be: its type, then its range.
fn expectation(key: &Key) -> String {
    let kind = match key.value_type {
        ValueType::Boolean => "true or false",
        ValueType::Short => "a 16-bit integer",
        ValueType::Int => "a 32-bit integer",
        ValueType::Long => "a 64-bit integer",
        ValueType::Double => "a number",
        ValueType::Text | ValueType::Class | ValueType::Password => "text",
        ValueType::List => "a list",
    };
    match (key.rule, key.value_type) {
        (Rule::Any, _) => kind.to_owned(),
        (Rule::OneOf(_) | Rule::OneOfAnyCase(_) | Rule::NotEmpty | Rule::OffsetReset, _) => {
            key.rule.to_string()
        }
        (Rule::Distinct { .. }, _) => format!("a list of {}", key.rule),
        (rule, _) => format!("{kind}, {rule}"),
    }
}

/// Writes a double as `java.lang.Double.toString` does, since clients compare such texts.
fn java_double(value: f64) -> String {
    let magnitude = value.abs();
    if value == 0.0 || (1e-3..1e7).contains(&magnitude) {
        return format!("{value:?}");
    }
    if !value.is_finite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let text = format!("{value:E}");
    match text.split_once('E') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::{BROKER_KEYS, GROUP_KEYS, TOPIC_KEYS, find};

    fn parse(keys: &'static [Key], name: &str, text: &str) -> Result<String, String> {
        let key = find(keys, name).expect("a known key");
        Value::parse(key, text).map(|v| v.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn values_are_trimmed_and_written_back_as_kafka_writes_them() {
        assert_eq!(parse(BROKER_KEYS, "num.partitions", " 12 "), Ok("12".into()));
        assert_eq!(parse(BROKER_KEYS, "auto.create.topics.enable", "TRUE"), Ok("true".into()));
        assert_eq!(
            parse(TOPIC_KEYS, "cleanup.policy", "compact , delete"),
            Ok("compact,delete".into())
        );
        assert_eq!(parse(TOPIC_KEYS, "cleanup.policy", ""), Ok(String::new()));
        assert_eq!(
            parse(BROKER_KEYS, "log.cleaner.io.max.bytes.per.second", "1.7976931348623157E308"),
            Ok("1.7976931348623157E308".into())
        );
        assert_eq!(parse(TOPIC_KEYS, "min.cleanable.dirty.ratio", "1"), Ok("1.0".into()));
        assert_eq!(java_double(1e10), "1.0E10");
        assert_eq!(java_double(0.0001), "1.0E-4");
    }

    #[test]
    fn values_outside_their_range_say_what_would_be_right() {
        let cases: [(&'static [Key], &str, &str, &str); 9] = [
            (BROKER_KEYS, "num.partitions", "0", "a 32-bit integer, at least 1"),
            (BROKER_KEYS, "num.partitions", "1e3", "a 32-bit integer, at least 1"),
            (BROKER_KEYS, "message.max.bytes", "2147483648", "a 32-bit integer, at least 0"),
            (TOPIC_KEYS, "preallocate", "yes", "true or false"),
            (
                TOPIC_KEYS,
                "cleanup.policy",
                "compact,compact",
                "a list of any of compact, delete, none repeated",
            ),
            (
                TOPIC_KEYS,
                "compression.type",
                "brotli",
                "one of uncompressed, zstd, lz4, snappy, gzip, producer",
            ),
            (TOPIC_KEYS, "min.cleanable.dirty.ratio", "1.5", "a number, between 0 and 1"),
            (TOPIC_KEYS, "compression.gzip.level", "0", "a 32-bit integer, between 1 and 9, or -1"),
            (
                GROUP_KEYS,
                "share.auto.offset.reset",
                "by_duration:P",
                "latest, earliest, or by_duration: and an ISO 8601 duration",
            ),
        ];
        for (keys, name, text, expected) in cases {
            assert_eq!(
                parse(keys, name, text),
                Err(format!("invalid value `{text}` for `{name}`: must be {expected}"))
            );
        }
    }

    #[test]
    fn durations_of_share_groups_are_recognised() {
        for text in ["latest", "earliest", "by_duration:PT1H", "by_duration:P2DT3M1.5S"] {
            assert!(parse(GROUP_KEYS, "share.auto.offset.reset", text).is_ok(), "{text}");
        }
        for text in ["by_duration:PT", "by_duration:1H", "by_duration:PT1S2H", "LATEST"] {
            assert!(parse(GROUP_KEYS, "share.auto.offset.reset", text).is_err(), "{text}");
        }
    }

    #[test]
    fn throttled_replicas_are_pairs_or_a_star() {
        let name = "leader.replication.throttled.replicas";
        for text in ["*", "", "0:1", "0:1,1:2"] {
            assert!(parse(TOPIC_KEYS, name, text).is_ok(), "{text}");
        }
        for text in ["0", "0:", "*,0:1", "a:b"] {
            assert!(parse(TOPIC_KEYS, name, text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_refused_password_is_not_shown() {
        let secret = super::super::key::key("secret", ValueType::Password, None, Rule::NotEmpty);
        let error = Value::parse(&secret, "").expect_err("empty").to_string();
        assert!(error.contains("********"), "{error}");
    }
}
