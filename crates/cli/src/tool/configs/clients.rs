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
    for entity in admin.describe_quotas(&filters(parts), true).await? {
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

/// Asks for the entities of these kinds and names.
fn filters(parts: &[Part]) -> Vec<QuotaFilter> {
    let filters = parts.iter().map(|(kind, name)| match name.as_deref() {
        None => QuotaFilter::Any((*kind).to_owned()),
        Some("") => QuotaFilter::Default((*kind).to_owned()),
        Some(name) => QuotaFilter::Exact((*kind).to_owned(), name.to_owned()),
    });
    filters.collect()
}

pub(super) async fn alter(admin: &Admin, parts: &[Part], change: Change) -> Result<(), Failure> {
    let mut entity = QuotaEntity::new();
    for (kind, name) in parts {
        let name = name.clone().ok_or_else(|| {
            Failure::new("which one? pass --entity-name NAME or --entity-default")
        })?;
        entity.push(((*kind).to_owned(), Some(name).filter(|name| !name.is_empty())));
    }
    match plan(&entity, change)? {
        Plan::Quotas(operations) => {
            check_removals(admin, parts, &operations).await?;
            admin.alter_quotas(&entity, &operations, false).await?;
        }
        // Deletions come first because they are what may fail: of a credential that is not there.
        Plan::Credentials { user, deleted, set } => {
            for mechanism in deleted {
                admin.delete_scram_credential(&user, mechanism).await?;
            }
            for (mechanism, Credential { iterations, password }) in set {
                let mut salt = [0; SALT_BYTES];
                OsRandom.fill(&mut salt);
                admin.set_scram_password(&user, mechanism, iterations, &salt, &password).await?;
            }
        }
    }
    let (kind, name) = &entity[0];
    let kind = if kind == "client-id" { "client" } else { kind };
    match name {
        Some(name) => line(format!("Completed updating config for {kind} {name}.")),
        None => line(format!("Completed updating default config for {kind}s in the cluster.")),
    }
}

/// What of a change is to be asked of the broker: one thing or the other, because the two are
/// different requests and the second could fail after the first.
#[derive(Debug, PartialEq)]
enum Plan {
    /// Quotas with what they are set to, `None` to remove them.
    Quotas(Vec<(String, Option<f64>)>),
    /// Credentials of a user.
    Credentials {
        user: String,
        deleted: Vec<ScramMechanism>,
        set: Vec<(ScramMechanism, Credential)>,
    },
}

/// What Kafka limits for users and clients.
const CLIENT_QUOTAS: [&str; 4] =
    ["producer_byte_rate", "consumer_byte_rate", "request_percentage", "controller_mutation_rate"];
/// What it limits for addresses.
const ADDRESS_QUOTAS: [&str; 1] = ["connection_creation_rate"];

/// Refuses what these entities cannot have; brokers remove quotas of any name without a word.
fn plan(entity: &QuotaEntity, change: Change) -> Result<Plan, Failure> {
    let is_address = entity.iter().any(|(kind, _)| kind == "ip");
    let is_client = entity.iter().any(|(kind, _)| kind == "client-id");
    let (whose, what, quotas) = if is_address {
        ("ips", "connection quota", &ADDRESS_QUOTAS[..])
    } else if is_client {
        ("clients", "quota", &CLIENT_QUOTAS[..])
    } else {
        ("users", "quota and SCRAM credential", &CLIENT_QUOTAS[..])
    };
    let mechanism = |key: &str| ScramMechanism::ALL.into_iter().find(|known| known.name() == key);
    let is_credential = |key: &str| whose == "users" && mechanism(key).is_some();
    let check = |keys: &[&str], verb: &str| {
        let is_unknown = |key: &&str| !quotas.contains(key) && !is_credential(key);
        let unknown: Vec<&str> = keys.iter().copied().filter(is_unknown).collect();
        match unknown.is_empty() {
            true => Ok(()),
            false => Err(Failure::new(format!(
                "Only {what} configs can be {verb} for '{whose}' using --bootstrap-server. \
                 Unexpected config names: {}",
                unknown.join(",")
            ))),
        }
    };
    let set: Vec<&str> = change.set.iter().map(|(key, _)| key.as_str()).collect();
    let deleted: Vec<&str> = change.deleted.iter().map(String::as_str).collect();
    check(&set, "added")?;
    check(&deleted, "deleted")?;
    let mut keys = set.iter().chain(&deleted);
    if keys.clone().any(|key| is_credential(key)) {
        let [(_, Some(user))] = entity.as_slice() else {
            return Err(Failure::new(
                "The use of --entity-default or --user-defaults is not allowed with User SCRAM \
                 Credentials using --bootstrap-server.",
            ));
        };
        if !keys.all(|key| is_credential(key)) {
            return Err(Failure::new(
                "Cannot alter both quota and SCRAM credential configs simultaneously for 'users' \
                 using --bootstrap-server.",
            ));
        }
        let read = |(key, text): &(String, String)| {
            let mechanism = mechanism(key)?;
            Some(Credential::parse(mechanism, text).map(|credential| (mechanism, credential)))
        };
        let set = change.set.iter().filter_map(read).collect::<Result<_, _>>()?;
        let deleted = deleted.iter().filter_map(|key| mechanism(key)).collect();
        return Ok(Plan::Credentials { user: user.clone(), deleted, set });
    }
    let mut operations = Vec::new();
    for (key, value) in change.set {
        let number = value.parse().map_err(|_| {
            Failure::new(format!("Cannot parse quota configuration value for {key}: {value}"))
        })?;
        operations.push((key, Some(number)));
    }
    operations.extend(change.deleted.into_iter().map(|key| (key, None)));
    Ok(Plan::Quotas(operations))
}

/// Sees to it that the quotas which are to be removed are set: to brokers it is all the same.
async fn check_removals(
    admin: &Admin,
    parts: &[Part],
    operations: &[(String, Option<f64>)],
) -> Result<(), Failure> {
    let mut removed = operations.iter().filter(|(_, value)| value.is_none()).peekable();
    if removed.peek().is_none() {
        return Ok(());
    }
    let found = admin.describe_quotas(&filters(parts), true).await?;
    let is_set = |key: &str| found.iter().flat_map(|it| &it.quotas).any(|(known, _)| known == key);
    let missing: Vec<&str> =
        removed.map(|(key, _)| key.as_str()).filter(|key| !is_set(key)).collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(format!("Invalid config(s): {}", missing.join(",")))),
    }
}

