//! The uniform assignor, where members are subscribed to different topics.
//!
//! Members keep what they are still subscribed to; what nobody has goes to the least loaded
//! subscriber; and then, topic by topic, partitions move from the most loaded subscribers to the
//! least loaded until that no longer helps. Topics with many partitions per subscriber come first,
//! as they leave the least choice.
//!
//! Balance is best where all subscribers of a topic have the same subscription. Where
//! subscriptions overlap, a perfect balance might need long chains of moves; a bounded number of
//! rounds comes close.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use fleuve_types::Uuid;

use super::Spec;
use crate::consumer::member::Target;

/// Rounds over all topics in search of a better balance.
const ROUNDS_MAX: usize = 16;

pub(super) fn assign(spec: &Spec) -> Vec<Target> {
    let mut builder = Builder::new(spec);
    builder.keep_what_is_subscribed();
    builder.assign_free_partitions();
    builder.balance();
    builder.targets()
}

struct Builder<'a> {
    spec: &'a Spec,
    /// Members by their position, for each topic.
    subscribers: BTreeMap<Uuid, Vec<usize>>,
    /// Whom each partition is assigned to.
    owners: BTreeMap<Uuid, Vec<Option<usize>>>,
    /// Number of partitions that each member has.
    loads: Vec<usize>,
}

impl<'a> Builder<'a> {
    fn new(spec: &'a Spec) -> Self {
        let mut subscribers: BTreeMap<Uuid, Vec<usize>> = BTreeMap::new();
        for (index, member) in spec.members.iter().enumerate() {
            for topic in member.subscribed.iter() {
                subscribers.entry(*topic).or_default().push(index);
            }
        }
        let owners = subscribers
            .keys()
            .map(|topic| {
                (*topic, vec![None; usize::try_from(spec.partitions(*topic)).unwrap_or(0)])
            })
            .collect();
        Self { spec, subscribers, owners, loads: vec![0; spec.members.len()] }
    }

    fn keep_what_is_subscribed(&mut self) {
        for (index, member) in self.spec.members.iter().enumerate() {
            for (topic, partitions) in &member.assigned {
                if !member.subscribed.contains(topic) {
                    continue;
                }
                let Some(owners) = self.owners.get_mut(topic) else { continue };
                for partition in partitions {
                    let owner = usize::try_from(*partition).ok().and_then(|at| owners.get_mut(at));
                    if let Some(owner @ None) = owner {
                        *owner = Some(index);
                        self.loads[index] += 1;
                    }
                }
            }
        }
    }

    fn assign_free_partitions(&mut self) {
        let with_free: Vec<Uuid> = self
            .owners
            .iter()
            .filter(|(_, owners)| owners.contains(&None))
            .map(|(topic, _)| *topic)
            .collect();
        for topic in self.sorted(with_free) {
            let mut scale = Scale::new(&self.subscribers[&topic], &self.loads);
            let Some(owners) = self.owners.get_mut(&topic) else { continue };
            for owner in owners.iter_mut().filter(|owner| owner.is_none()) {
                let lightest = scale.next_lightest(&self.loads);
                *owner = Some(lightest);
                self.loads[lightest] += 1;
            }
        }
    }

    fn balance(&mut self) {
        let shared = self.subscribers.iter().filter(|(_, members)| members.len() >= 2);
        let topics = self.sorted(shared.map(|(topic, _)| *topic).collect());
        // Once all topics in a row had nothing to move, no further round will.
        let mut last_moved = None;
        for _ in 0..ROUNDS_MAX {
            for (index, topic) in topics.iter().enumerate() {
                if last_moved == Some(index) {
                    return;
                }
                if self.balance_topic(*topic) || last_moved.is_none() {
                    last_moved = Some(index);
                }
            }
        }
    }

    /// Moves partitions of one topic; says whether any.
    fn balance_topic(&mut self, topic: Uuid) -> bool {
        let mut scale = Scale::new(&self.subscribers[&topic], &self.loads);
        if scale.imbalance(&self.loads) <= 1 {
            return false;
        }
        let Some(owners) = self.owners.get_mut(&topic) else { return false };
        let mut given: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (partition, owner) in owners.iter().enumerate() {
            if let Some(owner) = owner {
                given.entry(*owner).or_default().push(partition);
            }
        }
        let mut has_moved = false;
        while !scale.is_balanced() {
            let partition = loop {
                let Some(heaviest) = scale.next_heaviest(&self.loads) else { return has_moved };
                // Each member gives its last partition first.
                match given.get_mut(&heaviest).and_then(Vec::pop) {
                    Some(partition) => break partition,
                    None => scale.exclude_heaviest(),
                }
            };
            let lightest = scale.next_lightest(&self.loads);
            if scale.is_balanced() {
                break;
            }
            if let Some(old) = owners[partition].replace(lightest) {
                self.loads[old] -= 1;
            }
            self.loads[lightest] += 1;
            has_moved = true;
        }
        has_moved
    }

