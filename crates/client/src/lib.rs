//! The native Kafka client: connections, producer, consumer and administration.
//!
//! Everything here speaks the public Kafka protocol and nothing else, so it works against Fleuve,
//! Apache Kafka and compatible services alike. The rooms, from the wire upwards:
//!
//! - [`transport`] moves frames over TCP or TLS, or to a broker in the same process.
//! - [`connection`] pipelines requests over one transport link and negotiates versions.
//! - [`client`] knows the cluster: bootstrap, metadata, leader and coordinator routing, retries.
//! - [`producer`], [`consumer`], [`share`] and [`admin`] are what applications hold.
//! - [`serialization`] makes types of keys and values, [`interceptor`] looks at records on their way,
//!   [`metrics`] tells what clients count.
//! - [`config`] reads Kafka's configuration names; [`error`] says what to do about a failure.
//!
//! It knows nothing about brokers' insides, schemas or SQL.

pub mod error;
mod http;

pub mod config;

pub mod transport;

pub mod connection;

mod cluster;
mod timing;

#[cfg(test)]
mod faults;
#[cfg(test)]
mod scripted;

pub mod client;

pub mod admin;
pub mod consumer;
pub mod interceptor;
pub mod metrics;
pub mod producer;
pub mod serialization;
pub mod share;

pub use admin::Admin;
pub use client::Client;
pub use cluster::{BrokerInfo, Cluster, PartitionInfo, TopicInfo};
pub use config::{ClientConfig, ConsumerConfig, ProducerConfig, Properties};
pub use consumer::Consumer;
pub use error::{Advice, Error, Result};
pub use fleuve_protocol::ErrorCode;
pub use metrics::Metric;
pub use producer::{Producer, Record};
pub use share::ShareConsumer;

/// A boxed future, for traits that must stay object-safe.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
