//! `kafka-transactions.sh`.

use clap::{Parser, Subcommand};
use fleuve_client::admin::TransactionFilter;
use fleuve_types::TopicPartition;

use super::Connect;
use crate::commands::transaction::{
    MAX_TIMEOUT_MINUTES, Which, all_partitions, find_aborted, find_hanging,
};
use crate::failure::Failure;
use crate::output::line;
use crate::quantities::now_ms;

/// Describe and end transactions.
#[derive(Debug, Parser)]
pub(super) struct Transactions {
    #[command(flatten)]
    connect: Connect,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List transactions.
    List {
        /// Only those that have been open for longer, in milliseconds.
        #[arg(long)]
        duration_filter: Option<i64>,
        /// Only ids that match this regular expression.
        #[arg(long)]
        transactional_id_pattern: Option<String>,
    },
    /// Describe a transactional id.
    Describe {
        /// The transactional id.
        #[arg(long)]
        transactional_id: String,
    },
    /// Describe the producers of a partition.
    DescribeProducers {
        /// Accepted; the leader knows best.
        #[arg(long)]
        broker_id: Option<i32>,
        /// The topic.
        #[arg(long)]
        topic: String,
        /// The partition.
        #[arg(long)]
        partition: i32,
    },
    /// Find transactions that nobody will end.
    FindHanging {
        /// Accepted; partitions are asked where they are led.
        #[arg(long)]
        broker_id: Option<i32>,
        /// How long transactions may be open, in minutes.
        #[arg(long, default_value_t = MAX_TIMEOUT_MINUTES)]
        max_transaction_timeout: i64,
        /// The topic.
        #[arg(long, required_unless_present = "broker_id")]
        topic: Option<String>,
        /// The partition.
        #[arg(long, requires = "topic")]
        partition: Option<i32>,
    },
    /// Abort a transaction in a partition.
    Abort {
        /// The topic.
        #[arg(long)]
        topic: String,
        /// The partition.
        #[arg(long)]
        partition: i32,
        #[command(flatten)]
        which: Which,
    },
    /// Abort whatever a transactional id has open.
    #[command(name = "forceTerminateTransaction", visible_alias = "force-terminate")]
    ForceTerminate {
        /// The transactional id.
        #[arg(long = "transactionalId", visible_alias = "transactional-id")]
        transactional_id: String,
    },
}

