//! Raising and lowering the levels of features.

use fleuve_protocol::Str;
use fleuve_protocol::messages::feature_level_record::FeatureLevelRecord;

use super::machine::{Controller, Decision, SUPPORTED_FEATURES};
use super::releases::{LevelNeeds, METADATA_VERSIONS, level_needs};
use crate::image::{ELIGIBLE_LEADERS, FeatureRange, METADATA_VERSION};
use crate::record::Record;

/// In what direction a level may move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpgradeType {
    /// Only up.
    Upgrade,
    /// Down, if nothing is lost by it.
    SafeDowngrade,
    /// Down, even if something is lost.
    UnsafeDowngrade,
}

impl UpgradeType {
    /// Finds the type that a number stands for on the wire.
    pub const fn from_wire_id(id: i8) -> Option<Self> {
        Some(match id {
            1 => Self::Upgrade,
            2 => Self::SafeDowngrade,
            3 => Self::UnsafeDowngrade,
            _ => return None,
        })
    }
}

/// A feature that is to have another level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureUpdate {
    /// The feature.
    pub name: Str,
    /// The level it is to have; 0 switches it off.
    pub level: i16,
    /// In what direction; `None` for a direction that this release does not know.
    pub upgrade_type: Option<UpgradeType>,
}

/// Reports that a feature cannot have a level, and with it the whole request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct UpdateFeatureError {
    /// The feature.
    pub feature: Str,
    /// What is wrong.
    pub message: String,
}

/// The feature of the quorum itself, whose level no record of this log holds: with it voters are
/// known by directory, and can change.
pub const QUORUM_FEATURE: (&str, FeatureRange) = ("kraft.version", FeatureRange { min: 0, max: 1 });

impl Controller {
    /// Decides about levels of features: all of them, or none.
    pub fn update_features(
        &self,
        updates: &[FeatureUpdate],
        validate_only: bool,
    ) -> Decision<Result<(), UpdateFeatureError>> {
        let mut proposed = self.image.features().clone();
        proposed.extend(updates.iter().map(|update| (update.name.detach(), update.level)));
        let level_of = |name: &str| proposed.get(name).copied().unwrap_or(0);
        let mut records: Vec<Record> = Vec::new();
        for update in updates {
            let checked = self.check_feature(update).and_then(|()| check_needs(update, level_of));
            if let Err(message) = checked {
                let error = UpdateFeatureError { feature: update.name.clone(), message };
                return Decision { records: Vec::new(), reply: Err(error) };
            }
            let (name, feature_level) = (update.name.detach(), update.level);
            if name.as_str() == QUORUM_FEATURE.0 {
                continue;
            }
            if name == ELIGIBLE_LEADERS && feature_level > 0 {
                records.extend(self.min_isr_of_cluster());
            }
            records.push(FeatureLevelRecord { name, feature_level }.into());
        }
        if validate_only {
            records.clear();
        }
        Decision { records, reply: Ok(()) }
    }

    fn check_feature(&self, update: &FeatureUpdate) -> Result<(), String> {
        let FeatureUpdate { name, level, upgrade_type } = update;
        let (name, level) = (name.as_str(), *level);
        let invalid =
            |why: &str| Err(format!("Invalid update version {level} for feature {name}. {why}"));
        let Some(upgrade_type) = *upgrade_type else {
            return invalid("The controller does not support the given upgrade type.");
        };
        if level < 0 {
            return invalid("A feature version cannot be less than 0.");
        }
        if name == QUORUM_FEATURE.0 && (0..QUORUM_FEATURE.1.max).contains(&level) {
            return invalid("Can't downgrade the version of this feature.");
        }
        let range =
            SUPPORTED_FEATURES.iter().chain([&QUORUM_FEATURE]).find(|(known, _)| *known == name);
        let local = format!("Local controller {}", self.settings.node.id);
        if let Some(why) = reason_not_supported(&local, range.map(|(_, range)| *range), level) {
            return invalid(&why);
        }
        let brokers = self.image.brokers().values().filter(|_| name != QUORUM_FEATURE.0);
        for broker in brokers {
            let range = broker.features.get(name).copied();
            let who = format!("Broker {}", broker.id);
            if let Some(why) = reason_not_supported(&who, range, level) {
                return invalid(&why);
            }
        }
        let current = match name == QUORUM_FEATURE.0 {
            true => QUORUM_FEATURE.1.max,
            false => self.image.features().get(name).copied().unwrap_or(0),
        };
        if level < current && upgrade_type == UpgradeType::Upgrade {
            return invalid(
                "Can't downgrade the version of this feature without setting the upgrade type to \
                 either safe or unsafe downgrade.",
            );
        }
        if level > current && upgrade_type != UpgradeType::Upgrade {
            return invalid("Can't downgrade to a newer version.");
        }
        if name == METADATA_VERSION && level < current && changed_between(level, current) {
            let why = match upgrade_type {
                UpgradeType::UnsafeDowngrade => {
                    "Unsafe metadata downgrade is not supported in this version."
                }
                _ => {
                    "Refusing to perform the requested downgrade because it might delete metadata \
                     information."
                }
            };
            return Err(format!(
                "Unsupported metadata.version downgrade from {current} to {level}. {why}"
            ));
        }
        Ok(())
    }
}

/// Checks that the other features will have the levels that this one rests on.
fn check_needs(update: &FeatureUpdate, level_of: impl Fn(&str) -> i16) -> Result<(), String> {
    let FeatureUpdate { name, level, .. } = update;
    let LevelNeeds::Features(needs) = level_needs(name, *level) else { return Ok(()) };
    match needs.iter().find(|(feature, least)| level_of(feature) < *least) {
        None => Ok(()),
        Some((feature, least)) => Err(format!(
            "Invalid update version {level} for feature {name}. {name} could not be set to {level} \
             because it depends on {feature} level {least}"
        )),
    }
}

/// Level 0 switches a feature off, which everybody supports.
fn reason_not_supported(who: &str, range: Option<FeatureRange>, level: i16) -> Option<String> {
    match range {
        Some(range) if (range.min..=range.max).contains(&level) => None,
        Some(range) => Some(format!("{who} only supports versions {}-{}", range.min, range.max)),
        None if level == 0 => None,
        None => Some(format!("{who} does not support this feature.")),
    }
}

fn changed_between(lower: i16, higher: i16) -> bool {
    METADATA_VERSIONS
        .iter()
        .any(|(level, _, changed)| *changed && (lower + 1..=higher).contains(level))
}
