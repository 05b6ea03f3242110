//! The controller: what may happen to the cluster's metadata.
//!
//! Every `create_*`, `delete_*`, `alter_*` and `register_*` method reads the image and returns a
//! [`Decision`]: records to append, and one result for each thing asked. It changes nothing. The
//! driver appends the records as one batch, so that they count together or not at all, and passes
//! them to [`Controller::apply`] once they are durable; the reply leaves after that. Replay passes
//! the log through the same `apply`.
//!
//! Results speak of topics, partitions and configs; turning them into Kafka's error codes is the
//! handlers' business.

mod acls;
mod brokers;
mod configs;
mod features;
mod leaders;
mod machine;
mod name;
mod partitions;
mod placement;
mod quotas;
mod releases;
mod scram;
mod tokens;
mod topics;

#[cfg(test)]
mod admin_tests;
#[cfg(test)]
mod tests;

pub use acls::{AclError, AclFilter, NewAcl};
pub use brokers::{ProducerIdBlock, Registration, RegistrationError, UnregisterError};
pub use configs::{AlterConfigsError, ConfigOperation, ConfigReplacement, ConfigUpdate};
pub use features::{FeatureUpdate, QUORUM_FEATURE, UpdateFeatureError, UpgradeType};
pub use leaders::{ElectionError, ElectionType, Reassignment, ReassignmentError};
pub use machine::{Controller, Decision, DirectoryAssignment, SUPPORTED_FEATURES};
pub use name::InvalidName;
pub use partitions::{CreatePartitionsError, MorePartitions};
pub use placement::PlacementError;
pub use quotas::{AlterQuotaError, QuotaAlteration};
pub use releases::{
    LevelNeeds, default_levels, known_releases, level_needs, metadata_version_name,
    metadata_version_of,
};
pub use scram::{AlterScramError, NewScramCredential, ScramAlteration};
pub use tokens::{CreatedToken, NewToken, TokenError, TokenSettings, token_hmac};
pub use topics::{
    CreateTopicError, CreatedTopic, DeleteTopicError, DeletedTopic, METADATA_TOPIC, NewTopic,
    ReplicaAssignment, TopicSelector,
};
