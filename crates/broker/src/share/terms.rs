//! What holds for a share group: the broker's settings, and what is set on the group itself.

use fleuve_coordinator::share_partition::Terms;
use fleuve_metadata::config::{GroupOverrides, OffsetReset, Value};
use fleuve_metadata::image::{Resource, ResourceKind};
use fleuve_types::NodeId;

use crate::node::Node;

/// The terms of one share group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShareTerms {
    /// Where the group begins to read a partition.
    pub(crate) reset: OffsetReset,
    /// Whether it sees only records of committed transactions.
    pub(crate) read_committed: bool,
    /// How long a member may keep a record.
    pub(crate) lock_ms: i32,
    /// Most records in flight of one partition.
    pub(crate) locks_max: i64,
    /// How often a record is delivered.
    pub(crate) delivery_count_max: i16,
    /// Whether members may ask for more time.
    pub(crate) may_renew: bool,
}

impl ShareTerms {
    /// Looks up what holds for a group now.
    pub(crate) fn of(node: &Node, group: &str) -> Self {
        let settings = node.settings();
        let share = &settings.share_groups;
        let mut terms = Self {
            reset: OffsetReset::Latest,
            read_committed: false,
            lock_ms: share.record_lock_ms,
            locks_max: i64::from(share.record_locks_max),
            delivery_count_max: share.delivery_count_max,
            may_renew: true,
        };
        let image = node.image();
        let configs = image.configs().of(&Resource::new(ResourceKind::Group, group));
        if configs.is_empty() {
            return terms;
        }
        let node_configs = image.broker_configs(NodeId(node.id));
        let cluster_configs = image.cluster_configs();
        let layers = node.static_settings.layers(&node_configs, &cluster_configs);
        let set = GroupOverrides { configs: &configs, layers: &layers };
        let text = |name: &str| match set.value(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        };
        if let Some(reset) = text("share.auto.offset.reset").and_then(|t| OffsetReset::parse(&t)) {
            terms.reset = reset;
        }
        terms.read_committed =
            text("share.isolation.level").is_some_and(|level| level == "read_committed");
        if let Some(Value::Boolean(enabled)) = set.value("share.renew.acknowledge.enable") {
            terms.may_renew = enabled;
        }
        if let Some(lock_ms) = set.integer("share.record.lock.duration.ms") {
            terms.lock_ms = lock_ms;
        }
        if let Some(locks) = set.integer("share.partition.max.record.locks") {
            terms.locks_max = i64::from(locks);
        }
        if let Some(limit) = set.integer("share.delivery.count.limit") {
            terms.delivery_count_max = i16::try_from(limit).unwrap_or(i16::MAX);
        }
        terms
    }

    /// What acknowledgements are held against.
    pub(crate) fn for_acknowledging(&self, now_ms: i64) -> Terms {
        let renew_until_ms = self.may_renew.then(|| now_ms + i64::from(self.lock_ms));
        Terms { delivery_count_max: self.delivery_count_max, renew_until_ms }
    }
}
