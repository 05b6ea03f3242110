//! `kafka-acls`: access control entries.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};

use clap::{ArgGroup, Parser};
use fleuve_client::Admin;
use fleuve_client::admin::acls::{
    ACL_OPERATIONS, ACL_PATTERN_TYPES, ACL_PERMISSIONS, ACL_RESOURCE_TYPES, acl_name, acl_number,
};
use fleuve_client::admin::{Acl, AclFilter};

use super::ConnectEither;
use crate::commands::acl::Roles;
use crate::failure::Failure;
use crate::output::line;

/// Add, remove and list access control entries.
#[derive(Debug, Parser)]
#[command(group = ArgGroup::new("action").required(true).args(["add", "remove", "list"]))]
pub(super) struct Acls {
    #[command(flatten)]
    connect: ConnectEither,
    /// Add entries.
    #[arg(long)]
    add: bool,
    /// Remove entries.
    #[arg(long)]
    remove: bool,
    /// List entries.
    #[arg(long, conflicts_with_all = [
        "producer", "consumer", "allow_host", "allow_principal", "deny_host", "deny_principal",
    ])]
    list: bool,
    /// Who may; may be repeated.
    #[arg(long)]
    allow_principal: Vec<String>,
    /// Who must not; may be repeated.
    #[arg(long)]
    deny_principal: Vec<String>,
    /// List the entries of this principal; may be repeated.
    #[arg(long)]
    principal: Vec<String>,
    /// From which host; may be repeated.
    #[arg(long)]
    allow_host: Vec<String>,
    /// From which host; may be repeated.
    #[arg(long)]
    deny_host: Vec<String>,
    /// What is done; may be repeated.
    #[arg(long)]
    operation: Vec<String>,
    /// A topic; may be repeated.
    #[arg(long)]
    topic: Vec<String>,
    /// A group; may be repeated.
    #[arg(long)]
    group: Vec<String>,
    /// The cluster.
    #[arg(long)]
    cluster: bool,
    /// A transactional id; may be repeated.
    #[arg(long)]
    transactional_id: Vec<String>,
    /// A delegation token; may be repeated.
    #[arg(long)]
    delegation_token: Vec<String>,
    /// A user as owner of tokens; may be repeated.
    #[arg(long)]
    user_principal: Vec<String>,
    /// literal, prefixed, any or match.
    #[arg(long, default_value = "LITERAL")]
    resource_pattern_type: String,
    /// What a producer needs.
    #[arg(long, requires = "topic", conflicts_with_all = ["operation", "deny_principal", "deny_host"])]
    producer: bool,
    /// What a consumer needs.
    #[arg(
        long,
        requires_all = ["topic", "group"],
        conflicts_with_all = ["operation", "deny_principal", "deny_host"]
    )]
    consumer: bool,
    /// What an idempotent producer needed once.
    #[arg(long, requires = "producer")]
    idempotent: bool,
    /// Do not ask before entries are removed.
    #[arg(long)]
    force: bool,
}

const TOPIC: i8 = 2;
const GROUP: i8 = 3;
const CLUSTER: i8 = 4;
const TRANSACTIONAL_ID: i8 = 5;
const IDEMPOTENT_WRITE: i8 = 12;
const DELEGATION_TOKEN: i8 = 6;
const USER: i8 = 7;
const ALL: i8 = 2;
const LITERAL: i8 = 3;
const PREFIXED: i8 = 4;

/// What entries are about.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Subject {
    resource_type: i8,
    name: String,
    pattern_type: i8,
}

pub(super) async fn run(options: Acls) -> Result<(), Failure> {
    let pattern = acl_number(ACL_PATTERN_TYPES, &options.resource_pattern_type)
        .ok_or_else(|| Failure::new("--resource-pattern-type: expected literal or prefixed"))?;
    check(&options)?;
    if options.add && !matches!(pattern, LITERAL | PREFIXED) {
        return Err(Failure::new(
            "--resource-pattern-type: entries are added as literal or prefixed",
        ));
    }
    let subjects = subjects(&options, pattern);
    let admin = options.connect.admin().await?;
    if options.list {
        return list(&admin, &options, &subjects).await;
    }
    if subjects.is_empty() {
        return Err(Failure::new("on what? pass --topic, --group, --cluster or another"));
    }
    let entries = entries(&options, &subjects)?;
    if options.remove {
        return remove(&admin, &options, &subjects, &entries).await;
    }
    if entries.is_empty() {
        return Err(Failure::new("who? pass --allow-principal or --deny-principal"));
    }
    for (resource, acls) in by_resource(entries.clone()) {
        line(format!("Adding ACLs for resource `{resource}`: "))?;
        let rows: Vec<_> = acls.iter().map(row).collect();
        line(format!(" {}\n", rows.join("\n")))?;
    }
    Ok(admin.create_acls(&entries).await?)
}

