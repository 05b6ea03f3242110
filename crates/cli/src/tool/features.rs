//! `kafka-features.sh`, and what `kafka-storage.sh` says of features without a cluster.
//!
//! Sentences are those of Apache's tool. Departs from it in that features which the cluster does not
//! know are left out of what `--release-version` asks for, and named, where Apache's tool fails.

use std::collections::BTreeMap;

use clap::{Args, Parser, Subcommand};
use fleuve_client::Admin;
use fleuve_client::admin::UpgradeType;
use fleuve_metadata::controller::{
    LevelNeeds, default_levels, known_releases, level_needs, metadata_version_name,
    metadata_version_of,
};

use super::ConnectEither;
use crate::failure::{Failure, own_words};
use crate::output::{line, note};

/// Describe features and change their levels.
#[derive(Debug, Parser)]
pub(super) struct Features {
    #[command(flatten)]
    connect: ConnectEither,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show supported and finalized levels.
    Describe {
        /// Of the node with this id.
        #[arg(long)]
        node_id: Option<i32>,
    },
    /// Raise levels.
    Upgrade(Levels),
    /// Lower levels.
    Downgrade {
        #[command(flatten)]
        levels: Levels,
        /// Also if metadata is lost by it.
        #[arg(long)]
        r#unsafe: bool,
    },
    /// Switch features off.
    Disable {
        /// A feature; may be repeated.
        #[arg(long, required = true)]
        feature: Vec<String>,
        /// Also if metadata is lost by it.
        #[arg(long)]
        r#unsafe: bool,
        /// Only check.
        #[arg(long)]
        dry_run: bool,
    },
    /// Show which levels features have in a release.
    VersionMapping(VersionMapping),
    /// Show which features a level of a feature needs.
    FeatureDependencies(FeatureDependencies),
}

/// The levels to set.
#[derive(Debug, Args)]
struct Levels {
    /// A feature with its level, as transaction.version=2; may be repeated.
    #[arg(long, value_name = "FEATURE=LEVEL")]
    feature: Vec<String>,
    /// The older way to say metadata.version, by its release.
    #[arg(long, value_name = "RELEASE")]
    metadata: Option<String>,
    /// A release, such as 4.3 or 4.3-IV0, whose levels all features are to have.
    #[arg(long, value_name = "RELEASE", conflicts_with_all = ["feature", "metadata"])]
    release_version: Option<String>,
    /// Only check.
    #[arg(long)]
    dry_run: bool,
}

/// Which release.
#[derive(Debug, Args)]
pub(super) struct VersionMapping {
    /// A release, such as 4.3 or 4.3-IV0; the newest unless given.
    #[arg(long, short)]
    release_version: Option<String>,
}

/// Which levels.
#[derive(Debug, Args)]
pub(super) struct FeatureDependencies {
    /// A feature with its level, as group.version=1; may be repeated.
    #[arg(long, short, required = true, value_name = "FEATURE=LEVEL")]
    feature: Vec<String>,
}

/// The feature that goes by names of releases.
pub(super) const METADATA_VERSION: &str = "metadata.version";

