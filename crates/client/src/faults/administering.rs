//! Every administrative call against every error code in every place of every answer, connections that end, answers that
//! do not come, and lies: a call ends, and what went wrong is in its result.

use std::collections::BTreeMap;

use fleuve_types::TopicPartition;

use super::replies::{Filling, Planted, Schema};
use super::*;
use crate::admin::{
    AbortedProducer, Acl, AclFilter, Admin, Alteration, ElectionType, MorePartitions, NewTopic,
    QuotaFilter, Removal, Resource, ScramMechanism, TransactionFilter, UpgradeType,
};
use crate::config::IsolationLevel;
use crate::{BoxFuture, Result};

/// What a call says: of itself, or of each item.
type Said = Result<Vec<Result<()>>>;

/// An administrative call.
struct Call {
    name: &'static str,
    /// The requests that it sends.
    sends: &'static [ApiKey],
    /// Whether it changes something, so that saying nothing of an item says that the item is changed.
    changes: bool,
    make: fn(Admin) -> BoxFuture<'static, Said>,
}

fn whole<T>(result: Result<T>) -> Said {
    result.map(|_| vec![Ok(())])
}

fn items<K, V>(result: Result<impl IntoIterator<Item = (K, Result<V>)>>) -> Said {
    Ok(result?.into_iter().map(|(_, result)| result.map(drop)).collect())
}

fn place() -> TopicPartition {
    TopicPartition::new("t", 0)
}

fn acl() -> Acl {
    Acl {
        resource_type: 2,
        resource_name: "t".to_owned(),
        pattern_type: 3,
        principal: "User:u".to_owned(),
        host: "*".to_owned(),
        operation: 3,
        permission_type: 3,
    }
}

macro_rules! calls {
    ($($name:ident $changes:literal [$($key:ident)+] |$admin:ident| $call:expr;)+) => {
        &[$(Call {
            name: stringify!($name),
            sends: &[$(ApiKey::$key),+],
            changes: $changes,
            make: |$admin| Box::pin(async move { $call }),
        }),+]
    };
}

