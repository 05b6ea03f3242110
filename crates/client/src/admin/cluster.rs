//! The cluster: its brokers and what they offer.

use fleuve_protocol::messages::describe_cluster_request::DescribeClusterRequest;

use super::Admin;
use crate::client::{CONTROLLERS, Lane};
use crate::error::{Result, check_said};

/// A cluster with its brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDescription {
    /// The cluster's id.
    pub id: String,
    /// The controller, or the broker that stands in for it.
    pub controller: Option<i32>,
    /// The brokers by id, or the controllers if it is those who are asked.
    pub brokers: Vec<DescribedBroker>,
}

/// A broker of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedBroker {
    /// `node.id`.
    pub id: i32,
    /// The advertised host.
    pub host: String,
    /// The advertised port.
    pub port: i32,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// Whether the controller keeps it from leading.
    pub is_fenced: bool,
}

/// What one broker offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerVersions {
    /// `node.id`.
    pub id: i32,
    /// Its address.
    pub address: String,
    /// API number, lowest and highest version.
    pub apis: Vec<(i16, i16, i16)>,
    /// Finalized features with their levels.
    pub features: Vec<(String, i16)>,
}

impl Admin {
    /// Describes the cluster.
    pub async fn describe_cluster(&self) -> Result<ClusterDescription> {
        let endpoint_type = match self.client.config().asks_controllers() {
            true => CONTROLLERS,
            false => DescribeClusterRequest::default().endpoint_type,
        };
        let build = |_| DescribeClusterRequest { endpoint_type, ..Default::default() };
        let response = self
            .client
            .call_any::<DescribeClusterRequest>(build, |response| {
                let code = response.error_code;
                if crate::error::code_of(code).is_retriable() { code } else { 0 }
            })
            .await?;
        let words = response.error_message.as_deref();
        check_said(response.error_code, words, || "the cluster".to_owned())?;
        let mut brokers: Vec<_> = response
            .brokers
            .into_iter()
            .map(|broker| DescribedBroker {
                id: broker.broker_id,
                host: broker.host.to_string(),
                port: broker.port,
                rack: broker.rack.map(|rack| rack.to_string()),
                is_fenced: broker.is_fenced,
            })
            .collect();
        brokers.sort_unstable_by_key(|broker| broker.id);
        Ok(ClusterDescription {
            id: response.cluster_id.to_string(),
            controller: (response.controller_id >= 0).then_some(response.controller_id),
            brokers,
        })
    }

    /// Asks every broker what it offers.
    pub async fn broker_versions(&self) -> Result<Vec<BrokerVersions>> {
        self.client.refresh_brokers().await?;
        let mut versions = Vec::new();
        for broker in self.client.cluster().brokers() {
            let connection = self.client.connection_in_time(broker.id, Lane::General).await?;
            versions.push(BrokerVersions {
                id: broker.id,
                address: connection.broker().to_owned(),
                apis: connection.versions().ranges(),
                features: connection.versions().finalized_features().to_vec(),
            });
        }
        Ok(versions)
    }
}
