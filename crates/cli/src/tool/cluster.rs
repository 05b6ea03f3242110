//! The tools about the cluster as a whole: who is in it, the quorum, client metrics, data directories.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use fleuve_client::Admin;
use fleuve_client::admin::{Alteration, Resource};
use fleuve_os::{OsRandom, Random};
use fleuve_types::Uuid;
use serde_json::json;

use super::{Connect, ConnectEither};
use crate::commands::cluster::parse_endpoint;
use crate::failure::{Failure, explain};
use crate::output::line;
use crate::quantities::now_ms;

/// Show the cluster.
#[derive(Debug, Parser)]
pub(super) struct Cluster {
    #[command(subcommand)]
    action: ClusterAction,
}

#[derive(Debug, Subcommand)]
enum ClusterAction {
    /// Print the cluster's id.
    ClusterId {
        #[command(flatten)]
        connect: ClusterConnect,
    },
    /// List the brokers.
    ListEndpoints {
        #[command(flatten)]
        connect: ClusterConnect,
        /// Also brokers that take no part at the moment.
        #[arg(long, conflicts_with = "bootstrap_controller")]
        include_fenced_brokers: bool,
    },
    /// Forget a broker.
    Unregister {
        #[command(flatten)]
        connect: ClusterConnect,
        /// Its id.
        #[arg(long, short)]
        id: i32,
    },
}

/// The options of [`ConnectEither`], with the short ones of this tool.
#[derive(Debug, Args)]
struct ClusterConnect {
    /// Brokers to ask first [env: FLEUVE_BOOTSTRAP_SERVER] [default: localhost:9092].
    #[arg(long, short = 'b')]
    bootstrap_server: Option<String>,
    /// Controllers to ask first; where there is no listener of theirs, a broker's address does.
    #[arg(long, short = 'C', conflicts_with = "bootstrap_server")]
    bootstrap_controller: Option<String>,
    /// A file of client properties.
    #[arg(long, short = 'c', visible_alias = "config")]
    command_config: Option<PathBuf>,
}

impl ClusterConnect {
    async fn admin(self) -> Result<Admin, Failure> {
        let Self { bootstrap_server, bootstrap_controller, command_config } = self;
        let connect = Connect { bootstrap_server, command_config };
        ConnectEither { connect, bootstrap_controller }.admin().await
    }
}

pub(super) async fn cluster(options: Cluster) -> Result<(), Failure> {
    match options.action {
        ClusterAction::ClusterId { connect } => {
            let cluster = connect.admin().await?.describe_cluster().await?;
            line(format!("Cluster ID: {}", cluster.id))
        }
        ClusterAction::Unregister { connect, id } => {
            connect.admin().await?.unregister_broker(id).await?;
            line(format!("Broker {id} is no longer registered."))
        }
        ClusterAction::ListEndpoints { connect, include_fenced_brokers } => {
            let is_of_controllers = connect.bootstrap_controller.is_some();
            let cluster = connect.admin().await?.describe_cluster().await?;
            let mut nodes = cluster.brokers;
            nodes.retain(|node| match is_of_controllers {
                true => cluster.controller == Some(node.id),
                false => include_fenced_brokers || !node.is_fenced,
            });
            // The widths of Apache's tool, which does not count the headings.
            let hosts = nodes.iter().map(|node| node.host.len());
            let host_width = hosts.max().unwrap_or(100);
            let racks = nodes.iter().filter_map(|node| node.rack.as_ref().map(String::len));
            let rack_width = racks.max().unwrap_or(10);
            let row = |[id, host, port, rack, state, kind]: [&str; 6]| {
                let state = match is_of_controllers {
                    true => String::new(),
                    false => format!("{state:<10} "),
                };
                line(format!(
                    "{id:<10} {host:<host_width$} {port:<10} {rack:<rack_width$} {state}{kind:<15}"
                ))
            };
            row(["ID", "HOST", "PORT", "RACK", "STATE", "ENDPOINT_TYPE"])?;
            nodes.iter().try_for_each(|node| {
                row([
                    &node.id.to_string(),
                    &node.host,
                    &node.port.to_string(),
                    node.rack.as_deref().unwrap_or("null"),
                    if node.is_fenced { "fenced" } else { "unfenced" },
                    if is_of_controllers { "controller" } else { "broker" },
                ])
            })
        }
    }
}

