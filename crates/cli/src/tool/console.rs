//! `kafka-console-producer.sh` and `kafka-console-consumer.sh`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Parser};
use fleuve_client::config::OffsetReset;

use super::Connect;
use super::files::properties;
use super::storage::new_id;
use crate::commands::consume::{Consume, run_in as consume_in};
use crate::commands::produce::{LineHeaders, Produce, run_in as produce_in, unescape};
use crate::commands::topic::parse_assignments;
use crate::decode::Decoder;
use crate::failure::Failure;
use crate::output::{line, note};
use crate::printing::{Form, Parts, Style};
use crate::quantities::now_ms;

/// Read lines from stdin and send them.
#[derive(Debug, Parser)]
pub(super) struct ConsoleProducer {
    #[command(flatten)]
    connect: Connect,
    /// The topic.
    #[arg(long)]
    topic: String,
    /// How lines are read: parse.key, parse.headers, key.separator, headers.delimiter,
    /// headers.separator, headers.key.separator, null.marker, ignore.error.
    #[arg(long = "reader-property", visible_alias = "property")]
    reader_property: Vec<String>,
    /// A file of such properties.
    #[arg(long)]
    reader_config: Option<PathBuf>,
    /// Accepted: lines are read one record each.
    #[arg(long)]
    line_reader: Option<String>,
    /// Producer properties.
    #[arg(long = "command-property", visible_alias = "producer-property")]
    producer_property: Vec<String>,
    /// none, gzip, snappy, lz4 or zstd; gzip if no value is given.
    #[arg(long, num_args = 0..=1, default_missing_value = "gzip")]
    compression_codec: Option<String>,
    /// How many replicas must have a record.
    #[arg(long, allow_hyphen_values = true)]
    request_required_acks: Option<String>,
    /// How long the broker may take to acknowledge, in ms.
    #[arg(long)]
    request_timeout_ms: Option<u64>,
    /// How often a record is sent again.
    #[arg(long)]
    message_send_max_retries: Option<u64>,
    /// The pause before sending again, in ms.
    #[arg(long)]
    retry_backoff_ms: Option<u64>,
    /// How long a batch waits for more, in ms.
    #[arg(long)]
    timeout: Option<u64>,
    /// Accepted: batches are sent as they fill.
    #[arg(long)]
    sync: bool,
    /// The size of batches in bytes.
    #[arg(long, visible_alias = "max-partition-memory-bytes")]
    batch_size: Option<usize>,
    /// Memory for records that wait to be sent.
    #[arg(long)]
    max_memory_bytes: Option<u64>,
    /// How long a send may wait for memory and metadata, in ms.
    #[arg(long)]
    max_block_ms: Option<u64>,
    /// How old metadata may become, in ms.
    #[arg(long)]
    metadata_expiry_ms: Option<u64>,
    /// Accepted: the system sizes socket buffers.
    #[arg(long)]
    socket_buffer_size: Option<u64>,
}

pub(super) async fn produce(options: ConsoleProducer) -> Result<(), Failure> {
    let mut context = options.connect.context()?;
    let numbers = [
        ("linger.ms", options.timeout),
        ("batch.size", options.batch_size.map(|size| size as u64)),
        ("request.timeout.ms", options.request_timeout_ms),
        ("retries", options.message_send_max_retries),
        ("retry.backoff.ms", options.retry_backoff_ms),
        ("buffer.memory", options.max_memory_bytes),
        ("max.block.ms", options.max_block_ms),
        ("metadata.max.age.ms", options.metadata_expiry_ms),
    ];
    for (key, number) in numbers {
        if let Some(number) = number {
            context.set(key, &number.to_string())?;
        }
    }
    for (key, value) in parse_assignments(&options.producer_property)? {
        context.set(&key, &value)?;
    }
    let reader = with_file(options.reader_config, &options.reader_property)?;
    let is_set = |name: &str| reader.get(name).is_some_and(|value| is_true(value));
    let text =
        |name: &str, default: &str| unescape(reader.get(name).map_or(default, String::as_str));
    let line_headers = LineHeaders {
        delimiter: text("headers.delimiter", "\t"),
        separator: text("headers.separator", ","),
        name_separator: text("headers.key.separator", ":"),
    };
    let null = reader.get("null.marker").map(String::as_str);
    line_headers.check(null)?;
    let key_separator = text("key.separator", "\t");
    if null == Some(&key_separator) {
        return Err(Failure::new("null.marker and key.separator may not be equal"));
    }
    let produce = Produce {
        topic: options.topic,
        key_separator: is_set("parse.key").then_some(key_separator),
        line_headers: is_set("parse.headers").then_some(line_headers),
        ignore_errors: is_set("ignore.error"),
        null_value: reader.get("null.marker").cloned(),
        null_everywhere: true,
        compression: options.compression_codec,
        acks: options.request_required_acks,
        quiet: true,
        ..Produce::default()
    };
    produce_in(produce, context).await
}

