//! `kafka-reassign-partitions`: moving partitions between brokers, and between the data directories
//! of a broker.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Parser};
use fleuve_client::Admin;
use fleuve_client::admin::{Alteration, Resource};
use fleuve_types::TopicPartition;
use serde_json::{Value, json};

use super::ConnectEither;
use super::leaders::{read_json, read_plan};
use super::log_moves::{self, Move, Place};
use crate::failure::Failure;
use crate::output::line;

/// What limits moves on brokers; taken back when all is done.
const BROKER_THROTTLES: [&str; 3] = [
    "leader.replication.throttled.rate",
    "follower.replication.throttled.rate",
    "replica.alter.log.dirs.io.max.bytes.per.second",
];
/// What limits moves of topics.
const TOPIC_THROTTLES: [&str; 2] =
    ["leader.replication.throttled.replicas", "follower.replication.throttled.replicas"];

/// Move partitions between brokers.
#[derive(Debug, Parser)]
#[command(group = ArgGroup::new("action").required(true)
    .args(["generate", "execute", "verify", "cancel", "list"]))]
pub(super) struct Reassign {
    #[command(flatten)]
    connect: ConnectEither,
    /// Propose a plan; nothing is moved.
    #[arg(long, requires_all = ["topics_to_move_json_file", "broker_list"])]
    generate: bool,
    /// Carry a plan out.
    #[arg(long, requires = "reassignment_json_file")]
    execute: bool,
    /// Tell how far a plan is.
    #[arg(long, requires = "reassignment_json_file")]
    verify: bool,
    /// Take a plan back.
    #[arg(long, requires = "reassignment_json_file")]
    cancel: bool,
    /// List what is being moved.
    #[arg(long)]
    list: bool,
    /// {"topics": [{"topic": "t"}], "version": 1}
    #[arg(long, conflicts_with_all = ["execute", "verify", "cancel", "list"])]
    topics_to_move_json_file: Option<PathBuf>,
    /// {"partitions": [{"topic": "t", "partition": 0, "replicas": [1], "log_dirs": ["any"]}], "version": 1}
    #[arg(long, conflicts_with_all = ["generate", "list"])]
    reassignment_json_file: Option<PathBuf>,
    /// Brokers to move to, separated by commas.
    #[arg(
        long,
        value_delimiter = ',',
        conflicts_with_all = ["execute", "verify", "cancel", "list"]
    )]
    broker_list: Vec<i32>,
    /// Accepted: racks do not count.
    #[arg(long, conflicts_with_all = ["execute", "verify", "cancel", "list"])]
    disable_rack_aware: bool,
    /// Refuse to change how many replicas there are.
    #[arg(long, conflicts_with_all = ["generate", "verify", "cancel", "list"])]
    disallow_replication_factor_change: bool,
    /// Accepted: a plan is carried out beside others.
    #[arg(long, conflicts_with_all = ["generate", "verify", "cancel", "list"])]
    additional: bool,
    /// Bytes per second that brokers may send each other for the plan.
    #[arg(
        long,
        default_value_t = -1,
        conflicts_with_all = ["generate", "verify", "cancel", "list"]
    )]
    throttle: i64,
    /// Bytes per second that may be copied between data directories.
    #[arg(
        long,
        default_value_t = -1,
        conflicts_with_all = ["generate", "verify", "cancel", "list"]
    )]
    replica_alter_log_dirs_throttle: i64,
    /// Accepted: nothing is waited for.
    #[arg(long, default_value_t = 10_000, conflicts_with_all = ["generate", "verify", "list"])]
    timeout: i64,
    /// Leave limits in force that were set for a plan.
    #[arg(long, conflicts_with_all = ["generate", "execute", "list"])]
    preserve_throttles: bool,
}

