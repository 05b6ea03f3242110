//! Which levels features have in a release, and what a level needs of other features.
//!
//! The tables of Kafka 4.3: `kafka-features.sh` and `kafka-storage.sh` answer from them without a
//! cluster, and clusters that are to begin as an older release get their levels from here.

use crate::image::METADATA_VERSION;

/// The levels of `metadata.version` with their releases; `true` where what the log holds changed,
/// so that there is no way back.
pub(super) const METADATA_VERSIONS: [(i16, &str, bool); 24] = [
    (7, "3.3-IV3", true),
    (8, "3.4-IV0", true),
    (9, "3.5-IV0", false),
    (10, "3.5-IV1", false),
    (11, "3.5-IV2", true),
    (12, "3.6-IV0", false),
    (13, "3.6-IV1", true),
    (14, "3.6-IV2", true),
    (15, "3.7-IV0", true),
    (16, "3.7-IV1", false),
    (17, "3.7-IV2", true),
    (18, "3.7-IV3", false),
    (19, "3.7-IV4", false),
    (20, "3.8-IV0", false),
    (21, "3.9-IV0", false),
    (22, "4.0-IV0", false),
    (23, "4.0-IV1", true),
    (24, "4.0-IV2", false),
    (25, "4.0-IV3", false),
    (26, "4.1-IV0", false),
    (27, "4.1-IV1", false),
    (28, "4.2-IV0", false),
    (29, "4.2-IV1", false),
    (30, "4.3-IV0", true),
];

/// A level of a feature other than `metadata.version`.
struct Level {
    feature: &'static str,
    level: i16,
    /// The level of `metadata.version` from which on clusters begin with it.
    since: i16,
    /// What it needs: features and their least levels.
    needs: &'static [(&'static str, i16)],
}

const fn level(feature: &'static str, level: i16, since: i16) -> Level {
    Level { feature, level, since, needs: &[] }
}

/// In the order in which Kafka's tools list the features; level 0 needs nothing and is always there.
const LEVELS: [Level; 7] = [
    level("kraft.version", 1, 21),
    level("transaction.version", 1, 24),
    level("transaction.version", 2, 24),
    level("group.version", 1, 22),
    Level { needs: &[(METADATA_VERSION, 23)], ..level("eligible.leader.replicas.version", 1, 26) },
    level("share.version", 1, 28),
    level("streams.version", 1, 29),
];

/// Returns the release that a level of `metadata.version` belongs to.
pub fn metadata_version_name(level: i16) -> Option<&'static str> {
    let known = METADATA_VERSIONS.iter().find(|(known, ..)| *known == level);
    known.map(|(_, name, _)| *name)
}

/// Returns the level of `metadata.version` that a release has: a step of it, as `4.3-IV0`, or the
/// last one, for `4.3` or `4.3.1`.
pub fn metadata_version_of(release: &str) -> Option<i16> {
    let mut dots = release.match_indices('.').map(|(at, _)| at);
    let minor = dots.nth(1).map_or(release, |second| &release[..second]);
    let is_meant =
        |name: &str| name == minor || name.split_once('-').is_some_and(|(short, _)| short == minor);
    let mut newest_first = METADATA_VERSIONS.iter().rev();
    newest_first.find(|(_, name, _)| is_meant(name)).map(|(level, ..)| *level)
}

/// The releases that are known, step by step; the newest is the last.
pub fn known_releases() -> impl DoubleEndedIterator<Item = &'static str> {
    METADATA_VERSIONS.iter().map(|(_, name, _)| *name)
}

/// The features beside `metadata.version`, with the levels they have in clusters that begin with a
/// level of that.
pub fn default_levels(metadata_version: i16) -> Vec<(&'static str, i16)> {
    let mut levels: Vec<(&'static str, i16)> = Vec::new();
    for known in &LEVELS {
        let begins_with = if known.since <= metadata_version { known.level } else { 0 };
        match levels.iter_mut().find(|(feature, _)| *feature == known.feature) {
            Some((_, level)) => *level = begins_with.max(*level),
            None => levels.push((known.feature, begins_with)),
        }
    }
    levels
}

/// Tells of a feature's level, which may be one that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LevelNeeds {
    /// There is no such feature.
    UnknownFeature,
    /// The feature has no such level.
    UnknownLevel,
    /// Features that have to have a level at least.
    Features(&'static [(&'static str, i16)]),
}

/// Tells what a level of a feature other than `metadata.version` needs.
pub fn level_needs(feature: &str, level: i16) -> LevelNeeds {
    let mut known = LEVELS.iter().filter(|known| known.feature == feature).peekable();
    if known.peek().is_none() {
        return LevelNeeds::UnknownFeature;
    }
    match known.find(|known| known.level == level) {
        Some(known) => LevelNeeds::Features(known.needs),
        None if level == 0 => LevelNeeds::Features(&[]),
        None => LevelNeeds::UnknownLevel,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_found_by_step_by_minor_and_by_patch() {
        for (release, level) in [
            ("3.3-IV3", Some(7)),
            ("3.3", Some(7)),
            ("3.5", Some(11)),
            ("3.7.2", Some(19)),
            ("4.0-IV1", Some(23)),
            ("4.3", Some(30)),
            ("4.3.1", Some(30)),
            ("3.2", None),
            ("4", None),
            ("", None),
            ("4.3-IV9", None),
        ] {
            assert_eq!(metadata_version_of(release), level, "{release}");
        }
        assert_eq!(known_releases().next(), Some("3.3-IV3"));
        assert_eq!(known_releases().next_back(), Some("4.3-IV0"));
    }

    #[test]
    fn features_begin_with_the_levels_of_their_release() {
        let of = |level| default_levels(level).into_iter().map(|(_, level)| level);
        assert_eq!(of(7).collect::<Vec<_>>(), [0; 6]);
        assert_eq!(of(23).collect::<Vec<_>>(), [1, 0, 1, 0, 0, 0]);
        assert_eq!(of(26).collect::<Vec<_>>(), [1, 2, 1, 1, 0, 0]);
        assert_eq!(of(28).collect::<Vec<_>>(), [1, 2, 1, 1, 1, 0]);
        assert_eq!(of(30).collect::<Vec<_>>(), [1, 2, 1, 1, 1, 1]);
    }

    #[test]
    fn levels_need_what_kafkas_do() {
        let needs = level_needs("eligible.leader.replicas.version", 1);
        assert_eq!(needs, LevelNeeds::Features(&[(METADATA_VERSION, 23)]));
        assert_eq!(level_needs("group.version", 0), LevelNeeds::Features(&[]));
        assert_eq!(level_needs("group.version", 2), LevelNeeds::UnknownLevel);
        assert_eq!(level_needs("flavour", 0), LevelNeeds::UnknownFeature);
    }
}
