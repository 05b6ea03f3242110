//! Quotas, credentials, access control entries, tokens, features and leaders: what is decided, and
//! in which words it is refused.

use std::sync::Arc;

use bytes::Bytes;
use fleuve_protocol::Str;
use fleuve_protocol::messages::feature_level_record::FeatureLevelRecord;
use fleuve_protocol::messages::partition_record::PartitionRecord;
use fleuve_protocol::messages::register_broker_record::{BrokerFeature, RegisterBrokerRecord};
use fleuve_protocol::messages::topic_record::TopicRecord;
use fleuve_sim::SimRandom;
use fleuve_types::{NodeId, Uuid};

use super::*;
use crate::config::{AlterOperation, BrokerSettings};
use crate::image::{METADATA_VERSION, QuotaEntity, Resource, ResourceKind, ScramMechanism};
use crate::record::Record;

fn controller() -> Controller {
    let mut controller = Controller::new("cluster".into(), Arc::new(BrokerSettings::default()));
    let first = controller.finish_replay();
    apply(&mut controller, first);
    controller
}

fn apply<T>(controller: &mut Controller, decision: Decision<T>) -> T {
    for record in &decision.records {
        controller.apply(record).expect("decisions fit");
    }
    decision.reply
}

/// Kinds and names of a quota's entity.
type Parts<'a> = &'a [(&'a str, Option<&'a str>)];

fn quota(entity: Parts<'_>, key: &str, value: Option<f64>) -> QuotaAlteration {
    let part =
        |(kind, name): &(&str, Option<&str>)| (Str::copy_from(kind), name.map(Str::copy_from));
    QuotaAlteration {
        entity: entity.iter().map(part).collect(),
        operations: vec![(Str::copy_from(key), value)],
    }
}

fn alter_quota(
    controller: &mut Controller,
    entity: Parts<'_>,
    key: &str,
    value: Option<f64>,
) -> Result<(), String> {
    let is_host = |host: &str| host == "10.0.0.1";
    let decision = controller.alter_client_quotas(&[quota(entity, key, value)], false, is_host);
    apply(controller, decision).remove(0).map_err(|error| error.to_string())
}

#[test]
fn quotas_are_set_changed_and_removed() {
    let mut controller = controller();
    let ann: &[_] = &[("user", Some("ann")), ("client-id", None)];
    assert_eq!(alter_quota(&mut controller, ann, "producer_byte_rate", Some(1024.0)), Ok(()));
    assert_eq!(alter_quota(&mut controller, ann, "request_percentage", Some(12.5)), Ok(()));
    let ip: &[_] = &[("ip", Some("10.0.0.1"))];
    assert_eq!(alter_quota(&mut controller, ip, "connection_creation_rate", Some(9.0)), Ok(()));
    let all: Vec<String> = controller
        .image()
        .quotas()
        .iter()
        .map(|(entity, map)| format!("{entity}: {map:?}"))
        .collect();
    assert_eq!(
        all,
        [
            "client-id=<default>, user=ann: {\"producer_byte_rate\": 1024.0, \
             \"request_percentage\": 12.5}",
            "ip=10.0.0.1: {\"connection_creation_rate\": 9.0}",
        ]
    );
    // What is so already needs no record.
    let same = quota(ann, "producer_byte_rate", Some(1024.0));
    assert_eq!(controller.alter_client_quotas(&[same], false, |_| true).records, []);
    let not_there = quota(ann, "consumer_byte_rate", None);
    assert_eq!(controller.alter_client_quotas(&[not_there], false, |_| true).records, []);
    assert_eq!(alter_quota(&mut controller, ann, "producer_byte_rate", None), Ok(()));
    assert_eq!(alter_quota(&mut controller, ann, "request_percentage", None), Ok(()));
    assert_eq!(controller.image().quotas().iter().count(), 1);
    assert_eq!(controller.image().quotas().of(&QuotaEntity::default()), None);
}