/// Looks for options that mean nothing together, as far as the parser cannot.
fn check(options: &Acls) -> Result<(), Failure> {
    if !options.principal.is_empty() && !options.list {
        return Err(Failure::new("--principal is for --list: see kafka-acls.sh --help"));
    }
    let others = options.cluster || !options.transactional_id.is_empty();
    if options.consumer && !options.producer && others {
        return Err(Failure::new(
            "--consumer is about topics and groups: leave --cluster and --transactional-id out",
        ));
    }
    Ok(())
}

/// Removes the entries that are named, or all of the resources, once somebody has said that this is
/// meant.
async fn remove(
    admin: &Admin,
    options: &Acls,
    subjects: &[Subject],
    entries: &[Acl],
) -> Result<(), Failure> {
    if entries.is_empty() {
        for subject in subjects {
            let name = pattern_text(subject.resource_type, &subject.name, subject.pattern_type);
            let question = format!(
                "Are you sure you want to delete all ACLs for resource filter `{name}`? (y/n)"
            );
            if confirm(options, &question)? {
                admin.delete_acls(&[filter(subject)]).await?;
            }
        }
        return Ok(());
    }
    for (resource, acls) in by_resource(entries.to_vec()) {
        let rows: Vec<_> = acls.iter().map(row).collect();
        let question = format!(
            "Are you sure you want to remove ACLs: \n {}\n from resource filter `{resource}`? (y/n)",
            rows.join("\n")
        );
        if confirm(options, &question)? {
            let filters: Vec<_> = acls.into_iter().map(exactly).collect();
            admin.delete_acls(&filters).await?;
        }
    }
    Ok(())
}

/// The filter that means one entry.
fn exactly(acl: Acl) -> AclFilter {
    AclFilter {
        resource_type: acl.resource_type,
        resource_name: Some(acl.resource_name),
        pattern_type: acl.pattern_type,
        principal: Some(acl.principal),
        host: Some(acl.host),
        operation: acl.operation,
        permission_type: acl.permission_type,
    }
}

/// Asks whether it is meant, unless --force says so.
fn confirm(options: &Acls, question: &str) -> Result<bool, Failure> {
    if options.force {
        return Ok(true);
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::new("nobody is there to say that it is meant: pass --force"));
    }
    line(question)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

/// Lists what the command is about. With --producer or --consumer that is only what such a client
/// needs, whatever else is named; and there is one cluster, so its name is literal.
fn subjects(options: &Acls, pattern: i8) -> Vec<Subject> {
    let named = [
        (TOPIC, &options.topic),
        (GROUP, &options.group),
        (TRANSACTIONAL_ID, &options.transactional_id),
        (DELEGATION_TOKEN, &options.delegation_token),
        (USER, &options.user_principal),
    ];
    let roles = Roles { producer: options.producer, consumer: options.consumer };
    let subject = |(resource_type, name): (i8, &String)| Subject {
        resource_type,
        name: name.clone(),
        pattern_type: pattern,
    };
    let mut subjects: Vec<_> = named
        .into_iter()
        .filter(|(kind, _)| options.list || !roles.is_any() || !roles.needs(*kind).is_empty())
        .flat_map(|(kind, names)| names.iter().map(move |name| (kind, name)))
        .map(subject)
        .collect();
    if options.idempotent || (options.cluster && !roles.is_any() && pattern == LITERAL) {
        subjects.push(Subject {
            resource_type: CLUSTER,
            name: "kafka-cluster".to_owned(),
            pattern_type: LITERAL,
        });
    }
    subjects
}

fn entries(options: &Acls, subjects: &[Subject]) -> Result<Vec<Acl>, Failure> {
    let mut entries = Vec::new();
    let sides = [
        (&options.allow_principal, &options.allow_host, 3),
        (&options.deny_principal, &options.deny_host, 2),
    ];
    let any_host = vec!["*".to_owned()];
    for subject in subjects {
        let operations = operations(options, subject.resource_type)?;
        for (principals, hosts, permission_type) in sides {
            let hosts = if hosts.is_empty() { &any_host } else { hosts };
            for principal in principals {
                for host in hosts {
                    entries.extend(operations.iter().map(|operation| Acl {
                        resource_type: subject.resource_type,
                        resource_name: subject.name.clone(),
                        pattern_type: subject.pattern_type,
                        principal: principal.clone(),
                        host: host.clone(),
                        operation: *operation,
                        permission_type,
                    }));
                }
            }
        }
    }
    Ok(entries)
}