const CALLS: &[Call] = calls! {
    create_topics true [CreateTopics] |admin| {
        items(admin.create_topics(&[NewTopic::new("t")], false).await)
    };
    delete_topics true [DeleteTopics] |admin| items(admin.delete_topics(&["t"]).await);
    create_partitions true [CreatePartitions] |admin| {
        items(admin.create_partitions(&[("t", 3)], false).await)
    };
    create_partitions_on true [CreatePartitions] |admin| {
        let assignments = Some(vec![vec![1], vec![1]]);
        let more = MorePartitions { name: "t".to_owned(), count: 3, assignments };
        items(admin.create_partitions_on(&[more], false).await)
    };
    describe_topics false [DescribeTopicPartitions] |admin| {
        items(admin.describe_topics(&["t"]).await)
    };
    describe_configs false [DescribeConfigs] |admin| {
        whole(admin.describe_configs(&Resource::Topic("t".to_owned()), true).await)
    };
    describe_broker_configs false [DescribeConfigs] |admin| {
        whole(admin.describe_configs(&Resource::Broker("1".to_owned()), false).await)
    };
    alter_configs true [IncrementalAlterConfigs] |admin| {
        let set = Alteration::Set("retention.ms".to_owned(), "1".to_owned());
        whole(admin.alter_configs(&Resource::Topic("t".to_owned()), &[set], false).await)
    };
    list_config_resources false [ListConfigResources] |admin| {
        whole(admin.list_config_resources(&["topic"]).await)
    };
    list_offsets false [ListOffsets] |admin| {
        let wanted = HashMap::from([(place(), -1)]);
        items(admin.list_offsets(&wanted, IsolationLevel::ReadCommitted).await)
    };
    delete_records true [DeleteRecords] |admin| {
        items(admin.delete_records(&HashMap::from([(place(), 1)])).await)
    };
    list_groups false [ListGroups] |admin| whole(admin.list_groups().await);
    describe_group false [DescribeGroups ConsumerGroupDescribe] |admin| {
        whole(admin.describe_group("g").await)
    };
    delete_group true [DeleteGroups] |admin| whole(admin.delete_group("g").await);
    group_offsets false [OffsetFetch] |admin| whole(admin.group_offsets("g").await);
    alter_group_offsets true [OffsetCommit] |admin| {
        whole(admin.alter_group_offsets("g", &HashMap::from([(place(), 1)])).await)
    };
    delete_group_offsets true [OffsetDelete] |admin| {
        items(admin.delete_group_offsets("g", &[place()]).await)
    };
    remove_members true [LeaveGroup] |admin| {
        items(admin.remove_members("g", &[Removal::Member("m".to_owned())], "a test").await)
    };
    describe_quotas false [DescribeClientQuotas] |admin| {
        let filter = QuotaFilter::Exact("user".to_owned(), "u".to_owned());
        whole(admin.describe_quotas(&[filter], true).await)
    };
    alter_quotas true [AlterClientQuotas] |admin| {
        let entity = vec![("user".to_owned(), Some("u".to_owned()))];
        whole(admin.alter_quotas(&entity, &[("producer_byte_rate".to_owned(), None)], false).await)
    };
    describe_scram_users false [DescribeUserScramCredentials] |admin| {
        items(admin.describe_scram_users(&["u"]).await)
    };
    delete_scram_credential true [AlterUserScramCredentials] |admin| {
        whole(admin.delete_scram_credential("u", ScramMechanism::Sha256).await)
    };
    describe_cluster false [DescribeCluster] |admin| whole(admin.describe_cluster().await);
    describe_features false [ApiVersions] |admin| whole(admin.describe_features().await);
    update_features true [UpdateFeatures] |admin| {
        let updates = [("t".to_owned(), 1)];
        whole(admin.update_features(&updates, UpgradeType::Upgrade, false).await)
    };
    describe_quorum false [DescribeQuorum] |admin| whole(admin.describe_quorum().await);
    unregister_broker true [UnregisterBroker] |admin| whole(admin.unregister_broker(1).await);
    add_raft_voter true [AddRaftVoter] |admin| {
        let listener = ("CONTROLLER".to_owned(), "broker".to_owned(), 9093);
        whole(admin.add_raft_voter(1, crate::scripted::TOPIC_ID, &[listener]).await)
    };
    remove_raft_voter true [RemoveRaftVoter] |admin| {
        whole(admin.remove_raft_voter(1, crate::scripted::TOPIC_ID).await)
    };
    describe_log_dirs false [DescribeLogDirs] |admin| {
        admin.describe_log_dirs(1, None).await.map(|directories| {
            directories.into_iter().map(|directory| directory.error.map_or(Ok(()), Err)).collect()
        })
    };
    alter_replica_log_dirs true [AlterReplicaLogDirs] |admin| {
        items(admin.alter_replica_log_dirs(1, &[(place(), "/t".to_owned())]).await)
    };
    elect_leaders true [ElectLeaders] |admin| {
        items(admin.elect_leaders(ElectionType::Preferred, Some(&[place()])).await)
    };
    alter_reassignments true [AlterPartitionReassignments] |admin| {
        items(admin.alter_reassignments(&[(place(), Some(vec![1]))], false).await)
    };
    list_reassignments false [ListPartitionReassignments] |admin| {
        whole(admin.list_reassignments(Some(&[place()])).await)
    };
    list_transactions false [ListTransactions] |admin| {
        whole(admin.list_transactions(&TransactionFilter::default()).await)
    };
    describe_transaction false [DescribeTransactions] |admin| {
        whole(admin.describe_transaction("x").await)
    };
    describe_producers false [DescribeProducers] |admin| {
        items(admin.describe_producers(&[place()]).await)
    };
    fence_producer true [InitProducerId] |admin| whole(admin.fence_producer("x").await);
    abort_transaction true [WriteTxnMarkers] |admin| {
        let aborted = AbortedProducer {
            partition: place(),
            producer_id: 1,
            producer_epoch: 1,
            coordinator_epoch: 1,
        };
        whole(admin.abort_transaction(&aborted).await)
    };
    describe_share_group false [ShareGroupDescribe] |admin| {
        whole(admin.describe_share_group("g").await)
    };
    share_group_offsets false [DescribeShareGroupOffsets] |admin| {
        whole(admin.share_group_offsets("g").await)
    };
    alter_share_group_offsets true [AlterShareGroupOffsets] |admin| {
        whole(admin.alter_share_group_offsets("g", &HashMap::from([(place(), 1)])).await)
    };
    delete_share_group_offsets true [DeleteShareGroupOffsets] |admin| {
        items(admin.delete_share_group_offsets("g", &["t".to_owned()]).await)
    };
    describe_streams_group false [StreamsGroupDescribe] |admin| {
        whole(admin.describe_streams_group("g").await)
    };
    describe_acls false [DescribeAcls] |admin| whole(admin.describe_acls(&AclFilter::ANY).await);
    create_acls true [CreateAcls] |admin| whole(admin.create_acls(&[acl()]).await);
    create_each_acl true [CreateAcls] |admin| items(admin.create_each_acl(&[acl()]).await);
    delete_acls true [DeleteAcls] |admin| whole(admin.delete_acls(&[AclFilter::ANY]).await);
    create_delegation_token true [CreateDelegationToken] |admin| {
        whole(admin.create_delegation_token(None, &[], -1).await)
    };
    renew_delegation_token true [RenewDelegationToken] |admin| {
        whole(admin.renew_delegation_token(b"x", -1).await)
    };
    expire_delegation_token true [ExpireDelegationToken] |admin| {
        whole(admin.expire_delegation_token(b"x", -1).await)
    };
    describe_delegation_tokens false [DescribeDelegationToken] |admin| {
        whole(admin.describe_delegation_tokens(None).await)
    };
};

