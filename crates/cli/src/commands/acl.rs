//! `fleuve acl`: access control entries.

use clap::{Args, Subcommand};
use fleuve_client::admin::acls::{
    ACL_OPERATIONS, ACL_PATTERN_TYPES, ACL_PERMISSIONS, ACL_RESOURCE_TYPES, acl_name, acl_number,
};
use fleuve_client::admin::{Acl as Entry, AclFilter};
use serde_json::json;

use crate::args::{Common, Format};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{line, note, print};

/// Add, list and remove access control entries.
#[derive(Debug, Subcommand)]
pub(crate) enum Acl {
    /// Allow or deny something.
    #[command(after_help = "Examples:\n  \
        fleuve acl add --allow User:ann --operation read --topic orders\n  \
        fleuve acl add --allow User:ann --producer --topic orders --transactional-id shop\n  \
        fleuve acl add --allow User:bob --consumer --topic orders --group billing\n  \
        fleuve acl add --deny User:eve --operation all --topic orders- --prefixed")]
    Add {
        /// Who may; may be repeated.
        #[arg(long, value_name = "PRINCIPAL")]
        allow: Vec<String>,
        /// Who must not; may be repeated.
        #[arg(long, value_name = "PRINCIPAL")]
        deny: Vec<String>,
        /// From which host.
        #[arg(long, default_value = "*")]
        host: String,
        #[command(flatten)]
        what: What,
    },
    /// List entries.
    List {
        #[command(flatten)]
        which: Which,
    },
    /// Remove entries.
    #[command(
        after_help = "Example:\n  fleuve acl remove --principal User:ann --topic orders --dry-run"
    )]
    Remove {
        #[command(flatten)]
        which: Which,
        /// Every entry there is.
        #[arg(long)]
        all: bool,
        /// Only list what would be removed.
        #[arg(long)]
        dry_run: bool,
    },
}

/// What is allowed or denied.
#[derive(Debug, Args)]
pub(crate) struct What {
    /// What is done: read, write, create, describe, all, ...; may be repeated.
    #[arg(long, required_unless_present_any = ["producer", "consumer"])]
    operation: Vec<String>,
    /// What a producer does: write, describe and create on the topic, write and describe on the
    /// transactional id.
    #[arg(long, requires = "topic", conflicts_with = "operation")]
    producer: bool,
    /// What a consumer does: read and describe on the topic, read on the group.
    #[arg(long, requires_all = ["topic", "group"], conflicts_with = "operation")]
    consumer: bool,
    #[command(flatten)]
    on: On,
}

/// Which entries.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Of whom.
    #[arg(long)]
    principal: Option<String>,
    /// From which host.
    #[arg(long)]
    host: Option<String>,
    /// About what operation.
    #[arg(long)]
    operation: Option<String>,
    #[command(flatten)]
    on: On,
}

/// On what.
#[derive(Debug, Args)]
pub(crate) struct On {
    /// On a topic.
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
    /// On a group.
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// On the cluster.
    #[arg(long)]
    cluster: bool,
    /// On a transactional id.
    #[arg(long, value_name = "ID")]
    transactional_id: Option<String>,
    /// On a delegation token.
    #[arg(long, value_name = "ID")]
    delegation_token: Option<String>,
    /// On the delegation tokens of a user, as User:ann.
    #[arg(long, value_name = "PRINCIPAL")]
    user_principal: Option<String>,
    /// On everything whose name begins so.
    #[arg(long)]
    prefixed: bool,
}

impl On {
    fn resources(&self) -> Vec<(i8, String)> {
        let named = [
            (2, &self.topic),
            (3, &self.group),
            (5, &self.transactional_id),
            (6, &self.delegation_token),
            (7, &self.user_principal),
        ];
        let mut resources: Vec<_> =
            named.into_iter().filter_map(|(kind, name)| Some((kind, name.clone()?))).collect();
        if self.cluster {
            resources.push((4, "kafka-cluster".to_owned()));
        }
        resources
    }

    fn pattern_type(&self) -> i8 {
        if self.prefixed { 4 } else { 3 }
    }
}

/// What clients are, of which it is known what they need.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Roles {
    pub(crate) producer: bool,
    pub(crate) consumer: bool,
}

impl Roles {
    pub(crate) fn is_any(self) -> bool {
        self.producer || self.consumer
    }

    /// The operations on a kind of resource, in numbers.
    pub(crate) fn needs(self, resource_type: i8) -> Vec<i8> {
        const TOPIC: i8 = 2;
        const GROUP: i8 = 3;
        const TRANSACTIONAL_ID: i8 = 5;
        const READ: i8 = 3;
        const WRITE: i8 = 4;
        const CREATE: i8 = 5;
        const DESCRIBE: i8 = 8;
        let (producer, consumer): (&[i8], &[i8]) = match resource_type {
            TOPIC => (&[DESCRIBE, WRITE, CREATE], &[DESCRIBE, READ]),
            GROUP => (&[], &[READ]),
            TRANSACTIONAL_ID => (&[DESCRIBE, WRITE], &[]),
            _ => (&[], &[]),
        };
        let mut needs: Vec<i8> = Vec::new();
        for (is_on, operations) in [(self.producer, producer), (self.consumer, consumer)] {
            let wanted = operations.iter().filter(|_| is_on);
            needs.extend(wanted.filter(|it| !needs.contains(it)).copied().collect::<Vec<_>>());
        }
        needs
    }
}