/// Whether a property is switched on, however that is written.
fn is_true(value: &str) -> bool {
    value.trim().eq_ignore_ascii_case("true")
}

/// Reads a file of properties and puts those of the command line over them.
fn with_file(file: Option<PathBuf>, given: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let mut all = BTreeMap::new();
    if let Some(path) = file {
        all.extend(properties(&path)?);
    }
    for text in given {
        // A separator may itself be or hold blanks, so nothing is trimmed here.
        let (key, value) = text.split_once('=').ok_or_else(|| {
            Failure::new(format!("{text}: expected KEY=VALUE, as parse.key=true"))
        })?;
        all.insert(key.trim().to_owned(), value.to_owned());
    }
    Ok(all)
}

/// Print the records of topics.
#[derive(Debug, Parser)]
pub(super) struct ConsoleConsumer {
    #[command(flatten)]
    connect: Connect,
    /// The topic.
    #[arg(long, conflicts_with = "include", required_unless_present = "include")]
    topic: Option<String>,
    /// A regular expression for topics.
    #[arg(long, visible_alias = "whitelist")]
    include: Option<String>,
    /// Begin with the oldest record.
    #[arg(long, conflicts_with = "offset")]
    from_beginning: bool,
    /// The partition.
    #[arg(long, conflicts_with = "include")]
    partition: Option<i32>,
    /// An offset, earliest or latest.
    #[arg(long, requires = "partition")]
    offset: Option<String>,
    /// The consumer group.
    #[arg(long, conflicts_with = "partition")]
    group: Option<String>,
    /// Stop after so many records.
    #[arg(long)]
    max_messages: Option<u64>,
    /// Stop when nothing came for so long.
    #[arg(long)]
    timeout_ms: Option<u64>,
    /// read_committed or read_uncommitted.
    #[arg(long)]
    isolation_level: Option<String>,
    #[command(flatten)]
    format: FormatOptions,
    /// Consumer properties.
    #[arg(long = "command-property", visible_alias = "consumer-property")]
    consumer_property: Vec<String>,
    /// Accepted: unreadable records are reported.
    #[arg(long)]
    skip_message_on_error: bool,
    /// Say when the consumer has ended.
    #[arg(long)]
    enable_systest_events: bool,
}

/// How the console consumers print records.
#[derive(Debug, Args)]
pub(super) struct FormatOptions {
    /// What is printed: print.key, print.value, print.timestamp, print.partition, print.offset,
    /// print.delivery, print.epoch, print.headers, key.separator, line.separator, headers.separator, null.literal,
    /// key.deserializer, value.deserializer, headers.deserializer.
    #[arg(long = "formatter-property", visible_alias = "property")]
    formatter_property: Vec<String>,
    /// A file of such properties.
    #[arg(long)]
    formatter_config: Option<PathBuf>,
    /// DefaultMessageFormatter, LoggingMessageFormatter, NoOpMessageFormatter,
    /// OffsetsMessageFormatter, GroupMetadataMessageFormatter, TransactionLogMessageFormatter,
    /// ShareGroupMessageFormatter or ShareGroupStateMessageFormatter.
    #[arg(long)]
    formatter: Option<String>,
    /// String, Long, Integer, ... Deserializer for keys.
    #[arg(long)]
    key_deserializer: Option<String>,
    /// The same for values.
    #[arg(long)]
    value_deserializer: Option<String>,
}

