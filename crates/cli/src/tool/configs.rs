//! `kafka-configs`: configurations of everything that has any, quotas and SCRAM users among them.

mod clients;

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{ArgAction, ArgGroup, Parser};
use fleuve_client::admin::{Alteration, ConfigSource, Resource};
use fleuve_client::{Admin, Error, ErrorCode};

use self::clients::Part;
use super::ConnectEither;
use crate::commands::config::check_broker;
use crate::failure::Failure;
use crate::output::line;

/// Describe or change configurations.
#[derive(Debug, Parser)]
#[command(group = ArgGroup::new("action").required(true).args(["describe", "alter"]))]
pub(super) struct Configs {
    #[command(flatten)]
    connect: ConnectEither,
    /// Show configurations.
    #[arg(long)]
    describe: bool,
    /// Change configurations.
    #[arg(long)]
    alter: bool,
    /// topics, brokers, broker-loggers, groups, client-metrics, users, clients or ips; users and
    /// clients go together.
    #[arg(long)]
    entity_type: Vec<String>,
    /// The name; one for each type.
    #[arg(long)]
    entity_name: Vec<String>,
    /// The default of a type.
    #[arg(long, action = ArgAction::Count)]
    entity_default: u8,
    /// A topic.
    #[arg(long)]
    topic: Option<String>,
    /// A broker.
    #[arg(long)]
    broker: Option<String>,
    /// A broker whose levels of loggers are meant.
    #[arg(long)]
    broker_logger: Option<String>,
    /// The defaults of all brokers.
    #[arg(long)]
    broker_defaults: bool,
    /// A group.
    #[arg(long)]
    group: Option<String>,
    /// A client metrics subscription.
    #[arg(long)]
    client_metrics: Option<String>,
    /// A user.
    #[arg(long)]
    user: Option<String>,
    /// Users without quotas of their own.
    #[arg(long)]
    user_defaults: bool,
    /// What a client calls itself.
    #[arg(long)]
    client: Option<String>,
    /// Clients without quotas of their own.
    #[arg(long)]
    client_defaults: bool,
    /// An address.
    #[arg(long)]
    ip: Option<String>,
    /// Addresses without quotas of their own.
    #[arg(long)]
    ip_defaults: bool,
    /// Also what has its default.
    #[arg(long)]
    all: bool,
    /// What to set: k1=v1,k2=[a,b].
    #[arg(long)]
    add_config: Option<String>,
    /// What to set, in a file.
    #[arg(long)]
    add_config_file: Option<PathBuf>,
    /// What to unset: k1,k2.
    #[arg(long)]
    delete_config: Option<String>,
}

pub(super) async fn run(options: Configs) -> Result<(), Failure> {
    let targets = targets(&options)?;
    let admin = options.connect.admin().await?;
    let change = gather(&options)?;
    if let Targets::Resource(resource) = &targets {
        if options.describe && !options.all && !is_there(&admin, resource).await? {
            let (word, name) = (word(resource), resource.name());
            return line(format!(
                "The {word} '{name}' doesn't exist and doesn't have dynamic config."
            ));
        }
        check_broker(&admin, resource).await?;
    }
    match targets {
        Targets::Quotas(parts) if options.alter => clients::alter(&admin, &parts, change).await,
        Targets::Quotas(parts) => clients::describe(&admin, &parts).await,
        Targets::Resource(resource) if options.alter => {
            let set = change.set.into_iter().map(|(key, value)| Alteration::Set(key, value));
            let deleted = change.deleted.into_iter().map(Alteration::Delete);
            let alterations: Vec<_> = set.chain(deleted).collect();
            admin.alter_configs(&resource, &alterations, false).await?;
            let (kind, name) = (word(&resource), resource.name());
            match name {
                "" => {
                    line(format!("Completed updating default config for {kind}s in the cluster."))
                }
                _ => line(format!("Completed updating config for {kind} {name}.")),
            }
        }
        Targets::Resource(resource) => describe(&admin, &resource, options.all).await,
        Targets::All(kind) => {
            for resource in every(&admin, &kind).await? {
                describe(&admin, &resource, options.all).await?;
            }
            Ok(())
        }
    }
}

/// What to set and what to delete.
struct Change {
    set: Vec<(String, String)>,
    deleted: Vec<String>,
}

fn gather(options: &Configs) -> Result<Change, Failure> {
    let mut set = split_configs(options.add_config.as_deref().unwrap_or_default())?;
    if let Some(path) = &options.add_config_file {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))?;
        for entry in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let (key, value) = entry.split_once('=').ok_or_else(|| {
                Failure::new(format!("{}: {entry}: expected KEY=VALUE", path.display()))
            })?;
            set.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    let deleted = options.delete_config.as_deref().unwrap_or_default().split(',');
    let deleted: Vec<String> =
        deleted.map(str::trim).filter(|key| !key.is_empty()).map(str::to_owned).collect();
    if options.alter && set.is_empty() && deleted.is_empty() {
        return Err(Failure::new("nothing to change: pass --add-config or --delete-config"));
    }
    Ok(Change { set, deleted })
}

