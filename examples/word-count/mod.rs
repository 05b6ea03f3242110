//! `fleuve demo word-count`: counts the words of real text, live.

mod topology;

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use fleuve_client::Record;
use fleuve_client::admin::NewTopic;
use fleuve_client::consumer::{OwnedRecord, Start};
use fleuve_streams::{Guarantee, Settings, Topology};

pub use topology::{COUNTS, LINES, topology, words};

use crate::kit::{Ends, Feed, Paint, Row, View, bar, grouped, seconds};
use crate::{Demo, DemoError, Stage};

/// Counts the words of text.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = "Examples:\n  \
    fleuve demo word-count\n  \
    fleuve demo word-count README.md docs/*.md --rate 100")]
pub struct WordCount {
    /// Text files; the beginning of "Alice's Adventures in Wonderland" if there is none.
    files: Vec<PathBuf>,
    /// Lines a second [default: 200 on a terminal, as many as possible elsewhere].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// How often to send the text [default: without end on a terminal, 10 elsewhere].
    #[arg(long, value_name = "N")]
    times: Option<u64>,
}

/// The beginning of a book of 1865, which is in the public domain.
const ALICE: &str = include_str!("alice.txt");

impl Demo for WordCount {
    const NAME: &'static str = "word-count";
    const ABOUT: &'static str = "Count the words of real text, live and exactly once";

    fn topology() -> Topology {
        topology()
    }

    async fn run(self, mut stage: Stage) -> Result<(), DemoError> {
        let texts = self.texts()?;
        stage
            .create_topics(&[
                NewTopic::new(LINES).partitions(PARTITIONS),
                NewTopic::new(COUNTS).partitions(PARTITIONS),
            ])
            .await?;
        // Both from their beginning, which may lie before this run: what was counted then still counts.
        let consumer = stage.follow(&[LINES, COUNTS], Start::Beginning).await?;
        let settings =
            Settings { threads: 2, guarantee: Guarantee::ExactlyOnce, ..Settings::default() };
        let app = stage.start(&topology(), settings).await?;

        let endless = stage.is_endless();
        let times = self.times.unwrap_or(if endless { u64::MAX } else { 10 });
        let feed = Feed::new(stage.producer()?, self.rate.or(endless.then_some(200)));
        let mut view = Words::new(texts.iter().map(|text| text.name.clone()).collect());
        let took = stage.show(app, consumer, send(texts, times, feed), &mut view).await?;
        let verdict = match (endless, view.differing()) {
            (_, 0) => "every count equals a plain one",
            (true, _) => "stopped while counting",
            (false, _) => "others have been counting, too",
        };
        stage.screen().say(format!(
            "word-count: {} words in {} lines, {} different ones, counted in {}; {verdict}",
            grouped(view.total()),
            grouped(view.lines),
            grouped(view.counts.len() as u64),
            seconds(took),
        ))?;
        Ok(())
    }
}

impl WordCount {
    fn texts(&self) -> Result<Vec<Text>, DemoError> {
        if self.files.is_empty() {
            let name = "Alice's Adventures in Wonderland".to_owned();
            return Ok(vec![Text { name, lines: ALICE.to_owned() }]);
        }
        let read = |path: &PathBuf| {
            let bytes = fs::read(path).map_err(|error| {
                DemoError::new(format!("cannot read {}: {error}", path.display()))
            })?;
            let lines = String::from_utf8_lossy(&bytes).into_owned();
            Ok(Text { name: path.display().to_string(), lines })
        };
        self.files.iter().map(read).collect()
    }
}

/// A text with what to call it.
struct Text {
    name: String,
    lines: String,
}

async fn send(texts: Vec<Text>, times: u64, mut feed: Feed) -> Result<Ends, DemoError> {
    let mut sent_any = true;
    for _ in 0..times {
        if !std::mem::take(&mut sent_any) {
            break;
        }
        for text in &texts {
            for line in text.lines.lines().filter(|line| !line.trim().is_empty()) {
                feed.send(Record::new(LINES).key(&text.name).value(line)).await?;
                sent_any = true;
            }
        }
    }
    feed.settle().await
}

/// What has come out, and what should.
struct Words {
    names: Vec<String>,
    lines: u64,
    last: VecDeque<String>,
    /// A plain count of the lines that were read.
    expected: BTreeMap<String, i64>,
    counts: BTreeMap<String, i64>,
}

impl Words {
    fn new(names: Vec<String>) -> Self {
        Self {
            names,
            lines: 0,
            last: VecDeque::new(),
            expected: BTreeMap::new(),
            counts: BTreeMap::new(),
        }
    }

    fn total(&self) -> u64 {
        self.counts.values().map(|count| count.unsigned_abs()).sum()
    }

    /// How many words have another count than a plain one.
    fn differing(&self) -> usize {
        self.expected.iter().filter(|(word, count)| self.counts.get(*word) != Some(count)).count()
    }
}

impl View for Words {
    fn take(&mut self, record: &OwnedRecord) {
        let Some(value) = &record.value else { return };
        match &*record.topic {
            LINES => {
                let Ok(line) = std::str::from_utf8(value) else { return };
                for word in words(line) {
                    *self.expected.entry(word).or_default() += 1;
                }
                self.lines += 1;
                self.last.push_back(line.to_owned());
                if self.last.len() > LAST_LINES {
                    self.last.pop_front();
                }
            }
            _ => {
                let word = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
                let count = value.as_ref().try_into().map(i64::from_be_bytes);
                if let (Some(word), Ok(count)) = (word, count) {
                    self.counts.insert(word.to_owned(), count);
                }
            }
        }
    }

    fn picture(&self, elapsed: Duration) -> Vec<Row> {
        let mut top: Vec<_> = self.counts.iter().collect();
        top.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let most = top.first().map_or(0, |(_, count)| count.unsigned_abs());
        let mut rows = vec![
            Row::new()
                .text(Paint::Bold, "word count  ")
                .text(Paint::Plain, self.names.join(", "))
                .text(Paint::Dim, format!("  {}", seconds(elapsed))),
            Row::new()
                .text(Paint::Green, grouped(self.lines))
                .text(Paint::Plain, " lines → ")
                .text(Paint::Green, grouped(self.total()))
                .text(Paint::Plain, " words counted, ")
                .text(Paint::Green, grouped(self.counts.len() as u64))
                .text(Paint::Plain, " different ones, exactly once"),
            Row::new(),
        ];
        rows.extend(top.into_iter().take(TOP).map(|(word, count)| {
            Row::new()
                .text(Paint::Bold, format!("{word:>14} "))
                .text(Paint::Blue, format!("{:<32}", bar(count.unsigned_abs(), most, 32)))
                .text(Paint::Plain, format!(" {:>9}", grouped(count.unsigned_abs())))
        }));
        rows.push(Row::new());
        rows.extend(self.last.iter().map(|line| Row::new().text(Paint::Dim, format!("  {line}"))));
        rows
    }

    fn line(&self, elapsed: Duration) -> String {
        format!(
            "{:>8}  {} lines, {} words counted, {} different ones",
            seconds(elapsed),
            grouped(self.lines),
            grouped(self.total()),
            grouped(self.counts.len() as u64),
        )
    }

    fn is_complete(&self) -> bool {
        // More than expected comes from lines that somebody else has sent since.
        self.expected
            .iter()
            .all(|(word, expected)| self.counts.get(word).is_some_and(|count| count >= expected))
    }
}

const PARTITIONS: i32 = 4;
/// Words with a bar.
const TOP: usize = 12;
/// Lines of text below them.
const LAST_LINES: usize = 4;