/// Describe the metadata quorum, and change who votes.
#[derive(Debug, Parser)]
pub(super) struct Quorum {
    #[command(flatten)]
    connect: ConnectEither,
    #[command(subcommand)]
    action: QuorumAction,
}

#[derive(Debug, Subcommand)]
enum QuorumAction {
    /// Show the quorum.
    Describe {
        /// A short report.
        #[arg(long, conflicts_with_all = ["replication", "human_readable"])]
        status: bool,
        /// The members with their lag.
        #[arg(long)]
        replication: bool,
        /// Times as ages.
        #[arg(long)]
        human_readable: bool,
    },
    /// Add a voter.
    AddController {
        /// The node.
        #[arg(long)]
        controller_id: i32,
        /// The directory of its metadata log.
        #[arg(long)]
        controller_directory_id: Uuid,
        /// Where it is reached.
        #[arg(long, value_name = "LISTENER://HOST:PORT")]
        endpoint: String,
        /// Only say what would be asked for.
        #[arg(long)]
        dry_run: bool,
    },
    /// Remove a voter.
    RemoveController {
        /// The node.
        #[arg(long, short = 'i')]
        controller_id: i32,
        /// The directory of its metadata log.
        #[arg(long, short = 'd')]
        controller_directory_id: Uuid,
        /// Only say what would be asked for.
        #[arg(long)]
        dry_run: bool,
    },
}

pub(super) async fn quorum(options: Quorum) -> Result<(), Failure> {
    let admin = options.connect.admin().await?;
    match options.action {
        QuorumAction::Describe { status: true, .. } => {
            let cluster = admin.describe_cluster().await?;
            let quorum = admin.describe_quorum().await?;
            let members = |replicas: &[fleuve_client::admin::QuorumReplica]| {
                let members: Vec<String> = replicas
                    .iter()
                    .map(|replica| {
                        let endpoints: Vec<String> = quorum
                            .endpoints
                            .iter()
                            .filter(|(id, ..)| *id == replica.id)
                            .map(|(_, name, host, port)| format!("\"{name}://{host}:{port}\""))
                            .collect();
                        format!(
                            "{{\"id\": {}, \"directoryId\": \"{}\", \"endpoints\": [{}]}}",
                            replica.id,
                            replica.directory_id,
                            endpoints.join(", ")
                        )
                    })
                    .collect();
                format!("[{}]", members.join(", "))
            };
            let lags = quorum.voters.iter().chain(&quorum.observers);
            let lag = lags.map(|r| quorum.high_watermark - r.log_end_offset).max().unwrap_or(0);
            let rows = [
                ("ClusterId:", cluster.id),
                ("LeaderId:", quorum.leader.to_string()),
                ("LeaderEpoch:", quorum.leader_epoch.to_string()),
                ("HighWatermark:", quorum.high_watermark.to_string()),
                ("MaxFollowerLag:", lag.max(0).to_string()),
                ("MaxFollowerLagTimeMs:", "0".to_owned()),
                ("CurrentVoters:", members(&quorum.voters)),
                ("CurrentObservers:", members(&quorum.observers)),
            ];
            rows.into_iter().try_for_each(|(name, value)| line(format!("{name:<24}{value}")))
        }
        QuorumAction::Describe { replication: true, human_readable, .. } => {
            let time = |ms: i64| match human_readable && ms >= 0 {
                true => format!("{} ms ago", (now_ms() - ms).max(0)),
                false => ms.to_string(),
            };
            let quorum = admin.describe_quorum().await?;
            line(
                "NodeId\tDirectoryId           \tLogEndOffset\tLag\tLastFetchTimestamp\tLastCaughtUpTimestamp\tStatus\t",
            )?;
            let voters = quorum.voters.iter().map(|voter| (voter, "Follower"));
            let observers = quorum.observers.iter().map(|observer| (observer, "Observer"));
            for (member, role) in voters.chain(observers) {
                let role = if member.id == quorum.leader { "Leader" } else { role };
                line(format!(
                    "{:<6}\t{:<22}\t{:<12}\t{:<3}\t{:<18}\t{:<21}\t{role}\t",
                    member.id,
                    member.directory_id.to_string(),
                    member.log_end_offset,
                    (quorum.high_watermark - member.log_end_offset).max(0),
                    time(member.last_fetch_ms),
                    time(member.last_caught_up_ms),
                ))?;
            }
            Ok(())
        }
        QuorumAction::Describe { .. } => {
            Err(Failure::new("describe what? pass --status or --replication"))
        }
        QuorumAction::AddController {
            controller_id,
            controller_directory_id,
            endpoint,
            dry_run,
        } => {
            let endpoint = parse_endpoint(&endpoint)?;
            let what =
                format!("controller {controller_id} with directory id {controller_directory_id}");
            if dry_run {
                return line(format!("DRY RUN of adding {what}"));
            }
            admin.add_raft_voter(controller_id, controller_directory_id, &[endpoint]).await?;
            line(format!("Added {what}"))
        }
        QuorumAction::RemoveController { controller_id, controller_directory_id, dry_run } => {
            let what = format!(
                "KRaft controller {controller_id} with directory id {controller_directory_id}"
            );
            if dry_run {
                return line(format!("DRY RUN of removing {what}"));
            }
            admin.remove_raft_voter(controller_id, controller_directory_id).await?;
            line(format!("Removed {what}"))
        }
    }
}

