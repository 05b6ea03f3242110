//! `fleuve demo`: the platform at work.
//!
//! `demo lines` shows the broker alone; the other demos are the applications in `examples/`, each of which becomes a
//! subcommand here. Without a cluster to run on, a demo gets a broker for as long as it runs.

mod lines;
mod own_broker;

use std::fmt;

use clap::{Arg, ArgMatches, Args, FromArgMatches, Subcommand};
use fleuve_client::{Client, ClientConfig};
use fleuve_demos::{DEMOS, DemoError, Entry, Screen, Stage};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use self::own_broker::OwnBroker;
use crate::args::{Common, Format};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{self, line};

/// What there is to watch.
pub(crate) enum Demo {
    /// Lines of text through a topic.
    Lines(lines::Lines),
    /// An application of `examples/` with its options.
    Application(&'static Entry, ArgMatches),
}

const LINES: &str = "lines";
const LINES_ABOUT: &str = "Send the lines of text files to a topic and read them in a group, live";
const DESCRIBE: &str = "describe";

pub(crate) async fn run(demo: Option<Demo>, common: &Common) -> Result<(), Failure> {
    let Some(demo) = demo else { return list(common) };
    if let Demo::Application(entry, arguments) = &demo
        && let Some(form) = arguments.get_one::<String>(DESCRIBE)
    {
        let plan = entry.topology().build().map_err(Failure::new)?;
        return match form.as_str() {
            "json" => output::print_value(Format::Json, &plan.to_json()),
            "dot" => line(plan.to_dot().trim_end()),
            _ => line(plan.describe().trim_end()),
        };
    }
    let stop = watch_signals()?;
    let context = Context::new(common)?;
    // Whoever names a cluster does not want another one.
    let named = common.bootstrap_server.is_some() || common.command_config.is_some();
    let (client, own) = if named {
        (context.client().await?, None)
    } else {
        let own = OwnBroker::start().await?;
        (Client::connect(ClientConfig::new(&own.address)?).await?, Some(own))
    };
    let outcome = match demo {
        Demo::Lines(lines) => lines::run(&lines, &context, client, stop).await,
        Demo::Application(entry, arguments) => {
            let stage = Stage::new(client, Screen::stdout(), stop);
            entry.run(&arguments, stage).await.map_err(Failure::from)
        }
    };
    if let Some(own) = own {
        own.stop().await;
    }
    outcome
}

fn list(common: &Common) -> Result<(), Failure> {
    let lines = [(LINES, LINES_ABOUT)].into_iter();
    let demos: Vec<_> = DEMOS.iter().map(|entry| (entry.name, entry.about)).chain(lines).collect();
    let value = demos.iter().map(|(name, about)| json!({ "name": name, "about": about })).collect();
    let rows = demos.iter().map(|(name, about)| vec![(*name).to_owned(), (*about).to_owned()]);
    output::print(common.output, &value, &["demo", "what it shows"], rows)
}

impl From<DemoError> for Failure {
    fn from(error: DemoError) -> Self {
        match error {
            DemoError::Client(error) => error.into(),
            DemoError::Io(error) => error.into(),
            other => Self::new(other),
        }
    }
}

impl Subcommand for Demo {
    fn augment_subcommands(command: clap::Command) -> clap::Command {
        let lines = lines::Lines::augment_args(clap::Command::new(LINES)).about(LINES_ABOUT);
        let describe = Arg::new(DESCRIBE)
            .long(DESCRIBE)
            .value_name("FORM")
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("text")
            .value_parser(["text", "dot", "json"])
            .help("Print the topology and run nothing: as Kafka Streams does, for Graphviz, or as JSON");
        DEMOS
            .iter()
            .map(|entry| entry.with_arguments(clap::Command::new(entry.name)).arg(describe.clone()))
            .chain([lines])
            .fold(command, clap::Command::subcommand)
    }

    fn augment_subcommands_for_update(command: clap::Command) -> clap::Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        name == LINES || DEMOS.iter().any(|entry| entry.name == name)
    }
}

impl FromArgMatches for Demo {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let missing = || clap::Error::new(clap::error::ErrorKind::MissingSubcommand);
        let (name, arguments) = matches.subcommand().ok_or_else(missing)?;
        if name == LINES {
            return lines::Lines::from_arg_matches(arguments).map(Self::Lines);
        }
        let entry = DEMOS.iter().find(|entry| entry.name == name).ok_or_else(missing)?;
        Ok(Self::Application(entry, arguments.clone()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl fmt::Debug for Demo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lines(lines) => lines.fmt(f),
            Self::Application(entry, _) => f.write_str(entry.name),
        }
    }
}

/// Becomes true at the first request to end.
fn watch_signals() -> Result<watch::Receiver<bool>, Failure> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.send_replace(true);
        // Whoever asks twice does not want to wait.
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        std::process::exit(130);
    });
    Ok(stopped)
}
