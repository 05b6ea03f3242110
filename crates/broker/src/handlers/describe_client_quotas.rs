//! DescribeClientQuotas, versions 0–1: what users, clients and addresses may use.

use std::collections::BTreeMap;

use fleuve_metadata::image::{AclOperation, QuotaEntity, QuotaEntityType, QuotaMap};
use fleuve_protocol::messages::describe_client_quotas_request::{
    ComponentData, DescribeClientQuotasRequest,
};
use fleuve_protocol::messages::describe_client_quotas_response::{
    DescribeClientQuotasResponse, EntityData, EntryData, ValueData,
};
use fleuve_protocol::{ErrorCode, Str};

use super::permission;
use crate::request::{Context, Outcome};

/// What a filter asks of one kind.
enum Match {
    Name(Option<Str>),
    Any,
}

pub(crate) fn handle(
    context: &Context,
    request: DescribeClientQuotasRequest,
) -> Outcome<DescribeClientQuotasResponse> {
    let permitted = permission::cluster(context, AclOperation::DescribeConfigs);
    let permitted = permitted.map_err(|code| (code, code.message().to_owned()));
    let filter = match permitted.and_then(|()| parse(&request.components)) {
        Ok(filter) => filter,
        Err((code, message)) => {
            return Outcome::Now(DescribeClientQuotasResponse {
                error_code: code.code(),
                error_message: Some(Str::from(message)),
                entries: None,
                ..Default::default()
            });
        }
    };
    let image = context.node.image();
    let found = image.quotas().iter().filter(|(entity, _)| {
        let fits = |(kind, wanted): (&QuotaEntityType, &Match)| match (entity.0.get(kind), wanted) {
            (Some(name), Match::Name(wanted)) => name == wanted,
            (found, Match::Any) => found.is_some(),
            (None, Match::Name(_)) => false,
        };
        (!request.strict || entity.0.len() == filter.len()) && filter.iter().all(fits)
    });
    let entries = found.map(|(entity, quotas)| row(entity, quotas)).collect();
    Outcome::Now(DescribeClientQuotasResponse { entries: Some(entries), ..Default::default() })
}

fn parse(
    components: &[ComponentData],
) -> Result<BTreeMap<QuotaEntityType, Match>, (ErrorCode, String)> {
    let invalid = |message: String| (ErrorCode::InvalidRequest, message);
    let mut filter = BTreeMap::new();
    for component in components {
        let name = component.entity_type.as_str();
        if name.is_empty() {
            return Err(invalid("Invalid empty entity type.".to_owned()));
        }
        let kind = QuotaEntityType::from_name(name).ok_or_else(|| {
            (ErrorCode::UnsupportedVersion, format!("Unsupported entity type {name}"))
        })?;
        let wanted = match (component.match_type, &component.r#match) {
            (0, Some(name)) => Match::Name(Some(name.detach())),
            (0, None) => {
                return Err(invalid(
                    "Request specified MATCH_TYPE_EXACT, but set match string to null.".to_owned(),
                ));
            }
            (1, None) => Match::Name(None),
            (2, None) => Match::Any,
            (1 | 2, Some(_)) => {
                let word = if component.match_type == 1 { "DEFAULT" } else { "SPECIFIED" };
                return Err(invalid(format!(
                    "Request specified MATCH_TYPE_{word}, but also specified a match string."
                )));
            }
            (other, _) => return Err(invalid(format!("Unknown match type {other}"))),
        };
        if filter.insert(kind, wanted).is_some() {
            return Err(invalid(format!(
                "Entity type {name} cannot appear more than once in the filter."
            )));
        }
    }
    if filter.len() > 1 && filter.contains_key(&QuotaEntityType::Ip) {
        return Err(invalid(
            "Invalid entity filter component combination. IP filter component should not be used \
             with user or clientId filter component."
                .to_owned(),
        ));
    }
    Ok(filter)
}

fn row(entity: &QuotaEntity, quotas: &QuotaMap) -> EntryData {
    let part = |(kind, name): (&QuotaEntityType, &Option<Str>)| EntityData {
        entity_type: Str::from(kind.name()),
        entity_name: name.clone(),
    };
    let value = |(key, value): (&Str, &f64)| ValueData { key: key.clone(), value: *value };
    EntryData {
        entity: entity.0.iter().map(part).collect(),
        values: quotas.iter().map(value).collect(),
    }
}
