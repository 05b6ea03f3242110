//! `fleuve transaction`: who has transactions open, and ending those that nobody ends.

use std::collections::{BTreeMap, BTreeSet};

use clap::{Args, Subcommand};
use fleuve_client::Admin;
use fleuve_client::admin::{
    AbortedProducer, ActiveProducer, TransactionDescription, TransactionFilter,
};
use fleuve_protocol::ErrorCode;
use fleuve_types::TopicPartition;
use serde_json::json;

use crate::args::Common;
use crate::context::Context;
use crate::failure::Failure;
use crate::outcome::Outcomes;
use crate::output::print;
use crate::quantities::{format_time, now_ms};
use crate::reset::expand;

/// List, describe and end transactions.
#[derive(Debug, Subcommand)]
pub(crate) enum Transaction {
    /// List transactional ids.
    #[command(after_help = "Examples:\n  \
        fleuve transaction list\n  \
        fleuve transaction list --state Ongoing --longer-than-ms 60000")]
    List {
        /// Only in this state; may be repeated.
        #[arg(long)]
        state: Vec<String>,
        /// Only of this producer id; may be repeated.
        #[arg(long)]
        producer_id: Vec<i64>,
        /// Only transactions that have been open for longer.
        #[arg(long, value_name = "MS")]
        longer_than_ms: Option<i64>,
        /// Only ids that match this regular expression as a whole.
        #[arg(long)]
        pattern: Option<String>,
    },
    /// Show what transactional ids are doing.
    #[command(after_help = "Example:\n  fleuve transaction describe shop-1")]
    Describe {
        /// The transactional ids.
        #[arg(required = true)]
        transactional_ids: Vec<String>,
    },
    /// Show the producers that partitions know.
    #[command(after_help = "Example:\n  fleuve transaction describe-producers orders:0,1")]
    DescribeProducers {
        /// Topics, or partitions of them as TOPIC:0,1.
        #[arg(required = true)]
        partitions: Vec<String>,
    },
    /// Look for open transactions that no coordinator will ever end.
    #[command(after_help = "Example:\n  fleuve transaction find-hanging orders")]
    FindHanging {
        /// Topics, or partitions of them as TOPIC:0,1; all topics if there is none.
        partitions: Vec<String>,
        /// What `transaction.max.timeout.ms` is, in minutes: younger transactions may still end.
        #[arg(long, value_name = "MINUTES", default_value_t = MAX_TIMEOUT_MINUTES)]
        max_transaction_timeout: i64,
    },
    /// Abort a producer's open transaction in one partition, by its marker alone.
    #[command(after_help = "Example:\n  fleuve transaction abort orders 0 --start-offset 4711")]
    Abort {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        #[command(flatten)]
        which: Which,
        /// Only show it.
        #[arg(long)]
        dry_run: bool,
    },
    /// Abort the open transaction of a transactional id, and shut out its producer.
    #[command(after_help = "Example:\n  fleuve transaction force-terminate shop-1")]
    ForceTerminate {
        /// The transactional id.
        transactional_id: String,
        /// Only show it.
        #[arg(long)]
        dry_run: bool,
    },
}

/// The transaction to abort: by where it began, or by who has it open.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Which {
    /// Where the transaction began.
    #[arg(long)]
    pub(crate) start_offset: Option<i64>,
    /// Who has it open.
    #[arg(long, conflicts_with = "start_offset", requires_all = ["producer_epoch", "coordinator_epoch"])]
    pub(crate) producer_id: Option<i64>,
    /// The producer's epoch.
    #[arg(long, requires = "producer_id")]
    pub(crate) producer_epoch: Option<i16>,
    /// The coordinator's epoch.
    #[arg(long, requires = "producer_id", allow_hyphen_values = true)]
    pub(crate) coordinator_epoch: Option<i32>,
}

/// A transaction that is open in a partition.
#[derive(Clone, Debug)]
pub(crate) struct Open {
    pub(crate) partition: TopicPartition,
    pub(crate) producer: ActiveProducer,
    pub(crate) start: i64,
}

/// Kafka's default of `transaction.max.timeout.ms`.
pub(crate) const MAX_TIMEOUT_MINUTES: i64 = 15;
const MINUTE_MS: i64 = 60_000;

