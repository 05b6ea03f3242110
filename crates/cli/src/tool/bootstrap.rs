//! What a cluster begins with that `kafka-storage.sh format` prepares: users, and levels of features.
//!
//! The records are the controller's, decided as if a client had asked for them.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fleuve_broker::BrokerSettings;
use fleuve_client::admin::{ScramMechanism, salted_password};
use fleuve_metadata::controller::{
    Controller, FeatureUpdate, NewScramCredential, ScramAlteration, UpgradeType, default_levels,
    known_releases, metadata_version_name,
};
use fleuve_metadata::record::Record;
use fleuve_os::{OsRandom, Random};
use fleuve_protocol::Str;

use super::features::{METADATA_VERSION, parse_level, release_level};
use super::storage::Beginning;
use crate::commands::user::SALT_BYTES;
use crate::failure::Failure;

/// As many as Kafka's tool takes unless it is told.
const ITERATIONS: u32 = 4096;

/// What stands in the metadata first.
#[derive(Debug, PartialEq)]
pub(super) struct First {
    /// None if nothing is asked for.
    pub(super) records: Vec<Record>,
    /// The release whose metadata.version it has.
    pub(super) release: &'static str,
}

/// Makes the records.
pub(super) fn records(beginning: &Beginning) -> Result<First, Failure> {
    let Beginning { add_scram, feature, release_version } = beginning;
    let newest = known_releases().next_back().unwrap_or_default();
    if add_scram.is_empty() && feature.is_empty() && release_version.is_none() {
        return Ok(First { records: Vec::new(), release: newest });
    }
    let settings = Arc::new(BrokerSettings::default());
    let mut controller = Controller::new(Str::EMPTY, settings);
    let mut records = Vec::new();
    let mut follow = |controller: &mut Controller, more: Vec<Record>| {
        for record in more {
            controller.apply(&record).map_err(|error| Failure::new(error.to_string()))?;
            records.push(record);
        }
        Ok::<_, Failure>(())
    };
    // All that is served, at its highest level or that of the release; then what is asked for.
    let mut first = controller.finish_replay().records;
    if let Some(release) = release_version {
        let level = release_level(release)?;
        let mut levels = default_levels(level);
        levels.push((METADATA_VERSION, level));
        for record in &mut first {
            if let Record::FeatureLevel(feature) = record
                && let Some((_, level)) = levels.iter().find(|(name, _)| feature.name == **name)
            {
                feature.feature_level = *level;
            }
        }
    }
    follow(&mut controller, first)?;
    let levels = feature.iter().map(|text| parse_level(text)).collect::<Result<Vec<_>, _>>()?;
    let update = |(name, level): (String, i16)| {
        let current = controller.image().features().get(name.as_str()).copied().unwrap_or(0);
        // No metadata is there that could be lost.
        let upgrade_type =
            if level < current { UpgradeType::UnsafeDowngrade } else { UpgradeType::Upgrade };
        FeatureUpdate { name: Str::from(name), level, upgrade_type: Some(upgrade_type) }
    };
    let updates: Vec<_> = levels.into_iter().map(update).collect();
    let decision = controller.update_features(&updates, false);
    decision
        .reply
        .map_err(|error| Failure::new(format!("{}: {}", error.feature, error.message)))?;
    follow(&mut controller, decision.records)?;
    let users = add_scram.iter().map(|text| user(text)).collect::<Result<Vec<_>, _>>()?;
    for alteration in users {
        let decision = controller.alter_scram_credentials(std::slice::from_ref(&alteration));
        for (name, result) in decision.reply {
            result.map_err(|error| Failure::new(format!("--add-scram, user {name}: {error}")))?;
        }
        follow(&mut controller, decision.records)?;
    }
    // What features ask of configs follows from the settings of the broker, which adds it at its start.
    records.retain(|record| !matches!(record, Record::Config(_)));
    let level = controller.image().features().get(METADATA_VERSION);
    let release = level.and_then(|level| metadata_version_name(*level)).unwrap_or(newest);
    Ok(First { records, release })
}