pub(super) async fn reassign(options: Reassign) -> Result<(), Failure> {
    // What is wrong with a plan is said before anything is asked for or set.
    let path = options.reassignment_json_file.as_deref();
    let (moves, plan) = match path {
        Some(path) => (log_moves::read(path)?, read_plan(path)?),
        None => (Vec::new(), Vec::new()),
    };
    check(&plan, options.execute)?;
    let admin = options.connect.admin().await?;
    if options.list {
        let ongoing = admin.list_reassignments(None).await?;
        if ongoing.is_empty() {
            return line("No partition reassignments found.");
        }
        line("Current partition reassignments:")?;
        for moving in ongoing {
            line(format!(
                "{}: replicas: {}. adding: {}. removing: {}.",
                moving.partition,
                numbers(&moving.replicas),
                numbers(&moving.adding),
                numbers(&moving.removing)
            ))?;
        }
        return Ok(());
    }
    if options.generate {
        let path = options.topics_to_move_json_file.unwrap_or_default();
        return generate(&admin, &path, &options.broker_list).await;
    }
    match (options.verify, options.cancel) {
        (true, _) => verify(&admin, &options, &plan, &moves).await,
        (_, true) => cancel(&admin, &options, &plan, &moves).await,
        _ => execute(&admin, &options, &plan, &moves).await,
    }
}

/// Partitions, with the replicas they are to have.
type Targets = Vec<(TopicPartition, Option<Vec<i32>>)>;

/// Looks whether a plan says where every partition is to be; one that is to be carried out must say
/// so once. A partition without replicas would be sent as one whose move is taken back.
fn check(plan: &Targets, execute: bool) -> Result<(), Failure> {
    let mut seen = BTreeSet::new();
    for (partition, target) in plan {
        let replicas = target
            .as_deref()
            .ok_or_else(|| Failure::new(format!("{partition} lacks replicas in the plan")))?;
        if !execute {
            continue;
        }
        if replicas.is_empty() {
            return Err(Failure::new(format!(
                "Partition replica list cannot be empty: that of {partition} is"
            )));
        }
        if !seen.insert(partition) {
            return Err(Failure::new(format!(
                "Partition reassignment contains duplicate topic partitions: {partition}"
            )));
        }
        let mut brokers = BTreeSet::new();
        if let Some(twice) = replicas.iter().find(|broker| !brokers.insert(**broker)) {
            return Err(Failure::new(format!(
                "Partition replica lists may not contain duplicate entries: {partition} contains \
                 multiple entries for {twice}"
            )));
        }
    }
    Ok(())
}

fn names(plan: &Targets) -> Vec<TopicPartition> {
    plan.iter().map(|(partition, _)| partition.clone()).collect()
}

async fn verify(
    admin: &Admin,
    options: &Reassign,
    plan: &Targets,
    moves: &[Move],
) -> Result<(), Failure> {
    let partitions = names(plan);
    let ongoing = admin.list_reassignments(Some(&partitions)).await?;
    let replicas = current(admin, &partitions).await?;
    line("Status of partition reassignment:")?;
    for (partition, target) in plan {
        if ongoing.iter().any(|moving| moving.partition == *partition) {
            line(format!("Reassignment of partition {partition} is still in progress."))?;
        } else if replicas.get(partition) == target.as_ref() {
            line(format!("Reassignment of partition {partition} is completed."))?;
        } else {
            let found = replicas.get(partition).map(|found| numbers(found)).unwrap_or_default();
            let wanted = numbers(target.as_deref().unwrap_or_default());
            line(format!(
                "There is no active reassignment of partition {partition}, but replica set is \
                 {found} rather than {wanted}."
            ))?;
        }
    }
    let places = log_moves::places(admin, moves).await?;
    let mut is_moving = false;
    for (wanted, place) in moves.iter().zip(&places) {
        is_moving |= place.future.is_some();
        line(log_moves::describe(wanted, place))?;
    }
    line("")?;
    if ongoing.is_empty() && !is_moving && !options.preserve_throttles {
        clear_throttles(admin, plan).await?;
    }
    Ok(())
}

