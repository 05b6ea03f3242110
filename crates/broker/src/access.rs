//! The authorizer at work: who may do what, on which connection, and the audit log.
//!
//! Without `authorizer.class.name` there is none, and everybody may do everything. With it, each
//! connection remembers what was allowed, until entries change; what is denied is judged, and
//! written to the audit log, each time anew.
//!
//! The audit log is what is traced under [`AUDIT_TARGET`], which is the name of Kafka's logger:
//! denials as INFO, what is allowed as DEBUG.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fleuve_metadata::config::AccessSettings;
use fleuve_metadata::image::{AclOperation, AclResourceType, Image};
use fleuve_protocol::Str;
use fleuve_security::Principal;
use fleuve_security::acl::{Action, Authorizer, Index, Verdict};
use parking_lot::{Mutex, RwLock};

use crate::request::Context;

/// The name of the only cluster there is.
pub(crate) const CLUSTER_NAME: &str = "kafka-cluster";

/// Under this name decisions are traced.
const AUDIT_TARGET: &str = "kafka.authorizer.logger";

/// Names that a connection remembers as allowed; with more it begins anew.
const REMEMBERED_MAX: usize = 1_000;

/// The authorizer, with the entries in force.
#[derive(Debug)]
pub(crate) struct Access {
    authorizer: Authorizer,
    index: RwLock<Arc<Index>>,
    /// How often the entries have changed.
    generation: AtomicU64,
}

/// What of a decision is worth a line in the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Audit {
    /// Everything.
    All,
    /// Only that something was allowed: who is denied does not hear of it, or has another way.
    Allowed,
    /// Nothing: it is asked in order to tell what would be allowed.
    Nothing,
}

/// What a connection remembers.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    state: Mutex<RememberedState>,
}

#[derive(Debug, Default)]
struct RememberedState {
    generation: u64,
    count: usize,
    allowed: HashMap<(AclResourceType, AclOperation), HashSet<Str>>,
}

impl Access {
    /// Makes the authorizer that the settings ask for, if they do.
    pub(crate) fn new(settings: &AccessSettings) -> Result<Option<Self>, String> {
        if !settings.is_controlled {
            return Ok(None);
        }
        let authorizer = Authorizer::new(&settings.super_users, settings.allow_without_entries)
            .map_err(|item| format!("super.users: `{item}` is no principal"))?;
        let index = RwLock::new(Arc::new(Index::default()));
        Ok(Some(Self { authorizer, index, generation: AtomicU64::new(1) }))
    }

    /// Decides about a visitor of the HTTP door; a denial is written to the audit log, unless it is
    /// only about what is shown.
    pub(crate) fn allows_visitor(
        &self,
        principal: &Principal,
        host: IpAddr,
        action: &Action<'_>,
        quietly: bool,
    ) -> bool {
        let index = Arc::clone(&self.index.read());
        let verdict = self.authorizer.judge(&index, principal, host, *action);
        let audit = if quietly { Audit::Allowed } else { Audit::All };
        let asker = Asker { principal, host, api: &"HTTP" };
        write_audit(&asker, action, verdict.is_allowed(), audit, &reason(verdict));
        verdict.is_allowed()
    }

    /// Puts the entries of an image in force.
    pub(crate) fn show(&self, image: &Image) {
        let index = Index::new(image.acls().iter().map(|(_, acl)| acl));
        *self.index.write() = Arc::new(index);
        // After the entries: what is remembered under the old number is forgotten, whichever
        // entries it was judged by.
        self.generation.fetch_add(1, Ordering::Release);
    }
}

impl Remembered {
    fn holds(&self, generation: u64, action: &Action<'_>) -> bool {
        let state = self.state.lock();
        let kind = (action.resource_type, action.operation);
        state.generation == generation
            && state.allowed.get(&kind).is_some_and(|names| names.contains(action.resource_name))
    }

    fn add(&self, generation: u64, action: &Action<'_>) {
        let mut state = self.state.lock();
        if state.generation != generation || state.count >= REMEMBERED_MAX {
            *state = RememberedState { generation, ..RememberedState::default() };
        }
        let names = state.allowed.entry((action.resource_type, action.operation)).or_default();
        if names.insert(Str::copy_from(action.resource_name)) {
            state.count += 1;
        }
    }
}

