//! Configuration: every key of Kafka 4.3, what we do with it, and typed values made from text.
//!
//! Three steps: [`load()`] reads the raw text, names all mistakes at once and returns
//! [`BrokerSettings`], which are then passed down and never change. Topics, groups and dynamic
//! broker values arrive later, through the metadata log; [`check_topic_overrides`] and its
//! neighbours judge them before they get there, and [`TopicSettings`] is what they amount to.
//!
//! Begin reading at `key`, then `keys`, then `load`. This room knows no files, sockets or clocks:
//! the text of the file and the name of the machine are arguments.

mod access;
mod alter;
mod client_match;
mod describe;
mod groups;
mod judge;
mod key;
pub mod keys;
mod layers;
mod listeners;
mod load;
mod problem;
mod properties;
mod protection;
mod reference;
mod references;
mod settings;
mod suggest;
mod topic;
mod value;

#[cfg(test)]
mod tests;

pub use access::{AccessSettings, STANDARD_AUTHORIZER, TokenKeys};
pub use alter::{AlterError, AlterOperation, Scope, apply_operation, check_overrides};
pub use client_match::{ClientMatch, ClientTrait, IllegalPattern};
pub use describe::{
    Description, Source, Synonym, describe_broker, describe_client_metrics,
    describe_cluster_defaults, describe_group, describe_new_topic, describe_topic,
};
pub use groups::{GroupOverrides, OffsetReset};
pub use judge::why_without_effect;
pub use key::{Key, Rule, Status, UpdateMode, ValueType};
pub use layers::{ConfigMap, Layers, Setting, StaticConfig};
pub use listeners::{AdvertisedListener, Listener, Listeners, Role, SecurityProtocol};
pub use load::{ConfigFile, Override, Sources, load};
pub use problem::{ConfigError, Origin, Problem, Problems};
pub use properties::{Property, SyntaxError, decode_text, parse as parse_properties};
pub use protection::{
    ClientCertificates, IssuerSettings, Pem, Protection, SaslSettings, Secret, StoreAccess,
    StoreKind, TlsSettings,
};
pub use reference::reference_markdown;
pub use references::Outside;
pub use settings::{
    BrokerSettings, CertificateChanges, ConsumerGroupSettings, FetchSettings, GroupSettings,
    HostPort, HttpAuthentication, LogSettings, MetadataLogSettings, MetricsSettings,
    NetworkSettings, NodeSettings, OffsetSettings, ProtocolSettings, QuotaSettings,
    ShareGroupSettings, StreamsGroupSettings, TopicRules, TransactionSettings,
};
pub use topic::{
    CleanupPolicy, CompressionType, TimestampType, TopicConfigError, TopicSettings,
    check_topic_overrides,
};
pub use value::{InvalidValue, Value};
