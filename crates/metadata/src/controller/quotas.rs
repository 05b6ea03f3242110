//! Changing quotas of users, clients and addresses.

use std::collections::BTreeSet;

use fleuve_protocol::Str;

use super::machine::{Controller, Decision};
use crate::image::{QuotaEntity, QuotaEntityType};
use crate::record::Record;

/// Changes of the quotas of one entity, as asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct QuotaAlteration {
    /// Whom it is for: kinds with names, `None` standing for the default.
    pub entity: Vec<(Str, Option<Str>)>,
    /// Keys with new values, `None` for removal.
    pub operations: Vec<(Str, Option<f64>)>,
}

/// Reports that quotas cannot be changed so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AlterQuotaError(String);

/// What values a quota may have.
#[derive(Clone, Copy)]
enum Kind {
    Fraction,
    Int,
    Long,
}

/// The quotas that a kind of entity can have.
type Keys = [(&'static str, Kind)];

const CLIENT_KEYS: [(&str, Kind); 4] = [
    ("consumer_byte_rate", Kind::Long),
    ("controller_mutation_rate", Kind::Fraction),
    ("producer_byte_rate", Kind::Long),
    ("request_percentage", Kind::Fraction),
];

const IP_KEYS: [(&str, Kind); 1] = [("connection_creation_rate", Kind::Int)];

impl Controller {
    /// Decides about quotas.
    ///
    /// `is_host` says whether a name is an address or stands for one; asking for that is not this
    /// machine's business.
    pub fn alter_client_quotas(
        &self,
        alterations: &[QuotaAlteration],
        validate_only: bool,
        is_host: impl Fn(&str) -> bool,
    ) -> Decision<Vec<Result<(), AlterQuotaError>>> {
        let mut records = Vec::new();
        let mut seen = BTreeSet::new();
        let decide = |alteration: &QuotaAlteration| {
            let (entity, keys) = check_entity(&alteration.entity, &is_host)?;
            check_distinct(alteration, &entity)?;
            if !seen.insert(entity.clone()) {
                return refuse(format!("Ignoring duplicate entity {}", java_entity(&entity)));
            }
            let more = self.quota_records(&entity, keys, &alteration.operations)?;
            records.extend(more);
            Ok(())
        };
        let reply = alterations.iter().map(decide).collect();
        if validate_only {
            records.clear();
        }
        Decision { records, reply }
    }

    fn quota_records(
        &self,
        entity: &QuotaEntity,
        keys: &Keys,
        operations: &[(Str, Option<f64>)],
    ) -> Result<Vec<Record>, AlterQuotaError> {
        let current = self.image.quotas().of(entity);
        let current = |key: &Str| current.and_then(|map| map.get(key).copied());
        let mut records = Vec::new();
        for (key, value) in operations {
            if let Some(value) = value {
                check_value(keys, key, *value)?;
            }
            if current(key) != *value {
                records.push(entity.to_record(key, *value).into());
            }
        }
        Ok(records)
    }
}

fn check_entity(
    parts: &[(Str, Option<Str>)],
    is_host: impl Fn(&str) -> bool,
) -> Result<(QuotaEntity, &'static Keys), AlterQuotaError> {
    use QuotaEntityType::{ClientId, Ip, User};
    let mut entity = QuotaEntity::default();
    for (kind_name, name) in parts {
        let Some(kind) = QuotaEntityType::from_name(kind_name) else {
            return refuse(format!("Unhandled client quota entity type: {kind_name}"));
        };
        if name.as_ref().is_some_and(|name| name.is_empty()) {
            return refuse(format!("Empty {kind_name} not supported"));
        }
        if entity.0.insert(kind, name.as_ref().map(Str::detach)).is_some() {
            return refuse(format!(
                "Invalid client quota entity, duplicate entity entry {kind_name}"
            ));
        }
    }
    let names_client = entity.0.contains_key(&User) || entity.0.contains_key(&ClientId);
    match entity.0.get(&Ip) {
        Some(_) if names_client => refuse(
            "Invalid quota entity combination, IP entity shouldnot be combined with User or \
             ClientId"
                .to_owned(),
        ),
        Some(Some(host)) if !is_host(host) => {
            refuse(format!("{host} is not a valid IP or resolvable host."))
        }
        Some(_) => Ok((entity, &IP_KEYS)),
        None if names_client => Ok((entity, &CLIENT_KEYS)),
        None => refuse("Invalid empty client quota entity".to_owned()),
    }
}

fn check_distinct(
    alteration: &QuotaAlteration,
    entity: &QuotaEntity,
) -> Result<(), AlterQuotaError> {
    let mut keys = BTreeSet::new();
    let mut names = alteration.operations.iter().map(|(key, _)| key);
    match names.find(|key| !keys.insert(key.as_str())) {
        Some(key) => refuse(format!(
            "Duplicate quota key {key} not updating quota for this entity {}",
            java_entity(entity)
        )),
        None => Ok(()),
    }
}

fn check_value(keys: &Keys, key: &str, value: f64) -> Result<(), AlterQuotaError> {
    /// As near to a whole number as Kafka wants it.
    const FRACTION_MAX: f64 = 1e-6;
    let Some((_, kind)) = keys.iter().find(|(known, _)| *known == key) else {
        return refuse(format!("Invalid configuration key {key}"));
    };
    if value <= 0.0 || value.is_nan() {
        return refuse(format!("Quota {key} must be greater than 0"));
    }
    let (limit, name) = match kind {
        Kind::Fraction => return Ok(()),
        Kind::Int => (f64::from(i32::MAX), "an INT"),
        Kind::Long => (i64::MAX as f64, "a LONG"),
    };
    if value > limit {
        return refuse(format!("Proposed value for {key} is too large for {name}."));
    }
    if value % 1.0 > FRACTION_MAX {
        return refuse(format!("{key} cannot be a fractional value."));
    }
    Ok(())
}

/// Writes an entity as Kafka's messages do.
fn java_entity(entity: &QuotaEntity) -> String {
    let part = |(kind, name): (&QuotaEntityType, &Option<Str>)| {
        format!("{}={}", kind.name(), name.as_deref().unwrap_or("null"))
    };
    let parts: Vec<String> = entity.0.iter().map(part).collect();
    format!("ClientQuotaEntity(entries={{{}}})", parts.join(", "))
}

fn refuse<T>(message: String) -> Result<T, AlterQuotaError> {
    Err(AlterQuotaError(message))
}
