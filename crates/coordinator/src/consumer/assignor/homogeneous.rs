//! The uniform assignor, where all members are subscribed to the same topics.
//!
//! Every member gets its share of the partitions, give or take one, and keeps of its old
//! assignment whatever fits into that share. Two passes: the first takes away what is too much, the
//! second gives away what nobody has.

use super::Spec;
use crate::consumer::member::Target;

pub(super) fn assign(spec: &Spec) -> Vec<Target> {
    let mut targets: Vec<Target> = vec![Target::new(); spec.members.len()];
    let Some(subscribed) = spec.members.first().map(|member| &member.subscribed) else {
        return targets;
    };
    if subscribed.is_empty() {
        return targets;
    }
    let mut total = 0usize;
    let mut unassigned = Vec::new();
    for topic in subscribed.iter() {
        let partitions = spec.partitions(*topic);
        total += usize::try_from(partitions).unwrap_or(0);
        let mut taken = vec![false; usize::try_from(partitions).unwrap_or(0)];
        for member in &spec.members {
            for partition in member.assigned.get(topic).into_iter().flatten() {
                if let Some(taken) =
                    usize::try_from(*partition).ok().and_then(|index| taken.get_mut(index))
                {
                    *taken = true;
                }
            }
        }
        let free = (0..partitions).zip(&taken).filter(|(_, taken)| !**taken);
        unassigned.extend(free.map(|(partition, _)| (*topic, partition)));
    }

    let count = spec.members.len();
    let share = total / count;
    let mut larger_shares = total % count;
    let mut unfilled = Vec::new();
    for (index, member) in spec.members.iter().enumerate() {
        let mut quota = share;
        let mut has_larger_share = larger_shares > 0;
        quota += usize::from(has_larger_share);
        for (topic, partitions) in &member.assigned {
            if !subscribed.contains(topic) {
                continue;
            }
            for partition in partitions {
                if quota > 0 {
                    quota -= 1;
                    targets[index].entry(*topic).or_default().insert(*partition);
                } else {
                    unassigned.push((*topic, *partition));
                }
            }
        }
        // A larger share that the member does not need for what it keeps goes to a later one that
        // might, as long as there are enough later ones.
        if quota > 0 && has_larger_share && count - index > larger_shares {
            quota -= 1;
            has_larger_share = false;
        }
        if quota > 0 {
            unfilled.push((index, quota));
        }
        larger_shares -= usize::from(has_larger_share);
    }

    let mut unassigned = unassigned.into_iter();
    for (index, quota) in unfilled {
        for (topic, partition) in unassigned.by_ref().take(quota) {
            targets[index].entry(topic).or_default().insert(partition);
        }
    }
    targets
}
