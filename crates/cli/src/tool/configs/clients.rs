//! What `kafka-configs` says of users, clients and addresses: quotas and SCRAM credentials.

use fleuve_client::Admin;
use fleuve_client::admin::{QuotaEntity, QuotaFilter, ScramMechanism};
use fleuve_os::{OsRandom, Random};
use fleuve_protocol::ErrorCode;

use super::Change;
use crate::commands::user::SALT_BYTES;
use crate::failure::Failure;
use crate::output::line;

/// A kind of quota entity with its name: the default if that is empty, all if there is none.
pub(super) type Part = (&'static str, Option<String>);

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

pub(super) async fn describe(admin: &Admin, parts: &[Part]) -> Result<(), Failure> {
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

pub(super) async fn alter(admin: &Admin, parts: &[Part], change: Change) -> Result<(), Failure> {
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
