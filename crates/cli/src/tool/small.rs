//! The tools that need a page at most: offsets, deleting records, versions, dumping logs.

use std::collections::HashMap;
use std::path::PathBuf;

use clap::Parser;
use fleuve_client::config::IsolationLevel;
use fleuve_client::consumer::{EARLIEST, LATEST, MAX_TIMESTAMP};
use fleuve_protocol::ApiKey;
use fleuve_types::TopicPartition;
use serde_json::Value;

use super::Connect;
use crate::args::Format;
use crate::commands::log::{Dump, run_dump, verify_indexes};
use crate::decode::Decoder;
use crate::failure::{Failure, own_words};
use crate::output::{line, note};
use crate::patterns::PartitionPattern;

/// Show the offsets of partitions.
#[derive(Debug, Parser)]
pub(super) struct GetOffsets {
    #[command(flatten)]
    connect: Connect,
    /// A regular expression for topics; all topics if not given.
    #[arg(long)]
    topic: Option<String>,
    /// Partitions, separated by commas.
    #[arg(long)]
    partitions: Option<String>,
    /// Patterns for partitions, separated by commas: t1:1, t2:0-3, t3, t4:5-, :-3.
    #[arg(long, conflicts_with_all = ["topic", "partitions"])]
    topic_partitions: Option<String>,
    /// earliest or -2, latest or -1, max-timestamp or -3, or a timestamp in ms.
    #[arg(long, default_value = "latest", allow_hyphen_values = true)]
    time: String,
    /// Leave the system's topics out.
    #[arg(long)]
    exclude_internal_topics: bool,
}

pub(super) async fn get_offsets(options: GetOffsets) -> Result<(), Failure> {
    let time = match options.time.as_str() {
        "latest" => LATEST,
        "earliest" => EARLIEST,
        "max-timestamp" => MAX_TIMESTAMP,
        // What Kafka's tiered storage tells apart: everything is local here.
        "earliest-local" => -4,
        "latest-tiered" => -5,
        "earliest-pending-upload" => -6,
        text => text.parse().map_err(|_| {
            Failure::new(format!("--time {text}: expected earliest, latest, max-timestamp or ms"))
        })?,
    };
    let patterns: Vec<PartitionPattern> = match (&options.topic_partitions, &options.topic) {
        (Some(patterns), _) => {
            patterns.split(',').map(PartitionPattern::new).collect::<Result<_, _>>()?
        }
        (None, Some(topic)) => vec![PartitionPattern::of_topic(topic)?],
        (None, None) => vec![PartitionPattern::new("")?],
    };
    let only: Option<Vec<i32>> = match &options.partitions {
        Some(indexes) => {
            let indexes = indexes.split(',').map(|index| index.trim().parse().ok());
            Some(indexes.collect::<Option<_>>().ok_or_else(|| {
                Failure::new("--partitions: expected numbers separated by commas, as 0,1,2")
            })?)
        }
        None => None,
    };
    let admin = options.connect.context()?.admin().await?;
    let topics = admin.list_topics().await?;
    let mut partitions: Vec<TopicPartition> = Vec::new();
    for topic in &topics {
        if options.exclude_internal_topics && topic.is_internal {
            continue;
        }
        let all = (0..topic.partitions.len() as i32).map(|i| TopicPartition::new(&*topic.name, i));
        partitions.extend(all.filter(|partition| {
            patterns.iter().any(|pattern| pattern.fits(partition))
                && only.as_ref().is_none_or(|only| only.contains(&partition.partition))
        }));
    }
    if partitions.is_empty() {
        return Err(Failure::new(
            "Could not match any topic-partitions with the specified filters",
        ));
    }
    partitions.sort_unstable();
    let asked: HashMap<_, _> =
        partitions.iter().map(|partition| (partition.clone(), time)).collect();
    let mut found = admin.list_offsets(&asked, IsolationLevel::ReadUncommitted).await?;
    for partition in partitions {
        if let Some(result) = found.remove(&partition) {
            // One partition without a leader hides nothing of the others.
            match result {
                // Where there is no such record, Kafka's tool says nothing.
                Ok(found) if found.offset < 0 => {}
                Ok(found) => {
                    line(format!("{}:{}:{}", partition.topic, partition.partition, found.offset))?;
                }
                Err(error) => note(format!(
                    "Skip getting offsets for topic-partition {partition} due to error: {}",
                    own_words(&error)
                )),
            }
        }
    }
    Ok(())
}