#[test]
fn quotas_are_refused_in_kafkas_words() {
    let mut controller = controller();
    let user: &[_] = &[("user", Some("a"))];
    let cases: [(Parts<'_>, &str, f64, &str); 10] = [
        (&[], "producer_byte_rate", 1.0, "Invalid empty client quota entity"),
        (&[("house", None)], "x", 1.0, "Unhandled client quota entity type: house"),
        (&[("user", Some(""))], "x", 1.0, "Empty user not supported"),
        (
            &[("ip", None), ("user", None)],
            "x",
            1.0,
            "Invalid quota entity combination, IP entity shouldnot be combined with User or \
             ClientId",
        ),
        (&[("ip", Some("no"))], "x", 1.0, "no is not a valid IP or resolvable host."),
        (user, "x", 1.0, "Invalid configuration key x"),
        (user, "producer_byte_rate", 0.0, "Quota producer_byte_rate must be greater than 0"),
        (user, "producer_byte_rate", f64::NAN, "Quota producer_byte_rate must be greater than 0"),
        (user, "producer_byte_rate", 1.5, "producer_byte_rate cannot be a fractional value."),
        (
            &[("ip", None)],
            "connection_creation_rate",
            3e9,
            "Proposed value for connection_creation_rate is too large for an INT.",
        ),
    ];
    for (entity, key, value, message) in cases {
        let refused = alter_quota(&mut controller, entity, key, Some(value));
        assert_eq!(refused, Err(message.to_owned()));
    }
    let twice = [quota(user, "request_percentage", Some(1.0)), quota(user, "x", None)];
    let decision = controller.alter_client_quotas(&twice, false, |_| true);
    assert!(decision.reply[0].is_ok() && decision.reply[1].is_err());
}

fn scram(user: &str, mechanism: i8, iterations: Option<i32>) -> ScramAlteration {
    let new = iterations.map(|iterations| NewScramCredential {
        iterations,
        salt: Bytes::from_static(b"salt"),
        // PBKDF2-HMAC-SHA-256 of "pencil" with RFC 7677's salt and 4096 rounds.
        salted_password: Bytes::from_static(&[
            0xc4, 0xa4, 0x95, 0x10, 0x32, 0x3a, 0xb4, 0xf9, 0x52, 0xca, 0xc1, 0xfa, 0x99, 0x44,
            0x19, 0x39, 0xe7, 0x8e, 0xa7, 0x4d, 0x6b, 0xe8, 0x1d, 0xdf, 0x70, 0x96, 0xe8, 0x75,
            0x13, 0xdc, 0x61, 0x5d,
        ]),
    });
    ScramAlteration { user: Str::copy_from(user), mechanism, new }
}

#[test]
fn credentials_hold_the_keys_of_rfc_7677() {
    let mut controller = controller();
    let decision = controller.alter_scram_credentials(&[scram("user", 1, Some(4096))]);
    assert_eq!(apply(&mut controller, decision), [("user".into(), Ok(()))]);
    let stored = controller.image().scram().of(&"user".into(), ScramMechanism::Sha256);
    let stored = stored.expect("there");
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    // From these keys follow the proofs in RFC 7677's example.
    assert_eq!(
        hex(&stored.stored_key),
        "586e5df283e6dceb5c3e791d8b8528ec191e664045ce971792e2e6b5bb13e2a6"
    );
    assert_eq!(
        hex(&stored.server_key),
        "c1f3cbc1c13a9d35a14c0990eed97629ea225863e566a4314ab99f3f00e5d9d5"
    );
    assert_eq!(format!("{stored:?}"), "ScramCredential { .. }");
    let decision = controller.alter_scram_credentials(&[scram("user", 1, None)]);
    assert_eq!(apply(&mut controller, decision), [("user".into(), Ok(()))]);
    assert_eq!(controller.image().scram().iter().count(), 0);
}

#[test]
fn credentials_are_refused_for_a_reason() {
    let controller = controller();
    let asked = [
        scram("", 1, Some(4096)),
        scram("few", 1, Some(4095)),
        scram("gone", 2, None),
        scram("many", 2, Some(16385)),
        scram("twice", 1, Some(4096)),
        scram("twice", 2, Some(4096)),
        scram("what", 3, Some(4096)),
    ];
    let decision = controller.alter_scram_credentials(&asked);
    let errors: Vec<_> =
        decision.reply.iter().map(|(user, result)| (user.as_str(), *result)).collect();
    assert_eq!(
        errors,
        [
            ("", Err(AlterScramError::EmptyUser)),
            ("few", Err(AlterScramError::TooFewIterations)),
            ("gone", Err(AlterScramError::NoSuchCredential)),
            ("many", Err(AlterScramError::TooManyIterations)),
            ("twice", Err(AlterScramError::Duplicate)),
            ("what", Err(AlterScramError::UnknownMechanism)),
        ]
    );
    assert_eq!(decision.records, []);
}

fn acl(name: &str, pattern_type: i8) -> NewAcl {
    NewAcl {
        resource_type: 2,
        resource_name: Str::copy_from(name),
        pattern_type,
        principal: "User:ann".into(),
        host: "*".into(),
        operation: 3,
        permission_type: 3,
    }
}

const ANY_ACL: AclFilter = AclFilter {
    resource_type: 1,
    resource_name: None,
    pattern_type: 1,
    principal: None,
    host: None,
    operation: 1,
    permission_type: 1,
};

#[test]
fn access_control_entries_are_made_once_and_found_by_filters() {
    let mut controller = controller();
    let random = SimRandom::seeded(1);
    let entries = [acl("orders", 3), acl("ord", 4), acl("*", 3), acl("other", 3), acl("orders", 3)];
    let decision = controller.create_acls(&entries, &random);
    assert_eq!(decision.records.len(), 4);
    assert!(apply(&mut controller, decision).iter().all(Result::is_ok));
    assert_eq!(controller.create_acls(&entries, &random).records, []);

    let names = |filter: &AclFilter| -> Vec<String> {
        let found = filter.select(controller.image().acls());
        found.map(|(_, acl)| format!("{} {}", acl.pattern_type, acl.resource_name)).collect()
    };
    let named = |pattern_type: i8| AclFilter {
        resource_name: Some("orders".into()),
        pattern_type,
        ..ANY_ACL
    };
    assert_eq!(names(&ANY_ACL).len(), 4);
    assert_eq!(names(&named(1)), ["LITERAL orders"]);
    assert_eq!(names(&named(2)), ["LITERAL *", "PREFIXED ord", "LITERAL orders"]);
    assert_eq!(names(&named(4)), Vec::<String>::new());
    let somebody_else = AclFilter { principal: Some("User:bob".into()), ..ANY_ACL };
    assert_eq!(names(&somebody_else), Vec::<String>::new());

    let decision =
        controller.delete_acls(&[named(2), named(3), AclFilter { operation: 99, ..ANY_ACL }]);
    assert_eq!(decision.records.len(), 3, "each entry goes once");
    let reply = apply(&mut controller, decision);
    assert_eq!(reply[0].as_ref().map(Vec::len), Ok(3));
    assert_eq!(reply[1].as_ref().map(Vec::len), Ok(1));
    assert_eq!(reply[2], Err(AclError::UnknownFilter("Unknown entryFilter.")));
    assert_eq!(controller.image().acls().len(), 1);
}

#[test]
fn impossible_entries_are_refused() {
    let controller = controller();
    let cases = [
        (NewAcl { resource_type: 1, ..acl("t", 3) }, "Invalid resourceType ANY"),
        (NewAcl { operation: 77, ..acl("t", 3) }, "Invalid operation UNKNOWN"),
        (NewAcl { permission_type: 1, ..acl("t", 3) }, "Invalid permissionType ANY"),
        (acl("t", 2), "Invalid patternType MATCH"),
        (acl("", 3), "Resource name should not be empty"),
        (
            NewAcl { principal: "ann".into(), ..acl("t", 3) },
            "Could not parse principal from `ann` (no colon is present separating the principal \
             type from the principal name)",
        ),
    ];
    for (entry, message) in cases {
        let decision = controller.create_acls(&[entry], &SimRandom::seeded(1));
        let error = decision.reply[0].as_ref().expect_err(message);
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn tokens_live_as_long_as_they_may() {
    let mut controller = controller();
    let settings =
        TokenSettings { secret_key: "key".into(), lifetime_max_ms: 1000, renew_period_ms: 100 };
    let random = SimRandom::seeded(1);
    let new = NewToken {
        owner: "User:ann".into(),
        requester: "User:ann".into(),
        renewers: vec!["User:bob".into()],
        lifetime_ms: 250,
    };
    let decision = controller.create_delegation_token(&settings, &new, 10, &random);
    let Ok(created) = apply(&mut controller, decision) else { panic!("made") };
    assert_eq!((created.token.expires_ms, created.token.max_ms), (110, 260));
    assert_eq!(created.hmac.len(), 64);

    let renew = |controller: &Controller, by: &str, now_ms: i64| {
        controller.renew_delegation_token(&settings, &created.hmac, by, -1, now_ms)
    };
    assert_eq!(renew(&controller, "User:eve", 20).reply, Err(TokenError::NotAllowed));
    assert_eq!(renew(&controller, "User:bob", 111).reply, Err(TokenError::Expired));
    let decision = renew(&controller, "User:bob", 100);
    assert_eq!(apply(&mut controller, decision), Ok(200));
    let decision = renew(&controller, "User:ann", 190);
    assert_eq!(apply(&mut controller, decision), Ok(260), "not beyond its life");
    let wrong = controller.renew_delegation_token(&settings, b"no", "User:ann", -1, 0);
    assert_eq!(wrong.reply, Err(TokenError::NotFound));

    assert_eq!(controller.remove_expired_tokens(260).records, []);
    assert_eq!(controller.remove_expired_tokens(261).records.len(), 1);
    let decision =
        controller.expire_delegation_token(&settings, &created.hmac, "User:ann", -1, 195);
    assert_eq!(apply(&mut controller, decision), Ok(195));
    assert_eq!(controller.image().tokens().iter().count(), 0);
    let other = NewToken { renewers: vec!["Group:x".into()], ..new };
    let refused = controller.create_delegation_token(&settings, &other, 0, &random);
    assert_eq!(refused.reply.err(), Some(TokenError::InvalidRenewer));
}

#[test]
fn features_move_within_their_range_and_direction() {
    let mut controller = controller();
    let update = |name: &str, level, upgrade_type| {
        [FeatureUpdate { name: Str::copy_from(name), level, upgrade_type }]
    };
    let (up, safe) = (Some(UpgradeType::Upgrade), Some(UpgradeType::SafeDowngrade));
    let unsafe_down = Some(UpgradeType::UnsafeDowngrade);
    let cases = [
        (
            update("nosuch", 1, up),
            "Invalid update version 1 for feature nosuch. Local controller 1 does not support \
             this feature.",
        ),
        (
            update("metadata.version", 31, up),
            "Invalid update version 31 for feature metadata.version. Local controller 1 only \
             supports versions 7-30",
        ),
        (
            update("group.version", 0, up),
            "Invalid update version 0 for feature group.version. Can't downgrade the version of \
             this feature without setting the upgrade type to either safe or unsafe downgrade.",
        ),
        (
            update("metadata.version", 29, safe),
            "Unsupported metadata.version downgrade from 30 to 29. Refusing to perform the \
             requested downgrade because it might delete metadata information.",
        ),
        (
            update("metadata.version", 29, unsafe_down),
            "Unsupported metadata.version downgrade from 30 to 29. Unsafe metadata downgrade is \
             not supported in this version.",
        ),
        (
            update("kraft.version", 0, safe),
            "Invalid update version 0 for feature kraft.version. Can't downgrade the version of \
             this feature.",
        ),
        (
            update("kraft.version", 2, up),
            "Invalid update version 2 for feature kraft.version. Local controller 1 only supports \
             versions 0-1",
        ),
        (
            update("group.version", 1, None),
            "Invalid update version 1 for feature group.version. The controller does not support \
             the given upgrade type.",
        ),
    ];
    for (updates, message) in cases {
        let decision = controller.update_features(&updates, false);
        assert_eq!(decision.reply.expect_err(message).to_string(), message);
    }
    let same = controller.update_features(&update("kraft.version", 1, up), false);
    assert_eq!((same.records, same.reply), (Vec::new(), Ok(())));
    let off = update("group.version", 0, safe);
    assert_eq!(controller.update_features(&off, true).records, []);
    let decision = controller.update_features(&off, false);
    assert_eq!(apply(&mut controller, decision), Ok(()));
    assert_eq!(controller.image().features().get("group.version"), None);
    let decision = controller.update_features(&update("group.version", 1, safe), false);
    assert!(decision.reply.expect_err("up").message.contains("Can't downgrade to a newer version"));
    let decision = controller.update_features(&update("group.version", 1, up), false);
    assert_eq!(apply(&mut controller, decision), Ok(()));
    assert_eq!(metadata_version_name(30), Some("4.3-IV0"));
}

#[test]
fn eligible_leaders_make_the_cluster_agree_on_replicas_in_sync() {
    const MIN_ISR: &str = "min.insync.replicas";
    let mut controller = controller();
    let feature = BrokerFeature {
        name: "eligible.leader.replicas.version".into(),
        min_supported_version: 0,
        max_supported_version: 1,
    };
    let features = vec![feature];
    let broker = RegisterBrokerRecord { broker_id: 1, features, ..Default::default() };
    controller.apply(&broker.into()).expect("it fits");
    let level = |level, upgrade_type| {
        let name = Str::from("eligible.leader.replicas.version");
        [FeatureUpdate { name, level, upgrade_type: Some(upgrade_type) }]
    };
    let off = controller.update_features(&level(0, UpgradeType::SafeDowngrade), false);
    assert_eq!(apply(&mut controller, off), Ok(()));
    let change = |resource: &str, operation, value: &str| {
        let name = Str::from(MIN_ISR);
        let operation = ConfigOperation { name, operation, value: Some(Str::copy_from(value)) };
        let resource = Resource { kind: ResourceKind::Broker, name: resource.into() };
        [ConfigUpdate { resource, operations: vec![operation] }]
    };
    let (set, delete) = (AlterOperation::Set, AlterOperation::Delete);
    let clear = controller.incremental_alter_configs(&change("", delete, ""), false);
    assert_eq!(apply(&mut controller, clear), [Ok(())]);
    let of_broker = controller.incremental_alter_configs(&change("1", set, "2"), false);
    assert_eq!(apply(&mut controller, of_broker), [Ok(())]);

    let on = controller.update_features(&level(1, UpgradeType::Upgrade), false);
    assert_eq!(on.records.len(), 3, "the cluster's value, none of the broker, the level");
    assert_eq!(apply(&mut controller, on), Ok(()));
    let image = controller.image();
    assert_eq!(image.cluster_configs().get(MIN_ISR).map(|value| &**value), Some("1"));
    assert_eq!(image.broker_configs(NodeId(1)).get(MIN_ISR), None);

    let refused = |update: &[ConfigUpdate]| {
        let decision = controller.incremental_alter_configs(update, false);
        assert_eq!(decision.records, []);
        decision.reply[0].clone().expect_err("refused").to_string()
    };
    assert_eq!(
        refused(&change("1", set, "1")),
        "Broker-level min.insync.replicas cannot be altered while ELR is enabled."
    );
    assert_eq!(
        refused(&change("", delete, "")),
        "Cluster-level min.insync.replicas cannot be removed while ELR is enabled."
    );
    let raised = controller.incremental_alter_configs(&change("", set, "2"), false);
    assert_eq!(apply(&mut controller, raised), [Ok(())]);
}

/// A cluster that has just been brought here by an older release.
#[test]
fn features_need_levels_of_others() {
    let mut controller = controller();
    let level = |name: &str, feature_level| FeatureLevelRecord {
        name: Str::copy_from(name),
        feature_level,
    };
    let feature = "eligible.leader.replicas.version";
    controller.apply(&level(METADATA_VERSION, 22).into()).expect("it fits");
    controller.apply(&level(feature, 0).into()).expect("it fits");
    let update = |name: &str, level| FeatureUpdate {
        name: Str::copy_from(name),
        level,
        upgrade_type: Some(UpgradeType::Upgrade),
    };
    let refused = controller.update_features(&[update(feature, 1)], true).reply;
    assert_eq!(
        refused.expect_err("refused").to_string(),
        "Invalid update version 1 for feature eligible.leader.replicas.version. \
         eligible.leader.replicas.version could not be set to 1 because it depends on \
         metadata.version level 23"
    );
    // What else the request asks for counts, wherever in it that stands.
    let both = [update(feature, 1), update(METADATA_VERSION, 23)];
    let decision = controller.update_features(&both, false);
    assert_eq!(apply(&mut controller, decision), Ok(()));
    let off =
        [FeatureUpdate { upgrade_type: Some(UpgradeType::SafeDowngrade), ..update(feature, 0) }];
    let decision = controller.update_features(&off, false);
    assert_eq!(apply(&mut controller, decision), Ok(()));
    let decision = controller.update_features(&[update(feature, 1)], false);
    assert_eq!(apply(&mut controller, decision), Ok(()));
}

/// A cluster of three brokers of which only the first, where the controller is, still runs.
fn taken_over() -> Controller {
    let mut controller = controller();
    let topic_id = Uuid([7; 16]);
    let mut records: Vec<Record> = (1..=3)
        .map(|id| {
            let features = vec![BrokerFeature {
                name: "metadata.version".into(),
                min_supported_version: 7,
                max_supported_version: 30,
            }];
            let fenced = id != 1;
            RegisterBrokerRecord { broker_id: id, fenced, features, ..Default::default() }.into()
        })
        .collect();
    records.push(TopicRecord { name: "t".into(), topic_id }.into());
    let partition = |partition_id, replicas: &[i32], isr: &[i32], leader| {
        PartitionRecord {
            partition_id,
            topic_id,
            replicas: replicas.to_vec(),
            isr: isr.to_vec(),
            leader,
            directories: vec![Uuid([1; 16]); replicas.len()],
            ..PartitionRecord::default()
        }
        .into()
    };
    records.push(partition(0, &[1, 2, 3], &[1, 2], 2));
    records.push(partition(1, &[2, 1, 3], &[2], -1));
    records.push(partition(2, &[3, 2], &[3], -1));
    for record in records {
        controller.apply(&record).expect("fits");
    }
    controller
}

#[test]
fn leaders_are_elected_among_those_who_are_there() {
    use ElectionType::{Preferred, Unclean};
    let mut controller = taken_over();
    let elect = |controller: &Controller, election, index| {
        controller.elect_leaders(election, &[("t".into(), index)])
    };
    let unavailable = vec![Err(ElectionError::PreferredNotAvailable)];
    assert_eq!(elect(&controller, Preferred, 1).reply, unavailable);
    assert_eq!(elect(&controller, Unclean, 2).reply, [Err(ElectionError::NobodyAvailable)]);
    assert_eq!(elect(&controller, Unclean, 0).reply, [Err(ElectionError::NotNeeded)]);
    let unknown = elect(&controller, Unclean, 9).reply.remove(0).expect_err("no such partition");
    assert_eq!(unknown.to_string(), "No such partition as t-9");
    let nowhere = controller.elect_leaders(Preferred, &[("x".into(), 0)]).reply.remove(0);
    assert_eq!(nowhere.expect_err("no such topic").to_string(), "No such topic as x");
    for (election, index) in [(Preferred, 0), (Unclean, 1)] {
        let decision = elect(&controller, election, index);
        assert_eq!(apply(&mut controller, decision), [Ok(())]);
        let topic = controller.image().topics().by_name("t").expect("there");
        let partition = topic.partition(index).expect("there");
        assert_eq!(partition.leader, Some(NodeId(1)));
        assert_eq!(partition.is_recovering, election == Unclean);
    }
    assert_eq!(elect(&controller, Preferred, 0).reply, [Err(ElectionError::NotNeeded)]);
}

#[test]
fn replicas_that_are_gone_can_be_given_up() {
    let mut controller = taken_over();
    let reassign = |partition, replicas: Option<&[i32]>| {
        let replicas = replicas.map(<[i32]>::to_vec);
        [Reassignment { topic: "t".into(), partition, replicas }]
    };
    let refused = |reassignment: &[Reassignment], allow| {
        let reply = controller.alter_reassignments(reassignment, allow).reply.remove(0);
        reply.expect_err("refused").to_string()
    };
    assert_eq!(
        refused(&reassign(0, Some(&[1])), false),
        "The replication factor is changed from 3 to 1"
    );
    assert_eq!(refused(&reassign(0, None), true), "No partition reassignment is in progress.");
    assert_eq!(
        refused(&reassign(0, Some(&[1, 9])), true),
        "The manual partition assignment includes broker 9, but no such broker is registered."
    );
    assert_eq!(refused(&reassign(5, Some(&[1])), true), "Unable to find partition t:5.");
    let same = controller.alter_reassignments(&reassign(0, Some(&[1, 2, 3])), false);
    assert_eq!((same.records, same.reply), (Vec::new(), vec![Ok(())]));

    let partition = |controller: &Controller, index| {
        let topic = controller.image().topics().by_name("t").expect("there");
        topic.partition(index).expect("there").clone()
    };
    let decision = controller.alter_reassignments(&reassign(0, Some(&[1])), true);
    assert_eq!(apply(&mut controller, decision), [Ok(())]);
    let settled = partition(&controller, 0);
    assert_eq!((&settled.replicas, &settled.isr), (&vec![NodeId(1)], &vec![NodeId(1)]));
    assert_eq!((settled.leader, settled.directories.len()), (Some(NodeId(1)), 1));

    // Broker 1 would have to copy what only broker 3 has.
    let decision = controller.alter_reassignments(&reassign(2, Some(&[1])), true);
    assert_eq!(apply(&mut controller, decision), [Ok(())]);
    let moving = partition(&controller, 2);
    assert_eq!(moving.adding_replicas, [NodeId(1)]);
    assert_eq!(moving.removing_replicas, [NodeId(3), NodeId(2)]);
    let decision = controller.alter_reassignments(&reassign(2, None), true);
    assert_eq!(apply(&mut controller, decision), [Ok(())]);
    let back = partition(&controller, 2);
    assert_eq!(back.replicas, [NodeId(3), NodeId(2)]);
    assert!(back.adding_replicas.is_empty() && back.removing_replicas.is_empty());
}

#[test]
fn brokers_that_are_gone_can_be_forgotten() {
    let mut controller = taken_over();
    let refused = controller.unregister_broker(NodeId(1)).reply;
    assert_eq!(refused, Err(UnregisterError::Running(NodeId(1))));
    let unknown = controller.unregister_broker(NodeId(9)).reply.expect_err("unknown");
    assert_eq!(unknown.to_string(), "Broker ID 9 is not currently registered");
    let decision = controller.unregister_broker(NodeId(2));
    assert_eq!(apply(&mut controller, decision), Ok(()));
    assert!(!controller.image().brokers().contains_key(&NodeId(2)));
    let topic = controller.image().topics().by_name("t").expect("there");
    assert_eq!(topic.partition(0).expect("there").leader, Some(NodeId(1)));
}
