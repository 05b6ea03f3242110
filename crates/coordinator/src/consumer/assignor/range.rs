//! The range assignor.
//!
//! Topic by topic every subscriber gets a contiguous range, in an order of the members that is the
//! same for all topics; so members of a group with one subscription get the same partitions of all
//! topics that have equally many. Static members come first, by instance id, and therefore keep
//! their ranges over restarts.

use std::collections::BTreeMap;

use fleuve_types::Uuid;

use super::Spec;
use crate::consumer::member::Target;

/// Where the next range of a topic begins, and how long ranges are.
struct Cut {
    next: i32,
    length: i32,
    /// So many of the first ranges are longer by one.
    longer: i32,
    partitions: i32,
}

pub(super) fn assign(spec: &Spec) -> Vec<Target> {
    let mut subscribers: BTreeMap<Uuid, i32> = BTreeMap::new();
    for topic in spec.members.iter().flat_map(|member| member.subscribed.iter()) {
        *subscribers.entry(*topic).or_default() += 1;
    }
    let mut cuts: BTreeMap<Uuid, Cut> = subscribers
        .into_iter()
        .map(|(topic, count)| {
            let partitions = spec.partitions(topic);
            let (length, longer) = (partitions / count, partitions % count);
            (topic, Cut { next: 0, length, longer, partitions })
        })
        .collect();
    let mut order: Vec<usize> = (0..spec.members.len()).collect();
    order.sort_by_key(|index| {
        let member = &spec.members[*index];
        (member.instance_id.is_none(), member.instance_id.as_ref(), &member.id)
    });
    let mut targets = vec![Target::new(); spec.members.len()];
    for index in order {
        for topic in spec.members[index].subscribed.iter() {
            let Some(cut) = cuts.get_mut(topic) else { continue };
            let range = cut.take();
            if !range.is_empty() {
                targets[index].insert(*topic, range.collect());
            }
        }
    }
    targets
}

impl Cut {
    fn take(&mut self) -> std::ops::Range<i32> {
        let mut length = self.length;
        if self.longer > 0 {
            self.longer -= 1;
            length += 1;
        }
        let begin = self.next;
        self.next = (begin + length).min(self.partitions);
        begin..self.next
    }
}
