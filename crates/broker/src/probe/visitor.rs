//! Who asks at the HTTP door, and what they may see: the users, tokens and entries of the listeners.
//!
//! | `fleuve.http.authentication` | metrics | other pages |
//! |---|---|---|
//! | `none` | everybody | everybody |
//! | `pages` | everybody | known users with Kafka's rights |
//! | `all` | known users who may describe the cluster | the same |
//!
//! A name with a password is one of a user of PLAIN of any listener, or of SCRAM; a token is one that
//! OAUTHBEARER takes. Who shows neither is the user whom the certificate of their connection names, if
//! they have shown one. Without an authorizer, whoever is known may see everything.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use fleuve_http::{Ask, Credentials as Shown, Page};
use fleuve_metadata::config::{HttpAuthentication, IssuerSettings};
use fleuve_metadata::image::{AclOperation, AclResourceType, ScramCredential, ScramMechanism};
use fleuve_protocol::Str;
use fleuve_security::acl::Action;
use fleuve_security::oauth::Bearer;
use fleuve_security::sasl::{Credentials, Decoys, PlainUsers, TokenCredential, is_password_of};
use fleuve_security::{Jaas, Principal, PrincipalMapping, distinguished_name};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::access::CLUSTER_NAME;
use crate::issuer::Issuer;
use crate::node::Node;

/// Passwords that are checked at once: each takes milliseconds of a processor.
const CHECKS_AT_ONCE: usize = 2;

/// Finds out who visitors are.
#[derive(Debug)]
pub(super) struct Porter {
    issuer: Option<Arc<Issuer>>,
    decoys: Arc<Decoys>,
    mapping: PrincipalMapping,
    room: Semaphore,
}

/// Somebody at the HTTP door.
pub(super) struct Visitor<'a> {
    node: &'a Node,
    address: IpAddr,
    /// Who it is; nobody was asked if there is none, and may see everything.
    principal: Option<Principal>,
}

impl Porter {
    /// Makes ready to check what visitors show, if the settings want them to show anything.
    pub(super) async fn new(node: &Node) -> Result<Self, String> {
        let settings = node.settings();
        let is_wanted = settings.metrics.authentication != HttpAuthentication::None;
        let issuer = settings.network.listeners.open.iter().filter(|_| is_wanted).find_map(
            |listener| -> Option<&IssuerSettings> {
                listener.protection.sasl.as_ref()?.issuer.as_ref()
            },
        );
        let issuer = match issuer {
            Some(issuer) => Some(Issuer::start(issuer).await?),
            None => None,
        };
        let decoys = Arc::new(Decoys::new(&*node.random));
        let mapping = PrincipalMapping::parse(&settings.network.principal_mapping)
            .map_err(|error| format!("ssl.principal.mapping.rules: {error}"))?;
        Ok(Self { issuer, decoys, mapping, room: Semaphore::new(CHECKS_AT_ONCE) })
    }

    /// Lets a visitor in who wants to see the metrics; otherwise, what to tell.
    pub(super) async fn refuses_metrics(&self, node: &Arc<Node>, ask: &Ask) -> Option<Page> {
        if node.settings().metrics.authentication != HttpAuthentication::All {
            return None;
        }
        match self.receive(node, ask).await {
            Err(refusal) => Some(refusal),
            Ok(visitor) => {
                let kind = AclResourceType::Cluster;
                let may = visitor.may(AclOperation::Describe, kind, CLUSTER_NAME);
                (!may).then(|| refusal(403, "describing the cluster is not allowed"))
            }
        }
    }

