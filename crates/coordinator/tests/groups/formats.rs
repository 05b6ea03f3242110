//! Records in bytes, as Kafka 4.3 lays them out.