/// Reads `SCRAM-SHA-256=[name=ann,password=secret]`.
fn user(text: &str) -> Result<ScramAlteration, Failure> {
    // What is said of a mistake must not show the password.
    let wrong = |why: &str| Failure::new(format!("--add-scram: {why}"));
    let (mechanism, rest) = text
        .split_once('=')
        .ok_or_else(|| wrong("expected SCRAM-SHA-256=[name=NAME,password=PASSWORD]"))?;
    let mechanism = ScramMechanism::ALL.into_iter().find(|known| known.name() == mechanism);
    let mechanism =
        mechanism.ok_or_else(|| wrong("expected SCRAM-SHA-256 or SCRAM-SHA-512 first"))?;
    let fields = rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let fields = fields.ok_or_else(|| wrong("expected brackets around name and password"))?;
    let (mut name, mut password, mut salted, mut salt) = (None, None, None, None);
    let mut iterations = ITERATIONS;
    for field in fields.split(',') {
        let (key, value) =
            field.split_once('=').ok_or_else(|| wrong("expected NAME=VALUE between commas"))?;
        let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        let value = quoted.unwrap_or(value);
        let decoded = || STANDARD.decode(value).map_err(|_| wrong("expected base64"));
        match key.trim() {
            "name" => name = Some(value),
            "password" => password = Some(value),
            "salt" => salt = Some(decoded()?),
            "saltedpassword" => salted = Some(decoded()?),
            "iterations" => {
                iterations =
                    value.parse().map_err(|_| wrong("iterations: expected 4096 to 16384"))?;
            }
            _ => return Err(wrong("known are name, password, salt, saltedpassword, iterations")),
        }
    }
    let name = name.ok_or_else(|| wrong("the name is missing"))?;
    let salt = salt.unwrap_or_else(|| {
        let mut salt = vec![0; SALT_BYTES];
        OsRandom.fill(&mut salt);
        salt
    });
    let salted = match (password, salted) {
        (Some(password), None) => salted_password(mechanism, iterations, &salt, password)?,
        (None, Some(salted)) => salted,
        (Some(_), Some(_)) => return Err(wrong("one of password and saltedpassword is enough")),
        (None, None) => return Err(wrong("the password is missing")),
    };
    Ok(ScramAlteration {
        user: Str::copy_from(name),
        mechanism: match mechanism {
            ScramMechanism::Sha256 => 1,
            ScramMechanism::Sha512 => 2,
        },
        new: Some(NewScramCredential {
            iterations: i32::try_from(iterations).unwrap_or(i32::MAX),
            salt: Bytes::from(salt),
            salted_password: Bytes::from(salted),
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beginning(users: &[&str], features: &[&str]) -> Beginning {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Beginning { add_scram: texts(users), feature: texts(features), release_version: None }
    }

    #[test]
    fn nothing_asked_is_nothing_written() {
        assert_eq!(records(&beginning(&[], &[])).expect("nothing").records, []);
    }

    #[test]
    fn a_release_decides_all_levels_and_single_ones_come_over_it() {
        let release = Some("3.9".to_owned());
        let first = records(&Beginning { release_version: release, ..beginning(&[], &[]) });
        let first = first.expect("a release that is known");
        assert_eq!(first.release, "3.9-IV0");
        let level = |name: &str, first: &First| {
            let of = |record: &Record| match record {
                Record::FeatureLevel(it) if it.name == *name => Some(it.feature_level),
                _ => None,
            };
            first.records.iter().filter_map(of).next_back()
        };
        assert_eq!(level(METADATA_VERSION, &first), Some(21));
        assert_eq!(level("group.version", &first), Some(0));
        let release = Some("4.2-IV0".to_owned());
        let features = beginning(&[], &["streams.version=1", "share.version=0"]);
        let first = records(&Beginning { release_version: release, ..features });
        let first = first.expect("levels that are known");
        assert_eq!(level(METADATA_VERSION, &first), Some(28));
        assert_eq!(level("streams.version", &first), Some(1));
        assert_eq!(level("share.version", &first), Some(0));
        assert_eq!(level("transaction.version", &first), Some(2));
    }

    #[test]
    fn mistakes_are_named_and_no_password_is_shown() {
        for text in [
            "SCRAM-SHA-256",
            "PLAIN=[name=a,password=geheim]",
            "SCRAM-SHA-256=name=a,password=geheim",
            "SCRAM-SHA-256=[password=geheim]",
            "SCRAM-SHA-256=[name=a]",
            "SCRAM-SHA-256=[name=a,password=geheim,iterations=1]",
            "SCRAM-SHA-256=[name=a,password=geheim,saltedpassword=Z2VoZWlt]",
            "SCRAM-SHA-256=[name=a,pass=geheim]",
            "SCRAM-SHA-256=[name=,password=geheim]",
        ] {
            let error = records(&beginning(&[text], &[])).expect_err(text).to_string();
            assert!(!error.contains("geheim"), "{error}");
        }
        for feature in ["transaction.version", "transaction.version=9", "flavour=1"] {
            assert!(records(&beginning(&[], &[feature])).is_err(), "{feature}");
        }
    }
}
