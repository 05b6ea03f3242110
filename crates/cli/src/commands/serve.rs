//! `fleuve serve`: runs a broker until it is told to stop.
//!
//! What it prints on stdout is a contract: one line per listener, `listening kafka ADDRESS`, and
//! then `ready in N ms`. Logs go to stderr.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::{Args, ValueEnum};
use fleuve_broker::{Broker, BrokerSettings, Components, LogLevels, LogsError, StartError};
use fleuve_metadata::config::{ConfigFile, Outside, Override, Sources, load};
use fleuve_storage::DirectoryError;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::failure::Failure;
use crate::levels::Levels;
use crate::output::{line, note};

/// Start a broker.
#[derive(Debug, Default, Args)]
#[command(after_help = "Examples:\n  \
    fleuve serve                                        data in ./fleuve-data, port 9092\n  \
    fleuve serve --listen 127.0.0.1:0                   any free port\n  \
    fleuve serve --config server.properties             settings of Apache Kafka's file\n  \
    fleuve serve --set num.partitions=12 --data-dir /var/lib/fleuve\n\n\
    Logs go to stderr; --log-level debug makes them talk, and RUST_LOG says it room by room:\n    \
    RUST_LOG=info,kafka.request.logger=debug          every request with its timing")]
pub(crate) struct Serve {
    /// A file of broker properties, as Apache Kafka's server.properties.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where data is kept [default: log.dirs of the file, or ./fleuve-data].
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where to listen [default: listeners of the file, or 127.0.0.1:9092]; port 0 is any free one.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,
    /// A broker property, over the file; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// How log lines are written.
    #[arg(long, value_enum, value_name = "FORMAT", env = "FLEUVE_LOG_FORMAT", default_value_t)]
    pub(crate) log_format: LogFormat,
    /// From which level on log lines are written; RUST_LOG overrides it.
    #[arg(long, value_enum, value_name = "LEVEL", ignore_case = true, default_value_t)]
    pub(crate) log_level: LogLevel,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The levels of Kafka's log4j files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    /// Everything.
    #[value(alias = "all")]
    Trace,
    /// Every request.
    Debug,
    /// What an operator may want to know.
    #[default]
    Info,
    /// What may need attention.
    Warn,
    /// What somebody has to look at.
    #[value(alias = "fatal")]
    Error,
    /// Nothing.
    Off,
}

pub(crate) async fn run(serve: Serve) -> Result<(), Failure> {
    let began = Instant::now();
    let levels = init_logging(serve.log_format, serve.log_level);
    raise_file_limit();
    let settings = settings(&serve)?;
    // Before the start, so that a signal during a long recovery is not missed.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let log_levels = levels.map(|levels| Arc::new(levels) as Arc<dyn LogLevels>);
    let components = Components { log_levels, ..Components::default() };
    let starting = Broker::start(settings.clone(), components);
    let broker = tokio::select! {
        started = starting => started.map_err(|error| explain(&error))?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    for listener in broker.listeners() {
        let kind = if listener.is_controllers { "controller" } else { "kafka" };
        line(format!("listening {kind} {}", listener.address))?;
    }
    if let Some(address) = broker.http_address() {
        line(format!("listening http {address}"))?;
    }
    line(format!("ready in {} ms", began.elapsed().as_millis()))?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    broker.shutdown().await;
    Ok(())
}

/// Gathers the settings from the file and the flags.
fn settings(serve: &Serve) -> Result<BrokerSettings, Failure> {
    let mut overrides = Vec::new();
    let mut override_with = |key: &str, value: String, flag: &str| {
        overrides.push(Override { key: key.to_owned(), value, flag: flag.to_owned() });
    };
    if let Some(listen) = &serve.listen {
        if listen.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok()).is_none() {
            return Err(Failure::new(format!(
                "--listen {listen}: expected HOST:PORT, as 127.0.0.1:9092"
            )));
        }
        override_with("listeners", format!("PLAINTEXT://{listen}"), "--listen");
    }
    if let Some(directory) = &serve.data_dir {
        override_with("log.dirs", directory.display().to_string(), "--data-dir");
    }
    for assignment in &serve.set {
        let Some((key, value)) = assignment.split_once('=') else {
            return Err(Failure::new(format!(
                "--set {assignment}: expected KEY=VALUE, as --set num.partitions=3"
            )));
        };
        override_with(key.trim(), value.trim().to_owned(), "--set");
    }
    let content = match &serve.config {
        Some(path) => Some(fs::read(path).map_err(|error| {
            Failure::new(format!("cannot read {}: {error}: check --config", path.display()))
        })?),
        None => None,
    };
    let name = serve.config.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let file = content.as_ref().map(|content| ConfigFile { name: &name, content });
    let host_name = fs::read_to_string("/etc/hostname").unwrap_or_default();
    let sources = Sources {
        file,
        overrides: &overrides,
        host_name: host_name.trim(),
        outside: Some(&Process),
    };
    match load(sources) {
        Ok((settings, warnings)) => {
            for warning in warnings {
                note(format!("warning: {warning}"));
            }
            Ok(settings)
        }
        Err(error) => {
            for problem in &error.problems.errors {
                note(format!("error: {problem}"));
            }
            Err(Failure::Said)
        }
    }
}

fn explain(error: &StartError) -> Failure {
    let remedy = match error {
        StartError::Bind { error: cause, .. } => match cause.kind() {
            io::ErrorKind::AddrInUse => {
                "something listens there already: stop it, or pass --listen with another port \
                 (127.0.0.1:0 picks a free one)"
            }
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 need privileges: pass --listen with a higher one"
            }
            io::ErrorKind::AddrNotAvailable => {
                "this machine does not have the address: pass --listen with one it has"
            }
            _ => "pass another address with --listen",
        },
        StartError::Resolve { .. } => "pass an address that resolves with --listen",
        StartError::Logs(LogsError::Directory(DirectoryError::InUse { .. })) => {
            "a broker runs on this data: stop it, or pass another --data-dir"
        }
        // These name their remedy themselves.
        _ => return Failure::new(error),
    };
    Failure::new(format!("{error}: {remedy}"))
}

/// Sends logs to stderr, from `level` on unless `RUST_LOG` says otherwise; what is returned changes
/// that later.
fn init_logging(format: LogFormat, level: LogLevel) -> Option<Levels> {
    let level = match level {
        LogLevel::Trace => "trace",
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
        LogLevel::Off => "off",
    };
    let asked = std::env::var(EnvFilter::DEFAULT_ENV).ok();
    let asked = asked.and_then(|text| Some((EnvFilter::try_new(&text).ok()?, text)));
    let (filter, text) = asked.unwrap_or_else(|| (EnvFilter::new(level), level.to_owned()));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_filter_reloading();
            let handle = lines.reload_handle();
            let install = move |filter| handle.reload(filter).map_err(|error| error.to_string());
            lines.try_init().ok().map(|()| Levels::new(&text, Box::new(install)))
        }
        LogFormat::Text => {
            let is_terminal = io::IsTerminal::is_terminal(&io::stderr());
            let lines = lines.with_ansi(is_terminal).with_filter_reloading();
            let handle = lines.reload_handle();
            let install = move |filter| handle.reload(filter).map_err(|error| error.to_string());
            lines.try_init().ok().map(|()| Levels::new(&text, Box::new(install)))
        }
    }
}

/// Takes as many file descriptors as the system lets us: a partition needs several.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the limit of open files stays where it is");
        }
    }
}

/// What references in the configuration are looked up in.
#[derive(Debug)]
struct Process;

impl Outside for Process {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        fs::canonicalize(path)
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}