pub(super) async fn consume(options: ConsoleConsumer) -> Result<(), Failure> {
    let mut context = options.connect.context()?;
    let of_file = context.get("group.id").map(str::to_owned);
    let mut properties = parse_assignments(&options.consumer_property)?;
    let group = one_group([options.group.clone(), of_file, properties.remove("group.id")])?;
    for (key, value) in &properties {
        context.set(key, value)?;
    }
    if let Some(level) = &options.isolation_level {
        context.set("isolation.level", level)?;
    }
    let beginning = Beginning::of(&options, context.get("auto.offset.reset"), group.is_some())?;
    let style = options.format.style()?;
    // A pattern takes a group; one that nobody has named is not used again and commits nothing.
    let group = match group {
        None if options.include.is_some() => {
            context.set_default("enable.auto.commit", "false")?;
            Some(format!("console-consumer-{}", new_id()))
        }
        group => group,
    };
    let consume = Consume {
        topic: options.topic.unwrap_or_default(),
        pattern: options.include,
        from: beginning.from,
        reset: beginning.reset,
        max_messages: options.max_messages,
        group,
        follow: true,
        partition: options.partition.into_iter().collect(),
        timeout_ms: options.timeout_ms,
        ..Consume::default()
    };
    let (records, _, _) = consume_in(consume, context, style).await?;
    note(format!("Processed a total of {records} messages"));
    if options.enable_systest_events { line("shutdown_complete") } else { Ok(()) }
}

/// The group that is named on the command line, in the file, or as a property: one at most.
fn one_group(named: [Option<String>; 3]) -> Result<Option<String>, Failure> {
    let mut named = named.into_iter().flatten();
    let group = named.next();
    match named.find(|other| Some(other) != group.as_ref()) {
        Some(other) => Err(Failure::new(format!(
            "the group is {} here and {other} there: leave out one of --group, group.id on the \
             command line and group.id in the file",
            group.unwrap_or_default()
        ))),
        None => Ok(group),
    }
}

/// Where reading begins.
#[derive(Debug, PartialEq, Eq)]
struct Beginning {
    /// As `fleuve consume --from` takes it.
    from: String,
    /// What a group does that has committed nothing.
    reset: Option<OffsetReset>,
}

impl Beginning {
    fn of(
        options: &ConsoleConsumer,
        reset: Option<&str>,
        has_group: bool,
    ) -> Result<Self, Failure> {
        if let Some(reset) = reset.filter(|reset| options.from_beginning && *reset != "earliest") {
            return Err(Failure::new(format!(
                "--from-beginning contradicts auto.offset.reset={reset}: leave one of them out"
            )));
        }
        let reset: Option<OffsetReset> = reset.map(str::parse).transpose()?;
        let end = if options.from_beginning { "beginning" } else { "end" };
        // Of a partition the reader knows itself where it begins.
        let from = match (&options.offset, options.partition, reset) {
            (Some(offset), ..) => offset.to_lowercase(),
            (None, Some(_), _) | (None, _, None) => end.to_owned(),
            (None, None, Some(OffsetReset::Earliest)) => "beginning".to_owned(),
            (None, None, Some(OffsetReset::ByDuration(age))) => {
                let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
                format!("@{}", now_ms().saturating_sub(age_ms).max(0))
            }
            (None, None, Some(OffsetReset::None)) if !has_group => {
                return Err(Failure::new(
                    "auto.offset.reset=none: only a group can have an offset, so pass --group",
                ));
            }
            (None, None, Some(OffsetReset::Latest | OffsetReset::None)) => "end".to_owned(),
        };
        Ok(Self { from, reset })
    }
}

impl FormatOptions {
    pub(super) fn style(&self) -> Result<Style, Failure> {
        let mut properties = with_file(self.formatter_config.clone(), &self.formatter_property)?;
        for (name, class) in [
            ("key.deserializer", &self.key_deserializer),
            ("value.deserializer", &self.value_deserializer),
        ] {
            if let Some(class) = class {
                properties.insert(name.to_owned(), class.clone());
            }
        }
        let class = self.formatter.as_deref().unwrap_or("DefaultMessageFormatter");
        match class.rsplit(['.', '$']).next().unwrap_or_default() {
            "DefaultMessageFormatter" => Ok(Style::Parts(parts(&properties)?)),
            "LoggingMessageFormatter" => Ok(Style::Parts(Parts {
                timestamp: true,
                key: true,
                separator: ", ".to_owned(),
                ..parts(&properties)?
            })),
            "NoOpMessageFormatter" => Ok(Style::Silent),
            "OffsetsMessageFormatter" => Ok(Style::Decoded(Decoder::Offsets)),
            "GroupMetadataMessageFormatter" => Ok(Style::Decoded(Decoder::Groups)),
            "TransactionLogMessageFormatter" => Ok(Style::Decoded(Decoder::Transactions)),
            "ShareGroupMessageFormatter" => Ok(Style::Decoded(Decoder::ShareGroups)),
            "ShareGroupStateMessageFormatter" => Ok(Style::Decoded(Decoder::Shares)),
            _ => Err(Failure::new(format!(
                "--formatter {class}: use DefaultMessageFormatter, LoggingMessageFormatter, \
             NoOpMessageFormatter, OffsetsMessageFormatter, GroupMetadataMessageFormatter, \
             TransactionLogMessageFormatter, ShareGroupMessageFormatter or \
             ShareGroupStateMessageFormatter"
            ))),
        }
    }
}