pub(super) async fn run(options: Features) -> Result<(), Failure> {
    let Features { connect, action } = options;
    let wanted = match action {
        Action::VersionMapping(which) => return version_mapping(&which),
        Action::FeatureDependencies(which) => return dependencies(&which),
        Action::Describe { node_id } => return describe(&connect.admin().await?, node_id).await,
        Action::Upgrade(levels) => Wanted::of(levels, Verb::Upgrade, UpgradeType::Upgrade)?,
        Action::Downgrade { levels, r#unsafe } => {
            Wanted::of(levels, Verb::Downgrade, downgrade(r#unsafe))?
        }
        Action::Disable { feature, r#unsafe, dry_run } => Wanted {
            levels: unique(feature.into_iter().map(|name| (name, 0)).collect())?,
            whole_release: false,
            verb: Verb::Disable,
            upgrade_type: downgrade(r#unsafe),
            dry_run,
        },
    };
    change(&connect.admin().await?, wanted).await
}

async fn describe(admin: &Admin, node_id: Option<i32>) -> Result<(), Failure> {
    if let Some(id) = node_id {
        if id < 0 {
            return Err(Failure::new(format!("Invalid node id {id}: must be non-negative.")));
        }
        let cluster = admin.describe_cluster().await?;
        if !cluster.brokers.iter().any(|broker| broker.id == id) {
            return Err(Failure::new(format!("--node-id {id}: there is no such node")));
        }
    }
    let (features, epoch) = admin.describe_features().await?;
    for feature in features {
        let level = |level: i16| match metadata_version_name(level) {
            _ if feature.name != METADATA_VERSION => level.to_string(),
            Some(name) => name.to_owned(),
            None => format!("UNKNOWN {level}"),
        };
        let Some((min, max)) = feature.supported else { continue };
        line(format!(
            "Feature: {:<42}SupportedMinVersion: {:<17}SupportedMaxVersion: {:<17}\
             FinalizedVersionLevel: {:<17}Epoch: {}",
            feature.name,
            level(min),
            level(max),
            level(feature.finalized),
            if epoch < 0 { "-".to_owned() } else { epoch.to_string() },
        ))?;
    }
    Ok(())
}

/// What is done to levels.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Upgrade,
    Downgrade,
    Disable,
}

impl Verb {
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Upgrade => ("upgrade", "upgraded"),
            Self::Downgrade => ("downgrade", "downgraded"),
            Self::Disable => ("disable", "disabled"),
        }
    }
}

/// A change that is asked for.
struct Wanted {
    levels: BTreeMap<String, i16>,
    /// Whether all features were meant, and not each by name.
    whole_release: bool,
    verb: Verb,
    upgrade_type: UpgradeType,
    dry_run: bool,
}

impl Wanted {
    fn of(options: Levels, verb: Verb, upgrade_type: UpgradeType) -> Result<Self, Failure> {
        let Levels { feature, metadata, release_version, dry_run } = options;
        let whole_release = release_version.is_some();
        let mut levels = Vec::new();
        if let Some(release) = release_version {
            let level = release_level(&release)?;
            levels.push((METADATA_VERSION.to_owned(), level));
            // Nobody upgrades a feature to nothing.
            let others = default_levels(level).into_iter();
            let others = others.filter(|(_, level)| verb != Verb::Upgrade || *level > 0);
            levels.extend(others.map(|(name, level)| (name.to_owned(), level)));
        }
        if let Some(release) = metadata {
            line(" `metadata` flag is deprecated and may be removed in a future release.")?;
            levels.push((METADATA_VERSION.to_owned(), release_level(&release)?));
        }
        for text in &feature {
            levels.push(parse_level(text)?);
        }
        if levels.is_empty() {
            let (verb, _) = verb.words();
            return Err(Failure::new(format!("You must specify at least one feature to {verb}")));
        }
        Ok(Self { levels: unique(levels)?, whole_release, verb, upgrade_type, dry_run })
    }
}

async fn change(admin: &Admin, wanted: Wanted) -> Result<(), Failure> {
    let Wanted { mut levels, whole_release, verb, upgrade_type, dry_run } = wanted;
    if whole_release {
        let (features, _) = admin.describe_features().await?;
        levels.retain(|name, _| {
            let is_known = features.iter().any(|feature| feature.name == *name);
            if !is_known {
                note(format!("{name} is left out: the cluster does not know it."));
            }
            is_known
        });
    }
    let updates: Vec<(String, i16)> = levels.into_iter().collect();
    let outcome = admin.update_features(&updates, upgrade_type, dry_run).await;
    let (infinitive, participle) = verb.words();
    for (name, level) in &updates {
        let to = if verb == Verb::Disable { String::new() } else { format!(" to {level}") };
        match (&outcome, dry_run) {
            (Ok(()), true) => line(format!("{name} can be {participle}{to}."))?,
            (Ok(()), false) => line(format!("{name} was {participle}{to}."))?,
            (Err(error), _) => {
                let could = if dry_run { "Can not" } else { "Could not" };
                let why = own_words(error);
                line(format!("{could} {infinitive} {name}{to}. {why}"))?;
            }
        }
    }
    let count = updates.len();
    outcome.map_err(|_| Failure::new(format!("{count} out of {count} operation(s) failed.")))
}

fn downgrade(is_unsafe: bool) -> UpgradeType {
    if is_unsafe { UpgradeType::UnsafeDowngrade } else { UpgradeType::SafeDowngrade }
}

