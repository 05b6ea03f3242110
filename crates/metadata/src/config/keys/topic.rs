//! Every key that can be set on a topic.
//!
//! One line a key, sorted by name: name, type, default, allowed values, how it may be changed, and
//! what we do with it. A key becomes served by giving it its sentence here.

use crate::config::key::Rule::{
    Any, AtLeast, Between, Distinct, Fraction, GzipLevel, OneOf, ThrottledReplicas,
};
use crate::config::key::ValueType::{Boolean, Double, Int, List, Long, Text};
use crate::config::key::{Key, key};

use super::words::{CODECS, ONE_REPLICA, POLICIES, REPLICATION, TIMESTAMPS};

/// The keys of topics.
#[rustfmt::skip] // One line a key is easier to scan, compare and sort.
pub static TOPIC_KEYS: &[Key] = &[
    key("cleanup.policy", List, Some("delete"), Distinct { of: POLICIES, may_be_empty: true }).broker_keys(&[("log.cleanup.policy", 1)]).served("What happens to old records: delete them, compact them by key, both, or (empty) neither."),
    key("compression.gzip.level", Int, Some("-1"), GzipLevel).broker_keys(&[("compression.gzip.level", 1)]).served("Level of gzip where the broker itself compresses."),
    key("compression.lz4.level", Int, Some("9"), Between(1, 17)).broker_keys(&[("compression.lz4.level", 1)]).served("Level of LZ4 where the broker itself compresses."),
    key("compression.type", Text, Some("producer"), OneOf(CODECS)).broker_keys(&[("compression.type", 1)]).served("Codec in which the topic is stored; producer keeps what was sent."),
    key("compression.zstd.level", Int, Some("3"), Between(-131072, 22)).broker_keys(&[("compression.zstd.level", 1)]).served("Level of Zstandard where the broker itself compresses."),
    key("delete.retention.ms", Long, Some("86400000"), AtLeast(0)).broker_keys(&[("log.cleaner.delete.retention.ms", 1)]).served("How long compaction keeps tombstones, so that readers from the beginning see the deletion."),
    key("file.delete.delay.ms", Long, Some("60000"), AtLeast(0)).broker_keys(&[("log.segment.delete.delay.ms", 1)]).served("How long the files of a deleted segment stay for readers still at work."),
    key("flush.messages", Long, Some("9223372036854775807"), AtLeast(1)).broker_keys(&[("log.flush.interval.messages", 1)]).served("Flushes a partition after this many records."),
    key("flush.ms", Long, Some("9223372036854775807"), AtLeast(0)).broker_keys(&[("log.flush.interval.ms", 1), ("log.flush.scheduler.interval.ms", 1)]).served("Flushes a partition when records have waited this long."),
    key("follower.replication.throttled.replicas", List, Some(""), ThrottledReplicas).described("Replicas whose followers copy at a limited rate.").no_effect(REPLICATION),
    key("index.interval.bytes", Int, Some("4096"), AtLeast(0)).broker_keys(&[("log.index.interval.bytes", 1)]).served("Log bytes between two entries of the offset index."),
    key("internal.segment.bytes", Int, None, Any).internal(),
    key("leader.replication.throttled.replicas", List, Some(""), ThrottledReplicas).described("Replicas whose leaders are copied from at a limited rate.").no_effect(REPLICATION),
    key("local.retention.bytes", Long, Some("-2"), AtLeast(-2)).broker_keys(&[("log.local.retention.bytes", 1)]),
    key("local.retention.ms", Long, Some("-2"), AtLeast(-2)).broker_keys(&[("log.local.retention.ms", 1)]),
    key("max.compaction.lag.ms", Long, Some("9223372036854775807"), AtLeast(1)).broker_keys(&[("log.cleaner.max.compaction.lag.ms", 1)]).served("Longest time a record may stay out of reach of compaction."),
    key("max.message.bytes", Int, Some("1048588"), AtLeast(0)).broker_keys(&[("message.max.bytes", 1)]).served("Largest record batch that the topic accepts."),
    key("message.timestamp.after.max.ms", Long, Some("3600000"), AtLeast(0)).broker_keys(&[("log.message.timestamp.after.max.ms", 1)]).served("How far ahead of the clock a record may be dated."),
    key("message.timestamp.before.max.ms", Long, Some("9223372036854775807"), AtLeast(0)).broker_keys(&[("log.message.timestamp.before.max.ms", 1)]).served("How far behind the clock a record may be dated."),
    key("message.timestamp.type", Text, Some("CreateTime"), OneOf(TIMESTAMPS)).broker_keys(&[("log.message.timestamp.type", 1)]).served("Whether records keep the time of their producer or get that of the append."),
    key("min.cleanable.dirty.ratio", Double, Some("0.5"), Fraction(0.0, 1.0)).broker_keys(&[("log.cleaner.min.cleanable.ratio", 1)]).served("Share of uncompacted bytes from which compaction is worth its effort."),
    key("min.compaction.lag.ms", Long, Some("0"), AtLeast(0)).broker_keys(&[("log.cleaner.min.compaction.lag.ms", 1)]).served("Shortest time a record stays out of reach of compaction."),
    key("min.insync.replicas", Int, Some("1"), AtLeast(1)).broker_keys(&[("min.insync.replicas", 1)]).described("Replicas that must be in sync for acks=all to succeed, of those that a partition has.").no_effect(ONE_REPLICA),
    key("preallocate", Boolean, Some("false"), Any).broker_keys(&[("log.preallocate", 1)]).served("Reserves the space of a segment when it is created."),
    key("remote.log.copy.disable", Boolean, Some("false"), Any),
    key("remote.log.delete.on.disable", Boolean, Some("false"), Any),
    key("remote.storage.enable", Boolean, Some("false"), Any).dangerous(),
    key("retention.bytes", Long, Some("-1"), Any).broker_keys(&[("log.retention.bytes", 1)]).served("Size beyond which the oldest segments of a partition are deleted; -1 for no limit."),
    key("retention.ms", Long, Some("604800000"), AtLeast(-1)).broker_keys(&[("log.retention.ms", 1), ("log.retention.minutes", 60_000), ("log.retention.hours", 3_600_000)]).served("Age at which segments are deleted; -1 for no limit."),
    key("segment.bytes", Int, Some("1073741824"), AtLeast(1048576)).broker_keys(&[("log.segment.bytes", 1)]).served("Size at which a segment is closed and a new one begun."),
    key("segment.index.bytes", Int, Some("10485760"), AtLeast(4)).broker_keys(&[("log.index.size.max.bytes", 1)]).served("Largest size of an index; a full index rolls the segment."),
    key("segment.jitter.ms", Long, Some("0"), AtLeast(0)).broker_keys(&[("log.roll.jitter.ms", 1), ("log.roll.jitter.hours", 3_600_000)]).served("Longest random advance of the closing of segments by age."),
    key("segment.ms", Long, Some("604800000"), AtLeast(1)).broker_keys(&[("log.roll.ms", 1), ("log.roll.hours", 3_600_000)]).served("Age at which a segment is closed and a new one begun."),
    key("unclean.leader.election.enable", Boolean, Some("false"), Any).broker_keys(&[("unclean.leader.election.enable", 1)]).described("Whether a replica that is not in sync may lead when no other can.").no_effect(REPLICATION),
];