/// What stands between a call and a broker that answers by the schemas.
struct Scene {
    admin: Admin,
    /// Happens to requests of this kind, so many times.
    trap: Arc<Mutex<Option<(ApiKey, usize, Trap)>>>,
    asked: Arc<AtomicUsize>,
}

#[derive(Clone, Debug)]
enum Trap {
    Filled(Filling),
    Struck(Fault),
}

/// Requests that the model answers, because calls depend on what stands in the answers.
const OF_THE_MODEL: &[ApiKey] = &[ApiKey::ApiVersions, ApiKey::Metadata, ApiKey::FindCoordinator];

impl Scene {
    fn new() -> Self {
        let trap: Arc<Mutex<Option<(ApiKey, usize, Trap)>>> = Arc::default();
        let asked = Arc::new(AtomicUsize::new(0));
        let mut model = Model::default();
        let mut schemas: HashMap<ApiKey, Schema> = HashMap::new();
        let broker = ScriptedBroker::raw({
            let (trap, asked) = (trap.clone(), asked.clone());
            move |request| {
                let schema = schemas.entry(request.key).or_insert_with(|| Schema::of(request.key));
                let mut answer = |filling, modelled: bool| match modelled {
                    true => model.answer(&request, None),
                    false => schema.reply(&request, filling),
                };
                let modelled = OF_THE_MODEL.contains(&request.key);
                let mut trap = trap.lock().expect("no panic");
                match &mut *trap {
                    Some((key, left, trap)) if *key == request.key && *left > 0 => {
                        *left -= 1;
                        asked.fetch_add(1, Ordering::Relaxed);
                        match trap.clone() {
                            Trap::Filled(filling) => answer(filling, false),
                            Trap::Struck(fault) => {
                                fault.strike(|_, _| answer(Filling::Whole(None), modelled))
                            }
                        }
                    }
                    _ => answer(Filling::Whole(None), modelled),
                }
            }
        });
        let client = Client::with_transport(client_config(), Arc::new(broker));
        Self { admin: Admin::new(client), trap, asked }
    }