async fn describe(admin: &Admin, resource: &Resource, all: bool) -> Result<(), Failure> {
    let (kind, name) = (word(resource), resource.name());
    let what = if all { "All" } else { "Dynamic" };
    match name {
        "" => line(format!("Default configs for {kind}s in the cluster are:"))?,
        _ => line(format!("{what} configs for {kind} {name} are:"))?,
    }
    let mut entries = admin.describe_configs(resource, false).await?;
    entries.sort_unstable_by(|left, right| left.name.cmp(&right.name));
    for entry in entries {
        let is_own = match entry.source {
            ConfigSource::Default | ConfigSource::StaticBroker => false,
            ConfigSource::DynamicDefaultBroker => name.is_empty(),
            _ => true,
        };
        if !is_own && !all {
            continue;
        }
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "null".to_owned());
        let synonyms: Vec<_> = entry
            .synonyms
            .iter()
            .map(|(name, value, source)| format!("{}:{name}={}", source.name(), text(value)))
            .collect();
        line(format!(
            "  {}={} sensitive={} synonyms={{{}}}",
            entry.name,
            text(&entry.value),
            entry.is_sensitive,
            synonyms.join(", ")
        ))?;
    }
    Ok(())
}

/// Names what is of a kind as Kafka's tool does: by the name of its type without the last letter.
fn word(resource: &Resource) -> &'static str {
    match resource {
        Resource::ClientMetrics(_) => "client-metric",
        resource => resource.kind(),
    }
}

/// Whether there is such a thing, or a configuration of it.
async fn is_there(admin: &Admin, resource: &Resource) -> Result<bool, Failure> {
    match resource {
        // Kafka's tool looks through the list of topics, which controllers do not give, and in which
        // a topic that one may not see is as one that does not exist.
        Resource::Topic(_) => match admin.describe_configs(resource, false).await {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Some(ErrorCode::UnknownTopicOrPartition) => Ok(false),
            Err(error) => Err(error.into()),
        },
        Resource::Broker(id) | Resource::BrokerLogger(id) => {
            if id.is_empty() {
                return Ok(true);
            }
            let brokers = admin.describe_cluster().await?.brokers;
            Ok(brokers.iter().any(|broker| broker.id.to_string() == *id))
        }
        Resource::ClientMetrics(name) => Ok(admin.list_client_metrics().await?.contains(name)),
        Resource::Group(name) => match configured_groups(admin).await? {
            Some(names) if !names.contains(name) => {
                Ok(admin.list_groups().await?.iter().any(|group| group.id == *name))
            }
            _ => Ok(true),
        },
    }
}

