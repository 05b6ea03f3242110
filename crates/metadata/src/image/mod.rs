//! The cluster image: what the metadata log amounts to so far.
//!
//! An [`Image`] is a value. Cloning one costs a few reference counts, because its maps share
//! structure; whoever holds a clone sees the cluster as it was at that moment. Only
//! [`Image::apply`] makes a different one, the same way live and on replay.

mod acls;
mod apply;
mod cluster;
mod configs;
mod quotas;
mod scram;
mod snapshot;
mod tokens;
mod topics;

#[cfg(test)]
mod foreign_tests;
#[cfg(test)]
mod tests;

pub use acls::{Acl, AclOperation, AclPatternType, AclPermission, AclResourceType, Acls};
pub use apply::TRANSACTION_VERSION;
pub use apply::{ApplyError, Change, Image};
pub(crate) use apply::{ELIGIBLE_LEADERS, METADATA_VERSION, METADATA_VERSION_LEVEL};
pub use cluster::{Broker, Endpoint, FeatureRange};
pub use configs::{Configs, Resource, ResourceKind};
pub use quotas::{QuotaEntity, QuotaEntityType, QuotaMap, Quotas};
pub use scram::{ScramCredential, ScramCredentials, ScramMechanism};
pub use tokens::{DelegationToken, DelegationTokens};
pub(crate) use topics::merged_name;
pub use topics::{Partition, Topic, Topics, directory};
