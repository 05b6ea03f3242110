//! Levels of loggers, shown and changed as resources of type BROKER_LOGGER.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use fleuve_broker::{Components, LevelChange, LogLevel, LogLevels, ROOT_LOGGER};
use fleuve_protocol::messages::describe_configs_request as describe;
use fleuve_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use fleuve_protocol::messages::incremental_alter_configs_request as alter;
use fleuve_protocol::{ErrorCode, Str};

use crate::support::{TestBroker, TestClient};

const BROKER_LOGGER: i8 = 8;
/// What operations on configs are called on the wire.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;

/// A log with two loggers.
#[derive(Debug, Default)]
struct Levels(Mutex<BTreeMap<String, LogLevel>>);

impl LogLevels for Levels {
    fn all(&self) -> Vec<(String, LogLevel)> {
        let set = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let level = |logger: &str| set.get(logger).copied().unwrap_or(LogLevel::Info);
        [ROOT_LOGGER, "requests"].map(|name| (name.to_owned(), level(name))).to_vec()
    }

    fn knows(&self, logger: &str) -> bool {
        [ROOT_LOGGER, "requests"].contains(&logger)
    }

    fn change(&self, changes: &[LevelChange]) -> Result<(), String> {
        let mut set = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (logger, level) in changes {
            match level {
                Some(level) => set.insert(logger.clone(), *level),
                None => set.remove(logger),
            };
        }
        Ok(())
    }
}

/// Asks for the levels; the error code, and the levels by logger.
async fn shown(client: &mut TestClient, node: &'static str) -> (i16, Vec<(String, String)>) {
    let request = describe::DescribeConfigsRequest {
        resources: vec![describe::DescribeConfigsResource {
            resource_type: BROKER_LOGGER,
            resource_name: Str::from(node),
            configuration_keys: None,
        }],
        ..Default::default()
    };
    let mut response = client.call(&request, 4).await;
    let result = response.results.remove(0);
    let row = |config: DescribeConfigsResourceResult| {
        assert_eq!((config.config_source, config.read_only), (6, false), "{config:?}");
        (config.name.to_string(), config.value.expect("a level").to_string())
    };
    (result.error_code, result.configs.into_iter().map(row).collect())
}

/// Does one thing to one logger, and returns the error code.
async fn change(
    client: &mut TestClient,
    logger: &'static str,
    config_operation: i8,
    value: Option<&'static str>,
    validate_only: bool,
) -> i16 {
    let request = alter::IncrementalAlterConfigsRequest {
        resources: vec![alter::AlterConfigsResource {
            resource_type: BROKER_LOGGER,
            resource_name: Str::from("1"),
            configs: vec![alter::AlterableConfig {
                name: Str::from(logger),
                config_operation,
                value: value.map(Str::from),
            }],
        }],
        validate_only,
    };
    client.call(&request, 1).await.responses[0].error_code
}

#[tokio::test(flavor = "multi_thread")]
async fn levels_are_shown_and_changed_while_the_broker_runs() {
    let log_levels: Option<Arc<dyn LogLevels>> = Some(Arc::<Levels>::default());
    let components = Components { log_levels, ..Components::default() };
    let broker = TestBroker::start_with(&[], components).await;
    let client = &mut broker.connect().await;
    let levels = |root: &str, requests: &str| {
        let row = |name: &str, level: &str| (name.to_owned(), level.to_owned());
        (0, vec![row("root", root), row("requests", requests)])
    };
    assert_eq!(shown(client, "1").await, levels("INFO", "INFO"));
    assert_eq!(change(client, "requests", SET, Some("DEBUG"), true).await, 0);
    assert_eq!(shown(client, "1").await, levels("INFO", "INFO"), "only checked");
    assert_eq!(change(client, "requests", SET, Some("DEBUG"), false).await, 0);
    assert_eq!(change(client, "root", SET, Some("FATAL"), false).await, 0);
    assert_eq!(shown(client, "1").await, levels("ERROR", "DEBUG"));
    assert_eq!(change(client, "requests", DELETE, None, false).await, 0);
    assert_eq!(shown(client, "1").await, levels("ERROR", "INFO"));

    let invalid = ErrorCode::InvalidRequest.code();
    let wrong = ErrorCode::InvalidConfig.code();
    for (logger, operation, value, code) in [
        ("requests", SET, Some("LOUD"), wrong),
        ("requests", SET, Some("debug"), wrong),
        ("requests", SET, None, invalid),
        ("requests", APPEND, Some("DEBUG"), invalid),
        ("elsewhere", SET, Some("DEBUG"), wrong),
        ("elsewhere", DELETE, None, wrong),
        ("root", DELETE, None, invalid),
    ] {
        let answer = change(client, logger, operation, value, false).await;
        assert_eq!(answer, code, "{logger} {operation} {value:?}");
    }
    assert_eq!(shown(client, "1").await, levels("ERROR", "INFO"), "nothing of it was done");
    assert_eq!(shown(client, "2").await, (invalid, Vec::new()));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_know_its_log_says_so() {
    let broker = TestBroker::start(&[]).await;
    let client = &mut broker.connect().await;
    assert_eq!(shown(client, "1").await, (0, Vec::new()));
    let code = ErrorCode::InvalidRequest.code();
    assert_eq!(change(client, "root", SET, Some("INFO"), false).await, code);
    broker.stop().await;
}
