//! Which subtopologies feed which, by way of repartition topics.

use std::collections::{BTreeMap, BTreeSet};

use super::{Plan, Subtopology};

impl Plan {
    /// The subtopologies in the order in which input flows through them. Those that feed one another, as both halves of
    /// a foreign-key join do, are one stage.
    pub(crate) fn stages(&self) -> Vec<BTreeSet<u32>> {
        let above = self.above();
        let mut stages: Vec<BTreeSet<u32>> = Vec::new();
        let mut left: BTreeSet<u32> = above.keys().copied().collect();
        while let Some(id) = left.iter().copied().find(|id| {
            // All that is above it has its stage already, or is above and below at once.
            above[id].iter().all(|other| !left.contains(other) || above[other].contains(id))
        }) {
            let stage: BTreeSet<u32> = above[&id]
                .iter()
                .copied()
                .filter(|other| left.contains(other))
                .chain([id])
                .collect();
            left.retain(|id| !stage.contains(id));
            stages.push(stage);
        }
        stages
    }

    /// The subtopologies that write a repartition topic which one reads, those left out that it feeds itself.
    pub(crate) fn feeders(&self, reader: &Subtopology, topic: &str) -> BTreeSet<u32> {
        let above = self.above();
        let parts = self.subtopologies().iter();
        let writers = parts.filter(|part| part.sink_topics.contains(topic)).map(|part| part.id);
        writers.filter(|id| above.get(id).is_some_and(|ids| !ids.contains(&reader.id))).collect()
    }

    /// By subtopology all that feed it, in any number of steps.
    fn above(&self) -> BTreeMap<u32, BTreeSet<u32>> {
        let parts = self.subtopologies().iter().filter(|part| !part.global);
        let mut above: BTreeMap<u32, BTreeSet<u32>> =
            parts.map(|part| (part.id, self.writers(part).collect())).collect();
        loop {
            let further = |ids: &BTreeSet<u32>| -> BTreeSet<u32> {
                ids.iter().flat_map(|id| &above[id]).chain(ids).copied().collect()
            };
            let grown: BTreeMap<u32, BTreeSet<u32>> =
                above.iter().map(|(id, ids)| (*id, further(ids))).collect();
            if grown == above {
                return above;
            }
            above = grown;
        }
    }

    /// The subtopologies that write the repartition topics which one reads.
    fn writers<'a>(&'a self, reader: &'a Subtopology) -> impl Iterator<Item = u32> + 'a {
        let writes = |part: &Subtopology| {
            reader.repartition_topics.iter().any(|topic| part.sink_topics.contains(&topic.name))
        };
        self.subtopologies().iter().filter(move |part| writes(part)).map(|part| part.id)
    }
}

#[cfg(test)]
mod tests {
    use crate::Topology;

    #[test]
    fn what_feeds_something_comes_before_it() {
        let app = Topology::new("app");
        let one = app.stream::<String, String>("one").repartition(None);
        let two = app.stream::<String, String>("two").repartition(None);
        one.merge(&two).repartition(None).to("out");
        let plan = app.build().expect("a valid topology");
        let stages: Vec<Vec<u32>> =
            plan.stages().into_iter().map(|stage| stage.into_iter().collect()).collect();
        // The third reads both repartition topics.
        assert_eq!(stages, [[0], [2], [1], [3]]);
    }

    #[test]
    fn halves_of_a_foreign_key_join_are_one_stage() {
        let app = Topology::new("app");
        let orders = app.table::<String, String>("orders");
        let users = app.table::<String, String>("users");
        orders
            .join_foreign(
                &users,
                |_, order| Some(order.clone()),
                |order, user| format!("{order} {user}"),
            )
            .to_stream()
            .to("out");
        let plan = app.build().expect("a valid topology");
        assert_eq!(plan.stages().len(), 1);
    }
}
