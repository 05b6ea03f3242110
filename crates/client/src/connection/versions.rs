//! What a broker offers, as it says itself.

use std::collections::HashMap;

use fleuve_protocol::ApiKey;
use fleuve_protocol::messages::api_versions_response::ApiVersionsResponse;

/// The API versions and features of one broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    ranges: HashMap<i16, (i16, i16)>,
    finalized_features: Vec<(String, i16)>,
}

impl Versions {
    pub(super) fn new(response: &ApiVersionsResponse) -> Self {
        let ranges = response
            .api_keys
            .iter()
            .map(|api| (api.api_key, (api.min_version, api.max_version)))
            .collect();
        let finalized_features = response
            .finalized_features
            .iter()
            .map(|feature| (feature.name.to_string(), feature.max_version_level))
            .collect();
        Self { ranges, finalized_features }
    }

    /// Chooses the newest version of `key` that the broker and `min..=max` have in common.
    pub fn choose(&self, key: ApiKey, min: i16, max: i16) -> Option<i16> {
        let &(broker_min, broker_max) = self.ranges.get(&key.code())?;
        let version = max.min(broker_max);
        (version >= min && version >= broker_min).then_some(version)
    }

    /// Returns the broker's version range of every API, by API number.
    pub fn ranges(&self) -> Vec<(i16, i16, i16)> {
        let mut ranges: Vec<_> =
            self.ranges.iter().map(|(&key, &(min, max))| (key, min, max)).collect();
        ranges.sort_unstable();
        ranges
    }

    /// Returns the finalized level of a feature; 0 when it has none.
    pub fn finalized(&self, feature: &str) -> i16 {
        let levels = self.finalized_features.iter();
        levels.filter(|(name, _)| name == feature).map(|(_, level)| *level).next().unwrap_or(0)
    }

    /// Returns the finalized feature levels of the cluster.
    pub fn finalized_features(&self) -> &[(String, i16)] {
        &self.finalized_features
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_is_chosen_or_none() {
        let ranges = HashMap::from([(ApiKey::Fetch.code(), (4, 11))]);
        let versions = Versions { ranges, finalized_features: Vec::new() };
        assert_eq!(versions.choose(ApiKey::Fetch, 4, 18), Some(11));
        assert_eq!(versions.choose(ApiKey::Fetch, 4, 9), Some(9));
        assert_eq!(versions.choose(ApiKey::Fetch, 12, 18), None, "the broker is too old");
        assert_eq!(versions.choose(ApiKey::Fetch, 1, 3), None, "the broker is too new");
        assert_eq!(versions.choose(ApiKey::Produce, 3, 13), None, "not offered");
    }
}
