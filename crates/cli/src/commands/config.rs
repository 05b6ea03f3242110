//! `fleuve config`: configurations of topics, brokers, groups and client metrics. Quotas have a
//! command of their own.

use clap::{Args, Subcommand};
use fleuve_client::Admin;
use fleuve_client::admin::{Alteration, ConfigSource, Resource};
use serde_json::json;

use super::topic::parse_assignments;
use crate::args::{Common, Format};
use crate::context::Context;
use crate::failure::Failure;
use crate::outcome::Outcomes;
use crate::output::{line, note, print};

/// Describe and change configurations of topics, brokers, groups and client metrics.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Show configurations; those that differ from the default unless --all is given.
    #[command(after_help = "Examples:\n  \
        fleuve config describe --topic greetings --all\n  \
        fleuve config describe --broker 1")]
    Describe {
        #[command(flatten)]
        of: Of,
        /// Also those that have their default.
        #[arg(long)]
        all: bool,
    },
    /// List what has configurations: topics, brokers, groups and client metrics subscriptions.
    #[command(after_help = "Example:\n  fleuve config list --kind client-metrics")]
    List {
        /// Only of this kind; may be repeated.
        #[arg(long, value_parser = ["topic", "broker", "broker-logger", "client-metrics", "group"])]
        kind: Vec<String>,
    },
    /// Change configurations.
    #[command(after_help = "Examples:\n  \
        fleuve config alter --topic greetings --set retention.ms=60000\n  \
        fleuve config alter --broker-loggers 1 --set kafka.request.logger=DEBUG\n  \
        fleuve config alter --topic greetings --delete retention.ms")]
    Alter {
        #[command(flatten)]
        of: Of,
        /// A value to set; may be repeated.
        #[arg(long, value_name = "KEY=VALUE", visible_alias = "add")]
        set: Vec<String>,
        /// A key to go back to its default; may be repeated.
        #[arg(long, value_name = "KEY")]
        delete: Vec<String>,
        /// A value to add to a list; may be repeated.
        #[arg(long, value_name = "KEY=VALUE")]
        append: Vec<String>,
        /// A value to take out of a list; may be repeated.
        #[arg(long, value_name = "KEY=VALUE")]
        subtract: Vec<String>,
        /// Only check.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Whose configurations.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Of {
    /// Of a topic.
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
    /// Of a broker by id.
    #[arg(long, value_name = "ID")]
    broker: Option<i32>,
    /// The defaults of all brokers.
    #[arg(long)]
    broker_defaults: bool,
    /// The levels of a broker's loggers, by the broker's id; they hold until it stops.
    #[arg(long, value_name = "ID")]
    broker_loggers: Option<i32>,
    /// Of a group.
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Of a client metrics subscription.
    #[arg(long, value_name = "NAME")]
    client_metrics: Option<String>,
}

impl Of {
    fn resource(self) -> Resource {
        match self {
            Self { topic: Some(name), .. } => Resource::Topic(name),
            Self { group: Some(name), .. } => Resource::Group(name),
            Self { client_metrics: Some(name), .. } => Resource::ClientMetrics(name),
            Self { broker: Some(id), .. } => Resource::Broker(id.to_string()),
            Self { broker_loggers: Some(id), .. } => Resource::BrokerLogger(id.to_string()),
            _ => Resource::Broker(String::new()),
        }
    }
}

