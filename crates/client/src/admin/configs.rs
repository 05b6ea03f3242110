//! Configurations of topics, brokers and groups.

use fleuve_protocol::messages::describe_configs_request::{
    DescribeConfigsRequest, DescribeConfigsResource,
};
use fleuve_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};

use super::Admin;
use crate::error::{Error, Result, check_said};

/// What a configuration belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// A topic.
    Topic(String),
    /// A broker by id; empty for the defaults of all brokers.
    Broker(String),
    /// The log levels of a broker by id.
    BrokerLogger(String),
    /// A consumer group.
    Group(String),
    /// A subscription to client metrics.
    ClientMetrics(String),
}

impl Resource {
    fn code(&self) -> i8 {
        match self {
            Self::Topic(_) => 2,
            Self::Broker(_) => 4,
            Self::BrokerLogger(_) => 8,
            Self::ClientMetrics(_) => 16,
            Self::Group(_) => 32,
        }
    }

    pub(super) fn of(code: i8, name: String) -> Option<Self> {
        Some(match code {
            2 => Self::Topic(name),
            4 => Self::Broker(name),
            8 => Self::BrokerLogger(name),
            16 => Self::ClientMetrics(name),
            32 => Self::Group(name),
            _ => return None,
        })
    }

    /// Returns the kind of thing, as Kafka's tools call it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Topic(_) => "topic",
            Self::Broker(_) => "broker",
            Self::BrokerLogger(_) => "broker-logger",
            Self::ClientMetrics(_) => "client-metrics",
            Self::Group(_) => "group",
        }
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Topic(name)
            | Self::Broker(name)
            | Self::BrokerLogger(name)
            | Self::Group(name)
            | Self::ClientMetrics(name) => name,
        }
    }

    /// Returns the broker that must answer, for what only that broker knows.
    fn broker(&self) -> Result<Option<i32>> {
        match self {
            Self::Broker(name) if name.is_empty() => Ok(None),
            Self::Broker(name) | Self::BrokerLogger(name) => name.parse().map(Some).map_err(|_| {
                Error::config(format!("broker {name}: expected a number, the broker's id"))
            }),
            _ => Ok(None),
        }
    }
}

/// One configuration of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// The key.
    pub name: String,
    /// The value; sensitive ones are not told.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// Whether it cannot be changed while the broker runs.
    pub read_only: bool,
    /// Whether the value is secret.
    pub is_sensitive: bool,
    /// What would apply without it: key, value and source, most specific first.
    pub synonyms: Vec<(String, Option<String>, ConfigSource)>,
    /// What the key means, if asked for.
    pub documentation: Option<String>,
}

/// Where a configured value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// It was set on the topic.
    Topic,
    /// It was set on the broker while it ran.
    DynamicBroker,
    /// It was set for all brokers while they ran.
    DynamicDefaultBroker,
    /// It stands in the broker's file.
    StaticBroker,
    /// It is the default.
    Default,
    /// It is a log level.
    BrokerLogger,
    /// It was set on the client metrics subscription.
    ClientMetrics,
    /// It was set on the group.
    Group,
    /// The broker did not say, or something newer than we know.
    Unknown,
}

impl ConfigSource {
    fn of(code: i8) -> Self {
        match code {
            1 => Self::Topic,
            2 => Self::DynamicBroker,
            3 => Self::DynamicDefaultBroker,
            4 => Self::StaticBroker,
            5 => Self::Default,
            6 => Self::BrokerLogger,
            7 => Self::ClientMetrics,
            8 => Self::Group,
            _ => Self::Unknown,
        }
    }

