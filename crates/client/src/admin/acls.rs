//! Access control entries.

use std::fmt;

use fleuve_protocol::messages::create_acls_request::{AclCreation, CreateAclsRequest};
use fleuve_protocol::messages::delete_acls_request::{DeleteAclsFilter, DeleteAclsRequest};
use fleuve_protocol::messages::describe_acls_request::DescribeAclsRequest;

use super::Admin;
use crate::error::{Error, Result, check_said};

/// Names of kinds of resources, with their numbers on the wire.
pub const ACL_RESOURCE_TYPES: &[(&str, i8)] = &[
    ("ANY", 1),
    ("TOPIC", 2),
    ("GROUP", 3),
    ("CLUSTER", 4),
    ("TRANSACTIONAL_ID", 5),
    ("DELEGATION_TOKEN", 6),
    ("USER", 7),
];

/// Names of pattern types, with their numbers on the wire.
pub const ACL_PATTERN_TYPES: &[(&str, i8)] =
    &[("ANY", 1), ("MATCH", 2), ("LITERAL", 3), ("PREFIXED", 4)];

/// Names of operations, with their numbers on the wire.
pub const ACL_OPERATIONS: &[(&str, i8)] = &[
    ("ANY", 1),
    ("ALL", 2),
    ("READ", 3),
    ("WRITE", 4),
    ("CREATE", 5),
    ("DELETE", 6),
    ("ALTER", 7),
    ("DESCRIBE", 8),
    ("CLUSTER_ACTION", 9),
    ("DESCRIBE_CONFIGS", 10),
    ("ALTER_CONFIGS", 11),
    ("IDEMPOTENT_WRITE", 12),
    ("CREATE_TOKENS", 13),
    ("DESCRIBE_TOKENS", 14),
    ("TWO_PHASE_COMMIT", 15),
];

/// Names of permissions, with their numbers on the wire.
pub const ACL_PERMISSIONS: &[(&str, i8)] = &[("ANY", 1), ("DENY", 2), ("ALLOW", 3)];

/// Returns the name that stands for a number in one of the tables.
pub fn acl_name(table: &[(&'static str, i8)], number: i8) -> &'static str {
    table.iter().find(|(_, known)| *known == number).map_or("UNKNOWN", |(name, _)| name)
}

/// Returns the number that a name stands for; case, `-` and `_` do not matter.
pub fn acl_number(table: &[(&'static str, i8)], name: &str) -> Option<i8> {
    let plain = |text: &str| text.replace(['-', '_'], "").to_ascii_uppercase();
    table.iter().find(|(known, _)| plain(known) == plain(name)).map(|(_, number)| *number)
}

/// An access control entry; kinds are the numbers of the tables in this module.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Acl {
    /// The kind of resource.
    pub resource_type: i8,
    /// The resource's name.
    pub resource_name: String,
    /// How the name is meant.
    pub pattern_type: i8,
    /// Who: `User:name`.
    pub principal: String,
    /// From which host; `*` for any.
    pub host: String,
    /// To do what.
    pub operation: i8,
    /// May or must not.
    pub permission_type: i8,
}

impl fmt::Display for Acl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {} for {} from {}",
            acl_name(ACL_PERMISSIONS, self.permission_type),
            acl_name(ACL_OPERATIONS, self.operation),
            self.resource_name,
            self.principal,
            self.host
        )
    }
}

/// Which entries are meant; `None` and 1 stand for any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclFilter {
    /// The kind of resource.
    pub resource_type: i8,
    /// The resource's name.
    pub resource_name: Option<String>,
    /// How the name is meant; 2 for all entries that cover the name.
    pub pattern_type: i8,
    /// Who.
    pub principal: Option<String>,
    /// From where.
    pub host: Option<String>,
    /// To do what.
    pub operation: i8,
    /// May or must not.
    pub permission_type: i8,
}

impl AclFilter {
    /// Means every entry.
    pub const ANY: Self = Self {
        resource_type: 1,
        resource_name: None,
        pattern_type: 1,
        principal: None,
        host: None,
        operation: 1,
        permission_type: 1,
    };
}