    /// Makes a call that meets a trap.
    async fn meet(
        &self,
        call: &Call,
        key: ApiKey,
        count: usize,
        trap: Trap,
        context: &str,
    ) -> Said {
        *self.trap.lock().expect("no panic") = Some((key, count, trap));
        self.asked.store(0, Ordering::Relaxed);
        let said = tokio::time::timeout(HANGING, (call.make)(self.admin.clone())).await;
        *self.trap.lock().expect("no panic") = None;
        let asked = self.asked.load(Ordering::Relaxed);
        assert!(asked > 0, "{key:?} was never asked: {context}");
        assert!(asked < STORM, "asked {asked} times: {context}");
        said.unwrap_or_else(|_| panic!("it hangs: {context}"))
    }
}

/// Reports whether a call says that something went wrong, by the name of the code.
fn tells(said: &Said, code: ErrorCode) -> bool {
    let names =
        |error: &Error| error.code() == Some(code) || error.to_string().contains(code.name());
    match said {
        Err(error) => names(error),
        Ok(items) => items.iter().any(|item| item.as_ref().is_err_and(names)),
    }
}

fn is_good(said: &Said) -> bool {
    said.as_ref().is_ok_and(|items| items.iter().all(Result::is_ok))
}

/// Codes that are no failure, or are told in other words.
fn is_told_otherwise(key: ApiKey, place: &str, depth: usize, code: ErrorCode) -> bool {
    match key {
        // A group that nobody knows is dead.
        ApiKey::DescribeGroups | ApiKey::ConsumerGroupDescribe => {
            code == ErrorCode::GroupIdNotFound
        }
        // What is wrong with a partition, such as that nobody leads it, its description shows.
        ApiKey::DescribeTopicPartitions => depth > 0 && place == "ErrorCode",
        _ => false,
    }
}