/// What a credential is made of.
#[derive(Debug, PartialEq)]
struct Credential {
    iterations: u32,
    password: String,
}

impl Credential {
    /// Reads `iterations=8192,password=secret`; all behind the second `=` is the password, commas
    /// included.
    fn parse(mechanism: ScramMechanism, text: &str) -> Result<Self, Failure> {
        /// As many as Kafka's tool takes unless it is told.
        const ITERATIONS: i32 = 4096;
        /// As few as Kafka takes.
        const ITERATIONS_MIN: i32 = 4096;
        /// Means the default, in Kafka's tool.
        const UNSET: i32 = -1;
        let mechanism = mechanism.name();
        // What is said of a mistake must not show the password.
        let wrong = || {
            Failure::new(format!(
                "Invalid credential property {mechanism}: expected \
                 [iterations=NUMBER,password=PASSWORD]"
            ))
        };
        let text = text.trim();
        let (iterations, rest) = match text.strip_prefix("iterations=") {
            Some(rest) => {
                let (number, rest) = rest.split_once(',').ok_or_else(wrong)?;
                (number.parse().map_err(|_| wrong())?, rest)
            }
            None => (UNSET, text),
        };
        let password = rest.strip_prefix("password=").ok_or_else(wrong)?;
        if password.is_empty() {
            return Err(Failure::new(format!("{mechanism}: Password must not be empty")));
        }
        let iterations = if iterations == UNSET { ITERATIONS } else { iterations };
        let enough = u32::try_from(iterations).ok().filter(|_| iterations >= ITERATIONS_MIN);
        let iterations = enough.ok_or_else(|| {
            Failure::new(format!(
                "Iterations {iterations} is less than the minimum {ITERATIONS_MIN} required for \
                 {mechanism}"
            ))
        })?;
        Ok(Self { iterations, password: password.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plans a change: `key=value` is set, and a key alone deleted.
    fn planned(entity: &[(&str, Option<&str>)], keys: &[&str]) -> Result<Plan, String> {
        let owned =
            |(kind, name): &(&str, Option<&str>)| ((*kind).to_owned(), name.map(str::to_owned));
        let mut change = Change { set: Vec::new(), deleted: Vec::new() };
        for key in keys {
            match key.split_once('=') {
                Some((key, value)) => change.set.push((key.to_owned(), value.to_owned())),
                None => change.deleted.push((*key).to_owned()),
            }
        }
        plan(&entity.iter().map(owned).collect(), change).map_err(|error| error.to_string())
    }

    const ANN: (&str, Option<&str>) = ("user", Some("ann"));
    const PHONE: (&str, Option<&str>) = ("client-id", Some("phone"));

    #[test]
    fn names_that_an_entity_cannot_have_are_refused() {
        for (entity, key, error) in [
            (
                &[ANN][..],
                "producer_byte_rte",
                "Only quota and SCRAM credential configs can be deleted for 'users'",
            ),
            (
                &[ANN],
                "producer_byte_rte=1",
                "Only quota and SCRAM credential configs can be added for 'users'",
            ),
            (
                &[ANN],
                "connection_creation_rate",
                "Only quota and SCRAM credential configs can be deleted for 'users'",
            ),
            (&[PHONE], "SCRAM-SHA-256", "Only quota configs can be deleted for 'clients'"),
            (
                &[ANN, PHONE],
                "SCRAM-SHA-256=password=a",
                "Only quota configs can be added for 'clients'",
            ),
            (
                &[("ip", None)],
                "producer_byte_rate",
                "Only connection quota configs can be deleted for 'ips'",
            ),
        ] {
            let name = key.split('=').next().unwrap_or_default();
            let expected =
                format!("{error} using --bootstrap-server. Unexpected config names: {name}");
            assert_eq!(planned(entity, &[key]), Err(expected), "{key}");
        }
    }

    #[test]
    fn passwords_belong_to_one_user_and_come_without_quotas() {
        let error = planned(&[ANN], &["SCRAM-SHA-512=password=a", "request_percentage=1"]);
        let error = error.expect_err("two requests");
        assert!(
            error.starts_with("Cannot alter both quota and SCRAM credential configs"),
            "{error}"
        );
        let error = planned(&[("user", None)], &["SCRAM-SHA-512"]).expect_err("whose?");
        assert!(error.starts_with("The use of --entity-default or --user-defaults"), "{error}");
    }

    #[test]
    fn what_is_known_is_set_and_deleted() {
        let plan = planned(&[ANN, PHONE], &["request_percentage=12.5", "consumer_byte_rate"]);
        let operations = [("request_percentage", Some(12.5)), ("consumer_byte_rate", None)];
        let operations = operations.map(|(key, value)| (key.to_owned(), value)).to_vec();
        assert_eq!(plan, Ok(Plan::Quotas(operations)));
        let plan = planned(&[ANN], &["SCRAM-SHA-512=password=a", "SCRAM-SHA-256"]);
        let credential = Credential { iterations: 4096, password: "a".to_owned() };
        let set = vec![(ScramMechanism::Sha512, credential)];
        let (user, deleted) = ("ann".to_owned(), vec![ScramMechanism::Sha256]);
        assert_eq!(plan, Ok(Plan::Credentials { user, deleted, set }));
        assert!(planned(&[ANN], &["request_percentage=many"]).is_err());
    }

    #[test]
    fn a_password_may_have_commas_and_iterations_may_be_the_default() {
        let parse = |text: &str| {
            let read = Credential::parse(ScramMechanism::Sha256, text);
            read.map(|it| (it.iterations, it.password)).map_err(|error| error.to_string())
        };
        for (text, iterations, password) in [
            ("password=geheim", 4096, "geheim"),
            ("iterations=8192,password=geheim,iterations=1", 8192, "geheim,iterations=1"),
            ("iterations=-1,password=a=b", 4096, "a=b"),
        ] {
            assert_eq!(parse(text), Ok((iterations, password.to_owned())));
        }
        for (text, expected) in [
            ("geheim", "Invalid credential property SCRAM-SHA-256"),
            ("iterations=8192", "Invalid credential property SCRAM-SHA-256"),
            ("iterations=,password=geheim", "Invalid credential property SCRAM-SHA-256"),
            ("iterations=4095,password=geheim", "Iterations 4095 is less than the minimum 4096"),
            ("iterations=-2,password=geheim", "Iterations -2 is less than the minimum 4096"),
            ("iterations=8192,password=", "SCRAM-SHA-256: Password must not be empty"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.starts_with(expected) && !error.contains("geheim"), "{error}");
        }
    }
}