pub(crate) async fn run(command: Transaction, common: &Common) -> Result<(), Failure> {
    let admin = Context::new(common)?.admin().await?;
    let format = common.output;
    match command {
        Transaction::List { state, producer_id, longer_than_ms, pattern } => {
            let filter = TransactionFilter {
                states: state,
                producer_ids: producer_id,
                running_longer_than_ms: longer_than_ms,
                pattern,
            };
            let listings = admin.list_transactions(&filter).await?;
            let value = listings.iter().map(|listing| {
                json!({
                    "transactional_id": listing.transactional_id, "state": listing.state,
                    "producer_id": listing.producer_id, "coordinator": listing.coordinator,
                })
            });
            let rows = listings.iter().map(|listing| {
                vec![
                    listing.transactional_id.clone(),
                    listing.state.clone(),
                    listing.producer_id.to_string(),
                    listing.coordinator.to_string(),
                ]
            });
            let headers = ["transactional id", "state", "producer", "coordinator"];
            print(format, &value.collect(), &headers, rows)
        }
        Transaction::Describe { transactional_ids } => {
            let mut described = Vec::new();
            for id in &transactional_ids {
                described.push(admin.describe_transaction(id).await?);
            }
            let value = described.iter().map(|transaction| {
                json!({
                    "transactional_id": transaction.transactional_id,
                    "state": transaction.state,
                    "producer_id": transaction.producer_id,
                    "producer_epoch": transaction.producer_epoch,
                    "timeout_ms": transaction.timeout_ms,
                    "start_time_ms": transaction.start_time_ms,
                    "coordinator": transaction.coordinator,
                    "partitions": names(&transaction.partitions),
                })
            });
            let rows = described.iter().map(|transaction| {
                vec![
                    transaction.transactional_id.clone(),
                    transaction.state.clone(),
                    format!("{}/{}", transaction.producer_id, transaction.producer_epoch),
                    format!("{} ms", transaction.timeout_ms),
                    transaction.start_time_ms.map_or_else(|| "-".to_owned(), format_time),
                    names(&transaction.partitions).join(" "),
                ]
            });
            let headers =
                ["transactional id", "state", "producer/epoch", "timeout", "begun", "partitions"];
            print(format, &value.collect(), &headers, rows)
        }
        Transaction::DescribeProducers { partitions } => {
            let partitions = expand(&admin, &partitions).await?;
            let mut found = Vec::new();
            for (partition, producers) in admin.describe_producers(&partitions).await? {
                found.extend(producers?.into_iter().map(|producer| (partition.clone(), producer)));
            }
            print_producers(format, &found)
        }
        Transaction::FindHanging { partitions, max_transaction_timeout } => {
            let partitions = match partitions.is_empty() {
                true => all_partitions(&admin).await?,
                false => expand(&admin, &partitions).await?,
            };
            let max_age_ms = max_transaction_timeout.saturating_mul(MINUTE_MS);
            let hanging = find_hanging(&admin, &partitions, max_age_ms).await?;
            let found: Vec<_> =
                hanging.into_iter().map(|open| (open.partition, open.producer)).collect();
            print_producers(format, &found)
        }
        Transaction::Abort { topic, partition, which, dry_run } => {
            let partition = TopicPartition::new(topic, partition);
            let aborted = find_aborted(&admin, &partition, which).await?;
            let what = format!(
                "the transaction of producer {} epoch {} in {partition}",
                aborted.producer_id, aborted.producer_epoch
            );
            if !dry_run {
                admin.abort_transaction(&aborted).await?;
            }
            let verb = if dry_run { "would abort" } else { "aborted" };
            let subject = json!({
                "topic": &*partition.topic, "partition": partition.partition,
                "producer_id": aborted.producer_id, "producer_epoch": aborted.producer_epoch,
            });
            let mut outcomes = Outcomes::new(format, dry_run);
            outcomes.done("abort", subject, format!("{verb} {what}"))?;
            outcomes.end()
        }
        Transaction::ForceTerminate { transactional_id, dry_run } => {
            let known = admin.describe_transaction(&transactional_id).await?;
            let sentence = if dry_run {
                format!("would shut out the producer of {transactional_id}, {}", known.state)
            } else {
                admin.fence_producer(&transactional_id).await?;
                format!("shut out the producer of {transactional_id}")
            };
            let subject = json!({ "transactional_id": transactional_id, "state": known.state });
            let mut outcomes = Outcomes::new(format, dry_run);
            outcomes.done("force-terminate", subject, sentence)?;
            outcomes.end()
        }
    }
}

