//! AlterUserScramCredentials, version 0: passwords for SCRAM, as salted hashes.
//!
//! The next connection that authenticates is compared with them; those that are open stay.

use fleuve_metadata::controller::{AlterScramError, NewScramCredential, ScramAlteration};
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::messages::alter_user_scram_credentials_request::AlterUserScramCredentialsRequest;
use fleuve_protocol::messages::alter_user_scram_credentials_response::{
    AlterUserScramCredentialsResponse, AlterUserScramCredentialsResult,
};
use fleuve_protocol::{ErrorCode, Str};

use super::{errors, permission};
use crate::request::{Context, Outcome};

pub(crate) fn handle(
    context: &Context,
    request: AlterUserScramCredentialsRequest,
) -> Outcome<AlterUserScramCredentialsResponse> {
    let deletions = request.deletions.into_iter().map(|deletion| ScramAlteration {
        user: deletion.name.detach(),
        mechanism: deletion.mechanism,
        new: None,
    });
    let upsertions = request.upsertions.into_iter().map(|upsertion| ScramAlteration {
        user: upsertion.name.detach(),
        mechanism: upsertion.mechanism,
        new: Some(NewScramCredential {
            iterations: upsertion.iterations,
            salt: upsertion.salt,
            salted_password: upsertion.salted_password,
        }),
    });
    let alterations: Vec<ScramAlteration> = deletions.chain(upsertions).collect();
    let users: Vec<Str> = alterations.iter().map(|alteration| alteration.user.clone()).collect();
    let permitted = permission::cluster(context, AclOperation::Alter);
    let context = context.clone();
    Outcome::barrier(async move {
        let row =
            |user: Str, failure: Option<(ErrorCode, String)>| AlterUserScramCredentialsResult {
                user,
                error_code: failure.as_ref().map_or(0, |(code, _)| code.code()),
                error_message: failure.map(|(_, message)| Str::from(message)),
            };
        if let Err(code) = permitted {
            let failure = Some((code, code.message().to_owned()));
            let results = users.into_iter().map(|user| row(user, failure.clone())).collect();
            return AlterUserScramCredentialsResponse { results, ..Default::default() };
        }
        let outcome = context.node.change(move |c| c.alter_scram_credentials(&alterations)).await;
        let results = match outcome {
            Ok(results) => results
                .into_iter()
                .map(|(user, result)| row(user, result.err().map(|e| (code(e), e.to_string()))))
                .collect(),
            Err(error) => {
                let failure = Some((errors::metadata(&error), error.to_string()));
                users.into_iter().map(|user| row(user, failure.clone())).collect()
            }
        };
        AlterUserScramCredentialsResponse { results, ..Default::default() }
    })
}

fn code(error: AlterScramError) -> ErrorCode {
    match error {
        AlterScramError::Duplicate => ErrorCode::DuplicateResource,
        AlterScramError::EmptyUser
        | AlterScramError::TooFewIterations
        | AlterScramError::TooManyIterations => ErrorCode::UnacceptableCredential,
        AlterScramError::UnknownMechanism => ErrorCode::UnsupportedSaslMechanism,
        AlterScramError::NoSuchCredential => ErrorCode::ResourceNotFound,
    }
}
