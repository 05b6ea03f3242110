//! AlterClientQuotas, versions 0–1: what users, clients and addresses may use from now on.

use std::collections::BTreeSet;
use std::net::IpAddr;

use fleuve_metadata::controller::QuotaAlteration;
use fleuve_metadata::image::AclOperation;
use fleuve_protocol::messages::alter_client_quotas_request::AlterClientQuotasRequest;
use fleuve_protocol::messages::alter_client_quotas_response::{
    AlterClientQuotasResponse, EntityData, EntryData,
};
use fleuve_protocol::{ErrorCode, Str};
use tokio::net::lookup_host;

use super::{errors, permission};
use crate::request::{Context, Outcome};

/// Names of hosts that one request may have looked up; nobody has that many.
const LOOKUPS_MAX: usize = 100;

pub(crate) fn handle(
    context: &Context,
    request: AlterClientQuotasRequest,
) -> Outcome<AlterClientQuotasResponse> {
    let context = context.clone();
    let alterations: Vec<QuotaAlteration> = request
        .entries
        .iter()
        .map(|entry| QuotaAlteration {
            entity: entry
                .entity
                .iter()
                .map(|part| (part.entity_type.clone(), part.entity_name.clone()))
                .collect(),
            operations: entry
                .ops
                .iter()
                .map(|op| (op.key.detach(), (!op.remove).then_some(op.value)))
                .collect(),
        })
        .collect();
    let validate_only = request.validate_only;
    let permitted = permission::cluster(&context, AclOperation::AlterConfigs);
    Outcome::barrier(async move {
        if let Err(code) = permitted {
            let failure = (code, code.message().to_owned());
            let failures = vec![Some(failure); request.entries.len()];
            return response(request, failures);
        }
        let hosts = known_hosts(&alterations).await;
        let outcome = context
            .node
            .change(move |controller| {
                let is_host = |name: &str| name.parse::<IpAddr>().is_ok() || hosts.contains(name);
                controller.alter_client_quotas(&alterations, validate_only, is_host)
            })
            .await;
        let failures: Vec<Option<(ErrorCode, String)>> = match outcome {
            Ok(results) => results
                .into_iter()
                .map(|result| Some((ErrorCode::InvalidRequest, result.err()?.to_string())))
                .collect(),
            Err(error) => {
                let failure = (errors::metadata(&error), error.to_string());
                vec![Some(failure); request.entries.len()]
            }
        };
        response(request, failures)
    })
}

fn response(
    request: AlterClientQuotasRequest,
    failures: Vec<Option<(ErrorCode, String)>>,
) -> AlterClientQuotasResponse {
    let rows = request.entries.into_iter().zip(failures).map(|(entry, failure)| EntryData {
        error_code: failure.as_ref().map_or(0, |(code, _)| code.code()),
        error_message: failure.map(|(_, message)| Str::from(message)),
        entity: entry
            .entity
            .into_iter()
            .map(|part| EntityData { entity_type: part.entity_type, entity_name: part.entity_name })
            .collect(),
    });
    AlterClientQuotasResponse { entries: rows.collect(), ..Default::default() }
}

/// Looks up the names that are given as addresses.
async fn known_hosts(alterations: &[QuotaAlteration]) -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    let parts = alterations.iter().flat_map(|alteration| &alteration.entity);
    let names = parts
        .filter(|(kind, _)| kind.as_str() == "ip")
        .filter_map(|(_, name)| name.as_deref())
        .filter(|name| !name.is_empty() && name.parse::<IpAddr>().is_err());
    for name in names.take(LOOKUPS_MAX) {
        if lookup_host((name, 0)).await.is_ok_and(|mut found| found.next().is_some()) {
            known.insert(name.to_owned());
        }
    }
    known
}
