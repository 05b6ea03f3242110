//! The broker: listeners, requests, partitions, and the driving of the machines below.
//!
//! A frame is cut in [`connection`], finds its handler through [`dispatch`], and is answered in
//! [`handlers`], which ask `partition`, `groups` and `metadata_log`. Those drive the machines of
//! `fleuve-storage`, `fleuve-coordinator` and `fleuve-metadata`, which know neither sockets nor
//! tasks. What waits hangs in `purgatory`.
//!
//! ```no_run
//! # async fn run() -> Result<(), fleuve_broker::StartError> {
//! use fleuve_broker::{Broker, BrokerSettings, Components};
//!
//! let broker = Broker::start(BrokerSettings::default(), Components::default()).await?;
//! println!("listening on {}", broker.listeners()[0].address);
//! broker.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod access;
mod authentication;
mod background;
mod broker;
mod compaction;
mod connection;
mod dispatch;
mod fetch_session;
mod group_settings;
mod group_topics;
mod groups;
mod handlers;
mod http_door;
mod issuer;
mod lags;
mod listening;
mod log_config;
mod log_levels;
mod logs;
mod markers;
mod metadata_log;
mod metadata_store;
mod metrics;
mod moving;
mod node;
mod partition;
mod probe;
mod producer_ids;
mod purgatory;
mod quotas;
mod replay;
mod request;
mod request_log;
mod share;
mod startup;
mod streams_topics;
mod telemetry;
mod topics;
mod transaction_settings;
mod transactions;
mod verification;

pub use broker::{BoundListener, Broker, Components, StartError};
pub use connection::InProcessConnection;
pub use fleuve_coordinator::consumer::check_pattern;
pub use fleuve_metadata::config::BrokerSettings;
pub use log_levels::{LevelChange, LogLevel, LogLevels, ROOT_LOGGER};
pub use logs::LogsError;
pub use metadata_log::MetadataReplayError;
pub use metadata_store::MetadataStoreError;
