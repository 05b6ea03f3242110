//! `fleuve cluster`: the brokers, the features and the metadata quorum.

use clap::{Args, Subcommand};
use fleuve_client::Admin;
use fleuve_client::admin::UpgradeType;
use fleuve_types::Uuid;
use serde_json::json;

use crate::args::{Common, Format};
use crate::commands::replicas;
use crate::context::Context;
use crate::failure::Failure;
use crate::outcome::Outcomes;
use crate::output::{line, print, print_table, print_value};

/// Describe the cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// Show the brokers.
    #[command(
        after_help = "Example:\n  fleuve cluster describe -o yaml",
        visible_aliases = ["brokers", "list-endpoints"]
    )]
    Describe,
    /// Describe features, or give them other levels.
    Features {
        #[command(subcommand)]
        command: Features,
    },
    /// Show the data directories of brokers and what they hold.
    #[command(
        after_help = "Example:\n  fleuve cluster directories --topic greetings -o yaml",
        visible_alias = "log-dirs"
    )]
    Directories {
        /// A broker's id; all brokers if not given.
        #[arg(long)]
        broker: Option<i32>,
        /// Only this topic; may be repeated.
        #[arg(long)]
        topic: Vec<String>,
    },
    /// Show the metadata quorum.
    Quorum,
    /// Give a controller a vote in the metadata quorum.
    #[command(
        after_help = "Example:\n  fleuve cluster add-controller 2 \\\n    --directory-id QPnX5vWKSruQpQzSg-Yhog --endpoint CONTROLLER://host:9093\n\n\
                      The id of its directory is `directory.id` in the file meta.properties there, and\n\
                      `fleuve cluster quorum` shows it of one that already follows the log."
    )]
    AddController {
        #[command(flatten)]
        voter: Voter,
        /// Where other controllers reach it: listener, host and port; may be repeated.
        #[arg(long, required = true, value_name = "LISTENER://HOST:PORT")]
        endpoint: Vec<String>,
    },
    /// Take a controller's vote in the metadata quorum away.
    RemoveController {
        #[command(flatten)]
        voter: Voter,
    },
    /// Forget a broker that will not come back.
    Unregister {
        /// Its id.
        id: i32,
        /// Only say what would happen.
        #[arg(long)]
        dry_run: bool,
    },
    /// Print the cluster's id.
    Id,
    /// Show which requests each broker takes, in which versions.
    Versions,
}

/// A member of the metadata quorum.
#[derive(Debug, Args)]
pub(crate) struct Voter {
    /// The controller's node id.
    id: i32,
    /// The id of the directory with its metadata log.
    #[arg(long, value_name = "UUID")]
    directory_id: Uuid,
    /// Only say what would happen.
    #[arg(long)]
    dry_run: bool,
}

