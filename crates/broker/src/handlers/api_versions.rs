//! ApiVersions, versions 0–4: what this broker can do.
//!
//! A listener of the controller tells what the controller answers (KIP-919).
//!
//! A version that is not served is answered in version 0 with `UNSUPPORTED_VERSION` and the range
//! that is (KIP-511), so that a newer client can try again instead of giving up.

use fleuve_metadata::controller::{QUORUM_FEATURE, SUPPORTED_FEATURES};
use fleuve_os::Piece;
use fleuve_protocol::messages::ApiKey;
use fleuve_protocol::messages::api_versions_request::ApiVersionsRequest;
use fleuve_protocol::messages::api_versions_response::{
    ApiVersion, ApiVersionsResponse, FinalizedFeatureKey, SupportedFeatureKey,
};
use fleuve_protocol::{ErrorCode, Str, frame};

use crate::connection::{Answer, CloseReason};
use crate::dispatch::{APIS, Api, find};
use crate::request::{Context, Outcome};

/// The first version that says which client it comes from.
const NAMES_CLIENT_FROM: i16 = 3;
/// The first version in which a feature may be supported from level 0 on (KAFKA-17011).
const LEVEL_ZERO_FROM: i16 = 4;

pub(crate) fn handle(
    context: &Context,
    request: ApiVersionsRequest,
) -> Outcome<ApiVersionsResponse> {
    let named = is_software_name(&request.client_software_name)
        && is_software_name(&request.client_software_version);
    if context.version >= NAMES_CLIENT_FROM && !named {
        let error_code = ErrorCode::InvalidRequest as i16;
        return Outcome::Now(ApiVersionsResponse { error_code, ..Default::default() });
    }
    if context.version >= NAMES_CLIENT_FROM {
        let name = request.client_software_name.detach();
        context.peer.software.get_or_init(|| (name, request.client_software_version.detach()));
    }
    let image = context.node.image();
    let known = SUPPORTED_FEATURES.iter().chain([&QUORUM_FEATURE]);
    let supported = known.filter_map(|(name, range)| {
        let told = context.version >= LEVEL_ZERO_FROM || range.min > 0;
        told.then(|| SupportedFeatureKey {
            name: Str::from(*name),
            min_version: range.min,
            max_version: range.max,
        })
    });
    // What an image finalizes beyond what is supported gates APIs that are not served; naming it
    // would make clients use them.
    let is_supported = |name: &Str| SUPPORTED_FEATURES.iter().any(|(known, _)| **name == **known);
    let finalized = image.features().iter().filter(|(name, _)| is_supported(name));
    let (quorum_feature, quorum_range) = QUORUM_FEATURE;
    let mut finalized: Vec<FinalizedFeatureKey> = finalized
        .map(|(name, level)| FinalizedFeatureKey {
            name: name.clone(),
            max_version_level: *level,
            min_version_level: *level,
        })
        .collect();
    finalized.push(FinalizedFeatureKey {
        name: Str::from(quorum_feature),
        max_version_level: quorum_range.max,
        min_version_level: quorum_range.max,
    });
    Outcome::Now(ApiVersionsResponse {
        api_keys: APIS.iter().filter(|api| api.is_served_by(context.peer.asks)).map(row).collect(),
        supported_features: supported.collect(),
        finalized_features: finalized,
        finalized_features_epoch: context.node.metadata.end_offset(),
        ..Default::default()
    })
}

/// Answers a request in a version that is not served.
pub(crate) fn refuse(correlation_id: i32) -> Answer {
    let (_, api) = find(ApiKey::ApiVersions).expect("this API is in the table");
    let response = ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion as i16,
        api_keys: vec![row(api)],
        ..Default::default()
    };
    match frame::encode_response(ApiKey::ApiVersions, correlation_id, &response, 0) {
        Ok(segments) => Answer::Frame(segments.into_iter().map(Piece::Memory).collect(), None),
        Err(error) => Answer::Close(CloseReason::Unsupported(error.to_string())),
    }
}

fn row(api: &Api) -> ApiVersion {
    ApiVersion {
        api_key: api.key.code(),
        min_version: api.advertised_min,
        max_version: api.version_max,
    }
}

/// Recognises letters, digits, dots and dashes, with a letter or digit at both ends.
fn is_software_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names_follow_kafkas_pattern() {
        for name in ["a", "apache-kafka-java", "4.3.1", "x-1.0-rc.2"] {
            assert!(is_software_name(name), "{name}");
        }
        for name in ["", "-a", "a-", "a b", "a_b", "é", "."] {
            assert!(!is_software_name(name), "{name}");
        }
    }
}