pub(crate) async fn run(command: Config, common: &Common) -> Result<(), Failure> {
    let admin = Context::new(common)?.admin().await?;
    match command {
        Config::Describe { of, all } => {
            let resource = of.resource();
            check_broker(&admin, &resource).await?;
            let mut entries = admin.describe_configs(&resource, false).await?;
            entries.retain(|entry| all || entry.source != ConfigSource::Default);
            entries.sort_unstable_by(|left, right| left.name.cmp(&right.name));
            if entries.is_empty() && common.output == Format::Table {
                note("nothing differs from the defaults, which --all shows");
                return Ok(());
            }
            let value = entries
                .iter()
                .map(|entry| {
                    json!({
                        "name": entry.name, "value": entry.value, "source": entry.source.name(),
                        "read_only": entry.read_only, "sensitive": entry.is_sensitive,
                    })
                })
                .collect();
            let rows = entries.iter().map(|entry| {
                let value = match (&entry.value, entry.is_sensitive) {
                    (_, true) => "(secret)".to_owned(),
                    (Some(value), _) => value.clone(),
                    (None, _) => "-".to_owned(),
                };
                vec![entry.name.clone(), value, entry.source.name().to_owned()]
            });
            print(common.output, &value, &["name", "value", "source"], rows)
        }
        Config::List { kind } => {
            let kinds: Vec<&str> = kind.iter().map(String::as_str).collect();
            let mut found = admin.list_config_resources(&kinds).await?;
            found.sort_unstable_by_key(|one| (one.kind(), one.name().to_owned()));
            let value = found.iter().map(|one| json!({ "kind": one.kind(), "name": one.name() }));
            let rows = found.iter().map(|one| vec![one.kind().to_owned(), one.name().to_owned()]);
            print(common.output, &value.collect(), &["kind", "name"], rows)
        }
        Config::Alter { of, set, delete, append, subtract, dry_run } => {
            let resource = of.resource();
            check_broker(&admin, &resource).await?;
            let set = parse_assignments(&set)?.into_iter();
            let append = parse_assignments(&append)?.into_iter();
            let subtract = parse_assignments(&subtract)?.into_iter();
            let alterations: Vec<_> = set
                .map(|(key, value)| Alteration::Set(key, value))
                .chain(append.map(|(key, value)| Alteration::Append(key, value)))
                .chain(subtract.map(|(key, value)| Alteration::Subtract(key, value)))
                .chain(delete.into_iter().map(Alteration::Delete))
                .collect();
            if alterations.is_empty() {
                return Err(Failure::new(
                    "nothing to change: pass --set KEY=VALUE or --delete KEY",
                ));
            }
            admin.alter_configs(&resource, &alterations, dry_run).await?;
            let verb = if dry_run { "could change" } else { "changed" };
            let whose = match (resource.kind(), resource.name()) {
                (kind, "") => format!("all {kind}s"),
                (kind, name) => format!("{kind} {name}"),
            };
            let count = match alterations.len() {
                1 => "1 configuration".to_owned(),
                count => format!("{count} configurations"),
            };
            let mut outcomes = Outcomes::new(common.output, dry_run);
            for alteration in &alterations {
                let (operation, key, value) = match alteration {
                    Alteration::Set(key, value) => ("set", key, Some(value)),
                    Alteration::Delete(key) => ("delete", key, None),
                    Alteration::Append(key, value) => ("append", key, Some(value)),
                    Alteration::Subtract(key, value) => ("subtract", key, Some(value)),
                };
                let (kind, name) = (resource.kind(), resource.name());
                let subject = json!({ "kind": kind, "name": name, "key": key, "value": value });
                if common.output != Format::Table {
                    outcomes.done(operation, subject, "")?;
                }
            }
            if common.output == Format::Table {
                line(format!("{verb} {count} of {whose}"))?;
            }
            outcomes.end()
        }
    }
}

/// Sees to it that a broker is there which alone can answer: a client would wait for it to come.
pub(crate) async fn check_broker(admin: &Admin, resource: &Resource) -> Result<(), Failure> {
    let (Resource::Broker(id) | Resource::BrokerLogger(id)) = resource else { return Ok(()) };
    if id.is_empty() {
        return Ok(());
    }
    let brokers = admin.describe_cluster().await?.brokers;
    match brokers.iter().any(|broker| broker.id.to_string() == *id) {
        true => Ok(()),
        false => {
            Err(Failure::new(format!("there is no broker {id}: see `fleuve cluster describe`")))
        }
    }
}
