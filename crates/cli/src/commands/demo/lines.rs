//! `fleuve demo lines`: the lines of text files through a topic and back, in a consumer group.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use fleuve_client::admin::NewTopic;
use fleuve_client::config::OffsetReset;
use fleuve_client::{Admin, Client, Consumer, Producer, Record};
use fleuve_demos::Screen;
use fleuve_demos::kit::{Paint, Row, bar};
use fleuve_protocol::ErrorCode;
use fleuve_types::TopicPartition;
use tokio::sync::watch;

use super::super::topic::log_ends;
use crate::context::Context;
use crate::failure::Failure;
use crate::histogram::Histogram;
use crate::output::line;
use crate::quantities::{bytes, grouped, now_ms};

/// Send the lines of text files to a topic and read them in a group, live.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    fleuve demo lines README.md docs/*.md\n  \
    fleuve demo lines /var/log/syslog --repeat --rate 5000")]
pub(crate) struct Lines {
    /// The files; the Markdown files here if there is none.
    files: Vec<PathBuf>,
    /// The topic; created if it does not exist.
    #[arg(long, default_value = "demo-lines")]
    topic: String,
    /// The consumer group.
    #[arg(long, default_value = "demo-lines")]
    group: String,
    /// Partitions of the topic, if it is created.
    #[arg(long, default_value_t = 4)]
    partitions: i32,
    /// Begin again at the end of the files, until interrupted.
    #[arg(long)]
    repeat: bool,
    /// Lines a second; as many as possible if not given.
    #[arg(long)]
    rate: Option<u64>,
}

/// How often the display is drawn.
const DRAW: Duration = Duration::from_millis(200);
/// How often a line is printed where there is no terminal.
const REPORT: Duration = Duration::from_secs(1);
/// Lines shown at the bottom.
const LAST_LINES: usize = 8;
/// How long the reader may need for what was sent.
const CATCH_UP_MAX: Duration = Duration::from_secs(30);

/// Sends and reads until the files are through, or `stop` says so.
pub(super) async fn run(
    lines: &Lines,
    context: &Context,
    client: Client,
    stop: watch::Receiver<bool>,
) -> Result<(), Failure> {
    let files = choose_files(lines)?;
    flow(lines, files, context, client, stop).await
}

/// What the display shows.
struct Flow {
    produced: AtomicU64,
    produced_bytes: AtomicU64,
    consumed: AtomicU64,
    failed: AtomicU64,
    per_partition: Mutex<Vec<u64>>,
    last_lines: Mutex<VecDeque<(i32, String)>>,
    latencies: Mutex<Histogram>,
}

async fn flow(
    lines: &Lines,
    files: Vec<PathBuf>,
    context: &Context,
    client: Client,
    stop: watch::Receiver<bool>,
) -> Result<(), Failure> {
    let partitions = prepare_topic(lines, &client).await?;
    let flow = Arc::new(Flow {
        produced: AtomicU64::new(0),
        produced_bytes: AtomicU64::new(0),
        consumed: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        per_partition: Mutex::new(vec![0; partitions.len()]),
        last_lines: Mutex::default(),
        latencies: Mutex::new(Histogram::new()),
    });
    // The group begins at today's end, so that what it reads is what we send.
    let admin = Admin::new(client.clone());
    let ends = log_ends(&admin, &partitions).await?;
    let starts: HashMap<_, _> = ends.into_iter().map(|(p, (_, end))| (p, end)).collect();
    admin.alter_group_offsets(&lines.group, &starts).await?;
    let mut config = context.consumer_config()?;
    config.group_id = Some(lines.group.clone());
    config.offset_reset = OffsetReset::Earliest;
    let consumer = Consumer::new(client.clone(), config)?;
    consumer.subscribe(&[&lines.topic])?;

    let began = Instant::now();
    let sent_all = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn(read(consumer, flow.clone(), sent_all.clone()));
    let producer = Producer::new(client, context.producer_config()?)?;
    let sending = send(lines, &files, producer, flow.clone(), stop);
    let mut display = Display::new(&lines.topic, partitions.len());
    let sent = {
        tokio::pin!(sending);
        let mut ticks = tokio::time::interval(display.interval());
        loop {
            tokio::select! {
                sent = &mut sending => break sent,
                _ = ticks.tick() => display.draw(&flow, began.elapsed())?,
            }
        }
    };
    sent_all.store(true, Ordering::Release);
    let read = reader.await.map_err(Failure::new)?;
    display.draw(&flow, began.elapsed())?;
    sent?;
    read?;
    summarize(&flow, files.len(), began.elapsed())
}