#[test]
fn every_administrative_call_is_made() {
    let source = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/admin"));
    let mut methods: BTreeMap<String, bool> = BTreeMap::new();
    for file in source.expect("our sources") {
        let text = std::fs::read_to_string(file.expect("a file").path()).expect("readable");
        for line in text.lines() {
            if let Some(rest) = line.trim().strip_prefix("pub async fn ") {
                let name: String =
                    rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                methods.insert(name, false);
            }
        }
    }
    for call in CALLS {
        methods.insert(call.name.to_owned(), true);
    }
    // These are made of others here, or of Metadata alone, whose faults the other runs meet.
    const OTHERS: &[&str] = &[
        "broker_versions",
        "is_share_group",
        "list_client_metrics",
        "list_configured_groups",
        "list_topics",
        "rebalances",
        "set_scram_password",
    ];
    let missing: Vec<_> =
        methods.iter().filter(|(name, made)| !**made && !OTHERS.contains(&name.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[tokio::test(start_paused = true)]
async fn honest_answers_are_good() {
    for call in CALLS {
        let scene = Scene::new();
        let said = (call.make)(scene.admin.clone()).await;
        assert!(is_good(&said), "{}: {said:?}", call.name);
    }
}

#[tokio::test(start_paused = true)]
async fn every_error_code_in_every_place_is_told() {
    let mut silent = Vec::new();
    for call in CALLS {
        let scene = Scene::new();
        for &key in call.sends {
            // Versions of the protocol's table are all offered, so that the newest is spoken.
            let version = newest(&scene, call, key).await;
            let places = Schema::of(key).places(version, Filling::Whole(None));
            assert!(!places.is_empty(), "{}: no error code in {key:?}", call.name);
            for (place, name) in places.iter().enumerate() {
                for &code in ErrorCode::ALL {
                    if code == ErrorCode::None {
                        continue;
                    }
                    let planted = Planted { place, code };
                    let trap = Trap::Filled(Filling::Whole(Some(planted)));
                    let context = format!("{} {key:?} {name} {place} {code:?}", call.name);
                    let said = scene.meet(call, key, usize::MAX, trap.clone(), &context).await;
                    if !tells(&said, code) && !is_told_otherwise(key, name, place, code) {
                        silent.push(format!("{context}: {said:?}"));
                    }
                    // Once: either it is told, or a second attempt went well.
                    let said = scene.meet(call, key, 1, trap, &context).await;
                    let fine = tells(&said, code) || is_good(&said) && code.is_retriable();
                    if !fine && !is_told_otherwise(key, name, place, code) {
                        silent.push(format!("once, {context}: {said:?}"));
                    }
                }
            }
        }
    }
    assert!(
        silent.is_empty(),
        "{} were not told, as {:#?}",
        silent.len(),
        &silent[..silent.len().min(20)]
    );
}

/// Returns the version in which a call sends a request.
async fn newest(scene: &Scene, call: &Call, key: ApiKey) -> i16 {
    (call.make)(scene.admin.clone()).await.ok();
    let connection = scene.admin.client().any_connection().await.expect("reachable");
    let cap = match key {
        // Topics go by name.
        ApiKey::OffsetFetch | ApiKey::OffsetCommit => 9,
        _ => i16::MAX,
    };
    connection.versions().choose(key, 0, cap.min(key.versions().max)).expect("offered")
}

#[tokio::test(start_paused = true)]
async fn nothing_said_of_a_change_is_not_a_change() {
    for call in CALLS.iter().filter(|call| call.changes) {
        let scene = Scene::new();
        for &key in call.sends {
            let (schema, version) = (Schema::of(key), newest(&scene, call, key).await);
            let of_items = schema.places(version, Filling::Whole(None)).len()
                - schema.places(version, Filling::Hollow).len();
            if of_items == 0 {
                continue;
            }
            let trap = Trap::Filled(Filling::Hollow);
            let said = scene.meet(call, key, usize::MAX, trap, call.name).await;
            let claims = said.as_ref().is_ok_and(|items| !items.is_empty()) && is_good(&said);
            assert!(!claims, "{}: {said:?}", call.name);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn lost_late_and_missing_answers_end_every_call() {
    let faults = [
        Fault::LostBefore,
        Fault::LostAfter,
        Fault::Late(Duration::from_secs(3)),
        Fault::Late(Duration::from_secs(9)),
        Fault::Silence,
    ];
    for call in CALLS {
        let scene = Scene::new();
        let around = [ApiKey::ApiVersions, ApiKey::Metadata, ApiKey::FindCoordinator];
        for &key in call.sends.iter().chain(&around) {
            for fault in &faults {
                for count in [1, usize::MAX] {
                    let context = format!("{}: {fault:?} {count} times in {key:?}", call.name);
                    let fresh = Scene::new();
                    let scene = if around.contains(&key) { &fresh } else { &scene };
                    *scene.trap.lock().expect("no panic") =
                        Some((key, count, Trap::Struck(fault.clone())));
                    let said = (call.make)(scene.admin.clone());
                    let said = tokio::time::timeout(HANGING, said).await;
                    let met = scene.trap.lock().expect("no panic").take().expect("set").1 < count;
                    let said = said.unwrap_or_else(|_| panic!("it hangs: {context}"));
                    let passes = matches!(fault, Fault::Late(pause) if pause.as_secs() < 5);
                    let never = met && count == usize::MAX && !passes;
                    assert!(is_good(&said) != never, "{context}: {said:?}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn lies_to_administrators_are_outlived() {
    for (number, call) in CALLS.iter().enumerate() {
        for seed in 0..20 {
            let scene = Scene::new();
            let mut dice = Dice(10_000 + 20 * number as u64 + seed);
            for &key in call.sends {
                let extreme = [0, u64::MAX, 0x7fff_ffff_7fff_ffff, 0x8000_0000_8000_0000];
                let with = match dice.draw(2) {
                    0 => extreme[dice.draw(4) as usize],
                    _ => dice.draw(u64::MAX),
                };
                let fault = Fault::Garbled { at: dice.draw(60) as usize, with };
                let trap = Trap::Struck(fault);
                drop(scene.meet(call, key, usize::MAX, trap, call.name).await);
            }
        }
    }
}
