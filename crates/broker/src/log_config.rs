//! From the settings of a topic to those of its logs.

use std::sync::Arc;

use fleuve_metadata::config::{BrokerSettings, CompressionType, TimestampType, TopicSettings};
use fleuve_metadata::image::Image;
use fleuve_protocol::records::{Codec, Compression, TimestampType as StoredTimestampType};
use fleuve_storage::{CleanupPolicy, LogConfig};

const PRODUCER_EXPIRATION: &str = "producer.id.expiration.ms";

/// Works out what the logs of a topic need to know from the cluster's image.
pub(crate) fn log_config_of(
    settings: &BrokerSettings,
    image: &Image,
    topic: &str,
) -> Arc<LogConfig> {
    let node_configs = image.broker_configs(settings.node.id);
    let cluster_configs = image.cluster_configs();
    let layers = settings.layers(&node_configs, &cluster_configs);
    let topic_settings = TopicSettings::resolve(&image.topic_configs(topic), &layers);
    // No topic sets it, and yet it may change while the broker runs.
    let expiration = layers.value(PRODUCER_EXPIRATION).and_then(|value| value.as_integer());
    let expiration = expiration.unwrap_or_else(|| signed(settings.log.producer_id_expiration_ms));
    let log_config = LogConfig {
        decompressed_bytes_max: settings.log.decompressed_bytes_max,
        ..log_config(&topic_settings, expiration)
    };
    Arc::new(log_config)
}

fn log_config(topic: &TopicSettings, producer_id_expiration_ms: i64) -> LogConfig {
    LogConfig {
        segment_bytes: topic.segment_bytes,
        segment_ms: signed(topic.segment_ms),
        segment_jitter_ms: signed(topic.segment_jitter_ms),
        segment_index_bytes: topic.segment_index_bytes,
        index_interval_bytes: topic.index_interval_bytes,
        retention_ms: topic.retention_ms.map(signed),
        retention_bytes: topic.retention_bytes,
        cleanup: CleanupPolicy { delete: topic.cleanup.delete, compact: topic.cleanup.compact },
        min_cleanable_dirty_ratio: topic.cleanable_dirty_ratio_min,
        min_compaction_lag_ms: signed(topic.compaction_lag_min_ms),
        max_compaction_lag_ms: signed(topic.compaction_lag_max_ms),
        delete_retention_ms: signed(topic.delete_retention_ms),
        file_delete_delay_ms: signed(topic.file_delete_delay_ms),
        max_message_bytes: topic.max_message_bytes,
        decompressed_bytes_max: None,
        message_timestamp_type: match topic.timestamp_type {
            TimestampType::CreateTime => StoredTimestampType::CreateTime,
            TimestampType::LogAppendTime => StoredTimestampType::LogAppendTime,
        },
        message_timestamp_before_max_ms: signed(topic.timestamp_before_max_ms),
        message_timestamp_after_max_ms: signed(topic.timestamp_after_max_ms),
        compression: codec(topic),
        flush_messages: topic.flush_messages.map_or(i64::MAX, signed),
        flush_ms: topic.flush_ms.map_or(i64::MAX, signed),
        preallocate: topic.preallocate,
        producer_id_expiration_ms,
    }
}

fn codec(topic: &TopicSettings) -> Option<Codec> {
    let (codec, level) = match topic.compression {
        CompressionType::Producer => return None,
        CompressionType::Uncompressed => (Compression::None, None),
        CompressionType::Gzip => {
            (Compression::Gzip, topic.compression_gzip_level.map(|l| l as i32))
        }
        CompressionType::Snappy => (Compression::Snappy, None),
        CompressionType::Lz4 => (Compression::Lz4, Some(topic.compression_lz4_level as i32)),
        CompressionType::Zstd => (Compression::Zstd, Some(topic.compression_zstd_level)),
    };
    let codec = Codec::from(codec);
    Some(match level {
        Some(level) => codec.with_level(level),
        None => codec,
    })
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
