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
    Controller, FeatureUpdate, NewScramCredential, ScramAlteration, UpgradeType,
};
use fleuve_metadata::record::Record;
use fleuve_os::{OsRandom, Random};
use fleuve_protocol::Str;

use super::cluster::release_level;
use super::storage::Beginning;
use crate::commands::cluster::parse_levels;
use crate::commands::user::SALT_BYTES;
use crate::failure::Failure;

/// The feature that goes by names of releases.
const METADATA_VERSION: &str = "metadata.version";
/// As many as Kafka's tool takes unless it is told.
const ITERATIONS: u32 = 4096;

/// Makes the records; none if nothing is asked for.
pub(super) fn records(beginning: &Beginning) -> Result<Vec<Record>, Failure> {
    let Beginning { add_scram, feature, release_version } = beginning;
    if add_scram.is_empty() && feature.is_empty() && release_version.is_none() {
        return Ok(Vec::new());
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
    // All that is served, at its highest level; then what is asked for.
    let first = controller.finish_replay().records;
    follow(&mut controller, first)?;
    let mut levels = parse_levels(feature)?;
    if let Some(release) = release_version {
        levels.push((METADATA_VERSION.to_owned(), release_level(release)?));
    }
    let updates: Vec<_> = levels
        .into_iter()
        .map(|(name, level)| FeatureUpdate {
            name: Str::from(name),
            level,
            // No metadata is there that could be lost.
            upgrade_type: Some(UpgradeType::UnsafeDowngrade),
        })
        .collect();
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
    Ok(records)
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
        assert_eq!(records(&beginning(&[], &[])).expect("nothing"), []);
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