fn parts(properties: &BTreeMap<String, String>) -> Result<Parts, Failure> {
    let asked = |name: &str, default| properties.get(name).map_or(default, |value| is_true(value));
    let text =
        |name: &str, default: &str| unescape(properties.get(name).map_or(default, String::as_str));
    let form =
        |name: &str| properties.get(name).map_or(Ok(Form::Text), |class| Form::of_class(class));
    Ok(Parts {
        timestamp: asked("print.timestamp", false),
        partition: asked("print.partition", false),
        offset: asked("print.offset", false),
        delivery: asked("print.delivery", false),
        epoch: asked("print.epoch", false),
        headers: asked("print.headers", false),
        key: asked("print.key", false),
        value: asked("print.value", true),
        separator: text("key.separator", "\t"),
        header_separator: text("headers.separator", ","),
        line_end: text("line.separator", "\n"),
        null: text("null.literal", "null"),
        key_form: form("key.deserializer")?,
        value_form: form("value.deserializer")?,
        header_form: form("headers.deserializer")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consumer(arguments: &str) -> Result<ConsoleConsumer, String> {
        let arguments = std::iter::once("t").chain(arguments.split(' '));
        ConsoleConsumer::try_parse_from(arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn switches_are_read_as_people_write_them() {
        assert!(is_true("true") && is_true("True") && is_true(" TRUE "));
        assert!(!is_true("yes") && !is_true(""));
    }

    #[test]
    fn a_group_is_named_once_or_alike() {
        let named = |names: [Option<&str>; 3]| one_group(names.map(|name| name.map(str::to_owned)));
        assert_eq!(named([None, None, None]).expect("none"), None);
        assert_eq!(named([None, Some("g"), None]).expect("one").as_deref(), Some("g"));
        assert_eq!(named([Some("g"), None, Some("g")]).expect("one").as_deref(), Some("g"));
        assert!(named([Some("g"), Some("h"), None]).is_err());
        for arguments in [
            "--topic t --group g --partition 0",
            "--include t --partition 0",
            "--topic t --partition 0 --offset 1 --from-beginning",
        ] {
            assert!(consumer(arguments).is_err(), "{arguments}");
        }
    }

    #[test]
    fn a_beginning_is_what_options_and_properties_agree_on() {
        let from = |arguments: &str, reset: Option<&str>, has_group| {
            let options = consumer(arguments).expect("valid");
            Beginning::of(&options, reset, has_group).map_err(|error| error.to_string())
        };
        for (arguments, reset, expected) in [
            ("--topic t", None, "end"),
            ("--topic t", Some("latest"), "end"),
            ("--topic t", Some("earliest"), "beginning"),
            ("--topic t --from-beginning", None, "beginning"),
            ("--topic t --from-beginning", Some("earliest"), "beginning"),
            ("--topic t --partition 0", Some("earliest"), "end"),
            ("--topic t --partition 0 --offset Earliest", None, "earliest"),
        ] {
            assert_eq!(from(arguments, reset, false).expect(arguments).from, expected);
        }
        let hour = from("--topic t", Some("by_duration:PT1H"), false).expect("a duration").from;
        let at: i64 = hour.strip_prefix('@').and_then(|ms| ms.parse().ok()).expect("a time");
        assert!((3_590_000..3_610_000).contains(&(now_ms() - at)), "{hour}");
        let none = from("--topic t", Some("none"), true).expect("a group knows");
        assert_eq!(none.reset, Some(OffsetReset::None));
        assert!(from("--topic t", Some("none"), false).is_err());
        assert!(from("--topic t", Some("soonest"), false).is_err());
        assert!(from("--topic t --from-beginning", Some("latest"), false).is_err());
    }
}
