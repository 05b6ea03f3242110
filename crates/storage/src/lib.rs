//! The partition log on Kafka's on-disk format.
