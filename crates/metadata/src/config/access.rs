//! Who may do what: the keys of the authorizer.

use super::layers::Layers;
use super::problem::Problems;
use super::protection::Secret;

/// The only authorizer there is, by the name of Kafka's own.
pub const STANDARD_AUTHORIZER: &str = "org.apache.kafka.metadata.authorizer.StandardAuthorizer";

/// What the operator wrote about access.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessSettings {
    /// Whether `authorizer.class.name` names the authorizer; without it everybody may do everything.
    pub is_controlled: bool,
    /// `super.users`, as written.
    pub super_users: String,
    /// `allow.everyone.if.no.acl.found`.
    pub allow_without_entries: bool,
    /// How delegation tokens are made, if they are.
    pub tokens: Option<TokenKeys>,
}

/// How delegation tokens are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenKeys {
    /// `delegation.token.secret.key`.
    pub secret_key: Secret,
    /// `delegation.token.max.lifetime.ms`.
    pub lifetime_max_ms: i64,
    /// `delegation.token.expiry.time.ms`.
    pub renew_period_ms: i64,
    /// `delegation.token.expiry.check.interval.ms`.
    pub check_interval_ms: u64,
}

/// Reads and checks the keys.
pub(super) fn resolve_access(layers: &Layers<'_>, problems: &mut Problems) -> AccessSettings {
    const CLASS: &str = "authorizer.class.name";
    const SUPER_USERS: &str = "super.users";
    let class = layers.text(CLASS).unwrap_or_default();
    if !class.is_empty() && class != STANDARD_AUTHORIZER {
        problems.error(
            layers.origin(CLASS),
            format!(
                "invalid value `{class}` for `{CLASS}`: must be {STANDARD_AUTHORIZER}, which stands \
                 for the authorizer built in"
            ),
        );
    }
    let super_users = layers.text(SUPER_USERS).unwrap_or_default();
    for item in super_users.split(';').map(str::trim).filter(|item| !item.is_empty()) {
        let is_principal =
            item.split_once(':').is_some_and(|(kind, name)| !kind.is_empty() && !name.is_empty());
        if !is_principal {
            problems.error(
                layers.origin(SUPER_USERS),
                format!(
                    "invalid item `{item}` in `{SUPER_USERS}`: write User:NAME;User:NAME, with \
                     semicolons between"
                ),
            );
        }
    }
    let secret_key = layers.text("delegation.token.secret.key").filter(|text| !text.is_empty());
    let tokens = secret_key.map(|text| TokenKeys {
        secret_key: Secret::new(&text),
        lifetime_max_ms: layers.integer("delegation.token.max.lifetime.ms"),
        renew_period_ms: layers.integer("delegation.token.expiry.time.ms"),
        check_interval_ms: layers.integer("delegation.token.expiry.check.interval.ms").max(1)
            as u64,
    });
    AccessSettings {
        tokens,
        is_controlled: !class.is_empty(),
        super_users,
        allow_without_entries: layers.boolean("allow.everyone.if.no.acl.found"),
    }
}
