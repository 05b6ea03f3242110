//! UpdateFeatures, versions 0–2: other levels for features.

use fleuve_metadata::controller::{FeatureUpdate, UpgradeType};
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::messages::update_features_request::UpdateFeaturesRequest;
use fleuve_protocol::messages::update_features_response::{
    UpdatableFeatureResult, UpdateFeaturesResponse,
};
use fleuve_protocol::{ErrorCode, Str};

use super::{errors, permission};
use crate::request::{Context, Outcome};

/// The first version that says in what direction a level may move.
const TYPE_FROM: i16 = 1;
/// The last version that answers for each feature.
const RESULTS_TO: i16 = 1;

pub(crate) fn handle(
    context: &Context,
    request: UpdateFeaturesRequest,
) -> Outcome<UpdateFeaturesResponse> {
    if let Err(code) = permission::cluster(context, AclOperation::Alter) {
        return Outcome::Now(UpdateFeaturesResponse {
            error_code: code.code(),
            error_message: Some(Str::from(code.message())),
            ..Default::default()
        });
    }
    let version = context.version;
    let updates: Vec<FeatureUpdate> = request
        .feature_updates
        .into_iter()
        .map(|update| FeatureUpdate {
            name: update.feature.detach(),
            level: update.max_version_level,
            upgrade_type: match update.allow_downgrade {
                true if version < TYPE_FROM => Some(UpgradeType::SafeDowngrade),
                _ if version < TYPE_FROM => Some(UpgradeType::Upgrade),
                _ => UpgradeType::from_wire_id(update.upgrade_type),
            },
        })
        .collect();
    let names: Vec<Str> = updates.iter().map(|update| update.name.clone()).collect();
    let validate_only = version >= TYPE_FROM && request.validate_only;
    let context = context.clone();
    Outcome::barrier(async move {
        let outcome =
            context.node.change(move |c| c.update_features(&updates, validate_only)).await;
        let failure = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some((
                ErrorCode::InvalidUpdateVersion,
                format!(
                    "The update failed for all features since the following feature had an error: \
                     {error}"
                ),
            )),
            Err(error) => Some((errors::metadata(&error), error.to_string())),
        };
        if let Some((code, message)) = failure {
            return UpdateFeaturesResponse {
                error_code: code.code(),
                error_message: Some(Str::from(message)),
                ..Default::default()
            };
        }
        let results = names.into_iter().filter(|_| version <= RESULTS_TO);
        let results =
            results.map(|feature| UpdatableFeatureResult { feature, ..Default::default() });
        UpdateFeaturesResponse { results: results.collect(), ..Default::default() }
    })
}
