//! `fleuve consume`: prints records.
//!
//! Records go from the fetched bytes to a buffered stdout without being copied in between; memory
//! stays flat however many there are. Without `--follow` it ends at what was the end of the topic
//! when it began.

use std::collections::HashMap;
use std::io::{self, BufWriter, StdoutLock, Write};
use std::time::{Duration, Instant};

use clap::Args;
use fleuve_client::config::{ConsumerConfig, OffsetReset};
use fleuve_client::consumer::{Record, Records, Start};
use fleuve_client::{Admin, Client, Consumer};
use fleuve_types::TopicPartition;
use tokio::signal::unix::{SignalKind, signal};

use super::produce::unescape;
use super::topic::log_ends;
use crate::args::{Common, Format};
use crate::context::Context;
use crate::decode::Decoder;
use crate::failure::Failure;
use crate::output::{note, yaml};
use crate::quantities::{parse_time, summary};

/// Read records.
#[derive(Debug, Default, Args)]
#[command(after_help = "Examples:\n  \
    fleuve consume greetings                              everything that is there\n  \
    fleuve consume greetings --follow --from end          what comes from now on\n  \
    fleuve consume events --from 2026-11-21T10:00:00Z --max-messages 10 -o json\n  \
    fleuve consume events --group readers --follow        as a member of a group")]
pub(crate) struct Consume {
    /// The topic.
    pub(crate) topic: String,
    /// Where to begin: beginning, end, an offset, or a time (2026-11-21T10:00:00Z, @MILLISECONDS).
    /// For a group: where to begin when it has committed nothing.
    #[arg(long, default_value = "beginning")]
    pub(crate) from: String,
    /// Stop after so many records.
    #[arg(long, short = 'n', value_name = "COUNT")]
    pub(crate) max_messages: Option<u64>,
    /// Read as a member of this group, and commit.
    #[arg(long, short)]
    pub(crate) group: Option<String>,
    /// Wait for more at the end.
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only this partition; may be repeated.
    #[arg(long, short)]
    pub(crate) partition: Vec<i32>,
    /// Print the key before the value, with this between them (\t for a tab).
    #[arg(long, short, value_name = "TEXT")]
    pub(crate) key_separator: Option<String>,
    /// Give up when nothing came for so long.
    #[arg(long, value_name = "MS")]
    pub(crate) timeout_ms: Option<u64>,
    /// See only records of committed transactions.
    #[arg(long)]
    pub(crate) committed: bool,
    /// Any Kafka consumer property; may be repeated.
    #[arg(long = "property", short = 'X', value_name = "KEY=VALUE")]
    pub(crate) properties: Vec<String>,
    /// Say nothing when done.
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Further topics, which only the drop-in scripts can ask for.
    #[arg(skip)]
    pub(crate) more_topics: Vec<String>,
}

impl Consume {
    fn topics(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.topic).chain(&self.more_topics).map(String::as_str)
    }
}

/// How long one wait for records lasts, before looking whether to stop.
const POLL: Duration = Duration::from_millis(200);
/// Bytes that are written to stdout at once.
const WRITE_BYTES: usize = 128 << 10;

pub(crate) async fn run(consume: Consume, common: &Common) -> Result<(), Failure> {
    let style = match (common.output, consume.key_separator.as_deref()) {
        (Format::Json, _) => Style::Json,
        (Format::Yaml, _) => Style::Yaml,
        (Format::Table, Some(separator)) => {
            Style::Parts(Parts { key: true, separator: unescape(separator), ..Parts::default() })
        }
        (Format::Table, None) => Style::Parts(Parts::default()),
    };
    let quiet = consume.quiet;
    let (records, bytes, took) = run_in(consume, Context::new(common)?, style).await?;
    if !quiet {
        note(summary("consumed", records, bytes, took));
    }
    Ok(())
}

