//! Tasks whose subtopology reads other topics than before, because sources by pattern have found some, or lost them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::task::Task;
use super::watermarks::Watermarks;
use crate::topology::{Kind, NodeId, Plan};

impl Task {
    /// Reads what its sources read in `plan`: the same topology, with other topics for its patterns. What waits of topics
    /// that are no longer among them is forgotten.
    pub(crate) fn adopt(&mut self, plan: &Plan, now_ms: i64) {
        let part = &plan.subtopologies()[self.id.subtopology as usize];
        let mut wanted: Vec<(NodeId, Arc<str>)> = Vec::new();
        for id in &part.nodes {
            if let (Some(_), Kind::Source { topics, .. }) =
                (&plan.nodes[*id].pattern, &plan.nodes[*id].kind)
            {
                wanted.extend(topics.iter().map(|topic| (*id, Arc::from(topic.as_str()))));
            }
        }
        let is_pattern = |id: NodeId| plan.nodes[id].pattern.is_some();
        let known: BTreeSet<Arc<str>> =
            self.queues.iter().map(|queue| queue.topic.clone()).collect();
        let names: BTreeSet<&Arc<str>> = wanted.iter().map(|(_, topic)| topic).collect();
        self.queues.retain(|queue| !is_pattern(queue.source) || names.contains(&queue.topic));
        for (source, topic) in &wanted {
            if !known.contains(topic) {
                self.queues.open(topic.clone(), *source, plan.nodes[*source].bootstraps);
            }
        }
        if let Some(watermarks) = &mut self.watermarks
            && let Some(fresh) = Watermarks::of(plan, self.id.subtopology, &self.cx.globals)
        {
            watermarks.adopt(fresh, now_ms);
            if watermarks.decides() && !self.cx.follows_watermarks {
                // Nobody wrote what it reads before.
                self.cx.follows_watermarks = true;
                for store in &mut self.cx.stores {
                    store.limit_time(self.cx.stream_time_ms);
                }
            }
        }
    }

    /// Forgets a topic that is gone, and what waits of it. Returns whether anything else is read.
    pub(crate) fn forget_topic(&mut self, topic: &str) -> bool {
        self.queues.retain(|queue| &*queue.topic != topic);
        self.queues.iter().next().is_some()
    }
}