async fn cancel(
    admin: &Admin,
    options: &Reassign,
    plan: &Targets,
    moves: &[Move],
) -> Result<(), Failure> {
    let ongoing = admin.list_reassignments(Some(&names(plan))).await?;
    if ongoing.is_empty() {
        line("None of the specified partition reassignments are active.")?;
    } else {
        let targets: Vec<_> = ongoing.into_iter().map(|moving| (moving.partition, None)).collect();
        report(admin.alter_reassignments(&targets, true).await?, "cancelled")?;
    }
    // A copy ends when the replica is asked to be where it is.
    let places = log_moves::places(admin, moves).await?;
    let back = moves.iter().zip(places).filter_map(|(wanted, place)| {
        let directory = place.current.filter(|_| place.future.is_some())?;
        Some(Move { directory, ..wanted.clone() })
    });
    let back: Vec<Move> = back.collect();
    if back.is_empty() {
        line("None of the specified partition moves are active.")?;
    } else {
        log_moves::begin(admin, &back).await?;
    }
    if !options.preserve_throttles {
        clear_throttles(admin, plan).await?;
    }
    Ok(())
}

async fn execute(
    admin: &Admin,
    options: &Reassign,
    plan: &Targets,
    moves: &[Move],
) -> Result<(), Failure> {
    let known: BTreeSet<i32> =
        admin.describe_cluster().await?.brokers.iter().map(|broker| broker.id).collect();
    let mut wanted = plan.iter().filter_map(|(_, target)| target.as_deref()).flatten();
    if let Some(unknown) = wanted.find(|broker| !known.contains(broker)) {
        return Err(Failure::new(format!("Unknown broker id {unknown}")));
    }
    let partitions = names(plan);
    let mut replicas = current(admin, &partitions).await?;
    let before = partitions.into_iter().map(|partition| match replicas.remove(&partition) {
        Some(replicas) => Ok((partition, replicas)),
        None => Err(Failure::new(format!("there is no partition {partition}"))),
    });
    let before: Vec<_> = before.collect::<Result<_, _>>()?;
    let places = log_moves::places_of(admin, &before).await?;
    line("Current partition replica assignment\n")?;
    line(plan_json(&before, &places).to_string())?;
    line("\nSave this to use as the --reassignment-json-file option during rollback")?;
    if options.throttle >= 0 || options.replica_alter_log_dirs_throttle >= 0 {
        line(
            "Warning: You must run --verify periodically, until the reassignment completes, to \
             ensure the throttle is removed.",
        )?;
    }
    if options.throttle >= 0 {
        throttle_topics(admin, plan, &before).await?;
        let involved = plan.iter().filter_map(|(_, target)| target.clone());
        let involved = involved.chain(before.iter().map(|(_, replicas)| replicas.clone()));
        throttle(admin, involved.flatten().collect(), &BROKER_THROTTLES[..2], options.throttle)
            .await?;
        line(format!("The inter-broker throttle limit was set to {} B/s", options.throttle))?;
    }
    if options.replica_alter_log_dirs_throttle >= 0 {
        let rate = options.replica_alter_log_dirs_throttle;
        let involved = moves.iter().map(|wanted| wanted.broker).collect();
        throttle(admin, involved, &BROKER_THROTTLES[2..], rate).await?;
        line(format!("The replica-alter-dir throttle limit was set to {rate} B/s"))?;
    }
    let results =
        admin.alter_reassignments(plan, !options.disallow_replication_factor_change).await?;
    report(results, "started")?;
    log_moves::begin(admin, moves).await
}

