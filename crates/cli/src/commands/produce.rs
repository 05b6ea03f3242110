//! `fleuve produce`: writes one record per line.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use fleuve_client::producer::{Delivery, Header};
use fleuve_client::{Error, ErrorCode, Producer, Record};
use indicatif::{ProgressBar, ProgressStyle};

use crate::args::Common;
use crate::context::Context;
use crate::failure::{Failure, explain};
use crate::output::note;
use crate::quantities::summary;

/// Write records: one per line of stdin or of a file.
#[derive(Debug, Default, Args)]
#[command(after_help = "Examples:\n  \
    echo bonjour | fleuve produce greetings\n  \
    fleuve produce events --file events.jsonl --compression zstd\n  \
    printf 'fr\\tbonjour\\n' | fleuve produce greetings --key-separator '\\t' --header lang=fr")]
pub(crate) struct Produce {
    /// The topic.
    pub(crate) topic: String,
    /// Read lines from this file instead of stdin; may be repeated.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: Vec<PathBuf>,
    /// What stands between key and value on a line (\t for a tab); without it there are no keys.
    #[arg(long, short, value_name = "TEXT")]
    pub(crate) key_separator: Option<String>,
    /// A header for every record; may be repeated.
    #[arg(long, short = 'H', value_name = "KEY=VALUE")]
    pub(crate) header: Vec<String>,
    /// The partition; otherwise the key decides, or the producer.
    #[arg(long, short)]
    pub(crate) partition: Option<i32>,
    /// none, gzip, snappy, lz4 or zstd.
    #[arg(long, short = 'z')]
    pub(crate) compression: Option<String>,
    /// How many replicas must have a record: 0, 1 or all.
    #[arg(long)]
    pub(crate) acks: Option<String>,
    /// A value that reads like this becomes a tombstone.
    #[arg(long, value_name = "TEXT")]
    pub(crate) null_value: Option<String>,
    /// Any Kafka producer property; may be repeated.
    #[arg(long = "property", short = 'X', value_name = "KEY=VALUE")]
    pub(crate) properties: Vec<String>,
    /// Say nothing when done.
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// How headers stand on a line, which only the drop-in scripts can say.
    #[arg(skip)]
    pub(crate) line_headers: Option<LineHeaders>,
    /// Keys and header values that read like `null_value` are null, too.
    #[arg(skip)]
    pub(crate) null_everywhere: bool,
    /// A line that cannot be taken apart is a value, instead of an error.
    #[arg(skip)]
    pub(crate) ignore_errors: bool,
}

/// Names and values of the headers that stand on a line.
type OwnHeaders<'a> = Vec<(String, Option<&'a [u8]>)>;

/// Headers at the beginning of a line: `name:value,name:value`, then the delimiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LineHeaders {
    /// What stands behind the headers.
    pub(crate) delimiter: String,
    /// What stands between two headers.
    pub(crate) separator: String,
    /// What stands between name and value.
    pub(crate) name_separator: String,
}

impl LineHeaders {
    /// Takes the headers off a line. What reads like `null` is none: all headers, or the value of
    /// one; a name cannot be. What lacks a separator is taken for a header without a value, or for
    /// a line without headers, where errors are ignored.
    fn split<'a>(
        &self,
        line: &'a [u8],
        null: Option<&[u8]>,
        ignore_errors: bool,
    ) -> Option<(OwnHeaders<'a>, &'a [u8])> {
        let Some((mut texts, rest)) = split(line, &self.delimiter) else {
            return ignore_errors.then_some((Vec::new(), line));
        };
        let mut headers = Vec::new();
        if null == Some(texts) {
            return Some((headers, rest));
        }
        while !texts.is_empty() {
            let (header, others) = split(texts, &self.separator).unwrap_or((texts, b""));
            let (name, value) = match split(header, &self.name_separator) {
                Some((name, _)) if null == Some(name) => return None,
                Some((name, value)) => (name, Some(value).filter(|value| null != Some(*value))),
                None if ignore_errors => (header, None),
                None => return None,
            };
            headers.push((String::from_utf8_lossy(name).into_owned(), value));
            texts = others;
        }
        Some((headers, rest))
    }

    /// Looks whether headers can be told from each other, and from what stands for nothing.
    pub(crate) fn check(&self, null: Option<&str>) -> Result<(), Failure> {
        let named = [
            ("headers.delimiter", Some(self.delimiter.as_str())),
            ("headers.separator", Some(self.separator.as_str())),
            ("headers.key.separator", Some(self.name_separator.as_str())),
            ("null.marker", null),
        ];
        for (index, (name, text)) in named.into_iter().enumerate() {
            let Some(text) = text else { continue };
            if text.is_empty() && name != "null.marker" {
                return Err(Failure::new(format!("{name}: it cannot be empty")));
            }
            if let Some((other, _)) = named[..index].iter().find(|(_, other)| *other == Some(text))
            {
                return Err(Failure::new(format!("{other} and {name} may not be equal")));
            }
        }
        Ok(())
    }
}

