//! Which topics members want: names, regular expressions, and what both come to.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use fleuve_protocol::Str;
use fleuve_types::Uuid;
use regex::bytes::{Regex, RegexBuilder};

use super::api::VisibleTopics;
use super::member::Member;
use crate::modern::topics_hash;
use crate::topics::{TopicInfo, TopicView};

/// Most memory that a compiled regular expression may take.
const COMPILED_BYTES_MAX: usize = 4 << 20;

/// Most bytes of a regular expression: room for an alternation of some hundred names.
const REGEX_BYTES_MAX: usize = 32 << 10;

/// A regular expression that matches whole names of topics.
///
/// Kafka uses RE2/J. Rust's `regex` is of the same family: no look-around, no back references, and
/// time linear in the name, so that no client can keep the coordinator busy with a pattern. What
/// RE2 has and it has not, text quoted by `\Q` and `\E`, is rewritten. As in RE2, `\w`, `\d` and `\s`
/// are ASCII, as names of topics are; with Unicode's classes a repetition of them would not fit.
pub(super) struct Pattern(Regex);

impl Pattern {
    /// Compiles a client's expression, or says what is wrong with it.
    pub(super) fn new(regex: &str) -> Result<Self, String> {
        if regex.len() > REGEX_BYTES_MAX {
            return Err(format!("it is longer than {REGEX_BYTES_MAX} bytes"));
        }
        let regex = unquoted(regex);
        let compile = |regex: &str| {
            let mut builder = RegexBuilder::new(regex);
            let built = builder.size_limit(COMPILED_BYTES_MAX).unicode(false).build();
            // Classes like `\pL` only exist with Unicode.
            built.or_else(|_| builder.unicode(true).build()).map_err(|error| reason(&error))
        };
        // By itself first: with something around it, a stray parenthesis might find its match.
        compile(&regex)?;
        compile(&format!(r"\A(?:{regex})\z")).map(Self)
    }

    /// Whether all of the name matches.
    pub(super) fn matches(&self, name: &str) -> bool {
        self.0.is_match(name.as_bytes())
    }
}

/// The last line of an error, which says what is wrong; the others draw where.
fn reason(error: &regex::Error) -> String {
    let text = error.to_string();
    let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
    reason.trim_end_matches('.').to_owned()
}

/// Tries the regular expression of a subscription, and says what is wrong with it.
pub fn check_pattern(regex: &str) -> Result<(), String> {
    Pattern::new(regex).map(drop)
}

/// Finds the topics that each of the expressions matches.
///
/// An expression that cannot be compiled, which only a log of another broker can bring, matches
/// nothing. As in Kafka, what a group's expressions match is what the member may see that asked
/// last.
pub(super) fn resolve<'a>(
    regexes: impl Iterator<Item = &'a Str>,
    topics: &dyn TopicView,
    visible: &VisibleTopics,
) -> BTreeMap<Str, BTreeSet<Str>> {
    let mut resolved = BTreeMap::new();
    let mut patterns = Vec::new();
    for regex in regexes {
        resolved.insert(regex.clone(), BTreeSet::new());
        match Pattern::new(regex) {
            Ok(pattern) => patterns.push((regex, pattern)),
            Err(error) => tracing::warn!(%regex, %error, "a regular expression matches nothing"),
        }
    }
    topics.for_each_name(&mut |name| {
        for (regex, pattern) in &patterns {
            if pattern.matches(name)
                && visible.contain(name)
                && let Some(found) = resolved.get_mut(*regex)
            {
                found.insert(name.clone());
            }
        }
    });
    resolved
}

/// Names and a regular expression.
type Subscription = (BTreeSet<Str>, Option<Str>);

/// Looks up which existing topics members are subscribed to, each name and subscription once.
pub(super) struct Resolver<'a> {
    topics: &'a dyn TopicView,
    regexes: &'a BTreeMap<Str, BTreeSet<Str>>,
    known: BTreeMap<Str, Option<TopicInfo>>,
    subscriptions: BTreeMap<Subscription, Rc<BTreeSet<Uuid>>>,
}

