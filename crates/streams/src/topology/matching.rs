//! Sources by pattern: all topics that match a regular expression are read, also those that are created later.
//!
//! A [`Plan`] is written once, and then read with the topics that there are: [`Plan::reading`] gives the same topology,
//! in which sources by pattern have the topics that they match. Nodes, stores and the numbers of subtopologies stay as
//! they are, so that tasks can go from one to the other while they run.

use std::collections::BTreeSet;
use std::sync::Arc;

use fleuve_client::config::OffsetReset;
use regex::Regex;

use super::{Kind, Plan};
use crate::error::TopologyError;

/// A regular expression that a topic's whole name has to match.
#[derive(Clone, Debug)]
pub(crate) struct TopicPattern {
    text: String,
    whole: Regex,
}

impl TopicPattern {
    pub(crate) fn new(text: &str) -> Result<Self, TopologyError> {
        let invalid = |error: regex::Error| TopologyError::InvalidPattern {
            pattern: text.to_owned(),
            cause: error.to_string(),
        };
        // By itself, too: a parenthesis too many would end ours.
        Regex::new(text).map_err(invalid)?;
        let whole = Regex::new(&format!("^(?:{text})$")).map_err(invalid)?;
        Ok(Self { text: text.to_owned(), whole })
    }

    /// As the program wrote it.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn matches(&self, topic: &str) -> bool {
        self.whole.is_match(topic)
    }
}

impl PartialEq for TopicPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Plan {
    fn patterns(&self) -> impl Iterator<Item = &TopicPattern> {
        self.nodes.iter().filter_map(|node| node.pattern.as_ref())
    }

    /// Whether some source reads the topics that match a pattern.
    pub(crate) fn has_patterns(&self) -> bool {
        self.patterns().next().is_some()
    }

    /// Whether a subtopology has such a source.
    pub(crate) fn is_open(&self, subtopology: u32) -> bool {
        let part = self.subtopologies.get(subtopology as usize);
        part.is_some_and(|part| part.nodes.iter().any(|id| self.nodes[*id].pattern.is_some()))
    }

    /// Whether some pattern takes a topic. Never one of the program's own: a program that matches everything would feed
    /// itself with its changelogs.
    pub(crate) fn is_matched(&self, topic: &str) -> bool {
        self.patterns().any(|pattern| pattern.matches(topic)) && !self.is_own(topic)
    }

    fn is_own(&self, topic: &str) -> bool {
        let is_changelog =
            |store: &String| self.changelog_of(store).is_some_and(|own| own == topic);
        self.repartitions.keys().any(|own| self.decorated(own) == topic)
            || self
                .stores
                .iter()
                .any(|(name, store)| store.source_topic.is_none() && is_changelog(name))
    }

