//! Every administrative call, with what it says of each item.

use std::collections::HashMap;

use fleuve::client::admin::acls::{
    ACL_OPERATIONS, ACL_PATTERN_TYPES, ACL_PERMISSIONS, ACL_RESOURCE_TYPES, acl_number,
};
use fleuve::client::admin::{
    Acl, AclFilter, Alteration, ElectionType, NewTopic, QuotaFilter, Removal, Resource,
    ScramMechanism, TransactionFilter, UpgradeType,
};
use fleuve::client::config::IsolationLevel;
use fleuve::client::consumer::LATEST;
use fleuve::client::{Admin, ConsumerConfig, ErrorCode, ProducerConfig, Record, Result};
use fleuve_protocol::ApiKey;
use fleuve_types::{TopicPartition, Uuid};

use crate::target::{PATIENCE, Target, for_each_target, is_authenticated, unique};

for_each_target! {
    topics_are_made_grown_and_deleted_with_a_result_each
    settings_are_changed_and_listed
    offsets_are_found_and_records_deleted_per_partition
    groups_and_their_offsets_are_managed
    quotas_and_passwords_are_managed
    the_cluster_and_its_features_are_described
    replicas_leaders_and_directories_are_shown_and_moved
    transactions_and_producers_are_shown_and_fenced
    share_and_streams_groups_are_described
    what_a_broker_forbids_is_an_error_that_says_so
}

async fn admin(target: &Target) -> Admin {
    Admin::new(target.client().await)
}

fn code<T: std::fmt::Debug>(result: Result<T>) -> ErrorCode {
    let error = result.expect_err("refused");
    error.code().unwrap_or_else(|| panic!("no broker said it: {error}"))
}

/// Repeats `ask` until it gives something: what a controller decides reaches brokers a little later.
async fn await_some<T, F: Future<Output = Option<T>>>(mut ask: impl FnMut() -> F) -> T {
    let begun = tokio::time::Instant::now();
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "it never came");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn topics_are_made_grown_and_deleted_with_a_result_each(target: &Target) {
    let admin = admin(target).await;
    let (good, bad) = (unique("made"), "not/a/name".to_owned());
    let wanted = [NewTopic::new(&*good).partitions(2).replication_factor(1), NewTopic::new(&*bad)];
    let validated = admin.create_topics(&wanted, true).await.expect("answered");
    assert_eq!(validated.len(), 2);
    for (name, result) in admin.create_topics(&wanted, false).await.expect("answered") {
        match name == good {
            true => drop(result.expect("made")),
            false => assert_eq!(code(result), ErrorCode::InvalidTopicException),
        }
    }
    let (name, again) = admin.create_topics(&wanted[..1], false).await.expect("answered").remove(0);
    assert_eq!((name, code(again)), (good.clone(), ErrorCode::TopicAlreadyExists));
    let missing = unique("missing");
    let grown = admin.create_partitions(&[(&good, 3), (&missing, 3)], false).await;
    for (name, result) in grown.expect("answered") {
        match name == good {
            true => result.expect("grown"),
            false => assert_eq!(code(result), ErrorCode::UnknownTopicOrPartition),
        }
    }
    let described = await_some(|| async {
        let described = admin.describe_topics(&[&good, &missing]).await.expect("answered");
        let of_good = described.iter().find(|(name, _)| *name == good)?.1.as_ref().ok()?;
        (of_good.partitions.len() == 3).then_some(described)
    });
    for (name, result) in described.await {
        match name == good {
            true => assert!(result.expect("there").partitions.iter().all(|p| p.leader.is_some())),
            false => assert_eq!(code(result), ErrorCode::UnknownTopicOrPartition),
        }
    }
    assert!(admin.list_topics().await.expect("listed").iter().any(|topic| *topic.name == *good));
    for (name, result) in admin.delete_topics(&[&good, &missing]).await.expect("answered") {
        match name == good {
            true => result.expect("deleted"),
            false => assert_eq!(code(result), ErrorCode::UnknownTopicOrPartition),
        }
    }
}