pub(crate) async fn run(command: Acl, common: &Common) -> Result<(), Failure> {
    let admin = Context::new(common)?.admin().await?;
    match command {
        Acl::Add { allow, deny, host, what } => {
            let resources = what.on.resources();
            if resources.is_empty() {
                return Err(Failure::new("on what? pass --topic, --group, --cluster or another"));
            }
            let roles = Roles { producer: what.producer, consumer: what.consumer };
            let named = what.operation.iter().map(|operation| number(operation));
            let named = named.collect::<Result<Vec<_>, _>>()?;
            let principals =
                allow.iter().map(|who| (who, 3)).chain(deny.iter().map(|who| (who, 2)));
            let mut entries = Vec::new();
            for (principal, permission_type) in principals {
                for (resource_type, name) in &resources {
                    let operations = match roles.is_any() {
                        true => roles.needs(*resource_type),
                        false => named.clone(),
                    };
                    if operations.is_empty() {
                        let kind = acl_name(ACL_RESOURCE_TYPES, *resource_type).to_lowercase();
                        let kind = kind.replace('_', "-");
                        return Err(Failure::new(format!(
                            "--producer and --consumer mean nothing on a {kind}: leave it out, or \
                             pass --operation"
                        )));
                    }
                    entries.extend(operations.into_iter().map(|operation| Entry {
                        resource_type: *resource_type,
                        resource_name: name.clone(),
                        pattern_type: what.on.pattern_type(),
                        principal: principal.clone(),
                        host: host.clone(),
                        operation,
                        permission_type,
                    }));
                }
            }
            if entries.is_empty() {
                return Err(Failure::new("who? pass --allow User:NAME or --deny User:NAME"));
            }
            admin.create_acls(&entries).await?;
            match common.output {
                Format::Table => line(format!("added {} entries", entries.len())),
                format => show(format, entries),
            }
        }
        Acl::List { which } => {
            let mut entries = Vec::new();
            for filter in filters(&which)? {
                entries.extend(admin.describe_acls(&filter).await?);
            }
            show(common.output, entries)
        }
        Acl::Remove { which, all, dry_run } => {
            let filters = filters(&which)?;
            // What was forgotten on the command line must not cost all rights there are.
            if filters.contains(&AclFilter::ANY) != all {
                return Err(Failure::new(match all {
                    true => "--all stands for every entry: leave the other options out",
                    false => {
                        "which entries? pass --principal, --topic or another, or --all for every \
                         entry there is"
                    }
                }));
            }
            let entries = if dry_run {
                let mut entries = Vec::new();
                for filter in &filters {
                    entries.extend(admin.describe_acls(filter).await?);
                }
                entries
            } else {
                admin.delete_acls(&filters).await?
            };
            let verb = if dry_run { "would remove" } else { "removed" };
            note(format!("{verb} {} entries", entries.len()));
            show(common.output, entries)
        }
    }
}

fn number(operation: &str) -> Result<i8, Failure> {
    acl_number(ACL_OPERATIONS, operation).ok_or_else(|| {
        let names: Vec<_> = ACL_OPERATIONS.iter().map(|(name, _)| name.to_lowercase()).collect();
        Failure::new(format!("--operation {operation}: expected one of {}", names.join(", ")))
    })
}

fn filters(which: &Which) -> Result<Vec<AclFilter>, Failure> {
    let any = AclFilter {
        principal: which.principal.clone(),
        host: which.host.clone(),
        operation: which.operation.as_deref().map_or(Ok(1), number)?,
        pattern_type: if which.on.prefixed { 4 } else { 1 },
        ..AclFilter::ANY
    };
    let resources = which.on.resources();
    if resources.is_empty() {
        return Ok(vec![any]);
    }
    let of = |(resource_type, name)| AclFilter {
        resource_type,
        resource_name: Some(name),
        pattern_type: which.on.pattern_type(),
        ..any.clone()
    };
    Ok(resources.into_iter().map(of).collect())
}

fn show(format: Format, mut entries: Vec<Entry>) -> Result<(), Failure> {
    entries.sort_unstable();
    entries.dedup();
    let row = |entry: &Entry| {
        [
            acl_name(ACL_RESOURCE_TYPES, entry.resource_type).to_lowercase(),
            entry.resource_name.clone(),
            acl_name(ACL_PATTERN_TYPES, entry.pattern_type).to_lowercase(),
            entry.principal.clone(),
            entry.host.clone(),
            acl_name(ACL_OPERATIONS, entry.operation).to_lowercase(),
            acl_name(ACL_PERMISSIONS, entry.permission_type).to_lowercase(),
        ]
    };
    let headers = ["resource", "name", "pattern", "principal", "host", "operation", "permission"];
    let value = entries
        .iter()
        .map(|entry| {
            let fields = headers.iter().zip(row(entry));
            let fields = fields.map(|(name, value)| ((*name).to_owned(), json!(value)));
            serde_json::Value::Object(fields.collect())
        })
        .collect();
    print(format, &value, &headers, entries.iter().map(|entry| row(entry).to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn producers_and_consumers_need_each_operation_once() {
        let both = Roles { producer: true, consumer: true };
        let names = |roles: Roles, resource_type| -> Vec<_> {
            let needs = roles.needs(resource_type).into_iter();
            needs.map(|operation| acl_name(ACL_OPERATIONS, operation)).collect()
        };
        assert_eq!(names(both, 2), ["DESCRIBE", "WRITE", "CREATE", "READ"]);
        assert_eq!(names(both, 3), ["READ"]);
        assert_eq!(names(both, 4), [""; 0]);
        assert_eq!(names(Roles { consumer: false, ..both }, 5), ["DESCRIBE", "WRITE"]);
        assert_eq!(names(Roles { producer: false, ..both }, 5), [""; 0]);
    }
}