/// Delete the oldest records of partitions.
#[derive(Debug, Parser)]
pub(super) struct DeleteRecords {
    #[command(flatten)]
    connect: Connect,
    /// {"partitions": [{"topic": "t", "partition": 0, "offset": 1}], "version": 1}
    #[arg(long)]
    offset_json_file: PathBuf,
}

pub(super) async fn delete_records(options: DeleteRecords) -> Result<(), Failure> {
    let path = options.offset_json_file.display();
    let bad = |reason: String| Failure::new(format!("{path}: {reason}"));
    let text = std::fs::read(&options.offset_json_file).map_err(|error| bad(error.to_string()))?;
    let before = offsets(&text).map_err(bad)?;
    let admin = options.connect.context()?.admin().await?;
    line("Executing records delete operation")?;
    let mut results: Vec<_> = admin.delete_records(&before).await?.into_iter().collect();
    results.sort_unstable_by(|left, right| left.0.cmp(&right.0));
    line("Records delete operation completed:")?;
    for (partition, result) in results {
        match result {
            Ok(start) => line(format!("partition: {partition}\tlow_watermark: {start}"))?,
            Err(error) => line(format!("partition: {partition}\terror: {error}"))?,
        }
    }
    Ok(())
}

/// Reads where partitions are to begin. What is deleted does not come back, so nothing that could
/// mean two things is guessed.
fn offsets(text: &[u8]) -> Result<HashMap<TopicPartition, i64>, String> {
    let value: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if let Some(version) = value.get("version").filter(|version| version.as_i64() != Some(1)) {
        return Err(format!("Not supported version field value {version}"));
    }
    let mut before = HashMap::new();
    for entry in value["partitions"].as_array().into_iter().flatten() {
        let topic = entry["topic"].as_str();
        let partition = entry["partition"].as_i64().and_then(|index| i32::try_from(index).ok());
        let (Some(topic), Some(partition), Some(offset)) =
            (topic, partition, entry["offset"].as_i64())
        else {
            return Err(format!("{entry} lacks topic, partition or offset"));
        };
        let partition = TopicPartition::new(topic, partition);
        if before.insert(partition.clone(), offset).is_some() {
            return Err(format!(
                "Offset json file contains duplicate topic partitions: {partition}"
            ));
        }
    }
    if before.is_empty() {
        return Err("it names no partitions".to_owned());
    }
    Ok(before)
}

