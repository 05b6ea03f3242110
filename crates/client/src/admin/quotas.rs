//! Quotas of users, clients and addresses.

use fleuve_protocol::messages::alter_client_quotas_request::{
    AlterClientQuotasRequest, EntityData, EntryData, OpData,
};
use fleuve_protocol::messages::describe_client_quotas_request::{
    ComponentData, DescribeClientQuotasRequest,
};

use super::Admin;
use crate::error::{Error, Result, check_said};

/// Whom quotas hold for: kinds (`user`, `client-id`, `ip`) with names, `None` for the default.
pub type QuotaEntity = Vec<(String, Option<String>)>;

/// Which entities are meant, by one of their kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuotaFilter {
    /// The entity of this name.
    Exact(String, String),
    /// The default entity of this kind.
    Default(String),
    /// Any entity of this kind.
    Any(String),
}

/// The quotas of one entity.
#[derive(Clone, Debug, PartialEq)]
pub struct EntityQuotas {
    /// Whom they hold for.
    pub entity: QuotaEntity,
    /// Keys with values.
    pub quotas: Vec<(String, f64)>,
}

impl Admin {
    /// Describes the quotas of the entities that all filters fit; with `strict` of those that have
    /// no other kind.
    pub async fn describe_quotas(
        &self,
        filters: &[QuotaFilter],
        strict: bool,
    ) -> Result<Vec<EntityQuotas>> {
        let component = |filter: &QuotaFilter| {
            let (kind, match_type, name) = match filter {
                QuotaFilter::Exact(kind, name) => (kind, 0, Some(name)),
                QuotaFilter::Default(kind) => (kind, 1, None),
                QuotaFilter::Any(kind) => (kind, 2, None),
            };
            ComponentData {
                entity_type: kind.clone().into(),
                match_type,
                r#match: name.map(|name| name.clone().into()),
            }
        };
        let build = |_| DescribeClientQuotasRequest {
            components: filters.iter().map(component).collect(),
            strict,
        };
        let response = self.client.call_any::<DescribeClientQuotasRequest>(build, |_| 0).await?;
        check_said(response.error_code, response.error_message.as_deref(), || {
            "the quotas".to_owned()
        })?;
        let entries = response.entries.unwrap_or_default().into_iter().map(|entry| EntityQuotas {
            entity: entry
                .entity
                .into_iter()
                .map(|part| {
                    (part.entity_type.to_string(), part.entity_name.map(|name| name.to_string()))
                })
                .collect(),
            quotas: entry.values.into_iter().map(|v| (v.key.to_string(), v.value)).collect(),
        });
        Ok(entries.collect())
    }

    /// Sets quotas of an entity, or with `None` removes them.
    pub async fn alter_quotas(
        &self,
        entity: &QuotaEntity,
        operations: &[(String, Option<f64>)],
        validate_only: bool,
    ) -> Result<()> {
        let build = |_| AlterClientQuotasRequest {
            entries: vec![EntryData {
                entity: entity
                    .iter()
                    .map(|(kind, name)| EntityData {
                        entity_type: kind.clone().into(),
                        entity_name: name.clone().map(Into::into),
                    })
                    .collect(),
                ops: operations
                    .iter()
                    .map(|(key, value)| OpData {
                        key: key.clone().into(),
                        value: value.unwrap_or_default(),
                        remove: value.is_none(),
                    })
                    .collect(),
            }],
            validate_only,
        };
        let response = self.client.call_any::<AlterClientQuotasRequest>(build, |_| 0).await?;
        if response.entries.is_empty() {
            return Err(Error::unanswered(describe(entity)));
        }
        for entry in response.entries {
            check_said(entry.error_code, entry.error_message.as_deref(), || describe(entity))?;
        }
        Ok(())
    }
}

fn describe(entity: &QuotaEntity) -> String {
    let part = |(kind, name): &(String, Option<String>)| {
        format!("{kind} {}", name.as_deref().unwrap_or("<default>"))
    };
    entity.iter().map(part).collect::<Vec<_>>().join(", ")
}
