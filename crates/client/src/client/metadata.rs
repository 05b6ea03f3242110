//! Keeps the metadata snapshot fresh.

use std::collections::HashMap;
use std::sync::Arc;

use fleuve_protocol::ErrorCode;
use fleuve_protocol::messages::describe_cluster_request::DescribeClusterRequest;
use fleuve_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use fleuve_protocol::messages::metadata_response::{MetadataResponse, MetadataResponseBroker};
use fleuve_types::Uuid;
use tokio::time::Instant;

use super::{Client, lock};
use crate::cluster::{Cluster, TopicInfo};
use crate::connection::Connection;
use crate::error::{Error, Result, check_said};
use crate::timing::Deadline;

/// Which topics a refresh asks for.
#[derive(Clone, Debug)]
pub(crate) enum Scope {
    /// None: brokers only.
    Brokers,
    /// All topics of the cluster.
    All,
    /// These, created by the broker if it is so configured and `create` is set.
    Topics { names: Vec<Arc<str>>, create: bool },
    /// Those with these ids.
    Ids(Vec<Uuid>),
}

impl Client {
    /// Asks for the brokers and for all topics.
    pub async fn refresh_all(&self) -> Result<Arc<Cluster>> {
        let mut retrying = self.retrying("Metadata");
        while let Err(error) = self.refresh_once(Scope::All).await {
            retrying.after(error).await?;
        }
        Ok(self.cluster())
    }

    /// Asks for the brokers.
    pub(crate) async fn refresh_brokers(&self) -> Result<Arc<Cluster>> {
        let mut retrying = self.retrying("Metadata");
        while let Err(error) = self.refresh_once(Scope::Brokers).await {
            retrying.after(error).await?;
        }
        Ok(self.cluster())
    }

    /// Asks for these topics; those with an error are left out of the snapshot.
    pub async fn refresh(&self, names: &[Arc<str>], create: bool) -> Result<Arc<Cluster>> {
        self.refresh_once(Scope::Topics { names: names.to_vec(), create }).await?;
        Ok(self.cluster())
    }

    /// Asks for the topics with these ids; those that do not exist are left out of the snapshot.
    pub async fn refresh_ids(&self, ids: &[Uuid]) -> Result<Arc<Cluster>> {
        self.refresh_once(Scope::Ids(ids.to_vec())).await?;
        Ok(self.cluster())
    }

    /// Returns a topic's metadata, waiting until it exists, up to `default.api.timeout.ms`.
    ///
    /// Partitions may be without a leader for a while; whoever needs one waits for that partition.
    /// `create` lets a broker with `auto.create.topics.enable` create it.
    pub async fn topic(&self, name: &str, create: bool) -> Result<Arc<TopicInfo>> {
        self.topic_within(name, create, Deadline::after(self.inner.config.api_timeout)).await
    }

    pub(crate) async fn topic_within(
        &self,
        name: &str,
        create: bool,
        deadline: Deadline,
    ) -> Result<Arc<TopicInfo>> {
        if let Some(topic) = self.fresh_topic(name) {
            return Ok(topic);
        }
        let mut backoff = self.retry_backoff();
        let name: Arc<str> = name.into();
        loop {
            let scope = Scope::Topics { names: vec![name.clone()], create };
            let error = match self.refresh_once(scope).await {
                Ok(errors) => match (self.fresh_topic(&name), errors.get(&*name)) {
                    (Some(topic), None) => return Ok(topic),
                    (_, code) => {
                        let code = code.copied().unwrap_or(ErrorCode::LeaderNotAvailable);
                        let error = Error::broker(format!("topic {name}"), code);
                        // Without creation, a topic that is not there is the caller's mistake.
                        if code == ErrorCode::UnknownTopicOrPartition && !create {
                            return Err(error);
                        }
                        error
                    }
                },
                Err(error) => error,
            };
            if !error.is_retriable() {
                return Err(error);
            }
            if deadline.is_over() {
                return Err(Error::Expired {
                    operation: format!("finding topic {name}"),
                    after: deadline.elapsed(),
                    last: error.to_string(),
                });
            }
            deadline.sleep(backoff.next_pause()).await;
        }
    }

