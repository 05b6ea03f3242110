//! DescribeConfigs, versions 1–4: the configs of topics, brokers, groups and client metrics, and the
//! levels of loggers.

use fleuve_metadata::config::{
    Description, describe_broker, describe_client_metrics, describe_cluster_defaults,
    describe_group, describe_topic,
};
use fleuve_metadata::image::{AclOperation, Image, Resource, ResourceKind};
use fleuve_protocol::messages::describe_configs_request::{
    DescribeConfigsRequest, DescribeConfigsResource,
};
use fleuve_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResponse, DescribeConfigsResult,
    DescribeConfigsSynonym,
};
use fleuve_protocol::{ErrorCode, Str};
use fleuve_types::NodeId;

use super::broker_loggers::{self, BROKER_LOGGER};
use super::permission;
use crate::metadata_log::is_valid_topic_name;
use crate::request::{Context, Outcome};

/// The setting that says where the HTTP door is.
const HTTP_DOOR: &str = "fleuve.metrics.listen";
/// What a response says of the type of a key that is not known.
const UNKNOWN_TYPE: i8 = 0;

pub(crate) fn handle(
    context: &Context,
    request: DescribeConfigsRequest,
) -> Outcome<DescribeConfigsResponse> {
    let image = context.node.image();
    let DescribeConfigsRequest { resources, include_synonyms, include_documentation } = request;
    let results = resources.into_iter().map(|resource| {
        let described = match resource.resource_type {
            BROKER_LOGGER => describe_loggers(context, &resource),
            _ => describe(context, &image, &resource).map(|descriptions| {
                let rows = descriptions.into_iter();
                rows.map(|it| row(it, include_synonyms, include_documentation)).collect()
            }),
        };
        let mut result = DescribeConfigsResult {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
            ..Default::default()
        };
        match described {
            Ok(mut rows) => {
                if let Some(keys) = resource.configuration_keys.filter(|keys| !keys.is_empty()) {
                    rows.retain(|row| keys.contains(&row.name));
                }
                result.configs = rows;
            }
            Err((code, message)) => {
                result.error_code = code.code();
                result.error_message = Some(Str::from(message));
            }
        }
        result
    });
    Outcome::Now(DescribeConfigsResponse { results: results.collect(), ..Default::default() })
}

fn describe(
    context: &Context,
    image: &Image,
    resource: &DescribeConfigsResource,
) -> Result<Vec<Description>, (ErrorCode, String)> {
    let kind = ResourceKind::from_wire_id(resource.resource_type);
    permission::configs(context, AclOperation::DescribeConfigs, kind, &resource.resource_name)
        .map_err(|code| (code, code.message().to_owned()))?;
    let settings = context.node.settings();
    let node_configs = image.broker_configs(NodeId(context.node.id));
    let cluster_configs = image.cluster_configs();
    let layers = settings.layers(&node_configs, &cluster_configs);
    let name = resource.resource_name.as_str();
    let Some(kind) = kind else {
        let message = format!("resource type {} is unknown", resource.resource_type);
        return Err((ErrorCode::InvalidRequest, message));
    };
    let of_resource = || image.configs().of(&Resource::new(kind, name));
    match kind {
        ResourceKind::Topic if !is_valid_topic_name(name) => {
            Err((ErrorCode::InvalidTopicException, format!("`{name}` is no name for a topic")))
        }
        ResourceKind::Topic if image.topics().by_name(name).is_none() => {
            Err((ErrorCode::UnknownTopicOrPartition, format!("topic `{name}` does not exist")))
        }
        ResourceKind::Topic => Ok(describe_topic(&of_resource(), &layers)),
        ResourceKind::Broker if name.is_empty() => Ok(describe_cluster_defaults(&cluster_configs)),
        ResourceKind::Broker => {
            check_broker(context, name)?;
            let mut rows = describe_broker(&layers);
            show_door(context, &mut rows);
            Ok(rows)
        }
        ResourceKind::ClientMetrics if name.is_empty() => {
            let message = "a client metrics subscription has a name".to_owned();
            Err((ErrorCode::InvalidRequest, message))
        }
        ResourceKind::ClientMetrics => Ok(describe_client_metrics(&of_resource())),
        ResourceKind::Group if name.is_empty() => {
            Err((ErrorCode::InvalidRequest, "a group has a name".to_owned()))
        }
        ResourceKind::Group => Ok(describe_group(&of_resource(), &layers)),
    }
}

/// Shows where the HTTP door is, not where it was to be: at a port of the system's choice, or nowhere
/// because the usual one was taken.
fn show_door(context: &Context, rows: &mut [Description]) {
    let Some(door) = context.node.http_door.get() else { return };
    let Some(row) = rows.iter_mut().find(|row| row.name == HTTP_DOOR) else { return };
    let written = row.value.take().unwrap_or_default();
    row.value = Some(match door {
        None => String::new(),
        Some(address) => match written.strip_suffix(":0") {
            Some(host) => format!("{host}:{}", address.port()),
            None => written,
        },
    });
}

fn describe_loggers(
    context: &Context,
    resource: &DescribeConfigsResource,
) -> Result<Vec<DescribeConfigsResourceResult>, (ErrorCode, String)> {
    permission::cluster(context, AclOperation::DescribeConfigs)
        .map_err(|code| (code, code.message().to_owned()))?;
    check_broker(context, &resource.resource_name)?;
    Ok(broker_loggers::describe(context))
}

fn check_broker(context: &Context, name: &str) -> Result<(), (ErrorCode, String)> {
    let own = context.node.id;
    if name.parse() == Ok(own) {
        return Ok(());
    }
    Err((ErrorCode::InvalidRequest, format!("expected broker {own}, not `{name}`")))
}

/// Puts one key into a response.
pub(super) fn row(
    description: Description,
    include_synonyms: bool,
    include_documentation: bool,
) -> DescribeConfigsResourceResult {
    let synonyms = description.synonyms.into_iter().map(|synonym| DescribeConfigsSynonym {
        name: Str::from(synonym.name),
        value: synonym.value.map(Str::from),
        source: synonym.source.wire_id(),
    });
    DescribeConfigsResourceResult {
        name: Str::from(description.name),
        value: description.value.map(Str::from),
        read_only: description.is_read_only,
        config_source: description.source.wire_id(),
        is_sensitive: description.is_sensitive,
        synonyms: if include_synonyms { synonyms.collect() } else { Vec::new() },
        config_type: description.value_type.map_or(UNKNOWN_TYPE, |kind| kind.wire_id()),
        documentation: description.documentation.filter(|_| include_documentation).map(Str::from),
    }
}