    /// The same topology, in which sources by pattern read those of `topics` that they match.
    pub(crate) fn reading<'a>(
        &self,
        topics: impl IntoIterator<Item = &'a str>,
    ) -> Result<Arc<Self>, TopologyError> {
        let topics: BTreeSet<&str> =
            topics.into_iter().filter(|topic| self.is_matched(topic)).collect();
        for topic in &topics {
            let mut takers = self.patterns().filter(|pattern| pattern.matches(topic));
            if let (Some(first), Some(second)) = (takers.next(), takers.next()) {
                return Err(TopologyError::MatchedTwice {
                    topic: (*topic).to_owned(),
                    first: first.text.clone(),
                    second: second.text.clone(),
                });
            }
        }
        let mut plan = self.clone();
        for part in &mut plan.subtopologies {
            for id in &part.nodes {
                let node = &mut plan.nodes[*id];
                let (Some(pattern), Kind::Source { topics: read, .. }) =
                    (&node.pattern, &mut node.kind)
                else {
                    continue;
                };
                part.source_topics.retain(|topic| !read.contains(topic));
                let matched = topics.iter().filter(|topic| pattern.matches(topic));
                *read = matched.map(|topic| (*topic).to_owned()).collect();
                part.source_topics.extend(read.iter().cloned());
            }
        }
        Ok(Arc::new(plan))
    }

    /// What a consumer subscribes to: the names of all topics that tasks read, and the patterns.
    pub(crate) fn subscription_pattern(&self) -> String {
        let parts = self.subtopologies.iter().filter(|part| !part.global);
        let named: BTreeSet<&String> = parts
            .flat_map(|part| &part.source_topics)
            .filter(|topic| !self.is_matched(topic))
            .collect();
        let named = named.into_iter().map(|topic| regex::escape(topic));
        // In groups of their own, so that flags end where they do.
        let patterns = self.patterns().map(|pattern| format!("(?:{})", pattern.text));
        named.chain(patterns).collect::<Vec<_>>().join("|")
    }

    /// Whether some source says where it begins if nothing is committed.
    pub(crate) fn has_offset_resets(&self) -> bool {
        self.nodes.iter().any(|node| node.offset_reset.is_some())
    }

    /// Where a topic begins if nothing is committed, if its source says that.
    pub(crate) fn offset_reset_of(&self, topic: &str) -> Option<OffsetReset> {
        let reads = |kind: &Kind| match kind {
            Kind::Source { topics, global: false } => {
                topics.iter().any(|known| self.decorated(known) == topic)
            }
            _ => false,
        };
        self.nodes.iter().find(|node| reads(&node.kind))?.offset_reset
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::Topology;
    use crate::error::TopologyError;

    fn error(write: impl Fn(&Topology)) -> String {
        let app = Topology::new("app");
        write(&app);
        app.build().err().expect("not valid").to_string()
    }

    #[test]
    fn sources_take_the_topics_that_match_and_nothing_of_the_programs_own() {
        let app = Topology::new("app");
        let counted = app.stream_pattern::<String, String>("app.*|orders-[a-z]+").group_by_key();
        counted.count("n").to_stream().to("out");
        app.stream::<String, String>("users").to("seen");
        let plan = app.build().expect("a valid topology");
        assert!(plan.subtopologies()[0].source_topics.is_empty());
        let topics =
            ["orders-eu", "orders-1", "my-orders-eu", "apples", "app-n-changelog", "users"];
        let read = plan.reading(topics).expect("no topic is matched twice");
        let names = |names: &[&str]| -> BTreeSet<String> {
            names.iter().map(|name| (*name).to_owned()).collect()
        };
        assert_eq!(read.subtopologies()[0].source_topics, names(&["apples", "orders-eu"]));
        assert_eq!(read.subtopologies()[1].source_topics, names(&["users"]));
        // What is gone goes.
        let read = read.reading(["orders-us"]).expect("no topic is matched twice");
        assert_eq!(read.subtopologies()[0].source_topics, names(&["orders-us"]));
        assert_eq!(read.subscription_pattern(), "users|(?:app.*|orders-[a-z]+)");
        assert_eq!(read.describe(), plan.describe());
    }

    #[test]
    fn a_topic_has_one_source() {
        let read = |app: &Topology, topic: &str| drop(app.stream::<String, String>(topic));
        let matched = |app: &Topology, pattern: &str| {
            drop(app.stream_pattern::<String, String>(pattern));
        };
        assert_eq!(
            error(|app| {
                read(app, "a1");
                matched(app, "a.");
            }),
            "Pattern a. will match a topic that has already been registered by another source."
        );
        assert_eq!(
            error(|app| {
                matched(app, "a.");
                read(app, "a1");
            }),
            "Topic a1 matches a Pattern already registered by another source."
        );
        assert!(error(|app| matched(app, "a)|(b")).contains("is not a regular expression"));
        let app = Topology::new("app");
        matched(&app, "a.");
        matched(&app, ".1");
        // The same once more is the same source.
        matched(&app, "a.");
        let plan = app.build().expect("a valid topology");
        assert_eq!(plan.subtopologies().len(), 2);
        assert_eq!(
            plan.reading(["a2", "a1"]).err().expect("both match"),
            TopologyError::MatchedTwice {
                topic: "a1".to_owned(),
                first: "a.".to_owned(),
                second: ".1".to_owned(),
            }
        );
    }
}
