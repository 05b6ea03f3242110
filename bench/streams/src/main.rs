//! Load for measuring `fleuve-streams` beside Kafka Streams, see `bench/streams.py`; `bench/StreamsLoad.java` runs the same
//! topologies on the latter.
//!
//! ```text
//! run ROW SERVERS APPLICATION INPUT OUTPUT COUNT GUARANTEE STORE DIRECTORY
//!                                                                  until COUNT records went through, and all is committed
//! embedded ROW APPLICATION KIND RECORDS COUNT GUARANTEE STORE DIRECTORY
//!                                                                  the same, with a broker and the input in this process
//! fill KIND SERVERS TOPIC COUNT                                    writes the input
//! await SERVERS TOPIC COUNT                                        until so many records have come
//! digest SERVERS TOPIC COUNT|last                                  what a topic holds, in one number
//! ```

mod fill;
mod read;
mod rows;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fleuve::Embedded;
use fleuve_client::admin::NewTopic;
use fleuve_client::{Admin, Client, ClientConfig};
use fleuve_streams::{Guarantee, Settings, Streams};

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        ["run", row, servers, application, input, output, count, guarantee, store, directory] => {
            let load = Load::new(row, application, (input, output), count, guarantee)?
                .keeping_state_in((store != "in_memory").then(|| directory.into()));
            // From the start of the process.
            run(connect(servers).await?, &load, 0.0).await
        }
        ["embedded", row, application, kind, records, count, guarantee, store, directory] => {
            let state = (store != "in_memory").then(|| directory.into());
            let load = Load::new(row, application, ("input", "output"), count, guarantee)?
                .keeping_state_in(state);
            embedded(&load, kind, records.parse()?).await
        }
        ["fill", kind, servers, topic, count] => {
            fill::fill(connect(servers).await?, kind, topic, count.parse()?).await
        }
        ["await", servers, topic, count] => {
            read::arrive(connect(servers).await?, topic, count.parse()?).await
        }
        ["digest", servers, topic, what] => {
            read::digest(connect(servers).await?, topic, what == "last").await
        }
        _ => Err("run, embedded, fill, await or digest, with their arguments".into()),
    }
}

/// What one run does.
pub(crate) struct Load<'a> {
    pub(crate) row: &'a str,
    pub(crate) application: &'a str,
    pub(crate) input: &'a str,
    pub(crate) output: &'a str,
    pub(crate) count: u64,
    pub(crate) guarantee: Guarantee,
    /// Whether to commit as often as exactly once does.
    pub(crate) commits_often: bool,
    /// Where state is kept; in memory without.
    pub(crate) directory: Option<PathBuf>,
}

impl<'a> Load<'a> {
    fn new(
        row: &'a str,
        application: &'a str,
        (input, output): (&'a str, &'a str),
        count: &str,
        guarantee: &str,
    ) -> Outcome<Self> {
        Ok(Self {
            row,
            application,
            input,
            output,
            count: count.parse()?,
            guarantee: match guarantee {
                "at_least_once" | "at_least_once_often" => Guarantee::AtLeastOnce,
                "exactly_once_v2" => Guarantee::ExactlyOnce,
                _ => return Err("at_least_once or exactly_once_v2".into()),
            },
            commits_often: guarantee == "at_least_once_often",
            directory: None,
        })
    }

    fn keeping_state_in(self, directory: Option<PathBuf>) -> Self {
        Self { directory, ..self }
    }
}

async fn connect(servers: &str) -> Outcome<Client> {
    Ok(Client::connect(ClientConfig::new(servers)?).await?)
}

/// Runs the application beside a broker in this process, whose processor time counts too.
async fn embedded(load: &Load<'_>, kind: &str, records: u64) -> Outcome {
    // What is measured needs neither to survive a power cut nor to be cleaned.
    let broker = Embedded::builder()
        .set("fleuve.flush.before.ack", "false")
        .set("log.initial.task.delay.ms", "86400000")
        .start()
        .await?;
    let topics = [load.input, load.output].map(|name| NewTopic::new(name).partitions(PARTITIONS));
    for created in Admin::new(broker.client()).create_topics(&topics, false).await? {
        created.1?;
    }
    fill::fill(broker.client(), kind, load.input, records).await?;
    run(broker.client(), load, cpu_seconds()).await?;
    broker.shutdown().await;
    Ok(())
}

/// Runs the application until everything went through it, and prints what that took since so many seconds of processor
/// time. The first third is warm-up, which a JVM needs.
async fn run(client: Client, load: &Load<'_>, since: f64) -> Outcome {
    let done = Arc::new(AtomicU64::new(0));
    let topology = rows::topology(load, &done)?;
    let settings = Settings {
        guarantee: load.guarantee,
        commit_interval: load.commits_often.then_some(OFTEN),
        state_dir: load.directory.clone(),
        ..Settings::default()
    };
    let began = Instant::now();
    let running = Streams::start(&topology, client, settings).await?;
    let warm = load.count / 3;
    let mut middle = None;
    while done.load(Ordering::Relaxed) < load.count {
        tokio::time::sleep(LOOK).await;
        let now = done.load(Ordering::Relaxed);
        if middle.is_none() && now >= warm {
            middle = Some((now, began.elapsed(), cpu_seconds()));
        }
    }
    running.close().await?;
    let all = cpu_seconds();
    let (records, elapsed, cpu) = middle.unwrap_or_default();
    println!(
        "{{\"records\": {}, \"seconds\": {}, \"cpu\": {}, \"warm_records\": {}, \"warm_seconds\": {}, \"warm_cpu\": {}, \"rss_kib\": {}}}",
        load.count,
        began.elapsed().as_secs_f64(),
        all - since,
        load.count - records,
        (began.elapsed() - elapsed).as_secs_f64(),
        all - cpu,
        peak_memory_kib(),
    );
    Ok(())
}

/// User and system time of this process.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks =
        fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
    ticks.sum::<u64>() as f64 / TICKS
}

fn peak_memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// As many as the topics of bench/streams.py have.
const PARTITIONS: i32 = 4;
const LOOK: Duration = Duration::from_millis(5);
/// The commit interval of exactly once.
const OFTEN: Duration = Duration::from_millis(100);
/// Linux counts processor time in hundredths of a second.
const TICKS: f64 = 100.0;
