//! Records on stdout: in parts as Kafka's console consumer, in JSON and YAML, or decoded.

use std::io::{self, BufWriter, StdoutLock, Write};

use fleuve_client::consumer::{Record, TimestampType};
use fleuve_types::TopicPartition;

use crate::decode::Decoder;
use crate::failure::Failure;
use crate::output::yaml;

/// Bytes that are written to stdout at once.
const WRITE_BYTES: usize = 128 << 10;

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

/// What is known of a record beside what stands in it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct About {
    /// What its timestamp means.
    pub(crate) timestamp_type: TimestampType,
    /// How often it was delivered.
    pub(crate) delivery: Option<i16>,
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

    /// Writes a record.
    pub(crate) fn print(
        &mut self,
        partition: &TopicPartition,
        record: &Record<'_>,
        about: About,
    ) -> io::Result<()> {
        match &self.style {
            Style::Parts(parts) => write_parts(&mut self.out, parts, partition, record, about)?,
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
    about: About,
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
        let meaning = match about.timestamp_type {
            TimestampType::CreateTime => "CreateTime",
            TimestampType::LogAppendTime => "LogAppendTime",
        };
        write!(out, "{meaning}:{}", record.timestamp.0)?;
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
        match about.delivery {
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
    fn a_timestamp_is_called_what_it_is() {
        let record = Record {
            offset: Offset(7),
            timestamp: TimestampMs(1),
            key: None,
            value: Some(b"v"),
            headers: Headers::default(),
        };
        let parts = Parts { timestamp: true, ..Parts::default() };
        for (timestamp_type, shown) in [
            (TimestampType::CreateTime, "CreateTime:1\tv"),
            (TimestampType::LogAppendTime, "LogAppendTime:1\tv"),
        ] {
            let mut out = Vec::new();
            let about = About { timestamp_type, delivery: None };
            write_parts(&mut out, &parts, &TopicPartition::new("t", 2), &record, about)
                .expect("memory");
            assert_eq!(String::from_utf8(out).expect("text"), shown);
        }
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
}