impl<'a> Resolver<'a> {
    /// Makes a resolver that takes the topics of expressions from `regexes`.
    pub(super) fn new(
        topics: &'a dyn TopicView,
        regexes: &'a BTreeMap<Str, BTreeSet<Str>>,
    ) -> Self {
        Self { topics, regexes, known: BTreeMap::new(), subscriptions: BTreeMap::new() }
    }

    /// The topics that the member is subscribed to and that exist.
    pub(super) fn subscribed(&mut self, member: &Member) -> Rc<BTreeSet<Uuid>> {
        let subscription = (member.topics.clone(), member.regex().cloned());
        if let Some(known) = self.subscriptions.get(&subscription) {
            return Rc::clone(known);
        }
        let matched = subscription.1.as_ref().and_then(|regex| self.regexes.get(regex));
        let mut ids = BTreeSet::new();
        for name in member.topics.iter().chain(matched.into_iter().flatten()) {
            ids.extend(self.topic(name).map(|topic| topic.id));
        }
        let ids = Rc::new(ids);
        self.subscriptions.insert(subscription, Rc::clone(&ids));
        ids
    }

    /// Number of partitions of all topics that were found.
    pub(super) fn partitions(&self) -> BTreeMap<Uuid, i32> {
        self.known.values().flatten().map(|topic| (topic.id, topic.partitions)).collect()
    }

    fn topic(&mut self, name: &Str) -> Option<&TopicInfo> {
        if !self.known.contains_key(name) {
            self.known.insert(name.clone(), self.topics.by_name(name));
        }
        self.known.get(name).and_then(Option::as_ref)
    }
}

/// The hash that tells whether anything has changed about the subscribed topics.
pub(super) fn metadata_hash<'a>(
    members: impl Iterator<Item = &'a Member>,
    regexes: &BTreeMap<Str, BTreeSet<Str>>,
    topics: &dyn TopicView,
) -> i64 {
    let mut names: BTreeSet<&Str> = BTreeSet::new();
    for member in members {
        names.extend(&member.topics);
        names.extend(member.regex().and_then(|regex| regexes.get(regex)).into_iter().flatten());
    }
    topics_hash(names.into_iter(), topics)
}

/// Replaces what stands between `\Q` and `\E` by an expression for just that text.
fn unquoted(regex: &str) -> String {
    let mut output = String::with_capacity(regex.len());
    let mut rest = regex;
    while let Some(at) = rest.find('\\') {
        let (before, from) = rest.split_at(at);
        output.push_str(before);
        if let Some(quoted) = from.strip_prefix(r"\Q") {
            let (text, after) = quoted.split_once(r"\E").unwrap_or((quoted, ""));
            output.push_str(&regex::escape(text));
            rest = after;
        } else {
            let escaped = from.chars().nth(1).map_or(1, |next| 1 + next.len_utf8());
            output.push_str(&from[..escaped]);
            rest = &from[escaped..];
        }
    }
    output.push_str(rest);
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_match_whole_names() {
        let matches = |regex: &str, name: &str| Pattern::new(regex).expect(regex).matches(name);
        assert!(matches("fo+", "foo"));
        assert!(!matches("fo+", "foobar"));
        assert!(!matches("oo", "foo"));
        assert!(matches("a|b", "b"));
        assert!(!matches("a|b", "ab"));
        assert!(matches(r"\Qa.b\E.*", "a.b-c"));
        assert!(!matches(r"\Qa.b\E.*", "axb-c"));
        assert!(matches(r"\\Q", r"\Q"));
        assert!(matches(r"orders-\w{1,1000}", "orders-today"));
        assert!(matches(r"orders\pP\pL+", "orders-today"));
        assert!(!matches(r"orders[é\s].*", "orders-today"));
        let names: Vec<String> = (0..1_500).map(|number| format!("orders-{number}")).collect();
        assert!(matches(&names.join("|"), "orders-1234"));
    }

    #[test]
    fn expressions_that_are_wrong_or_large_are_refused() {
        for regex in ["(", "a)(?:b", r"(?=x)", r"(a)\1", r"\", r"a{1000}{1000}"] {
            let reason = check_pattern(regex).expect_err(regex);
            assert!(!reason.contains('\n'), "{reason}");
        }
        assert!(Pattern::new(&"a".repeat(REGEX_BYTES_MAX + 1)).is_err());
    }
}
