//! Resources of type BROKER_LOGGER in requests about configs: the levels of log lines, by logger.
//!
//! They are no configs that last: what is set holds until the broker stops. Departs from Kafka in
//! that the loggers are this program's; two have the names of Kafka's (`kafka.request.logger` and
//! `kafka.authorizer.logger`).

use std::collections::BTreeSet;

use fleuve_metadata::config::AlterOperation;
use fleuve_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use fleuve_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use fleuve_protocol::{ErrorCode, Str};

use crate::log_levels::{LevelChange, LogLevel, LogLevels, ROOT_LOGGER};
use crate::request::Context;

/// Loggers of a broker, among the types of resources.
pub(super) const BROKER_LOGGER: i8 = 8;
/// Set on a logger, among the sources of values.
const SOURCE: i8 = 6;

type Refusal = (ErrorCode, String);

/// The loggers with their levels; none if this broker does not know who writes its lines.
pub(super) fn describe(context: &Context) -> Vec<DescribeConfigsResourceResult> {
    let levels = context.node.log_levels.as_ref().map_or(Vec::new(), |levels| levels.all());
    let row = |(logger, level): (String, LogLevel)| DescribeConfigsResourceResult {
        name: Str::from(logger),
        value: Some(Str::from(level.to_string())),
        config_source: SOURCE,
        ..Default::default()
    };
    levels.into_iter().map(row).collect()
}

/// Changes levels, unless they are only to be checked.
pub(super) fn alter(
    context: &Context,
    resource: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Refusal> {
    check_node(context.node.id, &resource.resource_name)?;
    let levels = context.node.log_levels.as_deref().ok_or_else(|| {
        let message = "the levels of this broker's log cannot be changed while it runs";
        (ErrorCode::InvalidRequest, message.to_owned())
    })?;
    let mut seen = BTreeSet::new();
    let mut changes = Vec::new();
    for config in &resource.configs {
        if !seen.insert(config.name.as_str()) {
            let message = format!("Error due to duplicate config keys: {}", config.name);
            return Err((ErrorCode::InvalidRequest, message));
        }
        changes.push(change(levels, config)?);
    }
    if validate_only {
        return Ok(());
    }
    levels.change(&changes).map_err(|message| (ErrorCode::InvalidRequest, message))?;
    for (logger, level) in &changes {
        let level = level.map_or_else(|| "as at the start".to_owned(), |level| level.to_string());
        tracing::info!(logger, level, "the level of a logger has changed");
    }
    Ok(())
}

fn check_node(own: i32, name: &str) -> Result<(), Refusal> {
    let message = match name.parse::<i32>() {
        Ok(id) if id == own => return Ok(()),
        Ok(id) => format!("Unexpected broker id, expected {own} but received {id}"),
        Err(_) => format!("Node id must be an integer, but it is: {name}"),
    };
    Err((ErrorCode::InvalidRequest, message))
}

/// Reads one operation.
fn change(levels: &dyn LogLevels, config: &AlterableConfig) -> Result<LevelChange, Refusal> {
    let logger = config.name.as_str();
    let invalid = |message: String| Err((ErrorCode::InvalidRequest, message));
    let operation = AlterOperation::from_wire_id(config.config_operation);
    let is_set = match operation {
        Some(AlterOperation::Set) => true,
        Some(AlterOperation::Delete) => false,
        Some(AlterOperation::Append | AlterOperation::Subtract) => {
            return invalid("levels are no lists: set them, or take them back".to_owned());
        }
        None => return invalid(format!("unknown operation {}", config.config_operation)),
    };
    if !levels.knows(logger) {
        let message = format!("Logger {logger} does not exist!");
        return Err((ErrorCode::InvalidConfig, message));
    }
    if !is_set {
        return match logger {
            ROOT_LOGGER => invalid(format!(
                "Removing the log level of the {ROOT_LOGGER} logger is not allowed"
            )),
            _ => Ok((logger.to_owned(), None)),
        };
    }
    let Some(text) = &config.value else {
        return invalid(format!("Null value not supported for: {logger}"));
    };
    match LogLevel::from_kafka_name(text) {
        Some(level) => Ok((logger.to_owned(), Some(level))),
        None => Err((
            ErrorCode::InvalidConfig,
            format!(
                "Cannot set the log level of {logger} to {text} as it is not a supported log level. \
                 Valid log levels are DEBUG, ERROR, FATAL, INFO, TRACE, WARN"
            ),
        )),
    }
}
