//! Configuration in Kafka's names: a properties text becomes validated settings.
//!
//! [`Properties`] holds raw text, [`keys`] says which names exist and which of them this client
//! serves, and [`ClientConfig`], [`ProducerConfig`] and [`ConsumerConfig`] are the typed values
//! with Kafka's defaults. One file may serve every kind of client: a key that Kafka knows for
//! another kind is accepted and left alone, a key that nobody knows is an error that names the
//! nearest one.
//!
//! ```
//! use std::time::Duration;
//! use fleuve_client::{ConsumerConfig, ProducerConfig, Properties};
//!
//! let properties = Properties::parse("linger.ms=20\ncompression.type=zstd\ngroup.id=readers")?;
//! let producer = ProducerConfig {
//!     // Typed, where a program knows better.
//!     delivery_timeout: Duration::from_secs(30),
//!     ..ProducerConfig::from_properties(&properties)?
//! };
//! assert_eq!(producer.linger, Duration::from_millis(20));
//! let consumer = ConsumerConfig::from_properties(&properties)?;
//! assert_eq!(consumer.group_id.as_deref(), Some("readers"));
//!
//! let error = Properties::parse("lingerms=20").expect_err("nobody knows it");
//! assert!(error.to_string().contains("linger.ms"), "{error}");
//! # Ok::<(), fleuve_client::Error>(())
//! ```

mod consumer;
mod keys;
mod producer;
mod properties;
mod security;
mod settings;
mod share;

pub use consumer::{ConsumerConfig, GroupProtocol, IsolationLevel, OffsetReset};
pub use keys::{Key, Served, find_key, keys};
pub use producer::{Acks, ProducerConfig};
pub use properties::Properties;
pub use security::{
    OAuthConfig, SaslConfig, ScramCredentials, Secret, Security, TlsConfig, TlsIdentity,
    TokenProvider, TokenSource,
};
pub use settings::ClientConfig;
pub(crate) use settings::split_address;
pub use share::{AcknowledgementMode, AcquireMode, ShareConsumerConfig};
