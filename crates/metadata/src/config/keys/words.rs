//! Words that several keys share.

/// Values of `compression.type`.
pub(super) const CODECS: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];
/// Values of `cleanup.policy`.
pub(super) const POLICIES: &[&str] = &["compact", "delete"];
/// Values of `message.timestamp.type`.
pub(super) const TIMESTAMPS: &[&str] = &["CreateTime", "LogAppendTime"];