pub(super) async fn run(transactions: Transactions) -> Result<(), Failure> {
    let admin = transactions.connect.context()?.admin().await?;
    match transactions.action {
        Action::List { duration_filter, transactional_id_pattern } => {
            let filter = TransactionFilter {
                running_longer_than_ms: duration_filter,
                pattern: transactional_id_pattern,
                ..TransactionFilter::default()
            };
            let rows = admin.list_transactions(&filter).await?.into_iter().map(|listing| {
                vec![
                    listing.transactional_id,
                    listing.coordinator.to_string(),
                    listing.producer_id.to_string(),
                    listing.state,
                ]
            });
            let headers = ["TransactionalId", "Coordinator", "ProducerId", "TransactionState"];
            table(&headers, rows.collect())
        }
        Action::Describe { transactional_id } => {
            let found = admin.describe_transaction(&transactional_id).await?;
            let start_ms = found.start_time_ms;
            let partitions: Vec<String> =
                found.partitions.iter().map(TopicPartition::to_string).collect();
            let number =
                |ms: Option<i64>| ms.map_or_else(|| "None".to_owned(), |ms| ms.to_string());
            let row = vec![
                found.coordinator.to_string(),
                found.transactional_id,
                found.producer_id.to_string(),
                found.producer_epoch.to_string(),
                found.state,
                found.timeout_ms.to_string(),
                number(start_ms),
                number(start_ms.map(|ms| now_ms().saturating_sub(ms))),
                partitions.join(","),
            ];
            let headers = [
                "CoordinatorId",
                "TransactionalId",
                "ProducerId",
                "ProducerEpoch",
                "TransactionState",
                "TransactionTimeoutMs",
                "CurrentTransactionStartTimeMs",
                "TransactionDurationMs",
                "TopicPartitions",
            ];
            table(&headers, vec![row])
        }
        Action::DescribeProducers { broker_id: _, topic, partition } => {
            let partition = TopicPartition::new(topic, partition);
            let mut rows = Vec::new();
            for (_, producers) in admin.describe_producers(&[partition]).await? {
                rows.extend(producers?.into_iter().map(|producer| {
                    let start = producer.transaction_start;
                    vec![
                        producer.producer_id.to_string(),
                        producer.producer_epoch.to_string(),
                        producer.coordinator_epoch.to_string(),
                        producer.last_sequence.to_string(),
                        producer.last_timestamp_ms.to_string(),
                        start.map_or_else(|| "None".to_owned(), |offset| offset.to_string()),
                    ]
                }));
            }
            let headers = [
                "ProducerId",
                "ProducerEpoch",
                "LatestCoordinatorEpoch",
                "LastSequence",
                "LastTimestamp",
                "CurrentTransactionStartOffset",
            ];
            table(&headers, rows)
        }
        Action::FindHanging { broker_id: _, max_transaction_timeout, topic, partition } => {
            let mut partitions = all_partitions(&admin).await?;
            partitions.retain(|found| {
                topic.as_ref().is_none_or(|topic| **topic == *found.topic)
                    && partition.is_none_or(|index| index == found.partition)
            });
            // An empty table would say that all is well with a topic that is only misspelt.
            if let Some(topic) = topic.filter(|_| partitions.is_empty()) {
                return Err(Failure::new(match partition {
                    Some(index) => format!("there is no partition {topic}-{index}"),
                    None => format!("there is no topic {topic}"),
                }));
            }
            let max_age_ms = max_transaction_timeout.saturating_mul(60_000);
            let rows =
                find_hanging(&admin, &partitions, max_age_ms).await?.into_iter().map(|open| {
                    let producer = &open.producer;
                    let minutes = now_ms().saturating_sub(producer.last_timestamp_ms) / 60_000;
                    vec![
                        open.partition.topic.to_string(),
                        open.partition.partition.to_string(),
                        producer.producer_id.to_string(),
                        producer.producer_epoch.to_string(),
                        producer.coordinator_epoch.to_string(),
                        open.start.to_string(),
                        producer.last_timestamp_ms.to_string(),
                        minutes.to_string(),
                    ]
                });
            let headers = [
                "Topic",
                "Partition",
                "ProducerId",
                "ProducerEpoch",
                "CoordinatorEpoch",
                "StartOffset",
                "LastTimestamp",
                "Duration(min)",
            ];
            table(&headers, rows.collect())
        }
        Action::Abort { topic, partition, which } => {
            let partition = TopicPartition::new(topic, partition);
            let aborted = find_aborted(&admin, &partition, which).await?;
            Ok(admin.abort_transaction(&aborted).await?)
        }
        Action::ForceTerminate { transactional_id } => {
            Ok(admin.fence_producer(&transactional_id).await?)
        }
    }
}

/// Prints columns padded to their widest cell, each with a tab behind it.
fn table(headers: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(String::len);
        cells.chain([headers[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headers.len()).map(width).collect();
    let print = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}\t"));
        line(padded.collect::<String>())
    };
    print(&mut headers.iter().copied())?;
    for row in &rows {
        print(&mut row.iter().map(String::as_str))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_are_ended_by_apaches_name_and_by_ours() {
        for arguments in [
            "forceTerminateTransaction --transactionalId shop",
            "force-terminate --transactional-id shop",
        ] {
            let arguments = "t --bootstrap-server a:1".split(' ').chain(arguments.split(' '));
            let action = Transactions::try_parse_from(arguments).expect("valid").action;
            assert!(
                matches!(action, Action::ForceTerminate { transactional_id } if transactional_id == "shop")
            );
        }
    }
}
