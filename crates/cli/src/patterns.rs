//! Names of topics and partitions as patterns, as Kafka's tools take them.

use std::sync::Arc;

use fleuve_client::TopicInfo;
use fleuve_types::TopicPartition;
use regex::Regex;

use crate::failure::Failure;

/// A pattern for names of topics: a regular expression that must match a whole name.
///
/// A comma separates alternatives and blanks mean nothing, as in Kafka's tools; plain names are
/// patterns too.
#[derive(Clone, Debug)]
pub(crate) struct TopicPattern {
    regex: Regex,
    text: String,
}

impl TopicPattern {
    /// Reads a pattern.
    pub(crate) fn new(text: &str) -> Result<Self, Failure> {
        let alternatives = text.trim().replace(',', "|").replace(' ', "");
        let alternatives = alternatives.trim_matches(['"', '\'']);
        let regex = Regex::new(&format!("^(?:{alternatives})$")).map_err(|error| {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
            Failure::new(format!("`{text}` is no regular expression: {reason}"))
        })?;
        Ok(Self { regex, text: text.to_owned() })
    }

    /// Reports whether a name fits.
    pub(crate) fn fits(&self, name: &str) -> bool {
        self.regex.is_match(name)
    }

    /// The pattern as it was written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether the pattern can only mean one topic.
    pub(crate) fn is_plain(&self) -> bool {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        self.text.chars().all(is_plain)
    }
}

/// Picks the topics whose names fit one of the patterns; all of them without a pattern. A plain
/// name that does not exist is an error.
pub(crate) fn pick<'a>(
    topics: &'a [Arc<TopicInfo>],
    patterns: &[TopicPattern],
) -> Result<Vec<&'a TopicInfo>, Failure> {
    let missing =
        patterns.iter().find(|pattern| !topics.iter().any(|topic| pattern.fits(&topic.name)));
    if let Some(missing) = missing {
        let what = if missing.is_plain() { "topic" } else { "topic like" };
        return Err(Failure::new(format!(
            "there is no {what} {}: see `fleuve topic list`",
            missing.text()
        )));
    }
    let fits = |topic: &&TopicInfo| {
        patterns.is_empty() || patterns.iter().any(|pattern| pattern.fits(&topic.name))
    };
    Ok(topics.iter().map(|topic| &**topic).filter(fits).collect())
}

/// Partitions as `kafka-get-offsets.sh --topic-partitions` takes them: `TOPIC`, `TOPIC:1`,
/// `TOPIC:0-3` (the end excluded), `TOPIC:2-`, `TOPIC:-2`, each with a pattern for the topic or none.
#[derive(Clone, Debug)]
pub(crate) struct PartitionPattern {
    topic: Option<TopicPattern>,
    first: i32,
    end: i32,
}

impl PartitionPattern {
    /// Reads one pattern.
    pub(crate) fn new(text: &str) -> Result<Self, Failure> {
        let wrong = || {
            Failure::new(format!(
                "`{text}`: expected TOPIC, TOPIC:1, TOPIC:0-3, TOPIC:2- or TOPIC:-2"
            ))
        };
        let (topic, partitions) = match text.split_once(':') {
            Some((topic, partitions)) => (topic, Some(partitions)),
            None => (text, None),
        };
        let topic = if topic.is_empty() { None } else { Some(TopicPattern::new(topic)?) };
        let number = |text: &str, default: i32| {
            if text.is_empty() { Ok(default) } else { text.parse().map_err(|_| wrong()) }
        };
        let (first, end) = match partitions {
            None | Some("") => (0, i32::MAX),
            Some(range) => match range.split_once('-') {
                Some((first, end)) => (number(first, 0)?, number(end, i32::MAX)?),
                None => {
                    let only = number(range, 0)?;
                    (only, only.saturating_add(1))
                }
            },
        };
        Ok(Self { topic, first, end })
    }

    /// All partitions of the topics whose names fit, as `--topic` means it: a colon belongs to the
    /// name's pattern.
    pub(crate) fn of_topic(text: &str) -> Result<Self, Failure> {
        Ok(Self { topic: Some(TopicPattern::new(text)?), first: 0, end: i32::MAX })
    }

    /// Reports whether a partition fits.
    pub(crate) fn fits(&self, partition: &TopicPartition) -> bool {
        self.topic.as_ref().is_none_or(|topic| topic.fits(&partition.topic))
            && (self.first..self.end).contains(&partition.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_whole_names() {
        let pattern = TopicPattern::new("wor.*,other").expect("valid");
        assert!(pattern.fits("words") && pattern.fits("other"));
        assert!(!pattern.fits("swords") && !pattern.fits("others"));
        assert!(!pattern.is_plain() && TopicPattern::new("a-b.c_1").expect("valid").is_plain());
        let spaced = TopicPattern::new(" a, b").expect("valid");
        assert!(spaced.fits("a") && spaced.fits("b") && !spaced.fits(" b"));
        let wrong = TopicPattern::new("a(").expect_err("unclosed").to_string();
        assert!(wrong.contains("`a(`") && !wrong.contains('\n'), "{wrong}");
    }

    #[test]
    fn partitions_are_numbers_and_half_open_ranges() {
        for (text, fitting) in [
            ("t", vec![0, 1, 2, 3]),
            ("t:1", vec![1]),
            ("t:1-3", vec![1, 2]),
            ("t:2-", vec![2, 3]),
            (":-2", vec![0, 1]),
            ("other", vec![]),
        ] {
            let pattern = PartitionPattern::new(text).expect("valid");
            let found = (0..4).filter(|i| pattern.fits(&TopicPartition::new("t", *i)));
            assert_eq!(found.collect::<Vec<_>>(), fitting, "{text}");
        }
        assert!(PartitionPattern::new("t:x").is_err());
        let topic = PartitionPattern::of_topic("(?:t|u)").expect("valid");
        assert!(topic.fits(&TopicPartition::new("t", 3)));
        let no_topic = PartitionPattern::of_topic("t:0").expect("valid");
        assert!(!no_topic.fits(&TopicPartition::new("t", 0)));
    }
}