async fn settings_are_changed_and_listed(target: &Target) {
    let admin = admin(target).await;
    let topic = Resource::Topic(target.topic("settings", 1).await);
    let set = Alteration::Set("retention.ms".to_owned(), "1000".to_owned());
    admin.alter_configs(&topic, std::slice::from_ref(&set), true).await.expect("valid");
    admin.alter_configs(&topic, &[set], false).await.expect("set");
    let retention = || async {
        let entries = admin.describe_configs(&topic, true).await.expect("described");
        let entry = entries.into_iter().find(|entry| entry.name == "retention.ms")?;
        assert!(entry.documentation.is_some());
        (entry.value.as_deref() == Some("1000")).then_some(())
    };
    await_some(retention).await;
    let wrong = [Alteration::Set("retention.ms".to_owned(), "soon".to_owned())];
    assert_eq!(code(admin.alter_configs(&topic, &wrong, false).await), ErrorCode::InvalidConfig);
    let delete = [Alteration::Delete("retention.ms".to_owned())];
    admin.alter_configs(&topic, &delete, false).await.expect("deleted");
    if !target.offers(ApiKey::ListConfigResources).await {
        return;
    }
    let subscription = unique("subscription");
    let resource = Resource::ClientMetrics(subscription.clone());
    let interval = [Alteration::Set("interval.ms".to_owned(), "1000".to_owned())];
    admin.alter_configs(&resource, &interval, false).await.expect("subscribed");
    await_some(|| async {
        admin.list_client_metrics().await.expect("listed").contains(&subscription).then_some(())
    })
    .await;
    admin.list_configured_groups().await.ok();
}

async fn offsets_are_found_and_records_deleted_per_partition(target: &Target) {
    let admin = admin(target).await;
    let topic = target.topic("offsets", 1).await;
    target.write(&topic, 0, &["a", "b", "c"]).await;
    let there = TopicPartition::new(&*topic, 0);
    let wanted = HashMap::from([(there.clone(), LATEST)]);
    let found = admin.list_offsets(&wanted, IsolationLevel::ReadCommitted).await.expect("answered");
    assert_eq!(found[&there].as_ref().expect("found").offset, 3);
    let kept = admin.delete_records(&HashMap::from([(there.clone(), 2)])).await.expect("answered");
    assert_eq!(*kept[&there].as_ref().expect("deleted"), 2);
    let beyond =
        admin.delete_records(&HashMap::from([(there.clone(), 9)])).await.expect("answered");
    let refused = beyond[&there].as_ref().expect_err("there are three");
    assert_eq!(refused.code(), Some(ErrorCode::OffsetOutOfRange));
}

async fn groups_and_their_offsets_are_managed(target: &Target) {
    let admin = admin(target).await;
    let (topic, group) = (target.topic("read", 2).await, unique("readers"));
    target.write(&topic, 0, &["a", "b"]).await;
    let config = ConsumerConfig { group_id: Some(group.clone()), ..ConsumerConfig::default() };
    let consumer = target.consumer(config).await;
    consumer.subscribe(&[&topic]).expect("free");
    let description = await_some(|| async {
        consumer.poll(std::time::Duration::from_millis(20)).await.expect("readable");
        let described = admin.describe_group(&group).await.ok()?;
        (described.state == "Stable" && described.members.len() == 1).then_some(described)
    });
    let description = description.await;
    assert_eq!(description.members[0].assignment.len(), 2);
    let listed = admin.list_groups().await.expect("listed");
    assert!(listed.iter().any(|listing| listing.id == group));
    let removed = admin
        .remove_members(&group, &[Removal::Member("nobody".to_owned())], "a test")
        .await
        .expect("answered");
    assert_eq!(
        removed.into_iter().map(|(_, result)| code(result)).next(),
        Some(ErrorCode::UnknownMemberId)
    );
    assert_eq!(code(admin.delete_group(&group).await), ErrorCode::NonEmptyGroup);
    consumer.close().await.expect("closed");
    let place = TopicPartition::new(&*topic, 0);
    let altered = HashMap::from([(place.clone(), 1)]);
    await_some(|| async { admin.alter_group_offsets(&group, &altered).await.ok() }).await;
    assert_eq!(admin.group_offsets(&group).await.expect("known")[&place].offset, 1);
    let deleted = admin.delete_group_offsets(&group, std::slice::from_ref(&place)).await;
    for (partition, result) in deleted.expect("answered") {
        assert_eq!(partition, place);
        result.expect("deleted");
    }
    assert!(!admin.group_offsets(&group).await.expect("known").contains_key(&place));
    admin.delete_group(&group).await.expect("empty");
    assert_eq!(code(admin.delete_group(&unique("nobody")).await), ErrorCode::GroupIdNotFound);
}

