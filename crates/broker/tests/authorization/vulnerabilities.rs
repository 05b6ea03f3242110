//! Classes of gaps that access control has had, one test each; the whole table is in `rows.rs`.

use fleuve_metadata::image::{AclOperation, AclResourceType};
use fleuve_protocol::messages::create_acls_request::{AclCreation, CreateAclsRequest};
use fleuve_protocol::messages::delete_acls_request::{DeleteAclsFilter, DeleteAclsRequest};
use fleuve_protocol::messages::init_producer_id_request::InitProducerIdRequest;
use fleuve_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use fleuve_protocol::{ErrorCode, Str};

use crate::start;
use crate::wire::{Ask, Connection, ask};

const LITERAL: i8 = 3;
const PREFIXED: i8 = 4;
const ALLOW: i8 = 3;
const DENY: i8 = 2;

fn entry(pattern: i8, name: &'static str, permission: i8) -> AclCreation {
    AclCreation {
        resource_type: AclResourceType::Topic.wire_id(),
        resource_name: Str::from(name),
        resource_pattern_type: pattern,
        principal: Str::from("User:ada"),
        host: Str::from("*"),
        operation: AclOperation::Describe.wire_id(),
        permission_type: permission,
    }
}

fn describe(topic: &'static str) -> Ask {
    let topic = MetadataRequestTopic { name: Some(Str::from(topic)), ..Default::default() };
    let topics = Some(vec![topic]);
    let allow_auto_topic_creation = false;
    ask(MetadataRequest { topics, allow_auto_topic_creation, ..Default::default() }, 12)
}

/// Taking one entry away took the others of the same name away, too.
#[tokio::test(flavor = "multi_thread")]
async fn cve_2024_27309_an_entry_that_is_taken_away_leaves_the_others_in_force() {
    let (_directory, broker) = start(&[]).await;
    let address = broker.listeners()[0].address.to_string();
    let admin = &mut Connection::open(&address, "admin").await;
    let ada = &mut Connection::open(&address, "ada").await;
    let denied = ErrorCode::TopicAuthorizationFailed.code();
    let creations = vec![
        entry(PREFIXED, "se", ALLOW),
        entry(LITERAL, "secret", ALLOW),
        entry(LITERAL, "secret", DENY),
        entry(PREFIXED, "sec", DENY),
    ];
    let answer = admin.call(&ask(CreateAclsRequest { creations }, 3)).await.expect("an answer");
    assert!(answer.codes.is_empty(), "{answer:?}");
    // Denials stay in force until the last of them is gone.
    for (pattern, name, expected) in [
        (LITERAL, "secret", vec![denied]),
        (PREFIXED, "sec", vec![ErrorCode::UnknownTopicOrPartition.code()]),
        (PREFIXED, "se", vec![denied]),
    ] {
        let before = ada.call(&describe("secret")).await.expect("an answer");
        let filter = DeleteAclsFilter {
            resource_type_filter: AclResourceType::Topic.wire_id(),
            resource_name_filter: Some(Str::from(name)),
            pattern_type_filter: pattern,
            principal_filter: None,
            host_filter: None,
            operation: 1,
            // Of the literal ones only the allowing one goes.
            permission_type: if pattern == LITERAL { ALLOW } else { 1 },
        };
        let request = DeleteAclsRequest { filters: vec![filter] };
        let answer = admin.call(&ask(request, 3)).await.expect("an answer");
        assert!(answer.codes.is_empty(), "{answer:?}");
        if name == "sec" {
            assert_eq!(before.codes, [denied]);
            // The literal denial is still there.
            let still = ada.call(&describe("secret")).await.expect("an answer");
            assert_eq!(still.codes, [denied]);
            let other = ada.call(&describe("second")).await.expect("an answer");
            assert_eq!(other.codes, expected, "the prefix allows it again");
            continue;
        }
        let after = ada.call(&describe("secret")).await.expect("an answer");
        assert_eq!(after.codes, expected, "after {name}");
    }
    broker.shutdown().await;
}

/// A transaction could be begun by who had rights to its topics only.
#[tokio::test(flavor = "multi_thread")]
async fn cve_2018_17196_a_transactional_id_is_a_right_of_its_own() {
    let (_directory, broker) = start(&[]).await;
    let address = broker.listeners()[0].address.to_string();
    let admin = &mut Connection::open(&address, "admin").await;
    let ada = &mut Connection::open(&address, "ada").await;
    let write =
        AclCreation { operation: AclOperation::Write.wire_id(), ..entry(LITERAL, "*", ALLOW) };
    let request = CreateAclsRequest { creations: vec![write] };
    let answer = admin.call(&ask(request, 3)).await.expect("an answer");
    assert!(answer.codes.is_empty(), "{answer:?}");
    let begin = |id: Option<&'static str>| {
        let request = InitProducerIdRequest {
            transactional_id: id.map(Str::from),
            transaction_timeout_ms: 1_000,
            ..Default::default()
        };
        ask(request, 4)
    };
    let answer = ada.call(&begin(Some("hers"))).await.expect("an answer");
    assert_eq!(answer.codes, [ErrorCode::TransactionalIdAuthorizationFailed.code()]);
    // Whoever may write to any topic may do so idempotently (KIP-679).
    let answer = ada.call(&begin(None)).await.expect("an answer");
    assert!(answer.codes.is_empty(), "{answer:?}");
    broker.shutdown().await;
}