/// Limits what the replicas of a plan send and take.
async fn throttle_topics(
    admin: &Admin,
    plan: &Targets,
    before: &[(TopicPartition, Vec<i32>)],
) -> Result<(), Failure> {
    let mut throttled: BTreeMap<&str, [Vec<String>; 2]> = BTreeMap::new();
    for ((partition, target), (_, sources)) in plan.iter().zip(before) {
        let [leaders, followers] = throttled.entry(&partition.topic).or_default();
        let replica = |broker: &i32| format!("{}:{broker}", partition.partition);
        leaders.extend(sources.iter().map(replica));
        let added = target.iter().flatten().filter(|broker| !sources.contains(broker));
        followers.extend(added.map(replica));
    }
    for (topic, replicas) in throttled {
        let set = TOPIC_THROTTLES
            .iter()
            .zip(replicas)
            .map(|(key, replicas)| Alteration::Set((*key).to_owned(), replicas.join(",")));
        let set: Vec<Alteration> = set.collect();
        admin.alter_configs(&Resource::Topic(topic.to_owned()), &set, false).await?;
    }
    Ok(())
}

async fn throttle(
    admin: &Admin,
    mut brokers: Vec<i32>,
    keys: &[&str],
    rate: i64,
) -> Result<(), Failure> {
    brokers.sort_unstable();
    brokers.dedup();
    let set: Vec<Alteration> =
        keys.iter().map(|key| Alteration::Set((*key).to_owned(), rate.to_string())).collect();
    for broker in brokers {
        admin.alter_configs(&Resource::Broker(broker.to_string()), &set, false).await?;
    }
    Ok(())
}

/// Takes all limits back; who was involved in the plan before nobody knows any more.
async fn clear_throttles(admin: &Admin, plan: &Targets) -> Result<(), Failure> {
    let delete = |keys: &[&str]| -> Vec<Alteration> {
        keys.iter().map(|key| Alteration::Delete((*key).to_owned())).collect()
    };
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let mut brokers: Vec<i32> =
        admin.describe_cluster().await?.brokers.iter().map(|broker| broker.id).collect();
    brokers.sort_unstable();
    let shown = numbers(&brokers);
    line(format!("Clearing broker-level throttles on broker{} {shown}", plural(brokers.len())))?;
    for broker in brokers {
        let resource = Resource::Broker(broker.to_string());
        admin.alter_configs(&resource, &delete(&BROKER_THROTTLES), false).await?;
    }
    let mut topics: Vec<&str> = plan.iter().map(|(partition, _)| &*partition.topic).collect();
    topics.sort_unstable();
    topics.dedup();
    let shown = topics.join(",");
    line(format!("Clearing topic-level throttles on topic{} {shown}", plural(topics.len())))?;
    for topic in topics {
        let resource = Resource::Topic(topic.to_owned());
        admin.alter_configs(&resource, &delete(&TOPIC_THROTTLES), false).await?;
    }
    Ok(())
}

async fn generate(admin: &Admin, path: &Path, brokers: &[i32]) -> Result<(), Failure> {
    let value = read_json(path)?;
    let topics: Vec<String> = value["topics"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|topic| Some(topic["topic"].as_str()?.to_owned()))
        .collect();
    let mut now = Vec::new();
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    for (topic, described) in admin.describe_topics(&names).await? {
        for partition in described?.partitions {
            let name = TopicPartition::new(topic.as_str(), partition.index);
            now.push((name, partition.replicas));
        }
    }
    let mut proposed = Vec::new();
    for (index, (partition, replicas)) in now.iter().enumerate() {
        if replicas.len() > brokers.len() {
            return Err(Failure::new(format!(
                "{partition} has {} replicas, but --broker-list names {} brokers",
                replicas.len(),
                brokers.len()
            )));
        }
        let spread = (0..replicas.len()).map(|step| brokers[(index + step) % brokers.len()]);
        proposed.push((partition.clone(), spread.collect()));
    }
    line("Current partition replica assignment")?;
    line(plan_json(&now, &[]).to_string())?;
    line("\nProposed partition reassignment configuration")?;
    line(plan_json(&proposed, &[]).to_string())
}