fn operations(options: &Acls, resource_type: i8) -> Result<Vec<i8>, Failure> {
    let roles = Roles { producer: options.producer, consumer: options.consumer };
    if roles.is_any() || options.idempotent {
        let mut operations = roles.needs(resource_type);
        if resource_type == CLUSTER && options.idempotent {
            operations.push(IDEMPOTENT_WRITE);
        }
        return Ok(operations);
    }
    let mut operations = Vec::new();
    for name in &options.operation {
        operations.push(acl_number(ACL_OPERATIONS, name).ok_or_else(|| {
            Failure::new(format!("--operation {name}: expected Read, Write, Describe, All, ..."))
        })?);
    }
    if operations.is_empty() {
        operations.push(ALL);
    }
    let takes_part = !options.allow_principal.is_empty() || !options.deny_principal.is_empty();
    let known = known_operations(resource_type);
    if takes_part && operations.iter().any(|it| *it != ALL && !known.contains(it)) {
        let names = known.iter().chain([&ALL]).map(|known| acl_name(ACL_OPERATIONS, *known));
        return Err(Failure::new(format!(
            "ResourceType {} only supports operations [{}]",
            acl_name(ACL_RESOURCE_TYPES, resource_type),
            names.collect::<Vec<_>>().join(", ")
        )));
    }
    Ok(operations)
}

/// What can be done with a kind of resource: an entry about anything else would never count.
fn known_operations(resource_type: i8) -> &'static [i8] {
    const READ: i8 = 3;
    const WRITE: i8 = 4;
    const CREATE: i8 = 5;
    const DELETE: i8 = 6;
    const ALTER: i8 = 7;
    const DESCRIBE: i8 = 8;
    const CLUSTER_ACTION: i8 = 9;
    const DESCRIBE_CONFIGS: i8 = 10;
    const ALTER_CONFIGS: i8 = 11;
    const CREATE_TOKENS: i8 = 13;
    const DESCRIBE_TOKENS: i8 = 14;
    const TWO_PHASE_COMMIT: i8 = 15;
    match resource_type {
        TOPIC => &[READ, WRITE, CREATE, DESCRIBE, DELETE, ALTER, DESCRIBE_CONFIGS, ALTER_CONFIGS],
        GROUP => &[READ, DESCRIBE, DELETE, DESCRIBE_CONFIGS, ALTER_CONFIGS],
        CLUSTER => &[
            CREATE,
            CLUSTER_ACTION,
            DESCRIBE_CONFIGS,
            ALTER_CONFIGS,
            IDEMPOTENT_WRITE,
            ALTER,
            DESCRIBE,
        ],
        TRANSACTIONAL_ID => &[DESCRIBE, WRITE, TWO_PHASE_COMMIT],
        DELEGATION_TOKEN => &[DESCRIBE],
        USER => &[CREATE_TOKENS, DESCRIBE_TOKENS],
        _ => &[],
    }
}

fn filter(subject: &Subject) -> AclFilter {
    AclFilter {
        resource_type: subject.resource_type,
        resource_name: Some(subject.name.clone()),
        pattern_type: subject.pattern_type,
        ..AclFilter::ANY
    }
}

async fn list(admin: &Admin, options: &Acls, subjects: &[Subject]) -> Result<(), Failure> {
    let filters: Vec<_> = match subjects {
        [] => vec![AclFilter::ANY],
        named => named.iter().map(filter).collect(),
    };
    let mut found = Vec::new();
    for filter in filters {
        found.extend(admin.describe_acls(&filter).await?);
    }
    if options.principal.is_empty() {
        return show(found);
    }
    for principal in &options.principal {
        line(format!("ACLs for principal `{principal}`"))?;
        show(found.iter().filter(|acl| acl.principal == *principal).cloned().collect())?;
    }
    Ok(())
}

fn show(acls: Vec<Acl>) -> Result<(), Failure> {
    for (resource, acls) in by_resource(acls) {
        line(format!("Current ACLs for resource `{resource}`:"))?;
        let rows: Vec<_> = acls.iter().map(row).collect();
        line(format!("{}\n", rows.join("\n")))?;
    }
    Ok(())
}

fn by_resource(acls: Vec<Acl>) -> BTreeMap<String, Vec<Acl>> {
    let mut resources: BTreeMap<String, Vec<Acl>> = BTreeMap::new();
    for acl in acls {
        let resource = pattern_text(acl.resource_type, &acl.resource_name, acl.pattern_type);
        resources.entry(resource).or_default().push(acl);
    }
    resources
}