/// Describe and change client metrics subscriptions.
#[derive(Debug, Parser)]
#[command(group = clap::ArgGroup::new("action").required(true)
    .args(["alter", "delete", "describe", "list"]))]
pub(super) struct ClientMetrics {
    #[command(flatten)]
    connect: Connect,
    /// Change a subscription, or make it.
    #[arg(long)]
    alter: bool,
    /// Delete a subscription.
    #[arg(long)]
    delete: bool,
    /// Show subscriptions.
    #[arg(long)]
    describe: bool,
    /// List the names of subscriptions.
    #[arg(long)]
    list: bool,
    /// The subscription's name.
    #[arg(long)]
    name: Option<String>,
    /// Make a name up.
    #[arg(long)]
    generate_name: bool,
    /// How often clients push, in milliseconds; empty for the default.
    #[arg(long)]
    interval: Option<String>,
    /// Which clients: name=pattern pairs.
    #[arg(long = "match")]
    matches: Option<String>,
    /// Which metrics, by the beginning of their names.
    #[arg(long)]
    metrics: Option<String>,
}

pub(super) async fn client_metrics(options: ClientMetrics) -> Result<(), Failure> {
    let admin = options.connect.context()?.admin().await?;
    let named = || options.name.clone().ok_or_else(|| Failure::new("which one? pass --name NAME"));
    if options.list {
        return admin.list_client_metrics().await?.into_iter().try_for_each(line);
    }
    if options.describe {
        let known = admin.list_client_metrics().await?;
        let names = match &options.name {
            Some(name) if !known.contains(name) => {
                return line(format!(
                    "The client metric resource {name} doesn't exist and doesn't have dynamic config."
                ));
            }
            Some(name) => vec![name.clone()],
            None => known,
        };
        for name in names {
            let mut entries =
                admin.describe_configs(&Resource::ClientMetrics(name.clone()), false).await?;
            entries.sort_unstable_by(|left, right| left.name.cmp(&right.name));
            line(format!("Client metrics configs for {name} are:"))?;
            for entry in entries {
                line(format!("  {}={}", entry.name, entry.value.unwrap_or_default()))?;
            }
        }
        return Ok(());
    }
    if options.delete {
        let name = named()?;
        let resource = Resource::ClientMetrics(name.clone());
        let entries = admin.describe_configs(&resource, false).await?;
        let deletions: Vec<_> =
            entries.into_iter().map(|entry| Alteration::Delete(entry.name)).collect();
        if !deletions.is_empty() {
            admin.alter_configs(&resource, &deletions, false).await?;
        }
        return line(format!("Deleted client metrics config for {name}."));
    }
    let name = if options.generate_name {
        let mut bytes = [0; 16];
        OsRandom.fill(&mut bytes);
        Uuid::from_random_bytes(bytes).to_string()
    } else {
        named()?
    };
    let given = [
        ("interval.ms", &options.interval),
        ("match", &options.matches),
        ("metrics", &options.metrics),
    ];
    let alterations: Vec<_> = given
        .into_iter()
        .filter_map(|(key, value)| {
            let value = value.as_ref()?;
            Some(match value.is_empty() {
                true => Alteration::Delete(key.to_owned()),
                false => Alteration::Set(key.to_owned(), value.clone()),
            })
        })
        .collect();
    if alterations.is_empty() {
        return Err(Failure::new("nothing to change: pass --interval, --match or --metrics"));
    }
    admin.alter_configs(&Resource::ClientMetrics(name.clone()), &alterations, false).await?;
    line(format!("Altered client metrics config for {name}."))
}

