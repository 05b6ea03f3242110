//! Features of the cluster and their levels.

use fleuve_protocol::messages::api_versions_request::ApiVersionsRequest;
use fleuve_protocol::messages::update_features_request::{FeatureUpdateKey, UpdateFeaturesRequest};

use super::Admin;
use crate::error::{Result, check_said};

/// A feature with its levels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name.
    pub name: String,
    /// The lowest and the highest level that brokers support; `None` if they do not know it.
    pub supported: Option<(i16, i16)>,
    /// The level that is in force; 0 if it is off.
    pub finalized: i16,
}

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

impl Admin {
    /// Describes the features, sorted by name, and the number of the finalization.
    pub async fn describe_features(&self) -> Result<(Vec<Feature>, i64)> {
        let build = |_| ApiVersionsRequest {
            client_software_name: "fleuve".into(),
            client_software_version: env!("CARGO_PKG_VERSION").into(),
        };
        let response = self
            .client
            .call_any::<ApiVersionsRequest>(build, |response| response.error_code)
            .await?;
        let mut features: Vec<Feature> = response
            .supported_features
            .iter()
            .map(|supported| Feature {
                name: supported.name.to_string(),
                supported: Some((supported.min_version, supported.max_version)),
                finalized: 0,
            })
            .collect();
        for finalized in &response.finalized_features {
            let level = finalized.max_version_level;
            match features.iter_mut().find(|feature| *feature.name == *finalized.name) {
                Some(feature) => feature.finalized = level,
                None => features.push(Feature {
                    name: finalized.name.to_string(),
                    supported: None,
                    finalized: level,
                }),
            }
        }
        features.sort_unstable_by(|left, right| left.name.cmp(&right.name));
        Ok((features, response.finalized_features_epoch))
    }

    /// Gives features other levels: all of them, or none.
    pub async fn update_features(
        &self,
        updates: &[(String, i16)],
        upgrade_type: UpgradeType,
        validate_only: bool,
    ) -> Result<()> {
        let update = |(name, level): &(String, i16), version: i16| FeatureUpdateKey {
            feature: name.clone().into(),
            max_version_level: *level,
            // Version 0 knows no other way to say it.
            allow_downgrade: version == 0 && upgrade_type != UpgradeType::Upgrade,
            upgrade_type: match upgrade_type {
                UpgradeType::Upgrade => 1,
                _ if version == 0 => 1,
                UpgradeType::SafeDowngrade => 2,
                UpgradeType::UnsafeDowngrade => 3,
            },
        };
        let timeout_ms = self.timeout_ms();
        let build = |version| UpdateFeaturesRequest {
            timeout_ms,
            feature_updates: updates.iter().map(|pair| update(pair, version)).collect(),
            validate_only: version > 0 && validate_only,
        };
        let response = self.client.call_any::<UpdateFeaturesRequest>(build, |_| 0).await?;
        let words = response.error_message.as_deref();
        check_said(response.error_code, words, || "the features".to_owned())?;
        for result in response.results {
            let words = result.error_message.as_deref();
            check_said(result.error_code, words, || format!("feature {}", result.feature))?;
        }
        Ok(())
    }
}
