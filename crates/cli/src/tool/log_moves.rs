//! Moves between data directories, as `kafka-reassign-partitions` has them in its plans: beside the
//! list of a partition's replicas stands one of the directories that they are to be in.

use std::collections::BTreeMap;
use std::path::Path;

use fleuve_client::Admin;
use fleuve_types::TopicPartition;
use serde_json::Value;

use super::leaders::read_json;
use crate::failure::Failure;
use crate::output::line;

/// In place of a directory: wherever it is.
pub(super) const ANY: &str = "any";

/// A replica that is to be in a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) partition: TopicPartition,
    pub(super) broker: i32,
    pub(super) directory: String,
}

/// Where a replica is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// None when no directory in use has it.
    pub(super) current: Option<String>,
    /// Where a copy grows that is to take its place.
    pub(super) future: Option<String>,
}

/// Reads the moves of a plan.
pub(super) fn read(path: &Path) -> Result<Vec<Move>, Failure> {
    moves_in(&read_json(path)?)
        .map_err(|reason| Failure::new(format!("{}: {reason}", path.display())))
}

fn moves_in(plan: &Value) -> Result<Vec<Move>, String> {
    let mut moves = Vec::new();
    for entry in plan["partitions"].as_array().into_iter().flatten() {
        let (Some(topic), Some(partition)) = (entry["topic"].as_str(), number(&entry["partition"]))
        else {
            continue;
        };
        let Some(directories) = entry["log_dirs"].as_array() else { continue };
        let replicas = entry["replicas"].as_array().map(Vec::as_slice).unwrap_or_default();
        let partition = TopicPartition::new(topic, partition);
        if replicas.len() != directories.len() {
            return Err(format!(
                "Size of replicas list {replicas:?} is different from size of log dirs list \
                 {directories:?} for partition {partition}"
            ));
        }
        for (replica, directory) in replicas.iter().zip(directories) {
            let directory = directory.as_str().ok_or("log_dirs are paths")?;
            let broker = number(replica).ok_or("replicas are numbers")?;
            if directory != ANY {
                let directory = directory.to_owned();
                moves.push(Move { partition: partition.clone(), broker, directory });
            }
        }
    }
    Ok(moves)
}

fn number(value: &Value) -> Option<i32> {
    value.as_i64().and_then(|number| i32::try_from(number).ok())
}

/// Finds out where the replicas are that are to be moved.
pub(super) async fn places(admin: &Admin, moves: &[Move]) -> Result<Vec<Place>, Failure> {
    let replicas = moves.iter().map(|wanted| (wanted.partition.clone(), wanted.broker));
    find(admin, &replicas.collect::<Vec<_>>()).await
}

/// Finds out where all replicas of some partitions are.
pub(super) async fn places_of(
    admin: &Admin,
    partitions: &[(TopicPartition, Vec<i32>)],
) -> Result<Vec<Vec<Place>>, Failure> {
    let replicas = partitions.iter().flat_map(|(partition, brokers)| {
        brokers.iter().map(move |broker| (partition.clone(), *broker))
    });
    let mut found = find(admin, &replicas.collect::<Vec<_>>()).await?.into_iter();
    Ok(partitions.iter().map(|(_, brokers)| found.by_ref().take(brokers.len()).collect()).collect())
}

async fn find(admin: &Admin, replicas: &[(TopicPartition, i32)]) -> Result<Vec<Place>, Failure> {
    let mut by_broker: BTreeMap<i32, BTreeMap<TopicPartition, Place>> = BTreeMap::new();
    for (_, broker) in replicas {
        if by_broker.contains_key(broker) {
            continue;
        }
        let places = by_broker.entry(*broker).or_default();
        for directory in admin.describe_log_dirs(*broker, None).await? {
            for replica in directory.replicas {
                let place = places.entry(replica.partition).or_default();
                let slot = if replica.is_future { &mut place.future } else { &mut place.current };
                *slot = Some(directory.path.clone());
            }
        }
    }
    let place = |(partition, broker): &(TopicPartition, i32)| {
        by_broker.get(broker).and_then(|places| places.get(partition)).cloned().unwrap_or_default()
    };
    Ok(replicas.iter().map(place).collect())
}

/// Says how far a move is.
pub(super) fn describe(wanted: &Move, place: &Place) -> String {
    let Move { partition, broker, directory } = wanted;
    match (&place.current, &place.future) {
        (_, Some(future)) if future == directory => {
            format!("Reassignment of replica {partition}-{broker} is still in progress.")
        }
        (_, Some(future)) => format!(
            "Partition {partition} on broker {broker} is being moved to log dir {future} instead \
             of {directory}."
        ),
        (Some(current), None) if current == directory => {
            format!("Reassignment of replica {partition}-{broker} completed successfully.")
        }
        (Some(current), None) => format!(
            "Partition {partition} on broker {broker} is not being moved from log dir {current} \
             to {directory}."
        ),
        (None, None) => format!(
            "Partition {partition} is not found in any live log dir on broker {broker}. There is \
             likely an offline log directory on the broker."
        ),
    }
}

/// Begins moves, and says of each that it has begun.
pub(super) async fn begin(admin: &Admin, moves: &[Move]) -> Result<(), Failure> {
    let mut failed = 0;
    for Move { partition, broker, directory } in moves {
        let asked = [(partition.clone(), directory.clone())];
        for (partition, outcome) in admin.alter_replica_log_dirs(*broker, &asked).await? {
            match outcome {
                Ok(()) => line(format!(
                    "Successfully started moving log directory to {directory} for replica \
                     {partition} with broker {broker}"
                ))?,
                Err(error) => {
                    failed += 1;
                    line(format!(
                        "Failed to move replica {partition} of broker {broker} to {directory}: \
                         {error}"
                    ))?;
                }
            }
        }
    }
    match failed {
        0 => Ok(()),
        _ => Err(Failure::new(format!("{failed} replica(s) cannot be moved"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn words(broker: i32, directory: &str) -> Move {
        let partition = TopicPartition::new("words", 0);
        Move { partition, broker, directory: directory.to_owned() }
    }

    #[test]
    fn directories_stand_beside_replicas() {
        let plan = |replicas: Value, directories: Value| {
            json!({"partitions": [
                {"topic": "words", "partition": 0, "replicas": replicas, "log_dirs": directories},
                {"topic": "words", "partition": 1, "replicas": [1]},
            ]})
        };
        let moves = moves_in(&plan(json!([1, 2, 3]), json!(["/a", "any", "/c"]))).expect("a plan");
        assert_eq!(moves, [words(1, "/a"), words(3, "/c")]);
        let refusal = moves_in(&plan(json!([1, 2]), json!(["/a"]))).expect_err("one is missing");
        assert!(refusal.contains("is different from size of log dirs list"), "{refusal}");
        assert!(moves_in(&plan(json!([1]), json!([7]))).is_err());
    }

    #[test]
    fn a_move_is_under_way_done_given_up_or_out_of_sight() {
        let place = |current: Option<&str>, future: Option<&str>| Place {
            current: current.map(str::to_owned),
            future: future.map(str::to_owned),
        };
        let told = |place: Place| describe(&words(1, "/b"), &place);
        assert!(told(place(Some("/a"), Some("/b"))).ends_with("is still in progress."));
        assert!(told(place(Some("/a"), Some("/c"))).ends_with("to log dir /c instead of /b."));
        assert!(told(place(Some("/b"), None)).ends_with("completed successfully."));
        assert!(told(place(Some("/a"), None)).ends_with("from log dir /a to /b."));
        assert!(told(place(None, None)).contains("offline log directory"));
    }
}