/// Levels by feature, each named once.
fn unique(levels: Vec<(String, i16)>) -> Result<BTreeMap<String, i16>, Failure> {
    let mut all = BTreeMap::new();
    for (name, level) in levels {
        if all.insert(name.clone(), level).is_some() {
            return Err(Failure::new(format!("Feature {name} was specified more than once.")));
        }
    }
    Ok(all)
}

/// Reads `feature=level`.
pub(super) fn parse_level(text: &str) -> Result<(String, i16), Failure> {
    let wrong = |why: &str| Failure::new(format!("Can't parse feature=level string {text}: {why}"));
    let (name, level) = text.split_once('=').ok_or_else(|| wrong("equals sign not found."))?;
    let level = level.trim();
    let number =
        level.parse().map_err(|_| wrong(&format!("unable to parse {level} as a short.")))?;
    Ok((name.trim().to_owned(), number))
}

/// The level of metadata.version that a release has.
pub(super) fn release_level(release: &str) -> Result<i16, Failure> {
    metadata_version_of(release).ok_or_else(|| {
        let known: Vec<_> = known_releases().collect();
        Failure::new(format!(
            "Unknown metadata.version '{release}'. Supported metadata.version are: {}",
            known.join(", ")
        ))
    })
}

pub(super) fn version_mapping(which: &VersionMapping) -> Result<(), Failure> {
    let newest = known_releases().next_back().unwrap_or_default();
    let release = which.release_version.as_deref().unwrap_or(newest);
    let level = release_level(release)?;
    line(format!("{METADATA_VERSION}={level} ({release})"))?;
    default_levels(level).into_iter().try_for_each(|(name, level)| line(format!("{name}={level}")))
}

pub(super) fn dependencies(which: &FeatureDependencies) -> Result<(), Failure> {
    for text in &which.feature {
        let (name, level) = parse_level(text)?;
        if name == METADATA_VERSION {
            let release = metadata_version_name(level)
                .ok_or_else(|| Failure::new(format!("Unknown metadata.version {level}")))?;
            line(format!("{name}={level} ({release}) has no dependencies."))?;
            continue;
        }
        let needs = match level_needs(&name, level) {
            LevelNeeds::Features(needs) => needs,
            LevelNeeds::UnknownFeature => {
                return Err(Failure::new(format!("Unknown feature: {name}")));
            }
            LevelNeeds::UnknownLevel => {
                return Err(Failure::new(format!("No feature:{name} with feature level {level}")));
            }
        };
        if needs.is_empty() {
            line(format!("{name}={level} has no dependencies."))?;
            continue;
        }
        line(format!("{name}={level} requires:"))?;
        for (name, level) in needs {
            match metadata_version_name(*level).filter(|_| *name == METADATA_VERSION) {
                Some(release) => line(format!("    {name}={level} ({release})"))?,
                None => line(format!("    {name}={level}"))?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_and_mistakes_have_words() {
        assert_eq!(parse_level(" a.version = 2 ").expect("a level"), ("a.version".to_owned(), 2));
        for (text, why) in [
            ("a.version", "Can't parse feature=level string a.version: equals sign not found."),
            ("a=b", "Can't parse feature=level string a=b: unable to parse b as a short."),
            (
                "a=40000",
                "Can't parse feature=level string a=40000: unable to parse 40000 as a short.",
            ),
        ] {
            assert_eq!(parse_level(text).expect_err(text).to_string(), why);
        }
        let twice = vec![("a".to_owned(), 1), ("a".to_owned(), 2)];
        assert!(unique(twice).is_err());
    }

    #[test]
    fn a_release_means_all_of_its_features() {
        let of = |verb, release: &str| {
            let levels = Levels {
                feature: Vec::new(),
                metadata: None,
                release_version: Some(release.to_owned()),
                dry_run: true,
            };
            Wanted::of(levels, verb, UpgradeType::Upgrade).expect("a release").levels
        };
        let upgraded = of(Verb::Upgrade, "4.0-IV3");
        let expected = [("group.version", 1), ("kraft.version", 1), (METADATA_VERSION, 25)];
        let expected = expected.into_iter().chain([("transaction.version", 2)]);
        assert!(upgraded.iter().map(|(name, level)| (name.as_str(), *level)).eq(expected));
        assert_eq!(of(Verb::Downgrade, "4.0-IV3").len(), 7);
    }
}