/// Prints records and returns how many, how many bytes, and the time it took.
pub(crate) async fn run_in(
    consume: Consume,
    mut context: Context,
    style: Style,
) -> Result<(u64, u64, Duration), Failure> {
    // Large answers cost fewer rounds; memory stays at a few of them.
    context.set_default("max.partition.fetch.bytes", "4194304")?;
    context.set_default("fetch.max.bytes", "16777216")?;
    if consume.committed {
        context.set("isolation.level", "read_committed")?;
    }
    for (key, value) in super::topic::parse_assignments(&consume.properties)? {
        context.set(&key, &value)?;
    }
    let start = parse_start(&consume.from)?;
    let client = context.client().await?;
    let mut partitions = Vec::new();
    for name in consume.topics() {
        let topic = client.topic(name, false).await?;
        partitions.extend(choose_partitions(&consume, name, topic.partitions.len())?);
    }
    // Taken before reading: whoever does not follow ends here.
    let mut ends = HashMap::new();
    if !consume.follow {
        for (partition, (_, end)) in log_ends(&Admin::new(client.clone()), &partitions).await? {
            ends.insert(partition, end);
        }
    }
    let mut config = context.consumer_config()?;
    config.allow_auto_create_topics = false;
    let consumer = begin(&consume, client, config, start, &partitions)?;
    let printer = Printer::new(style);
    let began = Instant::now();
    let mut reading = Reading { printer, records: 0, bytes: 0, left_over: None };
    let outcome = reading.read(&consume, &consumer, &ends).await;
    if let Some((partition, offset)) = reading.left_over.take() {
        // What was fetched and not printed must not count as read by the group.
        consumer.seek(&partition, Start::Offset(offset))?;
    }
    let closed = consumer.close().await;
    outcome?;
    closed?;
    Ok((reading.records, reading.bytes, began.elapsed()))
}

struct Reading {
    printer: Printer,
    records: u64,
    bytes: u64,
    /// The first record that was fetched and not printed.
    left_over: Option<(TopicPartition, i64)>,
}

impl Reading {
    async fn read(
        &mut self,
        consume: &Consume,
        consumer: &Consumer,
        ends: &HashMap<TopicPartition, i64>,
    ) -> Result<(), Failure> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let limit = consume.max_messages.unwrap_or(u64::MAX);
        let mut last_record = Instant::now();
        while self.records < limit {
            if !consume.follow && self.is_at_end(consumer, ends) {
                break;
            }
            let polled = tokio::select! {
                polled = consumer.poll(POLL) => polled?,
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
            };
            match polled {
                Some(records) => {
                    self.print(&records, limit, ends.get(records.partition()).copied())?;
                    last_record = Instant::now();
                }
                None => {
                    self.printer.flush()?;
                    let waited = last_record.elapsed().as_millis() as u64;
                    if consume.timeout_ms.is_some_and(|timeout| waited >= timeout) {
                        break;
                    }
                }
            }
            if consume.follow {
                self.printer.flush()?;
            }
        }
        Ok(self.printer.flush()?)
    }

    fn print(&mut self, records: &Records, limit: u64, end: Option<i64>) -> Result<(), Failure> {
        let partition = records.partition();
        for record in records {
            if self.records >= limit || end.is_some_and(|end| record.offset.0 >= end) {
                self.left_over = Some((partition.clone(), record.offset.0));
                break;
            }
            self.printer.print(partition, &record, None)?;
            self.records += 1;
            self.bytes +=
                (record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len)) as u64;
        }
        Ok(())
    }

    /// Reports whether everything that was there at the beginning has been read. Of a group, this
    /// member answers for its own partitions.
    fn is_at_end(&self, consumer: &Consumer, ends: &HashMap<TopicPartition, i64>) -> bool {
        let assigned = consumer.assignment();
        !assigned.is_empty()
            && assigned.iter().all(|partition| {
                let end = ends.get(partition).copied().unwrap_or(0);
                consumer.position(partition).is_some_and(|position| position >= end)
            })
    }
}

/// What a record looks like on stdout.
pub(crate) enum Style {
    /// Parts of it in text.
    Parts(Parts),
    /// All of it in JSON, a line each.
    Json,
    /// All of it in YAML, an item of one list each.
    Yaml,
    /// What a record of the system's topics says, in JSON.
    Decoded(Decoder),
    /// Nothing.
    Silent,
}

/// The parts of a record that are printed, in the order of Kafka's console consumer.
pub(crate) struct Parts {
    pub(crate) timestamp: bool,
    pub(crate) partition: bool,
    pub(crate) offset: bool,
    /// How often it was delivered, which only share groups count.
    pub(crate) delivery: bool,
    pub(crate) epoch: bool,
    pub(crate) headers: bool,
    pub(crate) key: bool,
    pub(crate) value: bool,
    pub(crate) separator: String,
    pub(crate) header_separator: String,
    pub(crate) line_end: String,
    /// What stands for a missing key or value.
    pub(crate) null: String,
    pub(crate) key_form: Form,
    pub(crate) value_form: Form,
    pub(crate) header_form: Form,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            timestamp: false,
            partition: false,
            offset: false,
            delivery: false,
            epoch: false,
            headers: false,
            key: false,
            value: true,
            separator: "\t".to_owned(),
            header_separator: ",".to_owned(),
            line_end: "\n".to_owned(),
            null: "null".to_owned(),
            key_form: Form::Text,
            value_form: Form::Text,
            header_form: Form::Text,
        }
    }
}

