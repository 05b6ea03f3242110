//! The native Kafka client: connections, producer, consumer and administration.
//!
//! A producer, with the place of each record in the log:
//!
//! ```no_run
//! use fleuve_client::{Client, ClientConfig, Producer, ProducerConfig, Record, Result};
//!
//! #[tokio::main]
//! async fn main() -> Result<()> {
//!     let client = Client::connect(ClientConfig::new("localhost:9092")?).await?;
//!     let producer = Producer::new(client, ProducerConfig::default())?;
//!     let delivery = producer.send(Record::new("greetings").key("fr").value("bonjour")).await?;
//!     let written = delivery.await?;
//!     println!("{} at offset {:?}", written.partition, written.offset);
//!     producer.close().await
//! }
//! ```
//!
//! A consumer, which shares the topic's partitions with the others of its group:
//!
//! ```no_run
//! use std::time::Duration;
//! use fleuve_client::config::OffsetReset;
//! use fleuve_client::{Client, ClientConfig, Consumer, ConsumerConfig, Result};
//!
//! #[tokio::main]
//! async fn main() -> Result<()> {
//!     let client = Client::connect(ClientConfig::new("localhost:9092")?).await?;
//!     let config = ConsumerConfig {
//!         group_id: Some("readers".to_owned()),
//!         offset_reset: OffsetReset::Earliest,
//!         ..ConsumerConfig::default()
//!     };
//!     let consumer = Consumer::new(client, config)?;
//!     consumer.subscribe(&["greetings"])?;
//!     while let Some(record) = consumer.next(Duration::from_secs(10)).await? {
//!         println!("{}-{} {}: {:?}", record.topic, record.partition, record.offset, record.value);
//!     }
//!     // What was read is committed every few seconds, and now.
//!     consumer.close().await
//! }
//! ```
//!
//! Everything is asynchronous on tokio: clients have tasks of their own, which send heartbeats and
//! fetch ahead whatever the application does, so they are made inside a runtime.
//!
//! It all speaks the public Kafka protocol and nothing else, so it works against Fleuve, Apache
//! Kafka from 2.1 on and compatible services alike. The rooms, from the wire upwards:
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
