//! `fleuve cluster`: the brokers.

use clap::Subcommand;
use serde_json::json;

use crate::args::{Common, Format};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{line, print, print_table, print_value};

/// Describe the cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// Show the brokers.
    #[command(after_help = "Example:\n  fleuve cluster describe -o yaml")]
    Describe,
    /// Print the cluster's id.
    Id,
    /// Show which requests each broker takes, in which versions.
    Versions,
}

pub(crate) async fn run(command: Cluster, common: &Common) -> Result<(), Failure> {
    let admin = Context::new(common)?.admin().await?;
    match command {
        Cluster::Id => {
            let id = admin.describe_cluster().await?.id;
            match common.output {
                Format::Table => line(id),
                format => print_value(format, &json!({ "cluster_id": id })),
            }
        }
        Cluster::Describe => {
            let cluster = admin.describe_cluster().await?;
            let brokers: Vec<_> = cluster
                .brokers
                .iter()
                .map(|broker| {
                    json!({
                        "id": broker.id, "host": broker.host, "port": broker.port,
                        "rack": broker.rack, "fenced": broker.is_fenced,
                        "controller": cluster.controller == Some(broker.id),
                    })
                })
                .collect();
            let value = json!({
                "cluster_id": cluster.id, "controller": cluster.controller, "brokers": brokers,
            });
            if common.output != Format::Table {
                return print_value(common.output, &value);
            }
            line(format!("cluster {}", cluster.id))?;
            let rows = cluster.brokers.iter().map(|broker| {
                let state = if broker.is_fenced { "fenced" } else { "active" };
                let role = if cluster.controller == Some(broker.id) { "controller" } else { "" };
                vec![
                    broker.id.to_string(),
                    format!("{}:{}", broker.host, broker.port),
                    broker.rack.clone().unwrap_or_else(|| "-".to_owned()),
                    state.to_owned(),
                    role.to_owned(),
                ]
            });
            print_table(&["broker", "address", "rack", "state", "role"], rows)
        }
        Cluster::Versions => {
            let brokers = admin.broker_versions().await?;
            let name = |key: i16| {
                fleuve_protocol::ApiKey::try_from(key)
                    .map_or_else(|_| format!("unknown {key}"), |key| key.name().to_owned())
            };
            let value = brokers
                .iter()
                .map(|broker| {
                    let apis: Vec<_> = broker
                        .apis
                        .iter()
                        .map(|&(key, min, max)| {
                            json!({ "key": key, "name": name(key), "min": min, "max": max })
                        })
                        .collect();
                    json!({ "broker": broker.id, "address": broker.address, "apis": apis })
                })
                .collect();
            let rows = brokers.iter().flat_map(|broker| {
                broker.apis.iter().map(|&(key, min, max)| {
                    vec![broker.id.to_string(), key.to_string(), name(key), format!("{min}-{max}")]
                })
            });
            print(common.output, &value, &["broker", "key", "request", "versions"], rows)
        }
    }
}