/// Deliveries that are waited for at most; beyond them, the oldest is awaited first.
const DELIVERIES_AHEAD_MAX: usize = 10_000;

pub(crate) async fn run(produce: Produce, common: &Common) -> Result<(), Failure> {
    run_in(produce, Context::new(common)?).await
}

pub(crate) async fn run_in(produce: Produce, mut context: Context) -> Result<(), Failure> {
    // Lines from a pipe come in bursts: waiting a little makes far better batches.
    context.set_default("linger.ms", "5")?;
    context.set_default("batch.size", "131072")?;
    if let Some(compression) = &produce.compression {
        context.set("compression.type", compression)?;
    }
    if let Some(acks) = &produce.acks {
        context.set("acks", acks)?;
    }
    for (key, value) in super::topic::parse_assignments(&produce.properties)? {
        context.set(&key, &value)?;
    }
    let separator = produce.key_separator.as_deref().map(unescape);
    if separator.as_deref() == Some("") {
        return Err(Failure::new("--key-separator (key.separator): it cannot be empty"));
    }
    let headers = super::topic::parse_assignments(&produce.header)?;
    let headers: Vec<Header<'_>> =
        headers.iter().map(|(key, value)| Header::new(key, Some(value.as_bytes()))).collect();
    let producer = Producer::new(context.client().await?, context.producer_config()?)?;
    let mut work = Work::new(producer);

    let began = Instant::now();
    let read = send_lines(&produce, separator.as_deref(), &headers, &mut work).await;
    // Whatever ended the reading, the lines before it are good.
    let sent = work.finish().await.map_err(|error| {
        Failure::new(format!(
            "{} ({} records sent, {} batches of them and {} other records failed)",
            explain(&error),
            work.records,
            work.failed_batches,
            work.refused
        ))
    });
    if let (Err(_), Err(failed)) = (&read, &sent) {
        note(format!("error: {failed}"));
    }
    read.and(sent)?;
    if !produce.quiet {
        note(summary("produced", work.records, work.bytes, began.elapsed()));
    }
    Ok(())
}