impl Context {
    /// Reports whether whoever asks may do this; a denial is written to the audit log.
    pub(crate) fn may(
        &self,
        operation: AclOperation,
        resource_type: AclResourceType,
        resource_name: &str,
    ) -> bool {
        self.decide(Action { resource_type, resource_name, operation }, Audit::All)
    }

    /// As [`Self::may`], without a line about a denial.
    pub(crate) fn may_quietly(
        &self,
        operation: AclOperation,
        resource_type: AclResourceType,
        resource_name: &str,
    ) -> bool {
        self.decide(Action { resource_type, resource_name, operation }, Audit::Allowed)
    }

    /// Reports whether this would be allowed, without a line in the audit log.
    pub(crate) fn would_be_allowed(
        &self,
        operation: AclOperation,
        resource_type: AclResourceType,
        resource_name: &str,
    ) -> bool {
        self.decide(Action { resource_type, resource_name, operation }, Audit::Nothing)
    }

    /// Reports whether whoever asks may do this to any resource of the kind.
    pub(crate) fn may_on_any(
        &self,
        operation: AclOperation,
        resource_type: AclResourceType,
    ) -> bool {
        let Some(access) = &self.node.access else { return true };
        let Some(principal) = self.peer.identity.principal() else { return false };
        let host = self.peer.address.ip();
        let index = Arc::clone(&access.index.read());
        let allowed =
            access.authorizer.judge_any(&index, principal, host, resource_type, operation);
        let action = Action { resource_type, resource_name: "*", operation };
        self.audit(principal, &action, allowed, Audit::All, "any resource of the kind");
        allowed
    }

    fn decide(&self, action: Action<'_>, audit: Audit) -> bool {
        let Some(access) = &self.node.access else { return true };
        // Nobody gets this far without being known; if somebody did, nothing would be allowed.
        let Some(principal) = self.peer.identity.principal() else { return false };
        let generation = access.generation.load(Ordering::Acquire);
        let tells_allowed = audit != Audit::Nothing
            && tracing::enabled!(target: AUDIT_TARGET, tracing::Level::DEBUG);
        if !tells_allowed && self.peer.remembered.holds(generation, &action) {
            return true;
        }
        let index = Arc::clone(&access.index.read());
        let host = self.peer.address.ip();
        let verdict = access.authorizer.judge(&index, principal, host, action);
        let allowed = verdict.is_allowed();
        if allowed {
            self.peer.remembered.add(generation, &action);
        }
        if audit != Audit::Nothing && (tells_allowed || !allowed) {
            self.audit(principal, &action, allowed, audit, &reason(verdict));
        }
        allowed
    }

    fn audit(
        &self,
        principal: &Principal,
        action: &Action<'_>,
        allowed: bool,
        audit: Audit,
        rule: &str,
    ) {
        let asker = Asker { principal, host: self.peer.address.ip(), api: &self.api };
        write_audit(&asker, action, allowed, audit, rule);
    }
}

/// Who asks, and by what.
struct Asker<'a> {
    principal: &'a Principal,
    host: IpAddr,
    api: &'a dyn fmt::Display,
}

fn write_audit(asker: &Asker<'_>, action: &Action<'_>, allowed: bool, audit: Audit, rule: &str) {
    let Action { resource_type, resource_name, operation } = action;
    let Asker { principal, host, api } = asker;
    if allowed {
        tracing::debug!(
            target: AUDIT_TARGET,
            %principal, %operation, %resource_type, resource_name, %host, %api, rule,
            "allowed"
        );
    } else if audit == Audit::All {
        tracing::info!(
            target: AUDIT_TARGET,
            %principal, %operation, %resource_type, resource_name, %host, %api, rule,
            "denied"
        );
    }
}

/// What a decision rests on, in words.
fn reason(verdict: Verdict<'_>) -> String {
    match verdict {
        Verdict::SuperUser => "super user".to_owned(),
        Verdict::NoEntries => "no entry, which allows".to_owned(),
        Verdict::NotAllowed => "no entry allows it".to_owned(),
        Verdict::Allowed(acl) | Verdict::Denied(acl) => format!(
            "{} {} {} from {} on {} {}:{}",
            acl.principal,
            acl.permission,
            acl.operation,
            acl.host,
            acl.pattern_type,
            acl.resource_type,
            acl.resource_name
        ),
    }
}