    /// Returns Kafka's name of the source.
    pub fn name(self) -> &'static str {
        match self {
            Self::Topic => "DYNAMIC_TOPIC_CONFIG",
            Self::DynamicBroker => "DYNAMIC_BROKER_CONFIG",
            Self::DynamicDefaultBroker => "DYNAMIC_DEFAULT_BROKER_CONFIG",
            Self::StaticBroker => "STATIC_BROKER_CONFIG",
            Self::Default => "DEFAULT_CONFIG",
            Self::BrokerLogger => "DYNAMIC_BROKER_LOGGER_CONFIG",
            Self::ClientMetrics => "DYNAMIC_CLIENT_METRICS_CONFIG",
            Self::Group => "DYNAMIC_GROUP_CONFIG",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// A change of one configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alteration {
    /// Sets the value.
    Set(String, String),
    /// Goes back to the default.
    Delete(String),
    /// Adds to a list.
    Append(String, String),
    /// Takes out of a list.
    Subtract(String, String),
}

impl Admin {
    /// Describes configurations; all keys of each resource.
    pub async fn describe_configs(
        &self,
        resource: &Resource,
        with_documentation: bool,
    ) -> Result<Vec<ConfigEntry>> {
        let build = |version| DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type: resource.code(),
                resource_name: resource.name().to_owned().into(),
                configuration_keys: None,
            }],
            include_synonyms: true,
            include_documentation: with_documentation && version >= 3,
        };
        let response = match resource.broker()? {
            Some(id) => {
                self.client.refresh_brokers().await?;
                self.client.call_broker::<DescribeConfigsRequest>(id, build, |_| 0).await?
            }
            None => self.client.call_any::<DescribeConfigsRequest>(build, |_| 0).await?,
        };
        let mut entries = Vec::new();
        if response.results.is_empty() {
            return Err(Error::unanswered(subject(resource)));
        }
        for result in response.results {
            check_said(result.error_code, result.error_message.as_deref(), || subject(resource))?;
            entries.extend(result.configs.into_iter().map(|entry| {
                ConfigEntry {
                    name: entry.name.to_string(),
                    value: entry.value.map(|value| value.to_string()),
                    source: ConfigSource::of(entry.config_source),
                    read_only: entry.read_only,
                    is_sensitive: entry.is_sensitive,
                    synonyms: entry
                        .synonyms
                        .into_iter()
                        .map(|synonym| {
                            let value = synonym.value.map(|value| value.to_string());
                            (synonym.name.to_string(), value, ConfigSource::of(synonym.source))
                        })
                        .collect(),
                    documentation: entry.documentation.map(|text| text.to_string()),
                }
            }));
        }
        Ok(entries)
    }

    /// Changes some configurations of a resource and leaves the others.
    pub async fn alter_configs(
        &self,
        resource: &Resource,
        alterations: &[Alteration],
        validate_only: bool,
    ) -> Result<()> {
        let build = |_| IncrementalAlterConfigsRequest {
            resources: vec![AlterConfigsResource {
                resource_type: resource.code(),
                resource_name: resource.name().to_owned().into(),
                configs: alterations.iter().map(alterable).collect(),
            }],
            validate_only,
        };
        let response = match resource.broker()? {
            Some(id) => {
                self.client.refresh_brokers().await?;
                self.client.call_broker::<IncrementalAlterConfigsRequest>(id, build, |_| 0).await?
            }
            None => self.client.call_any::<IncrementalAlterConfigsRequest>(build, |_| 0).await?,
        };
        if response.responses.is_empty() {
            return Err(Error::unanswered(subject(resource)));
        }
        for result in response.responses {
            check_said(result.error_code, result.error_message.as_deref(), || subject(resource))?;
        }
        Ok(())
    }
}

fn alterable(alteration: &Alteration) -> AlterableConfig {
    let (name, config_operation, value) = match alteration {
        Alteration::Set(name, value) => (name, 0, Some(value)),
        Alteration::Delete(name) => (name, 1, None),
        Alteration::Append(name, value) => (name, 2, Some(value)),
        Alteration::Subtract(name, value) => (name, 3, Some(value)),
    };
    AlterableConfig {
        name: name.clone().into(),
        config_operation,
        value: value.map(|value| value.clone().into()),
    }
}

fn subject(resource: &Resource) -> String {
    format!("{} {}", resource.kind(), resource.name())
}
