//! Server-side assignors: who is to have which partitions.
//!
//! An assignor is a function of the members, what they are subscribed to, and what they were to
//! have before. All walk over members in the order of their ids and over topics in the order of
//! theirs, so that equal groups get equal assignments.

mod heterogeneous;
mod homogeneous;
mod range;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use fleuve_protocol::Str;
use fleuve_types::Uuid;

use super::member::Target;

/// An assignor that members may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assignor {
    /// Spreads all partitions evenly and moves as few as it can.
    Uniform,
    /// Gives ranges of each topic, the same ones of topics with equally many partitions.
    Range,
}

impl Assignor {
    /// The name by which members ask for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }

    /// Finds an assignor by its name, or by that of Kafka's class for it.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "uniform" | "org.apache.kafka.coordinator.group.assignor.UniformAssignor" => {
                Some(Self::Uniform)
            }
            "range" | "org.apache.kafka.coordinator.group.assignor.RangeAssignor" => {
                Some(Self::Range)
            }
            _ => None,
        }
    }

    /// Decides what each member is to have, in the order of `spec.members`.
    pub(super) fn assign(self, spec: &Spec) -> Vec<Target> {
        if spec.members.is_empty() {
            return Vec::new();
        }
        match self {
            Self::Range => range::assign(spec),
            Self::Uniform if spec.is_homogeneous() => homogeneous::assign(spec),
            Self::Uniform => heterogeneous::assign(spec),
        }
    }
}

/// What an assignor is told.
#[derive(Debug, Default)]
pub(super) struct Spec {
    /// The members by id.
    pub(super) members: Vec<SpecMember>,
    /// Number of partitions of every topic that anybody is subscribed to.
    pub(super) topics: BTreeMap<Uuid, i32>,
}

/// A member as an assignor sees it.
#[derive(Clone, Debug)]
pub(super) struct SpecMember {
    pub(super) id: Str,
    pub(super) instance_id: Option<Str>,
    /// Topics that it is subscribed to and that exist.
    pub(super) subscribed: Rc<BTreeSet<Uuid>>,
    /// What it was to have before.
    pub(super) assigned: Target,
}

impl Spec {
    /// Whether all members are subscribed to the same topics.
    fn is_homogeneous(&self) -> bool {
        let mut sets = self.members.iter().map(|member| &member.subscribed);
        let Some(first) = sets.next() else { return true };
        sets.all(|other| Rc::ptr_eq(first, other) || first == other)
    }

    fn partitions(&self, topic: Uuid) -> i32 {
        self.topics.get(&topic).copied().unwrap_or(0)
    }
}