    /// Topics with many partitions per subscriber first, then those with few subscribers.
    fn sorted(&self, mut topics: Vec<Uuid>) -> Vec<Uuid> {
        let numbers = |topic: &Uuid| {
            (i64::from(self.spec.partitions(*topic)), self.subscribers[topic].len() as i64)
        };
        topics.sort_by(|a, b| {
            let ((a_partitions, a_members), (b_partitions, b_members)) = (numbers(a), numbers(b));
            match (b_partitions * a_members).cmp(&(a_partitions * b_members)) {
                Ordering::Equal => a_members.cmp(&b_members).then_with(|| a.cmp(b)),
                other => other,
            }
        });
        topics
    }

    fn targets(self) -> Vec<Target> {
        let mut targets = vec![Target::new(); self.spec.members.len()];
        for (topic, owners) in self.owners {
            for (partition, owner) in (0..).zip(owners) {
                if let Some(owner) = owner {
                    targets[owner].entry(topic).or_default().insert(partition);
                }
            }
        }
        targets
    }
}

/// The subscribers of a topic by load, with a front of the lightest and a front of the heaviest.
///
/// The light front takes one partition for each of its members, then its level rises and it may
/// take in more members; the heavy front gives, sinks and grows likewise from the other end:
///
/// ```text
///        ^                 heavy
///        | light           front
///   load | front      [##<-   ]##
///        | [->   ]  ##[#######]##  <- these have nothing of the topic to give
///        | [#####]####[#######]##
///        +-------------------------> members
/// ```
struct Scale {
    sorted: Vec<usize>,
    light_end: usize,
    light_level: i64,
    light_next: usize,
    heavy_begin: usize,
    heavy_end: usize,
    heavy_level: i64,
    /// One past the member that gives next; zero when none is left.
    heavy_next: usize,
}

impl Scale {
    fn new(members: &[usize], loads: &[usize]) -> Self {
        let mut sorted = members.to_vec();
        sorted.sort_by_key(|member| (loads[*member], *member));
        let load = |member: Option<&usize>| member.map_or(0, |member| loads[*member] as i64);
        Self {
            light_end: 0,
            light_level: load(sorted.first()) - 1,
            light_next: 0,
            heavy_begin: sorted.len(),
            heavy_end: sorted.len(),
            heavy_level: load(sorted.last()) + 1,
            heavy_next: sorted.len(),
            sorted,
        }
    }

    fn imbalance(&self, loads: &[usize]) -> usize {
        match (self.sorted.first(), self.sorted.last()) {
            (Some(lightest), Some(heaviest)) => loads[*heaviest] - loads[*lightest],
            _ => 0,
        }
    }

    /// Whether moving from the heavy to the light front no longer helps.
    fn is_balanced(&self) -> bool {
        self.heavy_level - self.light_level <= 1
    }

    fn next_lightest(&mut self, loads: &[usize]) -> usize {
        if self.light_next >= self.light_end {
            self.light_level += 1;
            while self.light_end < self.sorted.len()
                && loads[self.sorted[self.light_end]] as i64 == self.light_level
            {
                self.light_end += 1;
            }
            self.light_next = 0;
        }
        let lightest = self.sorted[self.light_next];
        self.light_next += 1;
        lightest
    }

    fn next_heaviest(&mut self, loads: &[usize]) -> Option<usize> {
        if self.heavy_next <= self.heavy_begin {
            if self.heavy_end <= self.heavy_begin && self.heavy_begin > 0 {
                // All of the front had nothing to give: the next lower members become the front.
                self.heavy_level = loads[self.sorted[self.heavy_begin - 1]] as i64;
            } else {
                self.heavy_level -= 1;
            }
            while self.heavy_begin > 0
                && loads[self.sorted[self.heavy_begin - 1]] as i64 == self.heavy_level
            {
                self.heavy_begin -= 1;
            }
            self.heavy_next = self.heavy_end;
        }
        let position = self.heavy_next.checked_sub(1)?;
        self.heavy_next = position;
        Some(self.sorted[position])
    }

    /// Takes the member that was last drawn out of the heavy front.
    fn exclude_heaviest(&mut self) {
        self.sorted.swap(self.heavy_next, self.heavy_end - 1);
        self.heavy_end -= 1;
    }
}
