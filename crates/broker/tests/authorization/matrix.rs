//! Goes through the table: each request with all it needs, and without each of the rights.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use fleuve_metadata::image::{AclOperation, AclResourceType};
use fleuve_protocol::messages::api_versions_request::ApiVersionsRequest;
use fleuve_protocol::messages::{
    create_acls_request as create_acls, create_topics_request as create,
    delete_acls_request as delete_acls, find_coordinator_request as find,
    metadata_request as metadata,
};
use fleuve_protocol::{ErrorCode, Str};
use fleuve_types::Uuid;

use crate::rows::{Names, Right, Row, Seen, rows};
use crate::wire::{Answer, Connection, ask};

/// Whose rights change.
const USER: &str = "ada";
/// What tells of a denial.
pub(crate) const DENIALS: [ErrorCode; 5] = [
    ErrorCode::TopicAuthorizationFailed,
    ErrorCode::GroupAuthorizationFailed,
    ErrorCode::ClusterAuthorizationFailed,
    ErrorCode::TransactionalIdAuthorizationFailed,
    ErrorCode::DelegationTokenAuthorizationFailed,
];

/// One request of one row, and what came of it.
pub(crate) struct Outcome {
    /// The row and the rights, in words.
    pub(crate) title: String,
    /// The right that was missing.
    pub(crate) missing: Option<(Right, Seen)>,
    pub(crate) answer: Option<Answer>,
    /// The answer if the things that are named did not exist.
    pub(crate) of_nothing: Option<Answer>,
}

/// Runs all rows against a broker whose super user is `admin`, and tells each outcome.
pub(crate) async fn run(address: &str, mut tell: impl FnMut(Outcome)) {
    let admin = &mut Connection::open(address, "admin").await;
    let user = &mut Connection::open(address, USER).await;
    for kind in [0, 1] {
        await_coordinator(admin, kind).await;
    }
    for row in rows() {
        let names = names(admin).await;
        let nothing = Names::of_nothing();
        let rights: Vec<Right> = row.rights.iter().map(|(right, _)| *right).collect();
        for missing in &row.rights {
            let granted: Vec<Right> =
                rights.iter().copied().filter(|right| *right != missing.0).collect();
            grant(admin, user, &granted, &[&names, &nothing]).await;
            let answer = user.call(&(row.ask)(&names)).await;
            let of_nothing = user.call(&(row.ask)(&nothing)).await;
            let title = format!("{row} without {:?} {:?}", missing.0.0, missing.0.1);
            tell(Outcome { title, missing: Some(*missing), answer, of_nothing });
        }
        grant(admin, user, &rights, &[&names, &nothing]).await;
        let answer = user.call(&(row.ask)(&names)).await;
        let title = format!("{row} with all it needs");
        tell(Outcome { title, missing: None, answer, of_nothing: None });
    }
}

/// Runs all rows in older versions, too, without each of the rights, and tells where the broker
/// hung up instead of answering.
pub(crate) async fn run_older(address: &str) -> Vec<String> {
    let oldest = oldest(address).await;
    let admin = &mut Connection::open(address, "admin").await;
    let user = &mut Connection::open(address, USER).await;
    for kind in [0, 1] {
        await_coordinator(admin, kind).await;
    }
    let mut silent = Vec::new();
    for row in rows() {
        let names = names(admin).await;
        let rights: Vec<Right> = row.rights.iter().map(|(right, _)| *right).collect();
        for missing in &rights {
            let granted: Vec<Right> =
                rights.iter().copied().filter(|right| right != missing).collect();
            grant(admin, user, &granted, &[&names]).await;
            let ask = (row.ask)(&names);
            let reopen = async || Connection::open(address, USER).await;
            for version in user.call_older(&ask, &oldest, reopen).await {
                silent.push(format!("{row} version {version} without {missing:?}"));
            }
        }
    }
    silent
}

/// The oldest version of each API that the broker serves.
async fn oldest(address: &str) -> BTreeMap<i16, i16> {
    let text = versions(address).await;
    let number = |text: &str| text.split([',', ' ']).next().and_then(|digits| digits.parse().ok());
    let row = |text: &str| {
        let oldest = text.split("min_version: ").nth(1).and_then(number);
        (number(text).expect("a number"), oldest.expect("a number"))
    };
    text.split("api_key: ").skip(1).map(row).collect()
}

/// The APIs that the broker serves.
pub(crate) async fn served(address: &str) -> BTreeSet<i16> {
    let text = versions(address).await;
    let keys = text.split("api_key: ").skip(1);
    let number = |text: &str| text.split(',').next().and_then(|digits| digits.parse().ok());
    keys.map(|text| number(text).expect("a number")).collect()
}

/// What the broker says about its APIs.
async fn versions(address: &str) -> String {
    let mut connection = Connection::open(address, "admin").await;
    let request = ApiVersionsRequest {
        client_software_name: Str::from("matrix"),
        client_software_version: Str::from("1"),
    };
    connection.call(&ask(request, 4)).await.expect("an answer").text
}

