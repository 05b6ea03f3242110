//! A word count and a windowed count as one instance of an application, for the tests in `tests/streams` that kill it,
//! share its work or hand it over to Kafka Streams: `tests/streams/Counting.java` is the same program there.
//!
//! ```text
//! counting BOOTSTRAP [key=value]...
//! ```
//!
//! Prints `running` once it has started, and leaves when its input ends. Settings have Kafka Streams' names.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the tests around it read them")]

use std::error::Error;
use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use fleuve_client::{Client, ClientConfig};
use fleuve_streams::{
    Guarantee, Settings, Streams, StreamsGroupProtocol, TimeWindows, Topology, Windowed,
};
use tokio::sync::oneshot;

const WINDOW_MS: i64 = 10_000;
/// So long that no record is too late, in whatever order inputs are read.
const GRACE_MS: i64 = 24 * 3600 * 1000;

/// What `key=value` say.
struct Told {
    application: String,
    /// Ours: all topics that match are read, instead of one.
    source_pattern: Option<String>,
    client: ClientConfig,
    settings: Settings,
}

fn topology(told: &Told) -> Topology {
    let app = Topology::new(&told.application);
    let lines = match &told.source_pattern {
        Some(pattern) => app.stream_pattern::<(), String>(pattern),
        None => app.stream::<(), String>("lines"),
    };
    let words = lines
        .flat_map_values(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>())
        .group_by(|_, word: &String| word.clone());
    words
        .count("counts")
        .to_stream()
        .map_values(|count: Option<i64>| count.unwrap_or_default().to_string())
        .to("counts");
    words
        .windowed_by(TimeWindows::of_ms(WINDOW_MS, GRACE_MS))
        .count("windows")
        .to_stream()
        .map(|key: Windowed<String>, count: Option<i64>| {
            let name = format!("{}@{}", key.key, key.window.start);
            (name, count.unwrap_or_default().to_string())
        })
        .to("windows");
    app
}

/// The application's id and settings from `BOOTSTRAP [key=value]...`, by Kafka Streams' names.
fn told(arguments: &[String]) -> Result<Told, Box<dyn Error>> {
    let (bootstrap, rest) = arguments.split_first().ok_or("expected BOOTSTRAP [key=value]...")?;
    let mut application = "counting".to_owned();
    let mut source_pattern = None;
    let mut client = ClientConfig::new(bootstrap)?;
    let mut settings = Settings::default();
    for argument in rest {
        let (key, value) =
            argument.split_once('=').ok_or_else(|| format!("{argument}: expected key=value"))?;
        match key {
            "application.id" => value.clone_into(&mut application),
            "source.pattern" => source_pattern = Some(value.to_owned()),
            "metadata.max.age.ms" => client.metadata_max_age = milliseconds(value)?,
            "processing.guarantee" => {
                settings.guarantee = match value {
                    "at_least_once" => Guarantee::AtLeastOnce,
                    "exactly_once_v2" => Guarantee::ExactlyOnce,
                    _ => return Err(format!("{argument}: no such guarantee").into()),
                }
            }
            "commit.interval.ms" => settings.commit_interval = Some(milliseconds(value)?),
            "session.timeout.ms" => settings.session_timeout = milliseconds(value)?,
            "transaction.timeout.ms" => settings.transaction_timeout = milliseconds(value)?,
            "statestore.cache.max.bytes" => settings.cache_bytes_max = value.parse()?,
            "num.stream.threads" => settings.threads = value.parse()?,
            "num.standby.replicas" => settings.num_standby_replicas = value.parse()?,
            "group.protocol" => {
                settings.group_protocol = match value {
                    "auto" => StreamsGroupProtocol::Auto,
                    "classic" => StreamsGroupProtocol::Classic,
                    "streams" => StreamsGroupProtocol::Streams,
                    _ => return Err(format!("{argument}: no such protocol").into()),
                }
            }
            "group.instance.id" => settings.group_instance_id = Some(value.to_owned()),
            _ => return Err(format!("{argument}: no such setting here").into()),
        }
    }
    Ok(Told { application, source_pattern, client, settings })
}

fn milliseconds(text: &str) -> Result<Duration, Box<dyn Error>> {
    Ok(Duration::from_millis(text.parse()?))
}

async fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let told = told(arguments)?;
    let topology = topology(&told);
    let client = Client::connect(told.client).await?;
    let mut app = Streams::start(&topology, client, told.settings).await?;
    println!("running");
    let (ending, ended) = oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        // Nobody listens any more once the application has failed.
        let _ = ending.send(());
    });
    tokio::select! {
        _ = ended => app.close().await?,
        failure = app.failed() => {
            if let Some(failure) = failure {
                return Err(failure.into());
            }
        }
    }
    println!("closed");
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run(&arguments)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("counting: {error}");
            ExitCode::FAILURE
        }
    }
}
