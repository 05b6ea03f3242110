//! `kafka-configs`: configurations of everything that has any, quotas and SCRAM users among them.

use std::path::PathBuf;

use clap::{ArgAction, ArgGroup, Parser};
use fleuve_client::Admin;
use fleuve_client::admin::{
    Alteration, ConfigSource, QuotaEntity, QuotaFilter, Resource, ScramMechanism,
};
use fleuve_os::{OsRandom, Random};
use fleuve_protocol::ErrorCode;

use super::ConnectEither;
use crate::commands::config::check_broker;
use crate::commands::user::SALT_BYTES;
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
        check_broker(&admin, resource).await?;
    }
    match targets {
        Targets::Quotas(parts) if options.alter => alter_client(&admin, &parts, change).await,
        Targets::Quotas(parts) => describe_client(&admin, &parts).await,
        Targets::Resource(resource) if options.alter => {
            let set = change.set.into_iter().map(|(key, value)| Alteration::Set(key, value));
            let deleted = change.deleted.into_iter().map(Alteration::Delete);
            let alterations: Vec<_> = set.chain(deleted).collect();
            admin.alter_configs(&resource, &alterations, false).await?;
            let (kind, name) = (resource.kind(), resource.name());
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
    let (kind, name) = (resource.kind(), resource.name());
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
            let names = admin.list_configured_groups().await?;
            names.into_iter().map(Resource::Group).collect()
        }
        _ => {
            let names = admin.list_client_metrics().await?;
            names.into_iter().map(Resource::ClientMetrics).collect()
        }
    })
}

/// A kind of quota entity with its name: the default if that is empty, all if there is none.
type Part = (&'static str, Option<String>);

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
        return Ok(Targets::Resource(resource));
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
        return Ok(Targets::Resource(resource));
    }
    if parts.is_empty() {
        return Err(Failure::new("whose? pass --entity-type TYPE --entity-name NAME"));
    }
    Ok(Targets::Quotas(parts))
}

/// Names an entity as Kafka's tool does.
fn entity_text(entity: &QuotaEntity) -> String {
    let words =
        |kind: &str| if kind == "user" { "user-principal".to_owned() } else { kind.to_owned() };
    let mut parts: Vec<_> = entity.iter().collect();
    parts.sort_by_key(|(kind, _)| kind != "user");
    let parts = parts.into_iter().map(|(kind, name)| match name {
        Some(name) => format!("{} '{name}'", words(kind)),
        None => format!("the default {}", words(kind)),
    });
    parts.collect::<Vec<_>>().join(", ")
}

async fn describe_client(admin: &Admin, parts: &[Part]) -> Result<(), Failure> {
    let filters: Vec<QuotaFilter> = parts
        .iter()
        .map(|(kind, name)| match name.as_deref() {
            None => QuotaFilter::Any((*kind).to_owned()),
            Some("") => QuotaFilter::Default((*kind).to_owned()),
            Some(name) => QuotaFilter::Exact((*kind).to_owned(), name.to_owned()),
        })
        .collect();
    for entity in admin.describe_quotas(&filters, true).await? {
        let quotas: Vec<_> =
            entity.quotas.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
        let name = entity_text(&entity.entity);
        line(format!("Quota configs for {name} are {}", quotas.join(", ")))?;
    }
    let [("user", name)] = parts else { return Ok(()) };
    let names: Vec<&str> = match name.as_deref() {
        Some("") => return Ok(()),
        name => name.into_iter().collect(),
    };
    for (name, user) in admin.describe_scram_users(&names).await? {
        let user = match user {
            Ok(user) => user,
            Err(error) if error.code() == Some(ErrorCode::ResourceNotFound) => continue,
            Err(error) => return Err(error.into()),
        };
        let credentials: Vec<_> = user
            .credentials
            .iter()
            .map(|(mechanism, iterations)| format!("{}=iterations={iterations}", mechanism.name()))
            .collect();
        line(format!(
            "SCRAM credential configs for user-principal '{name}' are {}",
            credentials.join(", ")
        ))?;
    }
    Ok(())
}

async fn alter_client(admin: &Admin, parts: &[Part], change: Change) -> Result<(), Failure> {
    let mut entity = QuotaEntity::new();
    for (kind, name) in parts {
        let name = name.clone().ok_or_else(|| {
            Failure::new("which one? pass --entity-name NAME or --entity-default")
        })?;
        entity.push(((*kind).to_owned(), Some(name).filter(|name| !name.is_empty())));
    }
    let mechanism = |key: &str| ScramMechanism::ALL.into_iter().find(|m| m.name() == key);
    let user = match entity.as_slice() {
        [(kind, Some(name))] if kind == "user" => Some(name.clone()),
        _ => None,
    };
    let no_user = || {
        Failure::new("a password belongs to one user: pass --entity-type users --entity-name NAME")
    };
    let mut operations = Vec::new();
    for (key, value) in change.set {
        if let Some(mechanism) = mechanism(&key) {
            let user = user.as_deref().ok_or_else(no_user)?;
            set_password(admin, user, mechanism, &value).await?;
            continue;
        }
        let number: f64 =
            value.parse().map_err(|_| Failure::new(format!("{key}={value}: expected a number")))?;
        operations.push((key, Some(number)));
    }
    for key in change.deleted {
        match mechanism(&key) {
            Some(mechanism) => {
                let user = user.as_deref().ok_or_else(no_user)?;
                admin.delete_scram_credential(user, mechanism).await?;
            }
            None => operations.push((key, None)),
        }
    }
    if !operations.is_empty() {
        admin.alter_quotas(&entity, &operations, false).await?;
    }
    let (kind, name) = &entity[0];
    let kind = if kind == "client-id" { "client" } else { kind };
    match name {
        Some(name) => line(format!("Completed updating config for {kind} {name}.")),
        None => line(format!("Completed updating default config for {kind}s in the cluster.")),
    }
}

/// Sets a password given as `iterations=8192,password=secret`.
async fn set_password(
    admin: &Admin,
    user: &str,
    mechanism: ScramMechanism,
    text: &str,
) -> Result<(), Failure> {
    /// As many as Kafka's tool takes unless it is told.
    const ITERATIONS: u32 = 4096;
    let mut iterations = ITERATIONS;
    let mut password = None;
    for item in text.split(',') {
        match item.split_once('=') {
            Some(("iterations", number)) => {
                iterations = number.parse().map_err(|_| {
                    Failure::new(format!("iterations={number}: expected 4096 to 16384"))
                })?;
            }
            Some(("password", given)) => password = Some(given),
            _ => {
                return Err(Failure::new(format!(
                    "{}=[{text}]: expected [iterations=NUMBER,password=PASSWORD]",
                    mechanism.name()
                )));
            }
        }
    }
    let password = password.ok_or_else(|| {
        Failure::new(format!("{}=[{text}]: the password is missing", mechanism.name()))
    })?;
    let mut salt = [0; SALT_BYTES];
    OsRandom.fill(&mut salt);
    Ok(admin.set_scram_password(user, mechanism, iterations, &salt, password).await?)
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
}
