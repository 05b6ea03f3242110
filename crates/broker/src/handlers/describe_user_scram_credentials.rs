//! DescribeUserScramCredentials, version 0: who can log in with SCRAM.

use std::collections::BTreeMap;

use fleuve_metadata::image::AclOperation;
use fleuve_protocol::messages::describe_user_scram_credentials_request::DescribeUserScramCredentialsRequest;
use fleuve_protocol::messages::describe_user_scram_credentials_response::{
    CredentialInfo, DescribeUserScramCredentialsResponse, DescribeUserScramCredentialsResult,
};
use fleuve_protocol::{ErrorCode, Str};

use super::permission;
use crate::request::{Context, Outcome};

pub(crate) fn handle(
    context: &Context,
    request: DescribeUserScramCredentialsRequest,
) -> Outcome<DescribeUserScramCredentialsResponse> {
    if let Err(code) = permission::cluster(context, AclOperation::Describe) {
        // As from Kafka, there is a result for each user that was named, without the name.
        let refused = |_| DescribeUserScramCredentialsResult {
            error_code: code.code(),
            error_message: Some(Str::from(code.message())),
            ..Default::default()
        };
        return Outcome::Now(DescribeUserScramCredentialsResponse {
            error_code: code.code(),
            error_message: Some(Str::from(code.message())),
            results: request.users.into_iter().flatten().map(refused).collect(),
            ..Default::default()
        });
    }
    let image = context.node.image();
    let mut known: BTreeMap<&Str, Vec<CredentialInfo>> = BTreeMap::new();
    for (user, mechanism, credential) in image.scram().iter() {
        let (mechanism, iterations) = (mechanism.wire_id(), credential.iterations);
        known.entry(user).or_default().push(CredentialInfo { mechanism, iterations });
    }
    let mut asked: BTreeMap<Str, usize> = BTreeMap::new();
    match request.users.filter(|users| !users.is_empty()) {
        None => asked.extend(known.keys().map(|user| ((*user).clone(), 1))),
        Some(users) => {
            for user in users {
                *asked.entry(user.name).or_default() += 1;
            }
        }
    }
    let results = asked.into_iter().map(|(user, times)| {
        let (code, message) = match (times, known.remove(&user)) {
            (1, Some(credential_infos)) => {
                return DescribeUserScramCredentialsResult {
                    user,
                    credential_infos,
                    ..Default::default()
                };
            }
            (1, None) => (
                ErrorCode::ResourceNotFound,
                format!("Attempt to describe a user credential that does not exist: {user}"),
            ),
            _ => (
                ErrorCode::DuplicateResource,
                format!(
                    "Cannot describe SCRAM credentials for the same user twice in a single \
                     request: {user}"
                ),
            ),
        };
        DescribeUserScramCredentialsResult {
            user,
            error_code: code.code(),
            error_message: Some(Str::from(message)),
            ..Default::default()
        }
    });
    Outcome::Now(DescribeUserScramCredentialsResponse {
        results: results.collect(),
        ..Default::default()
    })
}
