//! What has configurations.

use fleuve_protocol::messages::list_config_resources_request::ListConfigResourcesRequest;

use super::{Admin, Resource};
use crate::error::{Result, check};

impl Admin {
    /// Lists the client metrics subscriptions by name.
    ///
    /// It is the one question that brokers before Kafka 4.1 understand too.
    pub async fn list_client_metrics(&self) -> Result<Vec<String>> {
        const CLIENT_METRICS: i8 = 16;
        let found = self.list_resources(vec![CLIENT_METRICS]).await?;
        Ok(found.into_iter().map(|resource| resource.name().to_owned()).collect())
    }

    /// Lists the groups that have configurations by name; Kafka 4.1 and later.
    pub async fn list_configured_groups(&self) -> Result<Vec<String>> {
        const GROUP: i8 = 32;
        let found = self.list_resources(vec![GROUP]).await?;
        Ok(found.into_iter().map(|resource| resource.name().to_owned()).collect())
    }

    /// Lists everything of these kinds that has configurations, named as in [`Resource::kind`];
    /// nothing means every kind. Kafka 4.1 and later.
    pub async fn list_config_resources(&self, kinds: &[&str]) -> Result<Vec<Resource>> {
        let known = [2, 4, 8, 16, 32].into_iter();
        let codes = known.filter(|&code| {
            let kind = Resource::of(code, String::new());
            kind.is_some_and(|resource| kinds.contains(&resource.kind()))
        });
        self.list_resources(codes.collect()).await
    }

    async fn list_resources(&self, kinds: Vec<i8>) -> Result<Vec<Resource>> {
        let build = |version| ListConfigResourcesRequest {
            resource_types: if version > 0 { kinds.clone() } else { Vec::new() },
        };
        let response = self
            .client
            .call_any::<ListConfigResourcesRequest>(build, |response| response.error_code)
            .await?;
        check(response.error_code, || "the resources".to_owned())?;
        let resources = response.config_resources.into_iter().filter_map(|resource| {
            Resource::of(resource.resource_type, resource.resource_name.to_string())
        });
        Ok(resources.collect())
    }
}