    /// Finds out who wants to see a page; otherwise, what to tell.
    pub(super) async fn receive<'a>(
        &self,
        node: &'a Arc<Node>,
        ask: &Ask,
    ) -> Result<Visitor<'a>, Page> {
        let address = ask.address;
        if node.settings().metrics.authentication == HttpAuthentication::None {
            return Ok(Visitor { node, address, principal: None });
        }
        let Some(shown) = &ask.credentials else {
            return match ask.certificate.as_deref().and_then(|shown| self.named_by(shown)) {
                Some(principal) => Ok(Visitor { node, address, principal: Some(principal) }),
                None => Err(refusal(401, "authentication is required")),
            };
        };
        let known = match shown {
            Shown::Basic { user, password } => self.check_password(node, user, password).await,
            Shown::Bearer(token) => {
                let issuer = self.issuer.as_ref();
                let bearer = issuer.and_then(|it| it.check(token, node.clock.wall_ms()));
                bearer.map(|bearer| Principal::user(&bearer.subject))
            }
        };
        match known {
            Some(principal) => Ok(Visitor { node, address, principal: Some(principal) }),
            None => {
                tracing::info!(%address, "a visitor of the HTTP door was not let in");
                tokio::time::sleep(self.delay(node)).await;
                Err(refusal(401, "authentication failed"))
            }
        }
    }

    /// The user whom a certificate names, as at listeners.
    fn named_by(&self, certificate: &[u8]) -> Option<Principal> {
        let user = self.mapping.user(&distinguished_name(certificate)?)?;
        Some(Principal::user(&user))
    }

    fn delay(&self, node: &Node) -> Duration {
        node.failed_authentication_delay()
    }

    async fn check_password(
        &self,
        node: &Arc<Node>,
        user: &str,
        password: &str,
    ) -> Option<Principal> {
        let _place = self.room.acquire().await.ok()?;
        let (node, decoys) = (Arc::clone(node), Arc::clone(&self.decoys));
        let (user, password) = (user.to_owned(), password.to_owned());
        let check = move || {
            let known = KnownUsers::new(&node, &decoys);
            is_password_of(&user, &password, &known).then(|| Principal::user(&user))
        };
        tokio::task::spawn_blocking(check).await.ok().flatten()
    }
}

impl Visitor<'_> {
    /// Reports whether it may do this; a denial is written to the audit log.
    pub(super) fn may(&self, operation: AclOperation, kind: AclResourceType, name: &str) -> bool {
        self.decide(operation, kind, name, false)
    }

    /// Reports whether a topic is shown to it.
    pub(super) fn sees_topic(&self, name: &str) -> bool {
        self.decide(AclOperation::Describe, AclResourceType::Topic, name, true)
    }

    /// Reports whether a group is shown to it.
    pub(super) fn sees_group(&self, name: &str) -> bool {
        self.decide(AclOperation::Describe, AclResourceType::Group, name, true)
    }

    fn decide(
        &self,
        operation: AclOperation,
        resource_type: AclResourceType,
        resource_name: &str,
        quietly: bool,
    ) -> bool {
        match (&self.principal, &self.node.access) {
            (Some(principal), Some(access)) => {
                let action = Action { resource_type, resource_name, operation };
                access.allows_visitor(principal, self.address, &action, quietly)
            }
            _ => true,
        }
    }
}

/// A short answer instead of a page.
pub(super) fn refusal(status: u16, error: &str) -> Page {
    Page { status, json: json!({ "error": error }).to_string() }
}

/// The users of all listeners.
struct KnownUsers<'a> {
    node: &'a Node,
    plain: PlainUsers,
    decoys: &'a Decoys,
}

impl<'a> KnownUsers<'a> {
    fn new(node: &'a Node, decoys: &'a Decoys) -> Self {
        let settings = node.settings();
        let listeners = settings.network.listeners.open.iter();
        let configs = listeners.filter_map(|listener| {
            let sasl = listener.protection.sasl.as_ref()?;
            // A listener that does not take passwords does not lend its users either.
            let has_plain = sasl.mechanisms.contains(&"PLAIN");
            Jaas::parse(sasl.plain_users.as_ref().filter(|_| has_plain)?.expose()).ok()
        });
        let jaas: Vec<Jaas> = configs.collect();
        let users = jaas.iter().flat_map(|jaas| jaas.options("user_"));
        Self { node, plain: PlainUsers::new(users, &*node.random), decoys }
    }
}

impl Credentials for KnownUsers<'_> {
    fn plain(&self) -> &PlainUsers {
        &self.plain
    }

    fn scram(&self, user: &str, mechanism: ScramMechanism) -> Option<ScramCredential> {
        self.node.image().scram().of(&Str::copy_from(user), mechanism).cloned()
    }

    fn token(&self, _: &str, _: ScramMechanism) -> Option<TokenCredential> {
        // Delegation tokens are shown by SCRAM only.
        None
    }

    fn bearer(&self, _: &str) -> Option<Bearer> {
        None
    }

    fn decoys(&self) -> &Decoys {
        self.decoys
    }
}