/// Describe features, or give them other levels.
#[derive(Debug, Subcommand)]
pub(crate) enum Features {
    /// Show features with the levels that are supported and in force.
    Describe,
    /// Raise levels.
    #[command(after_help = "Example:\n  fleuve cluster features upgrade group.version=1")]
    Upgrade(Levels),
    /// Lower levels.
    Downgrade {
        #[command(flatten)]
        levels: Levels,
        /// Also if something is lost by it.
        #[arg(long, name = "unsafe")]
        is_unsafe: bool,
    },
    /// Switch features off.
    Disable {
        /// Features.
        #[arg(required = true, value_name = "FEATURE")]
        names: Vec<String>,
        /// Also if something is lost by it.
        #[arg(long, name = "unsafe")]
        is_unsafe: bool,
        /// Only check.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Features with levels.
#[derive(Debug, Args)]
pub(crate) struct Levels {
    /// Features with the levels they are to have.
    #[arg(required = true, value_name = "FEATURE=LEVEL")]
    levels: Vec<String>,
    /// Only check.
    #[arg(long)]
    dry_run: bool,
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
        Cluster::Directories { broker, topic } => {
            replicas::show(&admin, broker, &topic, common.output).await
        }
        Cluster::Features { command } => features(&admin, command, common.output).await,
        Cluster::Quorum => {
            let quorum = admin.describe_quorum().await?;
            let members = quorum.voters.iter().map(|voter| ("voter", voter));
            let members = members.chain(quorum.observers.iter().map(|each| ("observer", each)));
            let role =
                |id: i32, role: &'static str| if id == quorum.leader { "leader" } else { role };
            let lag = |offset: i64| (quorum.high_watermark - offset).max(0);
            let rows: Vec<Vec<String>> = members
                .clone()
                .map(|(kind, member)| {
                    vec![
                        member.id.to_string(),
                        role(member.id, kind).to_owned(),
                        member.directory_id.to_string(),
                        member.log_end_offset.to_string(),
                        lag(member.log_end_offset).to_string(),
                    ]
                })
                .collect();
            let members: Vec<_> = members
                .map(|(kind, member)| {
                    json!({
                        "id": member.id, "role": role(member.id, kind),
                        "directory": member.directory_id.to_string(),
                        "log_end_offset": member.log_end_offset,
                        "lag": lag(member.log_end_offset),
                    })
                })
                .collect();
            let value = json!({
                "leader": quorum.leader, "leader_epoch": quorum.leader_epoch,
                "high_watermark": quorum.high_watermark, "members": members,
            });
            print(common.output, &value, &["node", "role", "directory", "log end", "lag"], rows)
        }
        Cluster::AddController { voter, endpoint } => {
            let endpoints: Vec<_> =
                endpoint.iter().map(|text| parse_endpoint(text)).collect::<Result<_, _>>()?;
            let Voter { id, directory_id, dry_run } = voter;
            if !dry_run {
                admin.add_raft_voter(id, directory_id, &endpoints).await?;
            }
            let verb = if dry_run { "would add" } else { "added" };
            let mut outcomes = Outcomes::new(common.output, dry_run);
            let value = json!({
                "controller": id, "directory": directory_id.to_string(), "endpoints": endpoint,
            });
            outcomes.done("add", value, format!("{verb} controller {id} to the quorum"))?;
            outcomes.end()
        }
        Cluster::RemoveController { voter: Voter { id, directory_id, dry_run } } => {
            if !dry_run {
                admin.remove_raft_voter(id, directory_id).await?;
            }
            let verb = if dry_run { "would remove" } else { "removed" };
            let mut outcomes = Outcomes::new(common.output, dry_run);
            let value = json!({ "controller": id, "directory": directory_id.to_string() });
            outcomes.done("remove", value, format!("{verb} controller {id} from the quorum"))?;
            outcomes.end()
        }
        Cluster::Unregister { id, dry_run } => {
            let mut outcomes = Outcomes::new(common.output, dry_run);
            let sentence = if dry_run {
                let known = admin.describe_cluster().await?.brokers.iter().any(|b| b.id == id);
                let state = if known { "is" } else { "is not" };
                format!("would forget broker {id}, which {state} active")
            } else {
                admin.unregister_broker(id).await?;
                format!("forgot broker {id}")
            };
            outcomes.done("unregister", json!({ "broker": id }), sentence)?;
            outcomes.end()
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

async fn features(admin: &Admin, command: Features, format: Format) -> Result<(), Failure> {
    let (updates, upgrade_type, dry_run) = match command {
        Features::Describe => {
            let (features, _) = admin.describe_features().await?;
            let value = features
                .iter()
                .map(|feature| {
                    let supported = feature.supported.map(|(min, max)| json!([min, max]));
                    json!({
                        "name": feature.name, "supported": supported, "level": feature.finalized,
                    })
                })
                .collect();
            let rows = features.iter().map(|feature| {
                let supported = feature.supported.map(|(min, max)| format!("{min}-{max}"));
                vec![
                    feature.name.clone(),
                    feature.finalized.to_string(),
                    supported.unwrap_or_else(|| "-".to_owned()),
                ]
            });
            return print(format, &value, &["feature", "level", "supported"], rows);
        }
        Features::Upgrade(levels) => {
            (parse_levels(&levels.levels)?, UpgradeType::Upgrade, levels.dry_run)
        }
        Features::Downgrade { levels, is_unsafe } => {
            (parse_levels(&levels.levels)?, downgrade(is_unsafe), levels.dry_run)
        }
        Features::Disable { names, is_unsafe, dry_run } => {
            (names.into_iter().map(|name| (name, 0)).collect(), downgrade(is_unsafe), dry_run)
        }
    };
    admin.update_features(&updates, upgrade_type, dry_run).await?;
    let verb = if dry_run { "could set" } else { "set" };
    let mut outcomes = Outcomes::new(format, dry_run);
    for (name, level) in updates {
        let sentence = format!("{verb} {name} to {level}");
        outcomes.done("alter", json!({ "feature": name, "level": level }), sentence)?;
    }
    outcomes.end()
}

fn downgrade(is_unsafe: bool) -> UpgradeType {
    if is_unsafe { UpgradeType::UnsafeDowngrade } else { UpgradeType::SafeDowngrade }
}

/// Reads `feature=level` pairs.
pub(crate) fn parse_levels(levels: &[String]) -> Result<Vec<(String, i16)>, Failure> {
    let parse = |text: &String| {
        let (name, level) = text.split_once('=')?;
        Some((name.trim().to_owned(), level.trim().parse().ok()?))
    };
    levels
        .iter()
        .map(|text| {
            parse(text).ok_or_else(|| Failure::new(format!("{text}: expected FEATURE=LEVEL")))
        })
        .collect()
}

/// Reads `LISTENER://HOST:PORT`, where an IPv6 address stands in brackets.
pub(crate) fn parse_endpoint(text: &str) -> Result<(String, String, u16), Failure> {
    let parse = || {
        let (name, address) = text.split_once("://")?;
        let (host, port) = address.rsplit_once(':')?;
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        Some((name.to_owned(), inner.unwrap_or(host).to_owned(), port.parse().ok()?))
    };
    parse().ok_or_else(|| Failure::new(format!("endpoint {text}: expected LISTENER://HOST:PORT")))
}
