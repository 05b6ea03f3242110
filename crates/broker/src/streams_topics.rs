//! Internal topics of streams applications on their way into being.
//!
//! Every heartbeat of every member may find the same topics missing. Each is asked for once at a
//! time, and what failed is not tried again for a while, in which members are told why.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use fleuve_protocol::Str;
use parking_lot::Mutex;

/// Most topics that are remembered; more are created without being remembered.
const TOPICS_MAX: usize = 1_000;

/// Topics that are being created, and those that could not be.
#[derive(Debug, Default)]
pub(crate) struct StreamsTopics {
    state: Mutex<BTreeMap<Str, Creation>>,
}

#[derive(Debug)]
enum Creation {
    UnderWay,
    Failed { why: String, until_ms: i64 },
}

impl StreamsTopics {
    /// Whether to create a topic now; whoever is told so calls [`Self::end`] afterwards.
    pub(crate) fn begin(&self, topic: &Str, now_ms: i64) -> bool {
        let mut state = self.state.lock();
        if state.len() >= TOPICS_MAX {
            state.retain(|_, creation| match creation {
                Creation::UnderWay => true,
                Creation::Failed { until_ms, .. } => *until_ms > now_ms,
            });
        }
        let is_full = state.len() >= TOPICS_MAX;
        match state.entry(topic.detach()) {
            Entry::Vacant(_) if is_full => true,
            Entry::Vacant(place) => {
                place.insert(Creation::UnderWay);
                true
            }
            Entry::Occupied(mut place) => match place.get() {
                Creation::Failed { until_ms, .. } if *until_ms <= now_ms => {
                    place.insert(Creation::UnderWay);
                    true
                }
                Creation::UnderWay | Creation::Failed { .. } => false,
            },
        }
    }

    /// A topic was created, or could not be, which holds back the next try until then.
    pub(crate) fn end(&self, topic: &Str, failure: Option<(String, i64)>) {
        let mut state = self.state.lock();
        match failure {
            None => {
                state.remove(topic);
            }
            Some((why, until_ms)) => {
                state.insert(topic.detach(), Creation::Failed { why, until_ms });
            }
        }
    }

    /// Why a topic could not be created.
    pub(crate) fn failure(&self, topic: &str, now_ms: i64) -> Option<String> {
        match self.state.lock().get(topic)? {
            Creation::Failed { why, until_ms } if *until_ms > now_ms => Some(why.clone()),
            Creation::Failed { .. } | Creation::UnderWay => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_asked_for_once_at_a_time_and_failures_hold_for_a_while() {
        let topics = StreamsTopics::default();
        let name = Str::from_static("app-counts-changelog");
        assert!(topics.begin(&name, 0));
        assert!(!topics.begin(&name, 0), "it is under way");
        topics.end(&name, Some(("no room".to_owned(), 100)));
        assert!(!topics.begin(&name, 99));
        assert_eq!(topics.failure(&name, 99).as_deref(), Some("no room"));
        assert_eq!(topics.failure(&name, 100), None);
        assert!(topics.begin(&name, 100));
        topics.end(&name, None);
        assert!(topics.begin(&name, 100), "it may have been deleted meanwhile");
    }
}
