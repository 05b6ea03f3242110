//! The native Kafka client.
