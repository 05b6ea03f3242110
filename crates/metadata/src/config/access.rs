//! Who may do what: the keys of the authorizer.

use super::layers::Layers;
use super::problem::Problems;

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
    AccessSettings {
        is_controlled: !class.is_empty(),
        super_users,
        allow_without_entries: layers.boolean("allow.everyone.if.no.acl.found"),
    }
}
