//! Configuration in Kafka's names: a properties text becomes validated settings.
//!
//! [`Properties`] holds raw text, [`keys`] says which names exist and which of them this client
//! serves, and [`ClientConfig`], [`ProducerConfig`] and [`ConsumerConfig`] are the typed values
//! with Kafka's defaults. One file may serve every kind of client: a key that Kafka knows for
//! another kind is accepted and left alone, a key that nobody knows is an error that names the
//! nearest one.

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
