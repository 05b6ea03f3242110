//! Changing access control entries.

use fleuve_os::Random;
use fleuve_protocol::Str;
use fleuve_protocol::messages::remove_access_control_entry_record::RemoveAccessControlEntryRecord;
use fleuve_types::Uuid;

use super::machine::{Controller, Decision};
use crate::image::{Acl, AclOperation, AclPatternType, AclPermission, AclResourceType, Acls};

/// The number that stands for every kind.
const ANY: i8 = 1;
/// The pattern type that stands for every pattern which covers a name.
const MATCH: i8 = 2;
/// The name that a literal entry has for every resource.
const WILDCARD: &str = "*";

/// An access control entry as asked for, in the wire's numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewAcl {
    /// The kind of resource.
    pub resource_type: i8,
    /// The resource's name.
    pub resource_name: Str,
    /// How the name is meant.
    pub pattern_type: i8,
    /// Who.
    pub principal: Str,
    /// From where.
    pub host: Str,
    /// To do what.
    pub operation: i8,
    /// May or must not.
    pub permission_type: i8,
}

/// Which entries are meant, in the wire's numbers; `None` and 1 stand for any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AclFilter {
    /// The kind of resource.
    pub resource_type: i8,
    /// The resource's name.
    pub resource_name: Option<Str>,
    /// How the name is meant; 2 for every pattern that covers it.
    pub pattern_type: i8,
    /// Who.
    pub principal: Option<Str>,
    /// From where.
    pub host: Option<Str>,
    /// To do what.
    pub operation: i8,
    /// May or must not.
    pub permission_type: i8,
}

/// Reports that entries cannot be made, or looked for, so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AclError {
    /// The entry says what no entry can.
    #[error("{0}")]
    Invalid(String),
    /// The filter uses numbers that this release does not know.
    #[error("{0}")]
    UnknownFilter(&'static str),
}

impl AclFilter {
    /// Checks that the filter speaks of what we know.
    pub fn check(&self) -> Result<(), AclError> {
        let is_known = |id: i8, known: bool| id == ANY || known;
        let pattern = is_known(
            self.resource_type,
            AclResourceType::from_wire_id(self.resource_type).is_some(),
        ) && (self.pattern_type == MATCH
            || is_known(
                self.pattern_type,
                AclPatternType::from_wire_id(self.pattern_type).is_some(),
            ));
        let entry = is_known(self.operation, AclOperation::from_wire_id(self.operation).is_some())
            && is_known(
                self.permission_type,
                AclPermission::from_wire_id(self.permission_type).is_some(),
            );
        match (pattern, entry) {
            (false, _) => Err(AclError::UnknownFilter("Unknown patternFilter.")),
            (_, false) => Err(AclError::UnknownFilter("Unknown entryFilter.")),
            _ => Ok(()),
        }
    }

    /// Reports whether an entry is meant.
    pub fn matches(&self, acl: &Acl) -> bool {
        let is = |wanted: i8, id: i8| wanted == ANY || wanted == id;
        let named =
            |wanted: &Option<Str>, name: &Str| wanted.as_ref().is_none_or(|wanted| wanted == name);
        is(self.resource_type, acl.resource_type.wire_id())
            && self.matches_name(acl)
            && named(&self.principal, &acl.principal)
            && named(&self.host, &acl.host)
            && is(self.operation, acl.operation.wire_id())
            && is(self.permission_type, acl.permission.wire_id())
    }

    fn matches_name(&self, acl: &Acl) -> bool {
        let type_fits = matches!(self.pattern_type, ANY | MATCH)
            || self.pattern_type == acl.pattern_type.wire_id();
        let Some(name) = &self.resource_name else { return type_fits };
        if self.pattern_type != MATCH {
            return type_fits && *name == acl.resource_name;
        }
        match acl.pattern_type {
            AclPatternType::Literal => {
                acl.resource_name == *name || acl.resource_name.as_str() == WILDCARD
            }
            AclPatternType::Prefixed => name.starts_with(acl.resource_name.as_str()),
        }
    }

    /// Lists the entries that are meant.
    pub fn select<'a>(&'a self, acls: &'a Acls) -> impl Iterator<Item = (Uuid, &'a Acl)> {
        acls.iter().filter(|(_, acl)| self.matches(acl))
    }
}

impl Controller {
    /// Decides about new entries; one that exists already is no error and needs no record.
    pub fn create_acls(
        &self,
        acls: &[NewAcl],
        random: &dyn Random,
    ) -> Decision<Vec<Result<(), AclError>>> {
        let mut records = Vec::new();
        let mut added: Vec<Acl> = Vec::new();
        let create = |new: &NewAcl| {
            let acl = check_new(new)?;
            if !self.image.acls().contains(&acl) && !added.contains(&acl) {
                records.push(acl.to_record(self.new_acl_id(random)).into());
                added.push(acl);
            }
            Ok(())
        };
        let reply = acls.iter().map(create).collect();
        Decision { records, reply }
    }

    /// Decides about the end of the entries that filters select, and names them.
    pub fn delete_acls(&self, filters: &[AclFilter]) -> Decision<Vec<Result<Vec<Acl>, AclError>>> {
        let mut ids = std::collections::BTreeSet::new();
        let delete = |filter: &AclFilter| {
            filter.check()?;
            let selected = filter.select(self.image.acls());
            Ok(selected
                .map(|(id, acl)| {
                    ids.insert(id);
                    acl.clone()
                })
                .collect())
        };
        let reply = filters.iter().map(delete).collect();
        let records = ids.into_iter().map(|id| RemoveAccessControlEntryRecord { id }.into());
        Decision { records: records.collect(), reply }
    }

    fn new_acl_id(&self, random: &dyn Random) -> Uuid {
        loop {
            let mut bytes = [0; 16];
            random.fill(&mut bytes);
            let id = Uuid::from_random_bytes(bytes);
            if self.image.acls().by_id(id).is_none() {
                return id;
            }
        }
    }
}

fn check_new(new: &NewAcl) -> Result<Acl, AclError> {
    let word = |id: i8| if id == ANY { "ANY" } else { "UNKNOWN" };
    let invalid = |what: &str, id: i8| AclError::Invalid(format!("Invalid {what} {}", word(id)));
    let NewAcl { resource_type, pattern_type, operation, permission_type, .. } = *new;
    let resource = AclResourceType::from_wire_id(resource_type)
        .ok_or_else(|| invalid("resourceType", resource_type))?;
    let pattern = AclPatternType::from_wire_id(pattern_type).ok_or_else(|| match pattern_type {
        MATCH => AclError::Invalid("Invalid patternType MATCH".to_owned()),
        other => invalid("patternType", other),
    })?;
    let operation =
        AclOperation::from_wire_id(operation).ok_or_else(|| invalid("operation", operation))?;
    let permission = AclPermission::from_wire_id(permission_type)
        .ok_or_else(|| invalid("permissionType", permission_type))?;
    if new.resource_name.is_empty() {
        return Err(AclError::Invalid("Resource name should not be empty".to_owned()));
    }
    let kind = new.principal.split_once(':').map_or("", |(kind, _)| kind);
    if kind.is_empty() {
        return Err(AclError::Invalid(format!(
            "Could not parse principal from `{}` (no colon is present separating the principal \
             type from the principal name)",
            new.principal
        )));
    }
    Ok(Acl {
        resource_type: resource,
        resource_name: new.resource_name.detach(),
        pattern_type: pattern,
        principal: new.principal.detach(),
        host: new.host.detach(),
        operation,
        permission,
    })
}