/// How bytes are shown: as text, or as what Kafka's deserializer of that name makes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Text,
    Integer(usize),
    Float,
    Double,
    Boolean,
}

impl Form {
    /// Finds the form by the name of a Java class.
    pub(crate) fn of_class(name: &str) -> Result<Self, Failure> {
        let short = name.rsplit('.').next().unwrap_or_default();
        Ok(match short.strip_suffix("Deserializer").unwrap_or(short) {
            "String" | "ByteArray" | "Bytes" | "ByteBuffer" => Self::Text,
            "Short" => Self::Integer(2),
            "Integer" => Self::Integer(4),
            "Long" => Self::Integer(8),
            "Float" => Self::Float,
            "Double" => Self::Double,
            "Boolean" => Self::Boolean,
            _ => {
                return Err(Failure::new(format!(
                    "deserializer {name}: use String, ByteArray, Short, Integer, Long, Float, \
                     Double or Boolean"
                )));
            }
        })
    }

    fn write(self, out: &mut impl Write, bytes: Option<&[u8]>, null: &str) -> io::Result<()> {
        let Some(bytes) = bytes else { return out.write_all(null.as_bytes()) };
        let number = || {
            let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
            let start = if negative { -1 } else { 0 };
            bytes.iter().fold(start, |number: i64, byte| number << 8 | i64::from(*byte))
        };
        match self {
            Self::Integer(size) if bytes.len() == size => write!(out, "{}", number()),
            Self::Float if bytes.len() == 4 => write!(out, "{}", f32::from_bits(number() as u32)),
            Self::Double if bytes.len() == 8 => write!(out, "{}", f64::from_bits(number() as u64)),
            Self::Boolean if bytes.len() == 1 => write!(out, "{}", bytes[0] != 0),
            // Other sizes are not of this form; the bytes tell more than an error.
            _ => out.write_all(bytes),
        }
    }
}

/// Writes records to stdout.
pub(crate) struct Printer {
    out: BufWriter<StdoutLock<'static>>,
    style: Style,
}

impl Printer {
    pub(crate) fn new(style: Style) -> Self {
        Self { out: BufWriter::with_capacity(WRITE_BYTES, io::stdout().lock()), style }
    }

    /// Writes a record, and how often it was delivered if that is known.
    pub(crate) fn print(
        &mut self,
        partition: &TopicPartition,
        record: &Record<'_>,
        delivery: Option<i16>,
    ) -> io::Result<()> {
        match &self.style {
            Style::Parts(parts) => write_parts(&mut self.out, parts, partition, record, delivery)?,
            Style::Json => write_json(&mut self.out, partition, record)?,
            Style::Yaml => {
                let item = [record_value(partition, record)].into_iter().collect();
                return self.out.write_all(yaml(&item).as_bytes());
            }
            Style::Decoded(decoder) => {
                let Some(value) = decoder.decode(record.key, record.value) else { return Ok(()) };
                serde_json::to_writer(&mut self.out, &value)?;
            }
            Style::Silent => return Ok(()),
        }
        match &self.style {
            Style::Parts(parts) => self.out.write_all(parts.line_end.as_bytes()),
            _ => self.out.write_all(b"\n"),
        }
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn write_parts(
    out: &mut impl Write,
    parts: &Parts,
    partition: &TopicPartition,
    record: &Record<'_>,
    delivery: Option<i16>,
) -> io::Result<()> {
    let separator = parts.separator.as_bytes();
    let wanted = [
        parts.timestamp,
        parts.partition,
        parts.offset,
        parts.delivery,
        parts.epoch,
        parts.headers,
        parts.key,
        parts.value,
    ];
    let mut rest = wanted.into_iter().filter(|wanted| *wanted).count();
    let mut end_part = |out: &mut dyn Write| {
        rest -= 1;
        if rest > 0 { out.write_all(separator) } else { Ok(()) }
    };
    if parts.timestamp {
        write!(out, "CreateTime:{}", record.timestamp.0)?;
        end_part(out)?;
    }
    if parts.partition {
        write!(out, "Partition:{}", partition.partition)?;
        end_part(out)?;
    }
    if parts.offset {
        write!(out, "Offset:{}", record.offset.0)?;
        end_part(out)?;
    }
    if parts.delivery {
        match delivery {
            Some(count) => write!(out, "Delivery:{count}")?,
            None => out.write_all(b"Delivery:NOT_PRESENT")?,
        }
        end_part(out)?;
    }
    if parts.epoch {
        // Kafka's console consumer loses it on the way, too.
        out.write_all(b"Epoch:NOT_PRESENT")?;
        end_part(out)?;
    }
    if parts.headers {
        if record.headers.len() == 0 {
            out.write_all(b"NO_HEADERS")?;
        }
        for (index, header) in record.headers.enumerate() {
            if index > 0 {
                out.write_all(parts.header_separator.as_bytes())?;
            }
            write!(out, "{}:", header.key_text())?;
            parts.header_form.write(out, header.value, &parts.null)?;
        }
        end_part(out)?;
    }
    if parts.key {
        parts.key_form.write(out, record.key, &parts.null)?;
        end_part(out)?;
    }
    if parts.value {
        parts.value_form.write(out, record.value, &parts.null)?;
    }
    Ok(())
}

/// A record as the value that JSON and YAML show.
fn record_value(partition: &TopicPartition, record: &Record<'_>) -> serde_json::Value {
    let headers: Vec<_> = record
        .headers
        .map(|header| {
            serde_json::json!({ "key": header.key_text(), "value": text_value(header.value) })
        })
        .collect();
    serde_json::json!({
        "topic": *partition.topic, "partition": partition.partition, "offset": record.offset.0,
        "timestamp": record.timestamp.0, "key": text_value(record.key),
        "value": text_value(record.value), "headers": headers,
    })
}

/// Text as a string, and other bytes as `{"hex": "..."}`.
fn text_value(bytes: Option<&[u8]>) -> serde_json::Value {
    let Some(bytes) = bytes else { return serde_json::Value::Null };
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            serde_json::json!({ "hex": hex })
        }
    }
}