fn pattern_text(resource_type: i8, name: &str, pattern_type: i8) -> String {
    format!(
        "ResourcePattern(resourceType={}, name={name}, patternType={})",
        acl_name(ACL_RESOURCE_TYPES, resource_type),
        acl_name(ACL_PATTERN_TYPES, pattern_type)
    )
}

fn row(acl: &Acl) -> String {
    format!(
        "\t(principal={}, host={}, operation={}, permissionType={})",
        acl.principal,
        acl.host,
        acl_name(ACL_OPERATIONS, acl.operation),
        acl_name(ACL_PERMISSIONS, acl.permission_type)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &str) -> Result<Acls, String> {
        let arguments = std::iter::once("kafka-acls.sh").chain(arguments.split(' '));
        Acls::try_parse_from(arguments).map_err(|error| error.to_string())
    }

    fn parsed(arguments: &str) -> Result<(), String> {
        check(&options(arguments)?).map_err(|error| error.to_string())
    }

    fn about(arguments: &str, pattern: i8) -> Vec<(i8, String, i8)> {
        let subjects = subjects(&options(arguments).expect("valid"), pattern).into_iter();
        subjects.map(|it| (it.resource_type, it.name, it.pattern_type)).collect()
    }

    #[test]
    fn clients_touch_nothing_but_what_they_need() {
        let topic = |pattern| (TOPIC, "t".to_owned(), pattern);
        let group = (GROUP, "g".to_owned(), LITERAL);
        let cluster = (CLUSTER, "kafka-cluster".to_owned(), LITERAL);
        let remove = "--remove --force --topic t --group g --cluster";
        assert_eq!(about(&format!("{remove} --producer"), LITERAL), [topic(LITERAL)]);
        assert_eq!(
            about("--remove --consumer --topic t --group g --delegation-token d", LITERAL),
            [topic(LITERAL), group.clone()]
        );
        assert_eq!(about(remove, LITERAL), [topic(LITERAL), group, cluster.clone()]);
        // The cluster has one name: it is neither a prefix nor looked for.
        for pattern in [1, 2, PREFIXED] {
            assert_eq!(about("--remove --topic t --cluster", pattern), [topic(pattern)]);
        }
        assert_eq!(
            about("--add --producer --idempotent --topic t", PREFIXED),
            [topic(PREFIXED), cluster]
        );
    }

    #[test]
    fn an_operation_must_be_one_that_the_resource_knows() {
        let entries = |arguments: &str| {
            let options = options(arguments).expect("valid");
            entries(&options, &subjects(&options, LITERAL)).map_err(|error| error.to_string())
        };
        let refused = entries("--add --allow-principal User:ann --operation Write --group g")
            .expect_err("nobody writes to groups");
        assert!(refused.starts_with("ResourceType GROUP only supports operations ["), "{refused}");
        for arguments in [
            "--add --allow-principal User:ann --operation Write --topic t",
            "--add --allow-principal User:ann --operation all --group g",
            "--add --allow-principal User:ann --producer --idempotent --topic t",
        ] {
            assert!(!entries(arguments).expect(arguments).is_empty(), "{arguments}");
        }
    }

    #[test]
    fn what_apaches_tool_refuses_is_refused() {
        for arguments in [
            "--add --deny-principal User:eve --producer --topic t",
            "--add --deny-principal User:eve --consumer --topic t --group g",
            "--add --allow-principal User:ann --deny-host 10.0.0.1 --producer --topic t",
            "--add --allow-principal User:ann --producer",
            "--add --allow-principal User:ann --consumer --topic t",
            "--add --allow-principal User:ann --producer --operation Read --topic t",
            "--add --principal User:ann --topic t",
            "--add --allow-principal User:ann --consumer --topic t --group g --cluster",
            "--add --allow-principal User:ann --idempotent --topic t",
            "--list --producer --topic t",
            "--list --allow-principal User:ann",
            "--topic t",
        ] {
            assert!(parsed(arguments).is_err(), "{arguments}");
        }
        for arguments in [
            "--add --allow-principal User:ann --producer --idempotent --topic t",
            "--add --allow-principal User:ann --allow-host 10.0.0.1 --consumer --topic t --group g",
            "--add --deny-principal User:eve --deny-host 10.0.0.1 --operation Read --topic t",
            "--list --topic t --principal User:ann",
        ] {
            parsed(arguments).unwrap_or_else(|error| panic!("{arguments}: {error}"));
        }
    }
}