impl Admin {
    /// Lists the entries that a filter means.
    pub async fn describe_acls(&self, filter: &AclFilter) -> Result<Vec<Acl>> {
        let build = |_| DescribeAclsRequest {
            resource_type_filter: filter.resource_type,
            resource_name_filter: filter.resource_name.clone().map(Into::into),
            pattern_type_filter: filter.pattern_type,
            principal_filter: filter.principal.clone().map(Into::into),
            host_filter: filter.host.clone().map(Into::into),
            operation: filter.operation,
            permission_type: filter.permission_type,
        };
        let response = self.client.call_any::<DescribeAclsRequest>(build, |_| 0).await?;
        check_said(response.error_code, response.error_message.as_deref(), || "the ACLs".into())?;
        let acls = response.resources.into_iter().flat_map(|resource| {
            let name = resource.resource_name.to_string();
            resource.acls.into_iter().map(move |acl| Acl {
                resource_type: resource.resource_type,
                resource_name: name.clone(),
                pattern_type: resource.pattern_type,
                principal: acl.principal.to_string(),
                host: acl.host.to_string(),
                operation: acl.operation,
                permission_type: acl.permission_type,
            })
        });
        Ok(acls.collect())
    }

    /// Adds entries; the first that is refused is the error.
    pub async fn create_acls(&self, acls: &[Acl]) -> Result<()> {
        let results = self.create_each_acl(acls).await?;
        if let Some(acl) = acls.get(results.len()) {
            return Err(Error::unanswered(acl.to_string()));
        }
        results.into_iter().try_for_each(|(_, result)| result)
    }

    /// Adds entries, and says of each what became of it.
    pub async fn create_each_acl(&self, acls: &[Acl]) -> Result<Vec<(Acl, Result<()>)>> {
        let creation = |acl: &Acl| AclCreation {
            resource_type: acl.resource_type,
            resource_name: acl.resource_name.clone().into(),
            resource_pattern_type: acl.pattern_type,
            principal: acl.principal.clone().into(),
            host: acl.host.clone().into(),
            operation: acl.operation,
            permission_type: acl.permission_type,
        };
        let build = |_| CreateAclsRequest { creations: acls.iter().map(creation).collect() };
        let response = self.client.call_any::<CreateAclsRequest>(build, |_| 0).await?;
        let results = acls.iter().zip(response.results).map(|(acl, result)| {
            let words = result.error_message.as_deref();
            (acl.clone(), check_said(result.error_code, words, || acl.to_string()))
        });
        Ok(results.collect())
    }

    /// Removes the entries that filters mean, and lists them.
    pub async fn delete_acls(&self, filters: &[AclFilter]) -> Result<Vec<Acl>> {
        let wire = |filter: &AclFilter| DeleteAclsFilter {
            resource_type_filter: filter.resource_type,
            resource_name_filter: filter.resource_name.clone().map(Into::into),
            pattern_type_filter: filter.pattern_type,
            principal_filter: filter.principal.clone().map(Into::into),
            host_filter: filter.host.clone().map(Into::into),
            operation: filter.operation,
            permission_type: filter.permission_type,
        };
        let build = |_| DeleteAclsRequest { filters: filters.iter().map(wire).collect() };
        let response = self.client.call_any::<DeleteAclsRequest>(build, |_| 0).await?;
        if response.filter_results.len() < filters.len() {
            return Err(Error::unanswered("the ACLs"));
        }
        let mut removed = Vec::new();
        for result in response.filter_results {
            let words = result.error_message.as_deref();
            check_said(result.error_code, words, || "the ACLs".into())?;
            for acl in result.matching_acls {
                check_said(acl.error_code, acl.error_message.as_deref(), || "an ACL".into())?;
                removed.push(Acl {
                    resource_type: acl.resource_type,
                    resource_name: acl.resource_name.to_string(),
                    pattern_type: acl.pattern_type,
                    principal: acl.principal.to_string(),
                    host: acl.host.to_string(),
                    operation: acl.operation,
                    permission_type: acl.permission_type,
                });
            }
        }
        Ok(removed)
    }
}