/// Show which requests brokers take.
#[derive(Debug, Parser)]
pub(super) struct ApiVersions {
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn api_versions(options: ApiVersions) -> Result<(), Failure> {
    let admin = options.connect.context()?.admin().await?;
    for broker in admin.broker_versions().await? {
        let apis: Vec<_> = broker
            .apis
            .iter()
            .map(|&(key, min, max)| match ApiKey::try_from(key) {
                Ok(known) => format!("\t{}({key}): {min} to {max} [usable: {max}]", known.name()),
                Err(_) => format!("\tUNKNOWN({key}): {min} to {max} [unusable: node api unknown]"),
            })
            .collect();
        line(format!(
            "{} (id: {} rack: null isFenced: false) -> (\n{}\n)",
            broker.address,
            broker.id,
            apis.join(",\n")
        ))?;
    }
    Ok(())
}

/// Show what stands in log files.
#[derive(Debug, Parser)]
pub(super) struct DumpLog {
    /// The files, separated by commas.
    #[arg(long, value_delimiter = ',', required = true)]
    files: Vec<PathBuf>,
    /// Show keys and values.
    #[arg(long)]
    print_data_log: bool,
    /// Show records.
    #[arg(long)]
    deep_iteration: bool,
    /// Look whether indexes fit their logs, without printing them.
    #[arg(long)]
    index_sanity_check: bool,
    /// Look whether indexes fit their logs, without printing them.
    #[arg(long)]
    verify_index_only: bool,
    /// Read records of __consumer_offsets.
    #[arg(long)]
    offsets_decoder: bool,
    /// Read records of __transaction_state.
    #[arg(long)]
    transaction_log_decoder: bool,
    /// Read records of __share_group_state.
    #[arg(long)]
    share_group_state_decoder: bool,
    /// Read records of __cluster_metadata.
    #[arg(long)]
    cluster_metadata_decoder: bool,
    /// Show only keys and values of records, and no control records.
    #[arg(long)]
    skip_record_metadata: bool,
    /// Stop after so many bytes of batches.
    #[arg(long)]
    max_bytes: Option<u64>,
    /// Accepted: memory follows what a batch holds.
    #[arg(long)]
    max_message_size: Option<u64>,
    /// Show keys and values; as text, whatever class it is.
    #[arg(long, num_args = 0..=1, default_missing_value = "")]
    key_decoder_class: Option<String>,
    /// Show keys and values; as text, whatever class it is.
    #[arg(long, num_args = 0..=1, default_missing_value = "")]
    value_decoder_class: Option<String>,
}

pub(super) fn dump_log(options: DumpLog) -> Result<(), Failure> {
    let decoders = [
        (options.offsets_decoder, Decoder::Coordinator),
        (options.transaction_log_decoder, Decoder::Transactions),
        (options.share_group_state_decoder, Decoder::Shares),
        (options.cluster_metadata_decoder, Decoder::Metadata),
    ];
    // Files that are no indexes are dumped all the same.
    let (checked, dumped): (Vec<_>, Vec<_>) = options.files.into_iter().partition(|path| {
        let is_index = path.extension().is_some_and(|it| it == "index" || it == "timeindex");
        (options.index_sanity_check || options.verify_index_only) && (is_index || path.is_dir())
    });
    let has_class = options.key_decoder_class.is_some() || options.value_decoder_class.is_some();
    let dump = Dump {
        paths: dumped,
        records: options.deep_iteration,
        data: options.print_data_log || has_class,
        raw: true,
        decoder: decoders.into_iter().find_map(|(asked, decoder)| asked.then_some(decoder)),
        skip_metadata: options.skip_record_metadata,
        bytes_max: options.max_bytes,
    };
    let verified = match checked.is_empty() {
        true => Ok(()),
        false => verify_indexes(&checked, Format::Table),
    };
    run_dump(&dump, Format::Table).and(verified)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_deleted_only_before_offsets_that_are_beyond_doubt() {
        let entry = r#"{"topic": "t", "partition": 0, "offset": 1}"#;
        let found = offsets(format!(r#"{{"partitions": [{entry}]}}"#).as_bytes());
        assert_eq!(found, Ok(HashMap::from([(TopicPartition::new("t", 0), 1)])));
        for (text, why) in [
            (format!(r#"{{"partitions": [{entry}, {entry}], "version": 1}}"#), "duplicate"),
            (format!(r#"{{"partitions": [{entry}], "version": 2}}"#), "version"),
            (format!(r#"{{"partitions": [{entry}], "version": "1"}}"#), "version"),
            (r#"{"partitions": [{"topic": "t", "partition": 0}]}"#.to_owned(), "lacks"),
            ("{}".to_owned(), "no partitions"),
        ] {
            let refused = offsets(text.as_bytes()).expect_err(&text);
            assert!(refused.contains(why), "{refused}");
        }
    }
}