    /// Returns the topic if its metadata is there, young enough and has partitions.
    fn fresh_topic(&self, name: &str) -> Option<Arc<TopicInfo>> {
        let cluster = self.cluster();
        let topic = cluster.topic(name)?;
        let fresh = topic.learned.elapsed() < self.inner.config.metadata_max_age;
        (fresh && !topic.partitions.is_empty()).then(|| topic.clone())
    }

    /// Asks once, and returns the errors of single topics.
    pub(crate) async fn refresh_once(&self, scope: Scope) -> Result<HashMap<String, ErrorCode>> {
        let asked = Instant::now();
        let _turn = self.inner.refreshing.lock().await;
        if let Scope::Topics { names, .. } = &scope {
            // Somebody else asked for the same while we waited for our turn.
            let cluster = self.cluster();
            let known =
                |name: &Arc<str>| cluster.topic(name).is_some_and(|topic| topic.learned > asked);
            if !names.is_empty() && names.iter().all(known) {
                return Ok(HashMap::new());
            }
        }
        let connection = self.any_connection().await?;
        let response = if self.inner.config.asks_controllers() && matches!(scope, Scope::Brokers) {
            controllers(&connection).await?
        } else {
            let version = connection.version_of::<MetadataRequest>(i16::MAX)?;
            connection.submit(&request(&scope, version), version)?.wait().await?
        };
        let (cluster, errors) = self.cluster().updated(&response, matches!(scope, Scope::All));
        for broker in cluster.brokers() {
            self.learn_address(broker.id, &broker.host, broker.port);
        }
        *lock(&self.inner.cluster) = Arc::new(cluster);
        Ok(errors)
    }
}

/// Asks a controller who the controllers are (KIP-919).
async fn controllers(connection: &Connection) -> Result<MetadataResponse> {
    let request = DescribeClusterRequest { endpoint_type: CONTROLLERS, ..Default::default() };
    let version = connection.version_of::<DescribeClusterRequest>(i16::MAX)?;
    if version < ENDPOINT_TYPE_FROM {
        return Err(Error::Unsupported {
            broker: connection.broker().to_owned(),
            operation: "asking for controllers",
        });
    }
    let response = connection.submit(&request, version)?.wait().await?;
    check_said(response.error_code, response.error_message.as_deref(), || {
        format!("controller {}", connection.broker())
    })?;
    let brokers = response.brokers.into_iter().map(|node| MetadataResponseBroker {
        node_id: node.broker_id,
        host: node.host,
        port: node.port,
        rack: node.rack,
    });
    Ok(MetadataResponse {
        brokers: brokers.collect(),
        cluster_id: Some(response.cluster_id),
        controller_id: response.controller_id,
        ..Default::default()
    })
}

/// The endpoint type of controllers in DescribeCluster.
pub(crate) const CONTROLLERS: i8 = 2;
/// The first version of DescribeCluster that has endpoint types.
const ENDPOINT_TYPE_FROM: i16 = 1;

fn request(scope: &Scope, version: i16) -> MetadataRequest {
    let topics = match scope {
        // Version 0 cannot ask for no topics; an empty list means all of them there.
        Scope::Brokers => Some(Vec::new()),
        Scope::All => (version < 1).then(Vec::new),
        Scope::Ids(ids) => {
            Some(ids.iter().map(|id| MetadataRequestTopic { topic_id: *id, name: None }).collect())
        }
        Scope::Topics { names, .. } => Some(
            names
                .iter()
                .map(|name| MetadataRequestTopic {
                    name: Some(name.to_string().into()),
                    ..MetadataRequestTopic::default()
                })
                .collect(),
        ),
    };
    // Before version 4 brokers create topics as they please, and the field must stay true.
    let create = version < 4 || matches!(scope, Scope::Topics { create: true, .. });
    MetadataRequest { topics, allow_auto_topic_creation: create, ..MetadataRequest::default() }
}
