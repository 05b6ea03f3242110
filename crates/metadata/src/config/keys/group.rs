//! Every key that can be set on a consumer, share or streams group.
//!
//! One line a key, sorted by name: name, type, default, allowed values, how it may be changed, and
//! what we do with it. A key becomes served by giving it its sentence here.

use crate::config::key::Rule::{Any, AtLeast, OffsetReset, OneOf};
use crate::config::key::ValueType::{Boolean, Int, Text};
use crate::config::key::{Key, key};

/// The keys of groups.
#[rustfmt::skip] // One line a key is easier to scan, compare and sort.
pub static GROUP_KEYS: &[Key] = &[
    key("consumer.assignment.interval.ms", Int, Some("1000"), AtLeast(0)).broker_keys(&[("group.consumer.assignment.interval.ms", 1)]).served("Least time between two target assignments of the consumer group."),
    key("consumer.heartbeat.interval.ms", Int, Some("5000"), AtLeast(1)).broker_keys(&[("group.consumer.heartbeat.interval.ms", 1)]).served("How often members of the consumer group are told to send heartbeats."),
    key("consumer.session.timeout.ms", Int, Some("45000"), AtLeast(1)).broker_keys(&[("group.consumer.session.timeout.ms", 1)]).served("Removes a member of the consumer group that sent no heartbeat for this long."),
    key("share.assignment.interval.ms", Int, Some("1000"), AtLeast(0)).broker_keys(&[("group.share.assignment.interval.ms", 1)]).served("Least time between two target assignments of the share group."),
    key("share.auto.offset.reset", Text, Some("latest"), OffsetReset).served("Where a share group begins to read a partition: earliest, latest, or by_duration:DURATION."),
    key("share.delivery.count.limit", Int, Some("5"), AtLeast(2)).broker_keys(&[("group.share.delivery.count.limit", 1)]).served("Archives a record that was delivered to the share group so often without being dealt with."),
    key("share.heartbeat.interval.ms", Int, Some("5000"), AtLeast(1)).broker_keys(&[("group.share.heartbeat.interval.ms", 1)]).served("How often members of the share group are told to send heartbeats."),
    key("share.isolation.level", Text, Some("read_uncommitted"), OneOf(&["read_committed", "read_uncommitted"])).served("Whether the share group reads records of open and aborted transactions."),
    key("share.partition.max.record.locks", Int, Some("2000"), AtLeast(100)).broker_keys(&[("group.share.partition.max.record.locks", 1)]).served("Most records that the share group may have in flight of one partition."),
    key("share.record.lock.duration.ms", Int, Some("30000"), AtLeast(1000)).broker_keys(&[("group.share.record.lock.duration.ms", 1)]).served("How long a member of the share group may keep a record before it is delivered again."),
    key("share.renew.acknowledge.enable", Boolean, Some("true"), Any).served("Whether members of the share group may ask for more time for records they have."),
    key("share.session.timeout.ms", Int, Some("45000"), AtLeast(1)).broker_keys(&[("group.share.session.timeout.ms", 1)]).served("Removes a member of the share group that sent no heartbeat for this long."),
    key("streams.assignment.interval.ms", Int, Some("1000"), AtLeast(0)).broker_keys(&[("group.streams.assignment.interval.ms", 1)]).served("Least time between two target assignments of the streams group."),
    key("streams.heartbeat.interval.ms", Int, Some("5000"), AtLeast(1)).broker_keys(&[("group.streams.heartbeat.interval.ms", 1)]).served("How often members of the streams group are told to send heartbeats."),
    key("streams.initial.rebalance.delay.ms", Int, Some("3000"), AtLeast(0)).broker_keys(&[("group.streams.initial.rebalance.delay.ms", 1)]).served("Waits this long for more members before the streams group's first tasks are handed out."),
    key("streams.num.standby.replicas", Int, Some("0"), AtLeast(0)).broker_keys(&[("group.streams.num.standby.replicas", 1)]).served("Copies that the streams group keeps of the state of each task."),
    key("streams.session.timeout.ms", Int, Some("45000"), AtLeast(1)).broker_keys(&[("group.streams.session.timeout.ms", 1)]).served("Removes a member of the streams group that sent no heartbeat for this long."),
];