/// Lists the groups that have configurations; `None` if the broker does not tell: because it is
/// older than Kafka 4.1, or because the user lacks the right.
async fn configured_groups(admin: &Admin) -> Result<Option<Vec<String>>, Failure> {
    match admin.list_configured_groups().await {
        Ok(names) => Ok(Some(names)),
        Err(Error::Unsupported { .. }) => Ok(None),
        Err(error) if error.code() == Some(ErrorCode::ClusterAuthorizationFailed) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Lists everything of a kind.
async fn every(admin: &Admin, kind: &str) -> Result<Vec<Resource>, Failure> {
    Ok(match kind {
        "topics" => {
            let topics = admin.list_topics().await?.into_iter();
            topics.map(|topic| Resource::Topic(topic.name.to_string())).collect()
        }
        "brokers" => {
            let brokers = admin.describe_cluster().await?.brokers.into_iter();
            let brokers = brokers.map(|broker| Resource::Broker(broker.id.to_string()));
            brokers.chain([Resource::Broker(String::new())]).collect()
        }
        "groups" => {
            let known = admin.list_groups().await?.into_iter().map(|group| group.id);
            let configured = configured_groups(admin).await?.unwrap_or_default();
            let names: BTreeSet<String> = known.chain(configured).collect();
            names.into_iter().map(Resource::Group).collect()
        }
        _ => {
            let names = admin.list_client_metrics().await?;
            names.into_iter().map(Resource::ClientMetrics).collect()
        }
    })
}

/// Whose configs.
enum Targets {
    Resource(Resource),
    All(String),
    Quotas(Vec<Part>),
}

/// Kinds of quota entities, by the names of their types.
const CLIENT_KINDS: [(&str, &str); 3] =
    [("users", "user"), ("clients", "client-id"), ("ips", "ip")];

fn targets(options: &Configs) -> Result<Targets, Failure> {
    let short = [
        (&options.user, options.user_defaults, "user"),
        (&options.client, options.client_defaults, "client-id"),
        (&options.ip, options.ip_defaults, "ip"),
    ];
    let mut parts: Vec<Part> = short
        .into_iter()
        .filter(|(name, is_default, _)| name.is_some() || *is_default)
        .map(|(name, _, kind)| (kind, Some(name.clone().unwrap_or_default())))
        .collect();
    let resource = match options {
        Configs { topic: Some(name), .. } => Some(Resource::Topic(name.clone())),
        Configs { broker: Some(id), .. } => Some(Resource::Broker(id.clone())),
        Configs { broker_logger: Some(id), .. } => Some(Resource::BrokerLogger(id.clone())),
        Configs { group: Some(name), .. } => Some(Resource::Group(name.clone())),
        Configs { client_metrics: Some(name), .. } => Some(Resource::ClientMetrics(name.clone())),
        Configs { broker_defaults: true, .. } => Some(Resource::Broker(String::new())),
        _ => None,
    };
    if let Some(resource) = resource {
        return Ok(Targets::Resource(checked(resource)?));
    }
    // Names and defaults are given to the types in their order, names first.
    let mut names = options.entity_name.iter().cloned();
    let mut defaults = 0..options.entity_default;
    for kind in &options.entity_type {
        let name = names.next().or_else(|| defaults.next().map(|_| String::new()));
        if let Some((_, part)) = CLIENT_KINDS.iter().find(|(known, _)| known == kind) {
            parts.push((part, name));
            continue;
        }
        let resource = match (kind.as_str(), name) {
            ("topics" | "brokers" | "groups" | "client-metrics", None) if options.describe => {
                return Ok(Targets::All(kind.clone()));
            }
            (_, None) => return Err(Failure::new("which one? pass --entity-name NAME")),
            ("topics", Some(name)) => Resource::Topic(name),
            ("brokers", Some(name)) => Resource::Broker(name),
            ("broker-loggers", Some(name)) => Resource::BrokerLogger(name),
            ("groups", Some(name)) => Resource::Group(name),
            ("client-metrics", Some(name)) => Resource::ClientMetrics(name),
            (other, _) => {
                return Err(Failure::new(format!(
                    "--entity-type {other}: expected topics, brokers, broker-loggers, groups, \
                     client-metrics, users, clients or ips"
                )));
            }
        };
        return Ok(Targets::Resource(checked(resource)?));
    }
    if parts.is_empty() {
        return Err(Failure::new("whose? pass --entity-type TYPE --entity-name NAME"));
    }
    Ok(Targets::Quotas(parts))
}

/// Refuses names of brokers that no broker can have: it is not that they are not there.
fn checked(resource: Resource) -> Result<Resource, Failure> {
    match &resource {
        Resource::Broker(id) | Resource::BrokerLogger(id)
            if !id.is_empty() && id.parse::<i32>().is_err() =>
        {
            Err(Failure::new(format!(
                "The entity name for {}s must be a valid integer broker id, but it is: {id}",
                resource.kind()
            )))
        }
        _ => Ok(resource),
    }
}

/// Splits `a=1,b=[2,3]`: brackets keep commas together.
fn split_configs(text: &str) -> Result<Vec<(String, String)>, Failure> {
    let mut entries = Vec::new();
    let mut depth = 0;
    let mut begin = 0;
    for (index, character) in text.char_indices().chain([(text.len(), ',')]) {
        match character {
            '[' => depth += 1,
            ']' => depth -= 1,
            ',' if depth == 0 || index == text.len() => {
                let entry = text[begin..index].trim();
                begin = (index + 1).min(text.len());
                if entry.is_empty() {
                    continue;
                }
                let (key, value) = entry.split_once('=').ok_or_else(|| {
                    Failure::new(format!("--add-config {entry}: expected KEY=VALUE"))
                })?;
                let value = value.trim();
                let inner = value.strip_prefix('[').and_then(|value| value.strip_suffix(']'));
                entries.push((key.trim().to_owned(), inner.unwrap_or(value).to_owned()));
            }
            _ => {}
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_keep_commas_together() {
        let entries = split_configs("a=1,cleanup.policy=[compact,delete], b = 2").expect("valid");
        let expected = [("a", "1"), ("cleanup.policy", "compact,delete"), ("b", "2")];
        assert_eq!(entries, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
        assert!(split_configs("").expect("nothing").is_empty());
        assert!(split_configs("novalue").is_err());
    }

    #[test]
    fn brokers_are_named_by_numbers() {
        let parse = |arguments: &[&str]| {
            let arguments = [&["kafka-configs.sh", "--describe"], arguments].concat();
            targets(&Configs::try_parse_from(arguments).expect("known options"))
        };
        assert!(parse(&["--broker", "9"]).is_ok());
        assert!(parse(&["--broker-defaults"]).is_ok());
        assert!(parse(&["--topic", "one"]).is_ok());
        for arguments in
            [&["--broker-logger", "one"][..], &["--entity-type", "brokers", "--entity-name", "one"]]
        {
            let error = parse(arguments).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(
                error.ends_with("must be a valid integer broker id, but it is: one"),
                "{error}"
            );
        }
    }
}