async fn prepare_topic(lines: &Lines, client: &Client) -> Result<Vec<TopicPartition>, Failure> {
    let admin = Admin::new(client.clone());
    let topic = NewTopic::new(&lines.topic).partitions(lines.partitions);
    for (_, result) in admin.create_topics(&[topic], false).await? {
        match result {
            Err(error) if error.code() == Some(ErrorCode::TopicAlreadyExists) => {}
            result => drop(result?),
        }
    }
    let topic = client.topic(&lines.topic, true).await?;
    let count = topic.partitions.len() as i32;
    Ok((0..count).map(|index| TopicPartition::new(&*lines.topic, index)).collect())
}

/// Sends every line of every file; lines of one file stay in order, because its name is their key.
async fn send(
    lines: &Lines,
    files: &[PathBuf],
    producer: Producer,
    flow: Arc<Flow>,
    stop: watch::Receiver<bool>,
) -> Result<(), Failure> {
    let began = Instant::now();
    let mut sent = 0_u64;
    'all: loop {
        for path in files {
            let name = path.display().to_string();
            let file = File::open(path)
                .map_err(|error| Failure::new(format!("cannot read {name}: {error}")))?;
            let mut reader = BufReader::new(file);
            let mut text = Vec::new();
            loop {
                if *stop.borrow() {
                    break 'all;
                }
                text.clear();
                if reader.read_until(b'\n', &mut text)? == 0 {
                    break;
                }
                if let Some(rate) = lines.rate {
                    let due = began + Duration::from_secs_f64(sent as f64 / rate.max(1) as f64);
                    if let Some(wait) = due.checked_duration_since(Instant::now()) {
                        tokio::time::sleep(wait).await;
                    }
                }
                let value = text.trim_ascii_end();
                let record = Record::new(&lines.topic).key(&name).value(value);
                let delivery = producer.send(record).await?;
                let partition = delivery.partition().partition as usize;
                drop(delivery);
                sent += 1;
                flow.produced.fetch_add(1, Ordering::Relaxed);
                flow.produced_bytes.fetch_add(value.len() as u64, Ordering::Relaxed);
                if let Some(count) = lock(&flow.per_partition).get_mut(partition) {
                    *count += 1;
                }
                // Lets the display draw although sending never has to wait.
                if sent.is_multiple_of(1000) {
                    tokio::task::yield_now().await;
                }
            }
        }
        if !lines.repeat || sent == 0 {
            break;
        }
    }
    if let Err(error) = producer.close().await {
        flow.failed.fetch_add(1, Ordering::Relaxed);
        return Err(error.into());
    }
    Ok(())
}

/// Reads until everything that was sent has come.
async fn read(
    consumer: Consumer,
    flow: Arc<Flow>,
    sent_all: Arc<AtomicBool>,
) -> Result<(), Failure> {
    let mut give_up_at = None;
    loop {
        if sent_all.load(Ordering::Acquire) {
            let produced = flow.produced.load(Ordering::Relaxed);
            if flow.consumed.load(Ordering::Relaxed) >= produced {
                break;
            }
            let at = *give_up_at.get_or_insert_with(|| Instant::now() + CATCH_UP_MAX);
            if Instant::now() > at {
                break;
            }
        }
        let Some(records) = consumer.poll(Duration::from_millis(100)).await? else { continue };
        let now = now_ms();
        let mut count = 0;
        let mut last = None;
        {
            let mut latencies = lock(&flow.latencies);
            for record in &records {
                count += 1;
                let age = now.saturating_sub(record.timestamp.0).max(0);
                latencies.record(Duration::from_millis(age as u64));
                if record.value.is_some_and(|value| !value.is_empty()) {
                    last = record.value;
                }
            }
        }
        flow.consumed.fetch_add(count, Ordering::Relaxed);
        if let Some(value) = last {
            let text = String::from_utf8_lossy(value).replace(char::is_control, " ");
            let mut lines = lock(&flow.last_lines);
            lines.push_back((records.partition().partition, text));
            while lines.len() > LAST_LINES {
                lines.pop_front();
            }
        }
    }
    Ok(consumer.close().await?)
}