/// Sends lines until they end, or one of them or what is under way says that it makes no sense.
async fn send_lines(
    produce: &Produce,
    separator: Option<&str>,
    headers: &[Header<'_>],
    work: &mut Work,
) -> Result<(), Failure> {
    let null = produce.null_value.as_deref().map(str::as_bytes);
    let null_everywhere = null.filter(|_| produce.null_everywhere);
    for mut input in open(&produce.file)? {
        let mut text = Vec::new();
        for number in 1_u64.. {
            text.clear();
            // Blocking is fine here: the client's tasks run on other threads.
            if input.reader.read_until(b'\n', &mut text)? == 0 {
                break;
            }
            input.progress.inc(text.len() as u64);
            let text = trim_line_end(&text);
            let wrong = |what: &str, option: &str| {
                Failure::new(format!(
                    "line {number} of {} has no {what}: check {option}",
                    input.name
                ))
            };
            let (line_headers, rest) = match &produce.line_headers {
                None => (Vec::new(), text),
                Some(format) => format
                    .split(text, null_everywhere, produce.ignore_errors)
                    .ok_or_else(|| wrong("headers", "headers.delimiter and its siblings"))?,
            };
            let (key, value) = match separator {
                None => (None, rest),
                Some(separator) => match split(rest, separator) {
                    Some((key, value)) => (Some(key), value),
                    None if produce.ignore_errors => (None, rest),
                    None => return Err(wrong("key separator", "--key-separator")),
                },
            };
            let own_headers: Vec<Header<'_>> =
                line_headers.iter().map(|(name, value)| Header::new(name, *value)).collect();
            let record = Record {
                partition: produce.partition,
                key: key.filter(|key| null_everywhere != Some(*key)),
                value: Some(value).filter(|value| null != Some(*value)),
                headers: if own_headers.is_empty() { headers } else { &own_headers },
                ..Record::new(&produce.topic)
            };
            if !work.send(record).await {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Whether an error is about one record, and says nothing of others.
fn is_of_one_record(error: &Error) -> bool {
    matches!(error, Error::RecordTooLarge { .. })
        || matches!(error.code(), Some(ErrorCode::MessageTooLarge | ErrorCode::InvalidRecord))
}

/// Sends records and watches their deliveries.
struct Work {
    producer: Producer,
    /// One delivery for each batch on its way.
    deliveries: VecDeque<Delivery>,
    records: u64,
    bytes: u64,
    failed_batches: u64,
    /// Records that were not taken at all.
    refused: u64,
    first_error: Option<Error>,
}

impl Work {
    fn new(producer: Producer) -> Self {
        Self {
            producer,
            deliveries: VecDeque::new(),
            records: 0,
            bytes: 0,
            failed_batches: 0,
            refused: 0,
            first_error: None,
        }
    }

    /// Sends a record and reports whether it makes sense to send more.
    async fn send(&mut self, record: Record<'_>) -> bool {
        let size = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        let delivery = match self.producer.send(record).await {
            Ok(delivery) => delivery,
            Err(error) => {
                self.refused += 1;
                return self.remember(error);
            }
        };
        self.records += 1;
        self.bytes += size as u64;
        if self.deliveries.back().is_none_or(|last| !last.shares_batch_with(&delivery)) {
            self.deliveries.push_back(delivery);
        }
        if self.deliveries.len() > DELIVERIES_AHEAD_MAX {
            return self.await_oldest().await;
        }
        true
    }

    async fn finish(&mut self) -> fleuve_client::Result<()> {
        let closed = self.producer.close().await;
        while !self.deliveries.is_empty() {
            self.await_oldest().await;
        }
        self.first_error.clone().map_or(closed, Err)
    }

    /// Waits for a batch and reports whether it makes sense to send more.
    async fn await_oldest(&mut self) -> bool {
        let Some(delivery) = self.deliveries.pop_front() else { return true };
        match delivery.await {
            Ok(_) => true,
            Err(error) => {
                self.failed_batches += 1;
                self.remember(error)
            }
        }
    }

    fn remember(&mut self, error: Error) -> bool {
        let goes_on = is_of_one_record(&error);
        self.first_error.get_or_insert(error);
        goes_on
    }
}

struct Input {
    name: String,
    reader: Box<dyn BufRead + Send>,
    progress: ProgressBar,
}

impl Drop for Input {
    /// However the reading ends, no bar is left on the terminal.
    fn drop(&mut self) {
        self.progress.finish_and_clear();
    }
}

const READ_BYTES: usize = 256 << 10;

fn open(files: &[PathBuf]) -> Result<Vec<Input>, Failure> {
    if files.is_empty() {
        let reader: Box<dyn BufRead + Send> =
            Box::new(BufReader::with_capacity(READ_BYTES, std::io::stdin()));
        return Ok(vec![Input {
            name: "stdin".to_owned(),
            reader,
            progress: ProgressBar::hidden(),
        }]);
    }
    files
        .iter()
        .map(|path| {
            let name = path.display().to_string();
            let file = File::open(path).map_err(|error| {
                Failure::new(format!("cannot read {name}: {error}: check --file"))
            })?;
            let size = file.metadata().map_or(0, |metadata| metadata.len());
            let reader = BufReader::with_capacity(READ_BYTES, file);
            Ok(Input { progress: progress(&name, size), name, reader: Box::new(reader) })
        })
        .collect()
}

/// A bar on a terminal, nothing elsewhere.
fn progress(name: &str, size: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() || size == 0 {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(size);
    let template = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} eta {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(name.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn trim_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Cuts a line at the first separator, which is not empty.
fn split<'a>(line: &'a [u8], separator: &str) -> Option<(&'a [u8], &'a [u8])> {
    let separator = separator.as_bytes();
    let at = line.windows(separator.len()).position(|window| window == separator)?;
    Some((&line[..at], &line[at + separator.len()..]))
}

/// Reads `\t` and `\n` as shells leave them.
pub(crate) fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n").replace("\\0", "\0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_stand_before_key_and_value() {
        let format = line_headers();
        let cut = |line| format.split(line, None, false);
        let (headers, rest) = cut(b"a:1,b:\tk\tv").expect("well formed");
        assert_eq!(headers, [("a".to_owned(), Some(&b"1"[..])), ("b".to_owned(), Some(&b""[..]))]);
        assert_eq!(rest, b"k\tv");
        assert_eq!(cut(b"\tv").expect("none"), (vec![], &b"v"[..]));
        assert_eq!(cut(b"a\tv"), None, "a header without a value");
        assert_eq!(cut(b"v"), None, "no delimiter");
    }

    #[test]
    fn headers_that_are_nothing_or_odd_are_taken_as_apaches_reader_takes_them() {
        let format = line_headers();
        let cut = |line| format.split(line, Some(b"NULL"), true);
        let odd = cut(b"h1,b:2\tv").expect("ignored");
        assert_eq!(odd.0, [("h1".to_owned(), None), ("b".to_owned(), Some(&b"2"[..]))]);
        assert_eq!(odd.1, b"v");
        assert_eq!(cut(b"v").expect("ignored"), (vec![], &b"v"[..]));
        assert_eq!(cut(b"NULL\tv").expect("no headers"), (vec![], &b"v"[..]));
        assert_eq!(cut(b"a:NULL\tv").expect("no value").0, [("a".to_owned(), None)]);
        assert_eq!(cut(b"NULL:a\tv"), None, "a name must be something");
    }

    #[test]
    fn separators_must_differ_and_be_there() {
        let check = |separator: &str, null: Option<&str>| {
            let format = LineHeaders { separator: separator.to_owned(), ..line_headers() };
            format.check(null).map_err(|error| error.to_string())
        };
        assert_eq!(check(",", Some("NULL")), Ok(()));
        assert_eq!(check("", None), Err("headers.separator: it cannot be empty".to_owned()));
        let equal = |names: &str| Err(format!("{names} may not be equal"));
        assert_eq!(check("\t", None), equal("headers.delimiter and headers.separator"));
        assert_eq!(check(":", None), equal("headers.separator and headers.key.separator"));
        assert_eq!(check(",", Some(":")), equal("headers.key.separator and null.marker"));
    }

    fn line_headers() -> LineHeaders {
        LineHeaders {
            delimiter: "\t".to_owned(),
            separator: ",".to_owned(),
            name_separator: ":".to_owned(),
        }
    }

    #[test]
    fn what_is_wrong_with_one_record_says_nothing_of_others() {
        let error = |code| Error::Broker { subject: "t-0".to_owned(), code, message: None };
        assert!(is_of_one_record(&error(ErrorCode::MessageTooLarge)));
        assert!(!is_of_one_record(&error(ErrorCode::TopicAuthorizationFailed)));
    }

    #[test]
    fn lines_are_cut_at_the_first_separator() {
        assert_eq!(split(b"k:v:w", ":"), Some((&b"k"[..], &b"v:w"[..])));
        assert_eq!(split(b"k=>v", "=>"), Some((&b"k"[..], &b"v"[..])));
        assert_eq!(split(b"none", ":"), None);
        assert_eq!(trim_line_end(b"a\r\n"), b"a");
        assert_eq!(trim_line_end(b"a"), b"a");
    }
}