async fn quotas_and_passwords_are_managed(target: &Target) {
    let admin = admin(target).await;
    let user = unique("user");
    let entity = vec![("user".to_owned(), Some(user.clone()))];
    let rate = [("producer_byte_rate".to_owned(), Some(1e9))];
    admin.alter_quotas(&entity, &rate, true).await.expect("valid");
    admin.alter_quotas(&entity, &rate, false).await.expect("set");
    let filter = [QuotaFilter::Exact("user".to_owned(), user.clone())];
    await_some(|| async {
        let found = admin.describe_quotas(&filter, true).await.expect("described");
        found.iter().any(|of| of.quotas.iter().any(|(_, value)| *value == 1e9)).then_some(())
    })
    .await;
    let wrong = [("no_such_quota".to_owned(), Some(1.0))];
    assert_eq!(code(admin.alter_quotas(&entity, &wrong, false).await), ErrorCode::InvalidRequest);
    admin.alter_quotas(&entity, &[(rate[0].0.clone(), None)], false).await.expect("removed");

    let mechanism = ScramMechanism::Sha256;
    admin.set_scram_password(&user, mechanism, 4096, b"salt", "secret").await.expect("set");
    await_some(|| async {
        let (name, result) =
            admin.describe_scram_users(&[&user]).await.expect("answered").remove(0);
        assert_eq!(name, user);
        result.ok().filter(|found| found.credentials == [(mechanism, 4096)])
    })
    .await;
    admin.delete_scram_credential(&user, mechanism).await.expect("deleted");
    await_some(|| async {
        let (_, result) = admin.describe_scram_users(&[&user]).await.expect("answered").remove(0);
        result.err().filter(|error| error.code() == Some(ErrorCode::ResourceNotFound))
    })
    .await;
}

async fn the_cluster_and_its_features_are_described(target: &Target) {
    let admin = admin(target).await;
    let cluster = admin.describe_cluster().await.expect("described");
    assert!(!cluster.id.is_empty() && !cluster.brokers.is_empty());
    let versions = admin.broker_versions().await.expect("asked");
    assert_eq!(versions.len(), cluster.brokers.len());
    assert!(versions.iter().all(|broker| broker.apis.len() > 30));
    let (features, _) = admin.describe_features().await.expect("described");
    let metadata = features.iter().find(|feature| feature.name == "metadata.version");
    let metadata = metadata.expect("every cluster has it");
    assert!(metadata.finalized > 0);
    let same = [("metadata.version".to_owned(), metadata.finalized)];
    admin.update_features(&same, UpgradeType::Upgrade, true).await.expect("nothing changes");
    let unknown = [("no.such.feature".to_owned(), 1)];
    code(admin.update_features(&unknown, UpgradeType::Upgrade, false).await);
    let quorum = admin.describe_quorum().await.expect("described");
    assert!(quorum.voters.iter().any(|voter| voter.id == quorum.leader));
    code(admin.unregister_broker(4711).await);
    code(admin.remove_raft_voter(4711, Uuid([9; 16])).await);
    let listener = [("CONTROLLER".to_owned(), "localhost".to_owned(), 1)];
    code(admin.add_raft_voter(quorum.leader, Uuid([9; 16]), &listener).await);
}

async fn replicas_leaders_and_directories_are_shown_and_moved(target: &Target) {
    let admin = admin(target).await;
    let topic = target.topic("replicas", 1).await;
    target.write(&topic, 0, &["a"]).await;
    let partition = TopicPartition::new(&*topic, 0);
    let described = admin.describe_topics(&[&topic]).await.expect("answered").remove(0).1;
    let described = described.expect("there");
    let replicas = described.partitions[0].replicas.clone();
    let places = [(topic.clone(), vec![0])];
    let directories = admin.describe_log_dirs(replicas[0], Some(&places)).await.expect("described");
    let holding = |directory: &&fleuve::client::admin::LogDir| !directory.replicas.is_empty();
    let directory = directories.iter().find(holding).expect("the replica is somewhere");
    assert_eq!(directory.replicas[0].partition, partition);
    let nowhere = [(partition.clone(), "/no/such/directory".to_owned())];
    let moved = admin.alter_replica_log_dirs(replicas[0], &nowhere).await.expect("answered");
    assert_eq!(
        moved.into_iter().map(|(_, result)| code(result)).next(),
        Some(ErrorCode::LogDirNotFound)
    );

    let elected =
        admin.elect_leaders(ElectionType::Preferred, Some(std::slice::from_ref(&partition)));
    for (of, result) in elected.await.expect("answered") {
        assert_eq!(of, partition);
        if let Err(error) = result {
            assert_eq!(error.code(), Some(ErrorCode::ElectionNotNeeded));
        }
    }
    let targets = [(partition.clone(), Some(replicas.clone()))];
    for (_, result) in admin.alter_reassignments(&targets, true).await.expect("answered") {
        result.expect("it is there already");
    }
    await_some(|| async {
        let moving = admin.list_reassignments(Some(std::slice::from_ref(&partition))).await;
        moving.expect("listed").is_empty().then_some(())
    })
    .await;
    let cancelled = admin.alter_reassignments(&[(partition, None)], true).await.expect("answered");
    let cancelled = cancelled.into_iter().map(|(_, result)| code(result)).next();
    assert_eq!(cancelled, Some(ErrorCode::NoReassignmentInProgress));
}