/// What stands for a missing key or value, as in Kafka's console consumer.
const NULL: &[u8] = b"null";

fn write_json(
    out: &mut impl Write,
    partition: &TopicPartition,
    record: &Record<'_>,
) -> io::Result<()> {
    out.write_all(b"{\"topic\":")?;
    serde_json::to_writer(&mut *out, &*partition.topic)?;
    write!(
        out,
        ",\"partition\":{},\"offset\":{},\"timestamp\":{},\"key\":",
        partition.partition, record.offset.0, record.timestamp.0
    )?;
    write_text(out, record.key)?;
    out.write_all(b",\"value\":")?;
    write_text(out, record.value)?;
    out.write_all(b",\"headers\":[")?;
    for (index, header) in record.headers.enumerate() {
        out.write_all(if index == 0 { b"{\"key\":" } else { b",{\"key\":" })?;
        serde_json::to_writer(&mut *out, &header.key_text())?;
        out.write_all(b",\"value\":")?;
        write_text(out, header.value)?;
        out.write_all(b"}")?;
    }
    out.write_all(b"]}")
}

/// Writes text as a string, and other bytes as `{"hex": "..."}`, so that nothing is lost.
fn write_text(out: &mut impl Write, bytes: Option<&[u8]>) -> io::Result<()> {
    let Some(bytes) = bytes else { return out.write_all(NULL) };
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(serde_json::to_writer(out, text)?),
        Err(_) => {
            out.write_all(b"{\"hex\":\"")?;
            for byte in bytes {
                write!(out, "{byte:02x}")?;
            }
            out.write_all(b"\"}")
        }
    }
}

fn begin(
    consume: &Consume,
    client: Client,
    mut config: ConsumerConfig,
    start: Start,
    partitions: &[TopicPartition],
) -> Result<Consumer, Failure> {
    let Some(group) = &consume.group else {
        config.group_id = None;
        let consumer = Consumer::new(client, config)?;
        let assignment: Vec<_> = partitions.iter().map(|p| (p.clone(), start)).collect();
        consumer.assign(&assignment)?;
        return Ok(consumer);
    };
    if !consume.partition.is_empty() {
        return Err(Failure::new("--partition and --group exclude each other: a group divides"));
    }
    config.group_id = Some(group.clone());
    config.offset_reset = match start {
        Start::Beginning => OffsetReset::Earliest,
        Start::End => OffsetReset::Latest,
        _ => {
            return Err(Failure::new(
                "--from OFFSET or TIME with --group: use `fleuve group reset-offsets` first",
            ));
        }
    };
    let consumer = Consumer::new(client, config)?;
    consumer.subscribe(&consume.topics().collect::<Vec<_>>())?;
    Ok(consumer)
}