fn summarize(flow: &Flow, files: usize, took: Duration) -> Result<(), Failure> {
    let produced = flow.produced.load(Ordering::Relaxed);
    let consumed = flow.consumed.load(Ordering::Relaxed);
    let size = flow.produced_bytes.load(Ordering::Relaxed);
    let latencies = lock(&flow.latencies);
    line(format!(
        "demo lines: produced {} lines ({}) of {files} files, consumed {} in {:.2} s, \
         {} lines/s, end to end p50 {} ms, p99 {} ms",
        grouped(produced),
        bytes(size as f64),
        grouped(consumed),
        took.as_secs_f64(),
        grouped((produced as f64 / took.as_secs_f64().max(1e-9)) as u64),
        latencies.quantile(0.5).as_millis(),
        latencies.quantile(0.99).as_millis(),
    ))?;
    if consumed < produced {
        return Err(Failure::new(format!(
            "{} lines did not come back: see the broker's log",
            produced - consumed
        )));
    }
    Ok(())
}

/// A live picture on a terminal, a line a second elsewhere.
struct Display {
    topic: String,
    partitions: usize,
    screen: Screen,
    last: (Duration, u64, u64),
}

impl Display {
    fn new(topic: &str, partitions: usize) -> Self {
        let last = (Duration::ZERO, 0, 0);
        Self { topic: topic.to_owned(), partitions, screen: Screen::stdout(), last }
    }

    fn interval(&self) -> Duration {
        if self.screen.is_live() { DRAW } else { REPORT }
    }

    fn draw(&mut self, flow: &Flow, elapsed: Duration) -> Result<(), Failure> {
        let produced = flow.produced.load(Ordering::Relaxed);
        let consumed = flow.consumed.load(Ordering::Relaxed);
        let (before, produced_before, consumed_before) = self.last;
        let seconds = elapsed.saturating_sub(before).as_secs_f64().max(1e-3);
        let rate = |now: u64, then: u64| grouped(((now - then) as f64 / seconds) as u64);
        let (produce_rate, consume_rate) =
            (rate(produced, produced_before), rate(consumed, consumed_before));
        self.last = (elapsed, produced, consumed);
        let lag = produced.saturating_sub(consumed);
        if !self.screen.is_live() {
            return line(format!(
                "{:>6.1} s  produced {} ({produce_rate}/s)  consumed {} ({consume_rate}/s)  lag {}",
                elapsed.as_secs_f64(),
                grouped(produced),
                grouped(consumed),
                grouped(lag),
            ));
        }
        let plain = |text: String| Row::new().text(Paint::Plain, text);
        let mut picture = vec![
            Row::new().text(Paint::Bold, &self.topic).text(
                Paint::Dim,
                format!("  {} partitions  {:.1} s", self.partitions, elapsed.as_secs_f64()),
            ),
            plain(format!("  produced {:>12}  {produce_rate:>10}/s", grouped(produced))),
            plain(format!(
                "  consumed {:>12}  {consume_rate:>10}/s  lag {}",
                grouped(consumed),
                grouped(lag)
            )),
        ];
        let counts = lock(&flow.per_partition).clone();
        let most = counts.iter().copied().max().unwrap_or(0);
        for (index, count) in counts.iter().enumerate().take(PARTITIONS_SHOWN) {
            picture.push(
                Row::new()
                    .text(Paint::Plain, format!("  {index:>3} "))
                    .text(Paint::Blue, format!("{:<20}", bar(*count, most, BAR_WIDTH)))
                    .text(Paint::Plain, format!(" {}", grouped(*count))),
            );
        }
        let lines = lock(&flow.last_lines);
        picture.extend(lines.iter().map(|(partition, text)| {
            Row::new().text(Paint::Dim, format!("  {partition:>3} │ ")).text(Paint::Plain, text)
        }));
        Ok(self.screen.draw(&picture)?)
    }
}

/// Partitions with a bar of their own.
const PARTITIONS_SHOWN: usize = 8;
const BAR_WIDTH: usize = 20;

/// Takes the named files, or the Markdown files of the current directory.
fn choose_files(lines: &Lines) -> Result<Vec<PathBuf>, Failure> {
    let mut files = lines.files.clone();
    if files.is_empty() {
        for entry in std::fs::read_dir(".")? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "md") {
                files.push(path);
            }
        }
        files.sort();
    }
    if files.is_empty() {
        return Err(Failure::new("no files to read: name some, as `fleuve demo lines README.md`"));
    }
    for path in &files {
        if !path.is_file() {
            let shown = path.display();
            return Err(Failure::new(format!("{shown} is not a file: name text files")));
        }
    }
    Ok(files)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Counters and lines for a display are good after any panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