async fn transactions_and_producers_are_shown_and_fenced(target: &Target) {
    let admin = admin(target).await;
    let (topic, id) = (target.topic("ledger", 1).await, unique("teller"));
    let config = ProducerConfig { transactional_id: Some(id.clone()), ..ProducerConfig::default() };
    let producer = target.producer(config).await;
    producer.init_transactions().await.expect("begun");
    producer.begin_transaction().expect("ready");
    producer.send_and_wait(Record::new(&topic).value("a")).await.expect("written");
    let partition = TopicPartition::new(&*topic, 0);
    let description = admin.describe_transaction(&id).await.expect("described");
    assert_eq!(description.state, "Ongoing");
    assert_eq!(description.partitions, std::slice::from_ref(&partition));
    let listed = admin.list_transactions(&TransactionFilter::default()).await.expect("listed");
    assert!(listed.iter().any(|listing| listing.transactional_id == id));
    let missing = TopicPartition::new(&*topic, 7);
    let asked = [missing.clone(), partition.clone()];
    let mut producers = admin.describe_producers(&asked).await.expect("answered");
    let active = producers[&partition].as_ref().expect("there");
    assert!(active.iter().any(|active| active.producer_id == description.producer_id));
    let refused = producers.remove(&missing).expect("every partition has its answer");
    let refused = refused.expect_err("there is one partition");
    assert!(refused.to_string().contains("there is no partition 7"), "{refused}");
    admin.fence_producer(&id).await.expect("fenced");
    assert!(producer.commit_transaction().await.is_err(), "another has taken over");
    assert_eq!(
        code(admin.describe_transaction(&unique("nobody")).await),
        ErrorCode::TransactionalIdNotFound
    );
}

async fn share_and_streams_groups_are_described(target: &Target) {
    let admin = admin(target).await;
    if target.offers(ApiKey::StreamsGroupDescribe).await {
        code(admin.describe_streams_group(&unique("nobody")).await);
    }
    if !target.offers(ApiKey::AlterShareGroupOffsets).await {
        return;
    }
    let (topic, group) = (target.topic("shared", 1).await, unique("sharers"));
    target.write(&topic, 0, &["a", "b", "c"]).await;
    assert!(!admin.is_share_group(&group).await.expect("asked"));
    let place = TopicPartition::new(&*topic, 0);
    let altered = HashMap::from([(place.clone(), 2)]);
    admin.alter_share_group_offsets(&group, &altered).await.expect("set");
    assert!(admin.is_share_group(&group).await.expect("asked"));
    assert_eq!(admin.describe_share_group(&group).await.expect("there").members.len(), 0);
    await_some(|| async {
        let offsets = admin.share_group_offsets(&group).await.expect("known");
        (offsets.get(&place)?.start == Some(2)).then_some(())
    })
    .await;
    let names = [topic.clone(), unique("missing")];
    for (name, result) in admin.delete_share_group_offsets(&group, &names).await.expect("answered")
    {
        match name == topic {
            true => result.expect("deleted"),
            false => assert_eq!(code(result), ErrorCode::UnknownTopicOrPartition),
        }
    }
}

async fn what_a_broker_forbids_is_an_error_that_says_so(target: &Target) {
    let admin = admin(target).await;
    let number = |table: &[(&'static str, i8)], name| acl_number(table, name).expect("known");
    let acl = Acl {
        resource_type: number(ACL_RESOURCE_TYPES, "TOPIC"),
        resource_name: "t".to_owned(),
        pattern_type: number(ACL_PATTERN_TYPES, "LITERAL"),
        principal: "User:ada".to_owned(),
        host: "*".to_owned(),
        operation: number(ACL_OPERATIONS, "READ"),
        permission_type: number(ACL_PERMISSIONS, "ALLOW"),
    };
    let filter = AclFilter {
        resource_type: acl.resource_type,
        resource_name: None,
        pattern_type: acl.pattern_type,
        principal: None,
        host: None,
        operation: acl.operation,
        permission_type: acl.permission_type,
    };
    // Nobody has set an authorizer, and nobody has authenticated.
    let disabled = ErrorCode::SecurityDisabled;
    assert_eq!(code(admin.describe_acls(&filter).await), disabled);
    assert_eq!(code(admin.create_acls(std::slice::from_ref(&acl)).await), disabled);
    for (_, result) in admin.create_each_acl(&[acl]).await.expect("answered") {
        assert_eq!(code(result), disabled);
    }
    assert_eq!(code(admin.delete_acls(&[filter]).await), disabled);
    if is_authenticated() {
        // Then tokens are given; `securing.rs` has the test.
        return;
    }
    let refused =
        [ErrorCode::DelegationTokenAuthDisabled, ErrorCode::DelegationTokenRequestNotAllowed];
    let codes = [
        code(admin.create_delegation_token(None, &[], -1).await),
        code(admin.renew_delegation_token(b"x", -1).await),
        code(admin.expire_delegation_token(b"x", -1).await),
        code(admin.describe_delegation_tokens(None).await),
    ];
    assert!(codes.iter().all(|code| refused.contains(code)), "{codes:?}");
}