fn choose_partitions(
    consume: &Consume,
    topic: &str,
    count: usize,
) -> Result<Vec<TopicPartition>, Failure> {
    if let Some(missing) =
        consume.partition.iter().find(|&&index| usize::try_from(index).is_ok_and(|i| i >= count))
    {
        return Err(Failure::new(format!(
            "topic {topic} has {count} partitions, there is no partition {missing}"
        )));
    }
    let all = (0..count as i32)
        .filter(|index| consume.partition.is_empty() || consume.partition.contains(index));
    Ok(all.map(|index| TopicPartition::new(topic, index)).collect())
}

/// Reads `--from`.
pub(crate) fn parse_start(text: &str) -> Result<Start, Failure> {
    match text {
        "beginning" | "earliest" => return Ok(Start::Beginning),
        "end" | "latest" => return Ok(Start::End),
        _ => {}
    }
    if let Ok(offset) = text.parse::<u64>() {
        return Ok(Start::Offset(offset.min(i64::MAX as u64) as i64));
    }
    parse_time(text).map(Start::Timestamp).ok_or_else(|| {
        Failure::new(format!(
            "--from {text}: expected beginning, end, an offset such as 42, or a time such as \
             2026-11-21T10:00:00Z or @1795250000000"
        ))
    })
}

#[cfg(test)]
mod tests {
    use fleuve_protocol::records::Headers;
    use fleuve_types::{Offset, TimestampMs};

    use super::*;

    #[test]
    fn json_keeps_text_as_text_and_other_bytes_as_hex() {
        let record = Record {
            offset: Offset(7),
            timestamp: TimestampMs(1),
            key: Some(b"\xff\x00"),
            value: Some("dit \"ça\"".as_bytes()),
            headers: Headers::default(),
        };
        let mut out = Vec::new();
        write_json(&mut out, &TopicPartition::new("t", 2), &record).expect("memory");
        let value: serde_json::Value = serde_json::from_slice(&out).expect("valid JSON");
        let expected = serde_json::json!({
            "topic": "t", "partition": 2, "offset": 7, "timestamp": 1,
            "key": {"hex": "ff00"}, "value": "dit \"ça\"", "headers": [],
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn yaml_items_make_one_list_of_what_json_tells() {
        let record = Record {
            offset: Offset(7),
            timestamp: TimestampMs(1),
            key: None,
            value: Some(b"a: b"),
            headers: Headers::default(),
        };
        let value = record_value(&TopicPartition::new("t", 2), &record);
        let mut out = Vec::new();
        write_json(&mut out, &TopicPartition::new("t", 2), &record).expect("memory");
        assert_eq!(value, serde_json::from_slice::<serde_json::Value>(&out).expect("JSON"));
        let item = yaml(&[value].into_iter().collect());
        assert!(item.starts_with("- topic: t\n  partition: 2\n  offset: 7\n"), "{item}");
        assert!(item.contains("\n  key: null\n  value: \"a: b\"\n  headers: []\n"), "{item}");
    }

    #[test]
    fn forms_are_those_of_kafkas_deserializers() {
        let shown = |class: &str, bytes: &[u8]| {
            let mut out = Vec::new();
            let form = Form::of_class(class).expect("known");
            form.write(&mut out, Some(bytes), "null").expect("memory");
            String::from_utf8(out).expect("text")
        };
        let class = "org.apache.kafka.common.serialization.LongDeserializer";
        assert_eq!(shown(class, &(-5i64).to_be_bytes()), "-5");
        assert_eq!(shown("IntegerDeserializer", &77i32.to_be_bytes()), "77");
        assert_eq!(shown("DoubleDeserializer", &1.5f64.to_be_bytes()), "1.5");
        assert_eq!(shown("LongDeserializer", b"odd"), "odd");
        assert!(Form::of_class("com.example.Mine").is_err());
    }

    #[test]
    fn a_start_is_a_word_an_offset_or_a_time() {
        assert_eq!(parse_start("beginning").expect("word"), Start::Beginning);
        assert_eq!(parse_start("42").expect("offset"), Start::Offset(42));
        assert_eq!(parse_start("@42").expect("time"), Start::Timestamp(42));
        assert_eq!(parse_start("1970-01-02").expect("time"), Start::Timestamp(86_400_000));
        assert!(parse_start("soon").expect_err("nonsense").to_string().contains("--from soon"));
    }
}
