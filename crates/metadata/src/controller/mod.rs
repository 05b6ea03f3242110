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

mod brokers;
mod configs;
mod machine;
mod name;
mod partitions;
mod placement;
mod topics;

#[cfg(test)]
mod tests;

pub use brokers::{ProducerIdBlock, Registration, RegistrationError};
pub use configs::{AlterConfigsError, ConfigOperation, ConfigReplacement, ConfigUpdate};
pub use machine::{Controller, Decision, DirectoryAssignment, SUPPORTED_FEATURES};
pub use name::InvalidName;
pub use partitions::{CreatePartitionsError, MorePartitions};
pub use placement::PlacementError;
pub use topics::{
    CreateTopicError, CreatedTopic, DeleteTopicError, DeletedTopic, NewTopic, ReplicaAssignment,
    TopicSelector,
};