fn report(results: fleuve_client::admin::PartitionResults, done: &str) -> Result<(), Failure> {
    let (mut names, mut failed) = (Vec::new(), 0);
    for (partition, result) in results {
        match result {
            Ok(()) => names.push(partition.to_string()),
            Err(error) => {
                failed += 1;
                line(format!("{partition}: {error}"))?;
            }
        }
    }
    if failed > 0 {
        return Err(Failure::new(format!("{failed} partition(s) cannot be reassigned so")));
    }
    names.sort_unstable();
    let plural = if names.len() == 1 { "" } else { "s" };
    line(format!("Successfully {done} partition reassignment{plural} for {}", names.join(",")))
}

async fn current(
    admin: &Admin,
    partitions: &[TopicPartition],
) -> Result<BTreeMap<TopicPartition, Vec<i32>>, Failure> {
    let mut topics: Vec<String> =
        partitions.iter().map(|partition| partition.topic.to_string()).collect();
    topics.sort_unstable();
    topics.dedup();
    let mut replicas = BTreeMap::new();
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    for (topic, described) in admin.describe_topics(&names).await? {
        for partition in described?.partitions {
            let name = TopicPartition::new(topic.as_str(), partition.index);
            replicas.insert(name, partition.replicas);
        }
    }
    Ok(replicas)
}

/// A plan in the form that the tool takes, with directories as far as they are known.
fn plan_json(plan: &[(TopicPartition, Vec<i32>)], places: &[Vec<Place>]) -> Value {
    let partitions: Vec<_> = plan
        .iter()
        .enumerate()
        .map(|(index, (partition, replicas))| {
            let known = places.get(index).map(Vec::as_slice).unwrap_or_default();
            let directory = |replica: usize| {
                let place = known.get(replica).and_then(|place| place.current.as_deref());
                place.unwrap_or(log_moves::ANY)
            };
            json!({
                "topic": &*partition.topic, "partition": partition.partition, "replicas": replicas,
                "log_dirs": (0..replicas.len()).map(directory).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({ "version": 1, "partitions": partitions })
}

fn numbers(ids: &[i32]) -> String {
    ids.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_carried_out_only_if_it_says_where_everything_goes() {
        let target = |index, replicas: Option<&[i32]>| {
            (TopicPartition::new("t", index), replicas.map(<[i32]>::to_vec))
        };
        check(&vec![target(0, Some(&[1, 2])), target(1, Some(&[2]))], true).expect("a plan");
        for (plan, why) in [
            (vec![target(0, None)], "lacks replicas"),
            (vec![target(0, Some(&[]))], "cannot be empty"),
            (vec![target(0, Some(&[1])), target(0, Some(&[2]))], "duplicate topic partitions: t-0"),
            (vec![target(0, Some(&[1, 2, 1]))], "multiple entries for 1"),
        ] {
            let refused = check(&plan, true).expect_err(why).to_string();
            assert!(refused.contains(why), "{refused}");
            assert_eq!(check(&plan, false).is_err(), why == "lacks replicas");
        }
    }

    #[test]
    fn each_action_has_its_own_options() {
        let parses = |rest: &str| {
            let arguments = "t --bootstrap-server a:1".split(' ').chain(rest.split(' '));
            Reassign::try_parse_from(arguments).is_ok()
        };
        for rest in [
            "--execute --reassignment-json-file f --throttle 1 --timeout 5 --additional",
            "--verify --reassignment-json-file f --preserve-throttles",
            "--cancel --reassignment-json-file f --preserve-throttles --timeout 5",
            "--generate --topics-to-move-json-file f --broker-list 1,2 --disable-rack-aware",
            "--list",
        ] {
            assert!(parses(rest), "{rest}");
        }
        for rest in [
            "--execute --reassignment-json-file f --preserve-throttles",
            "--verify --reassignment-json-file f --throttle 1",
            "--verify --reassignment-json-file f --additional",
            "--cancel --reassignment-json-file f --replica-alter-log-dirs-throttle 1",
            "--list --reassignment-json-file f",
        ] {
            assert!(!parses(rest), "{rest}");
        }
    }
}