fn print_producers(
    format: crate::args::Format,
    found: &[(TopicPartition, ActiveProducer)],
) -> Result<(), Failure> {
    let value = found.iter().map(|(partition, producer)| {
        json!({
            "topic": &*partition.topic, "partition": partition.partition,
            "producer_id": producer.producer_id, "producer_epoch": producer.producer_epoch,
            "coordinator_epoch": producer.coordinator_epoch,
            "last_sequence": producer.last_sequence,
            "last_timestamp_ms": producer.last_timestamp_ms,
            "transaction_start_offset": producer.transaction_start,
        })
    });
    let rows = found.iter().map(|(partition, producer)| {
        vec![
            partition.to_string(),
            format!("{}/{}", producer.producer_id, producer.producer_epoch),
            producer.coordinator_epoch.to_string(),
            producer.last_sequence.to_string(),
            format_time(producer.last_timestamp_ms),
            producer.transaction_start.map_or_else(|| "-".to_owned(), |offset| offset.to_string()),
        ]
    });
    let headers = [
        "partition",
        "producer/epoch",
        "coordinator epoch",
        "sequence",
        "last written",
        "transaction from",
    ];
    print(format, &value.collect(), &headers, rows)
}

fn names(partitions: &[TopicPartition]) -> Vec<String> {
    partitions.iter().map(TopicPartition::to_string).collect()
}

/// Every partition of the cluster.
pub(crate) async fn all_partitions(admin: &Admin) -> Result<Vec<TopicPartition>, Failure> {
    let topics = admin.list_topics().await?;
    Ok(topics
        .iter()
        .flat_map(|topic| {
            (0..topic.partitions.len() as i32).map(|index| TopicPartition::new(&*topic.name, index))
        })
        .collect())
}

/// Finds the transactions that are open in partitions and have not been written to for longer than
/// any coordinator would let them, and that no coordinator knows of.
pub(crate) async fn find_hanging(
    admin: &Admin,
    partitions: &[TopicPartition],
    max_age_ms: i64,
) -> Result<Vec<Open>, Failure> {
    let oldest_ms = now_ms().saturating_sub(max_age_ms);
    let mut open = Vec::new();
    for (partition, producers) in admin.describe_producers(partitions).await? {
        open.extend(producers?.into_iter().filter_map(|producer| {
            let start = producer.transaction_start?;
            let is_old = producer.last_timestamp_ms <= oldest_ms;
            is_old.then(|| Open { partition: partition.clone(), producer, start })
        }));
    }
    if open.is_empty() {
        return Ok(open);
    }
    let producer_ids: BTreeSet<i64> = open.iter().map(|open| open.producer.producer_id).collect();
    let filter = TransactionFilter {
        producer_ids: producer_ids.into_iter().collect(),
        ..TransactionFilter::default()
    };
    let mut known: BTreeMap<i64, TransactionDescription> = BTreeMap::new();
    for listing in admin.list_transactions(&filter).await? {
        match admin.describe_transaction(&listing.transactional_id).await {
            Ok(description) => {
                known.insert(listing.producer_id, description);
            }
            // It has expired meanwhile.
            Err(error) if error.code() == Some(ErrorCode::TransactionalIdNotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    open.retain(|open| {
        known
            .get(&open.producer.producer_id)
            .is_none_or(|description| !description.partitions.contains(&open.partition))
    });
    Ok(open)
}

/// Finds out what to write into the marker that aborts a transaction.
pub(crate) async fn find_aborted(
    admin: &Admin,
    partition: &TopicPartition,
    which: Which,
) -> Result<AbortedProducer, Failure> {
    if let Which {
        producer_id: Some(producer_id),
        producer_epoch: Some(producer_epoch),
        coordinator_epoch: Some(coordinator_epoch),
        ..
    } = which
    {
        let partition = partition.clone();
        return Ok(AbortedProducer { partition, producer_id, producer_epoch, coordinator_epoch });
    }
    let start = which.start_offset.ok_or_else(|| {
        Failure::new(
            "say which: --start-offset, or --producer-id, --producer-epoch and --coordinator-epoch",
        )
    })?;
    let mut answers = admin.describe_producers(std::slice::from_ref(partition)).await?;
    let producers = match answers.remove(partition) {
        Some(producers) => producers?,
        None => Vec::new(),
    };
    let found = producers.into_iter().find(|producer| producer.transaction_start == Some(start));
    let producer = found.ok_or_else(|| {
        Failure::new(format!("no transaction that is open in {partition} begins at {start}"))
    })?;
    Ok(AbortedProducer {
        partition: partition.clone(),
        producer_id: producer.producer_id,
        producer_epoch: i16::try_from(producer.producer_epoch).unwrap_or(i16::MAX),
        // Nobody has ended a transaction of the producer here before, so any coordinator may.
        coordinator_epoch: producer.coordinator_epoch.max(0),
    })
}
