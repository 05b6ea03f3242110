//! `fleuve quota`: how much users, clients and addresses may use.

use clap::{Args, Subcommand};
use fleuve_client::admin::{EntityQuotas, QuotaEntity, QuotaFilter};
use serde_json::{Value, json};

use crate::args::Common;
use crate::context::Context;
use crate::failure::Failure;
use crate::outcome::Outcomes;
use crate::output::print;

/// Describe and change quotas.
#[derive(Debug, Subcommand)]
pub(crate) enum Quota {
    /// Show quotas, of all entities unless some are named.
    #[command(after_help = "Examples:\n  \
        fleuve quota describe\n  \
        fleuve quota describe --user ann")]
    Describe {
        #[command(flatten)]
        of: Of,
    },
    /// Set or remove quotas of one entity.
    #[command(after_help = "Examples:\n  \
        fleuve quota alter --user ann --set producer_byte_rate=1048576\n  \
        fleuve quota alter --user-default --client-default --delete request_percentage\n  \
        fleuve quota alter --ip 10.0.0.1 --set connection_creation_rate=10 --dry-run")]
    Alter {
        #[command(flatten)]
        of: Of,
        /// A quota to set; may be repeated.
        #[arg(long, value_name = "KEY=NUMBER", visible_alias = "add")]
        set: Vec<String>,
        /// A quota to remove; may be repeated.
        #[arg(long, value_name = "KEY")]
        delete: Vec<String>,
        /// Only check.
        #[arg(long)]
        dry_run: bool,
    },
}

/// What Kafka can limit.
const KEYS: [&str; 5] = [
    "producer_byte_rate",
    "consumer_byte_rate",
    "request_percentage",
    "controller_mutation_rate",
    "connection_creation_rate",
];

/// Whose quotas.
#[derive(Debug, Args)]
pub(crate) struct Of {
    /// Of a user.
    #[arg(long, value_name = "NAME", conflicts_with = "user_default")]
    user: Option<String>,
    /// Of users without quotas of their own.
    #[arg(long)]
    user_default: bool,
    /// Of clients that call themselves so.
    #[arg(long, value_name = "ID", conflicts_with = "client_default")]
    client: Option<String>,
    /// Of clients without quotas of their own.
    #[arg(long)]
    client_default: bool,
    /// Of an address.
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["ip_default", "user", "client"])]
    ip: Option<String>,
    /// Of addresses without quotas of their own.
    #[arg(long, conflicts_with_all = ["user", "client"])]
    ip_default: bool,
}

impl Of {
    fn entity(&self) -> QuotaEntity {
        let parts = [
            ("user", &self.user, self.user_default),
            ("client-id", &self.client, self.client_default),
            ("ip", &self.ip, self.ip_default),
        ];
        parts
            .into_iter()
            .filter(|(_, name, is_default)| name.is_some() || *is_default)
            .map(|(kind, name, _)| (kind.to_owned(), name.clone()))
            .collect()
    }
}

pub(crate) async fn run(command: Quota, common: &Common) -> Result<(), Failure> {
    let admin = Context::new(common)?.admin().await?;
    match command {
        Quota::Describe { of } => {
            let filters: Vec<QuotaFilter> = of.entity().into_iter().map(filter).collect();
            let entities = admin.describe_quotas(&filters, false).await?;
            let value = entities.iter().map(as_json).collect();
            let rows = entities.iter().flat_map(|entity| {
                let name = describe(&entity.entity);
                entity
                    .quotas
                    .iter()
                    .map(move |(key, value)| vec![name.clone(), key.clone(), value.to_string()])
            });
            print(common.output, &value, &["entity", "quota", "value"], rows)
        }
        Quota::Alter { of, set, delete, dry_run } => {
            let entity = of.entity();
            if entity.is_empty() {
                return Err(Failure::new("whose? pass --user, --client, --ip or their -default"));
            }
            let keys = set.iter().map(|it| it.split_once('=').map_or(it.as_str(), |(key, _)| key));
            let unknown =
                keys.chain(delete.iter().map(String::as_str)).find(|key| !KEYS.contains(key));
            if let Some(key) = unknown {
                return Err(Failure::new(format!(
                    "no quota is called {key}: use one of {}",
                    KEYS.join(", ")
                )));
            }
            let mut operations = Vec::new();
            for assignment in &set {
                let parsed = assignment.split_once('=').and_then(|(key, number)| {
                    Some((key.to_owned(), Some(number.parse::<f64>().ok()?)))
                });
                operations.push(parsed.ok_or_else(|| {
                    Failure::new(format!("--set {assignment}: expected KEY=NUMBER"))
                })?);
            }
            operations.extend(delete.into_iter().map(|key| (key, None)));
            if operations.is_empty() {
                return Err(Failure::new(
                    "nothing to change: pass --set KEY=NUMBER or --delete KEY",
                ));
            }
            admin.alter_quotas(&entity, &operations, dry_run).await?;
            let verb = if dry_run { "could change" } else { "changed" };
            let names = entity.iter().map(|(kind, name)| (kind.clone(), json!(name)));
            let quotas = operations.iter().map(|(key, value)| (key.clone(), json!(value)));
            let subject = json!({
                "entity": Value::Object(names.collect()), "quotas": Value::Object(quotas.collect()),
            });
            let sentence = format!("{verb} {} quotas of {}", operations.len(), describe(&entity));
            let mut outcomes = Outcomes::new(common.output, dry_run);
            outcomes.done("alter", subject, sentence)?;
            outcomes.end()
        }
    }
}

fn filter((kind, name): (String, Option<String>)) -> QuotaFilter {
    match name {
        Some(name) => QuotaFilter::Exact(kind, name),
        None => QuotaFilter::Default(kind),
    }
}

fn as_json(entity: &EntityQuotas) -> Value {
    let names = entity.entity.iter().map(|(kind, name)| (kind.clone(), json!(name)));
    let quotas = entity.quotas.iter().map(|(key, value)| (key.clone(), json!(value)));
    json!({
        "entity": Value::Object(names.collect()), "quotas": Value::Object(quotas.collect()),
    })
}

fn describe(entity: &QuotaEntity) -> String {
    let part = |(kind, name): &(String, Option<String>)| {
        format!("{kind} {}", name.as_deref().unwrap_or("<default>"))
    };
    entity.iter().map(part).collect::<Vec<_>>().join(", ")
}
