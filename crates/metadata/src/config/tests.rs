//! Golden scripts of `testscripts/config`: a configuration, and what its author is told.
//!
//! ```text
//! # what the script shows
//! > FLAG KEY=VALUE        flags, none or several
//! lines of server.properties
//! ---
//! error: ... / warning: ... / the settings asked for by `? name` lines above
//! ```
//!
//! `UPDATE_GOLDEN=1 cargo test -p fleuve-metadata` rewrites what is expected; read the diff.

use std::fs;
use std::path::Path;

use super::*;

#[test]
fn golden_scripts_of_configurations() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testscripts/config");
    let mut scripts: Vec<_> = fs::read_dir(&folder)
        .expect("the scripts are part of the crate")
        .map(|entry| entry.expect("readable").path())
        .collect();
    scripts.sort();
    assert!(scripts.len() >= 10, "scripts are missing in {}", folder.display());
    for script in scripts {
        let text = fs::read_to_string(&script).expect("readable");
        let (input, expected) = text.split_once("\n---\n").unwrap_or((&text, ""));
        let actual = run(input);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&script, format!("{input}\n---\n{actual}")).expect("writable");
        } else {
            assert_eq!(actual, expected, "{}", script.display());
        }
    }
}

fn run(input: &str) -> String {
    let mut overrides = Vec::new();
    let mut questions = Vec::new();
    // Flags and questions leave empty lines behind, so that line numbers stay those of the script.
    let content: String = input
        .lines()
        .map(|line| {
            if let Some(flag) = line.strip_prefix("> ") {
                let (flag, pair) = flag.split_once(' ').expect("`> FLAG KEY=VALUE`");
                let (key, value) = pair.split_once('=').expect("`> FLAG KEY=VALUE`");
                let [key, value, flag] = [key, value, flag].map(str::to_owned);
                overrides.push(Override { key, value, flag });
                "\n".to_owned()
            } else if let Some(question) = line.strip_prefix("? ") {
                questions.push(question.to_owned());
                "\n".to_owned()
            } else {
                format!("{line}\n")
            }
        })
        .collect();
    let file = ConfigFile { name: "server.properties", content: content.as_bytes() };
    let sources = Sources {
        file: Some(file),
        overrides: &overrides,
        host_name: "machine.example",
        outside: None,
    };
    let mut output = String::new();
    let (errors, warnings, settings) = match load(sources) {
        Ok((settings, warnings)) => (Vec::new(), warnings, Some(settings)),
        Err(error) => (error.problems.errors, error.problems.warnings, None),
    };
    for error in errors {
        output += &format!("error: {error}\n");
    }
    for warning in warnings {
        output += &format!("warning: {warning}\n");
    }
    for question in questions {
        if let Some(settings) = &settings {
            output += &format!("{question} = {}\n", answer(settings, &question));
        }
    }
    output
}

fn answer(settings: &BrokerSettings, question: &str) -> String {
    let listeners = &settings.network.listeners;
    let address = |it: &Listener| format!("{}:{} {}:{}", it.name, it.protocol, it.host, it.port);
    match question {
        "node" => format!("{:?}", settings.node),
        "open" => {
            format!("{:?}", listeners.open.iter().map(address).collect::<Vec<_>>())
        }
        "protection" => {
            let protections = listeners.open.iter().map(|listener| &listener.protection);
            format!("{:#?}", protections.collect::<Vec<_>>())
        }
        "controller" => {
            format!("{:?}", listeners.controller.iter().map(address).collect::<Vec<_>>())
        }
        "advertised" => format!("{:?}", listeners.advertised),
        "inter broker" => listeners.inter_broker.clone(),
        "dirs" => format!("{:?}", settings.log.dirs),
        "flush before ack" => settings.log.flush_before_ack.to_string(),
        "metrics" => format!("{:?}", settings.metrics),
        "per ip" => format!("{:?}", settings.network.connections_per_ip_overrides),
        "idle" => format!("{:?}", settings.network.idle_max_ms),
        "buffers" => format!(
            "{:?} {:?}",
            settings.network.send_buffer_bytes, settings.network.receive_buffer_bytes
        ),
        "retention" => format!("{:?}", settings.log.topic_defaults.retention_ms),
        "offsets replicas" => settings.offsets.topic_replication_factor.to_string(),
        "groups" => format!("{:?}", settings.groups),
        other => panic!("no such question: {other}"),
    }
}

#[test]
fn defaults_are_those_of_a_configuration_without_a_line() {
    let (settings, warnings) = load(Sources::default()).expect("nothing can be wrong");
    assert_eq!(warnings, []);
    assert_eq!(settings, BrokerSettings::default());
    assert!(settings.log.flush_before_ack);
    assert_eq!(settings.network.request_bytes_max, 104_857_600);
    assert_eq!(settings.groups.session_timeout_min_ms, 6_000);
    assert_eq!(settings.offsets.topic_partitions, 50);
    assert_eq!(settings.offsets.retention_ms, 7 * 24 * 3_600_000);
    assert_eq!(settings.log.flush_scheduler_interval_ms, None);
    assert_eq!(settings.topics.default_partitions, 1);
}

#[test]
fn dynamic_configs_make_new_settings_and_leave_listeners_alone() {
    let settings = BrokerSettings::default();
    let cluster = ConfigMap::from([("log.retention.ms".into(), "1000".into())]);
    let node = ConfigMap::from([
        ("max.connections".into(), "7".into()),
        ("listeners".into(), "PLAINTEXT://elsewhere:1".into()),
    ]);
    let next = settings.with_dynamic(&node, &cluster).expect("valid");
    assert_eq!(next.network.connections_max, 7);
    assert_eq!(next.log.topic_defaults.retention_ms, Some(1000));
    assert_eq!(next.network.listeners, settings.network.listeners);
    assert_eq!(next.with_dynamic(&ConfigMap::new(), &ConfigMap::new()), Ok(settings));
}