/// Makes what rows are about, unless it is still there, and tells its names.
async fn names(admin: &mut Connection) -> Names {
    let topic = Names::TOPIC;
    let creation = create::CreateTopicsRequest {
        topics: vec![create::CreatableTopic {
            name: Str::from(topic),
            num_partitions: 1,
            replication_factor: 1,
            ..Default::default()
        }],
        timeout_ms: 10_000,
        ..Default::default()
    };
    admin.call(&ask(creation, 7)).await.expect("an answer");
    loop {
        let request = metadata::MetadataRequest {
            topics: Some(vec![metadata::MetadataRequestTopic {
                name: Some(Str::from(topic)),
                ..Default::default()
            }]),
            ..Default::default()
        };
        let answer = admin.call(&ask(request, 12)).await.expect("an answer");
        let id = answer.text.split("topic_id: ").nth(1).and_then(uuid);
        match id {
            Some(topic_id) if answer.codes.is_empty() => return Names::of_topic(topic_id),
            _ => tokio::task::yield_now().await,
        }
    }
}

/// Reads the id that a text begins with, as it is printed for debugging.
fn uuid(text: &str) -> Option<Uuid> {
    let end = text.find([',', ' ', '}'])?;
    let text = text[..end].trim_start_matches("Uuid(").trim_matches(['"', ')']);
    text.parse().ok()
}

async fn await_coordinator(admin: &mut Connection, key_type: i8) {
    let request = || find::FindCoordinatorRequest {
        key_type,
        coordinator_keys: vec![Str::from("x")],
        ..Default::default()
    };
    while !admin.call(&ask(request(), 4)).await.expect("an answer").codes.is_empty() {
        tokio::task::yield_now().await;
    }
}

/// Gives the user these rights and no others, and waits until they are in force: Kafka's broker
/// hears of them a little after its controller has answered.
async fn grant(admin: &mut Connection, user: &mut Connection, rights: &[Right], names: &[&Names]) {
    const ANY: i8 = 1;
    let all = delete_acls::DeleteAclsFilter {
        resource_type_filter: ANY,
        resource_name_filter: None,
        pattern_type_filter: ANY,
        principal_filter: None,
        host_filter: None,
        operation: ANY,
        permission_type: ANY,
    };
    let request = delete_acls::DeleteAclsRequest { filters: vec![all] };
    let answer = admin.call(&ask(request, 3)).await.expect("an answer");
    assert!(answer.codes.is_empty(), "{answer:?}");
    let mut creations = Vec::new();
    for names in names {
        for (operation, kind) in rights {
            creations.push(create_acls::AclCreation {
                resource_type: kind.wire_id(),
                resource_name: names.of(*kind),
                resource_pattern_type: 3,
                principal: Str::from(format!("User:{USER}")),
                host: Str::from("*"),
                operation: operation.wire_id(),
                permission_type: 3,
            });
        }
    }
    // A right to a topic that nobody has, another one each time.
    static GRANTS: AtomicUsize = AtomicUsize::new(0);
    let sentinel = Str::from(format!("sentinel-{}", GRANTS.fetch_add(1, Ordering::Relaxed)));
    creations.push(create_acls::AclCreation {
        resource_type: AclResourceType::Topic.wire_id(),
        resource_name: sentinel.clone(),
        resource_pattern_type: 3,
        principal: Str::from(format!("User:{USER}")),
        host: Str::from("*"),
        operation: AclOperation::Describe.wire_id(),
        permission_type: 3,
    });
    let answer = admin.call(&ask(create_acls::CreateAclsRequest { creations }, 3)).await;
    let answer = answer.expect("an answer");
    assert!(answer.codes.is_empty(), "{answer:?}");
    let request = || metadata::MetadataRequest {
        topics: Some(vec![metadata::MetadataRequestTopic {
            name: Some(sentinel.clone()),
            ..Default::default()
        }]),
        allow_auto_topic_creation: false,
        ..Default::default()
    };
    let denied = ErrorCode::TopicAuthorizationFailed.code();
    while user.call(&ask(request(), 12)).await.expect("an answer").codes.contains(&denied) {
        tokio::task::yield_now().await;
    }
}

impl Names {
    /// The name of a thing of that kind.
    pub(crate) fn of(&self, kind: AclResourceType) -> Str {
        match kind {
            AclResourceType::Topic => self.topic.clone(),
            AclResourceType::Group => self.group.clone(),
            AclResourceType::TransactionalId => self.transactional_id.clone(),
            AclResourceType::Cluster => Str::from("kafka-cluster"),
            AclResourceType::DelegationToken => Str::from("token"),
            AclResourceType::User => self.user.clone(),
        }
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.what {
            "" => write!(f, "{}", self.key),
            what => write!(f, "{} ({what})", self.key),
        }
    }
}
