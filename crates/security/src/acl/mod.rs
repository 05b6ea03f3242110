//! What somebody may do: decisions as Kafka's own authorizer makes them.
//!
//! [`Index`] is built from the image's entries whenever those change; [`Authorizer`] adds what the
//! operator wrote and decides. Who asks, and when, is the broker's business.
//!
//! Beyond Kafka, an entry's host may be a network such as `10.0.0.0/8`.

mod host;
mod index;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::net::IpAddr;

use fleuve_metadata::image::{Acl, AclOperation, AclPatternType, AclPermission, AclResourceType};

pub use index::Index;

use crate::Principal;

/// What somebody wants to do.
#[derive(Clone, Copy, Debug)]
pub struct Action<'a> {
    /// To what kind of resource.
    pub resource_type: AclResourceType,
    /// To which one.
    pub resource_name: &'a str,
    /// What.
    pub operation: AclOperation,
}

/// Why somebody may or must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// One of `super.users` may do everything.
    SuperUser,
    /// This entry allows it.
    Allowed(&'a Acl),
    /// This entry denies it.
    Denied(&'a Acl),
    /// No entry is about the resource, and `allow.everyone.if.no.acl.found` is set.
    NoEntries,
    /// No entry allows it.
    NotAllowed,
}

impl Verdict<'_> {
    /// Reports whether the action may go on.
    pub fn is_allowed(self) -> bool {
        matches!(self, Self::SuperUser | Self::Allowed(_) | Self::NoEntries)
    }
}

/// Decides who may do what.
#[derive(Clone, Debug, Default)]
pub struct Authorizer {
    super_users: HashSet<String>,
    allow_without_entries: bool,
}

impl Authorizer {
    /// Takes `super.users`, principals between semicolons, and `allow.everyone.if.no.acl.found`.
    ///
    /// Returns the first item that is not a principal as the error.
    pub fn new(super_users: &str, allow_without_entries: bool) -> Result<Self, String> {
        let items = super_users.split(';').map(str::trim).filter(|item| !item.is_empty());
        let principal = |item: &str| match Principal::parse(item) {
            Some(principal) => Ok(principal.to_string()),
            None => Err(item.to_owned()),
        };
        let super_users = items.map(principal).collect::<Result<_, _>>()?;
        Ok(Self { super_users, allow_without_entries })
    }

    /// Decides whether `principal`, who connects from `host`, may do this.
    pub fn judge<'a>(
        &self,
        index: &'a Index,
        principal: &Principal,
        host: IpAddr,
        action: Action<'_>,
    ) -> Verdict<'a> {
        let principal = principal.to_string();
        if self.super_users.contains(&principal) {
            return Verdict::SuperUser;
        }
        let mut any = false;
        let mut allowed = None;
        for entry in index.about(action.resource_type, action.resource_name) {
            any = true;
            let acl = &entry.acl;
            let concerns = (acl.principal.as_str() == EVERYBODY
                || acl.principal.as_str() == principal)
                && entry.host.contains(host)
                && covers(acl.permission, acl.operation, action.operation);
            match acl.permission {
                AclPermission::Deny if concerns => return Verdict::Denied(acl),
                AclPermission::Allow if concerns && allowed.is_none() => allowed = Some(acl),
                _ => {}
            }
        }
        match allowed {
            Some(acl) => Verdict::Allowed(acl),
            None if !any && self.allow_without_entries => Verdict::NoEntries,
            None => Verdict::NotAllowed,
        }
    }
}

impl Authorizer {
    /// Decides whether `principal`, who connects from `host`, may do this to any resource of the
    /// kind at all, be there one of that name or not.
    pub fn judge_any(
        &self,
        index: &Index,
        principal: &Principal,
        host: IpAddr,
        resource_type: AclResourceType,
        operation: AclOperation,
    ) -> bool {
        // A name that nobody uses: super users, and entries about every name.
        let action = Action { resource_type, resource_name: "hardcode", operation };
        if self.judge(index, principal, host, action).is_allowed() {
            return true;
        }
        let principal = principal.to_string();
        let concern = index.of_type(resource_type).filter(|entry| {
            let acl = &entry.acl;
            (acl.principal.as_str() == EVERYBODY || acl.principal.as_str() == principal)
                && entry.host.contains(host)
                && (acl.operation == operation || acl.operation == AclOperation::All)
        });
        let (denied, allowed): (Vec<&Acl>, Vec<&Acl>) =
            concern.map(|entry| &entry.acl).partition(|acl| acl.permission == AclPermission::Deny);
        let is_denied = |acl: &Acl| {
            let name = acl.resource_name.as_str();
            denied.iter().any(|denial| match denial.pattern_type {
                AclPatternType::Prefixed => name.starts_with(denial.resource_name.as_str()),
                AclPatternType::Literal => {
                    let said = denial.resource_name.as_str();
                    said == index::ANY_NAME
                        || (acl.pattern_type == AclPatternType::Literal && said == name)
                }
            })
        };
        allowed.into_iter().any(|acl| !is_denied(acl))
    }
}

/// The principal of entries about everybody.
const EVERYBODY: &str = "User:*";

/// Reports whether an entry about `said` speaks about `wanted`. Who may read may also describe;
/// but who must not read may still be allowed to describe.
fn covers(permission: AclPermission, said: AclOperation, wanted: AclOperation) -> bool {
    use AclOperation::{All, Alter, AlterConfigs, Delete, Describe, DescribeConfigs, Read, Write};
    if said == All || said == wanted {
        return true;
    }
    permission == AclPermission::Allow
        && match wanted {
            Describe => matches!(said, Read | Write | Delete | Alter),
            DescribeConfigs => said == AlterConfigs,
            _ => false,
        }
}
