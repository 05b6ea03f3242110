//! Administration: one typed call per administrative request, with a result per item.
//!
//! Calls retry what may pass within `default.api.timeout.ms`. Any broker takes a request for the
//! controller and forwards it; requests about groups go to their coordinators, requests about
//! partitions to their leaders.
//!
//! Where a call concerns several items, each has its own result, and the call itself fails only
//! when nobody could be asked. Errors name the item; [`crate::Advice::Retry`] says that it may pass,
//! as `LEADER_NOT_AVAILABLE`, [`crate::Advice::Fix`] that the request is wrong or not allowed. A call
//! that the broker's version does not have is [`crate::Error::Unsupported`]. Times are milliseconds
//! since 1970.

pub mod acls;
mod cluster;
mod configs;
mod features;
mod groups;
mod leaders;
mod log_dirs;
mod partitions;
mod quorum;
mod quotas;
mod rebalances;
mod removals;
mod resources;
mod scram;
mod shares;
mod streams_groups;
mod tokens;
mod topics;
mod transactions;

use crate::client::Client;

pub use acls::{Acl, AclFilter};
pub use cluster::{BrokerVersions, ClusterDescription, DescribedBroker};
pub use configs::{Alteration, ConfigEntry, ConfigSource, Resource};
pub use features::{Feature, UpgradeType};
pub use groups::{GroupDescription, GroupListing, GroupMember};
pub use leaders::{ElectionType, OngoingReassignment, PartitionResults};
pub use log_dirs::{LogDir, LogDirReplica};
pub use quorum::{QuorumDescription, QuorumReplica};
pub use quotas::{EntityQuotas, QuotaEntity, QuotaFilter};
pub use rebalances::Rebalance;
pub use removals::Removal;
pub use scram::{ScramMechanism, ScramUser, salted_password};
pub use shares::ShareOffset;
pub use streams_groups::{
    StreamsGroupDescription, StreamsGroupMember, StreamsSubtopology, StreamsTasks,
};
pub use tokens::{DelegationToken, Principal};
pub use topics::{DescribedPartition, MorePartitions, NewTopic, TopicDescription};
pub use transactions::{
    AbortedProducer, ActiveProducer, TransactionDescription, TransactionFilter, TransactionListing,
};

/// An administrator's view of a cluster; clones share the client.
///
/// ```no_run
/// # async fn example() -> fleuve_client::Result<()> {
/// use fleuve_client::admin::{Alteration, NewTopic, Resource};
/// use fleuve_client::{Admin, Client, ClientConfig, ErrorCode};
///
/// let admin = Admin::new(Client::connect(ClientConfig::new("localhost:9092")?).await?);
/// let greetings = NewTopic::new("greetings").partitions(3).config("retention.ms", "86400000");
/// for (name, result) in admin.create_topics(&[greetings], false).await? {
///     match result {
///         Ok(id) => println!("{name} is {id}"),
///         Err(error) if error.code() == Some(ErrorCode::TopicAlreadyExists) => {}
///         Err(error) => return Err(error),
///     }
/// }
///
/// let topic = Resource::Topic("greetings".to_owned());
/// let week = Alteration::Set("retention.ms".to_owned(), "604800000".to_owned());
/// admin.alter_configs(&topic, &[week], false).await?;
///
/// for group in admin.list_groups().await? {
///     println!("{group:?}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Admin {
    client: Client,
}

impl Admin {
    /// Makes an administrator on `client`.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Returns the client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Returns how long brokers may take for a request, as they are told.
    fn timeout_ms(&self) -> i32 {
        self.client.config().request_timeout.as_millis() as i32
    }
}