/// Show the data directories of brokers.
#[derive(Debug, Parser)]
pub(super) struct LogDirs {
    #[command(flatten)]
    connect: Connect,
    /// Accepted: there is nothing else to do.
    #[arg(long)]
    describe: bool,
    /// Topics, separated by commas; all unless given.
    #[arg(long, value_delimiter = ',')]
    topic_list: Vec<String>,
    /// Brokers, separated by commas; all unless given.
    #[arg(long, value_delimiter = ',')]
    broker_list: Vec<i32>,
}

pub(super) async fn log_dirs(options: LogDirs) -> Result<(), Failure> {
    let admin = options.connect.context()?.admin().await?;
    let mut brokers = options.broker_list.clone();
    let known: Vec<i32> = admin.describe_cluster().await?.brokers.iter().map(|b| b.id).collect();
    let missing: Vec<_> = brokers.iter().filter(|id| !known.contains(id)).collect();
    if !missing.is_empty() {
        return Err(Failure::new(format!(
            "The given brokers do not exist from --broker-list: {}. Current existent brokers: {}",
            missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            known.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        )));
    }
    if brokers.is_empty() {
        brokers = known;
    }
    line("Querying brokers for log directories information")?;
    let mut described = Vec::new();
    for broker in &brokers {
        let directories = admin.describe_log_dirs(*broker, None).await?;
        let directories: Vec<_> = directories
            .into_iter()
            .map(|directory| {
                let wanted = |topic: &str| {
                    options.topic_list.is_empty() || options.topic_list.iter().any(|t| t == topic)
                };
                let replicas =
                    directory.replicas.iter().filter(|replica| wanted(&replica.partition.topic));
                let partitions: Vec<_> = replicas
                    .map(|replica| {
                        json!({
                            "partition": replica.partition.to_string(), "size": replica.size,
                            "offsetLag": replica.offset_lag, "isFuture": replica.is_future,
                        })
                    })
                    .collect();
                let error = directory.error.as_ref().map(explain);
                json!({ "partitions": partitions, "error": error, "logDir": directory.path })
            })
            .collect();
        described.push(json!({ "broker": broker, "logDirs": directories }));
    }
    let list: Vec<String> = brokers.iter().map(i32::to_string).collect();
    line(format!("Received log directory information from brokers {}", list.join(",")))?;
    line(json!({ "brokers": described, "version": 1 }).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_is_described_in_one_way() {
        let parses = |how: &str| {
            let arguments = "t --bootstrap-server a:1 describe".split(' ');
            Quorum::try_parse_from(arguments.chain(how.split(' '))).is_ok()
        };
        assert!(parses("--status") && parses("--replication --human-readable"));
        assert!(!parses("--status --replication") && !parses("--status --human-readable"));
    }
}
