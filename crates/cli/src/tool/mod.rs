//! The options of Apache Kafka's scripts, for people and programs that are used to them.
//!
//! The scripts in `bin/` call `fleuve tool NAME ARGUMENTS`. Each tool takes the options of the
//! script of that name and prints what that prints, as closely as is useful.

mod acls;
mod bootstrap;
mod choice;
mod cluster;
mod configs;
mod console;
mod consumer_perf;
mod dates;
mod features;
mod files;
mod grid;
mod groups;
mod latency;
mod leaders;
mod log_moves;
mod perf;
mod reassign;
mod reporting;
mod resets;
mod server;
mod share_console;
mod share_verifiable;
mod shares;
mod small;
mod storage;
mod streams_groups;
mod streams_reset;
mod tokens;
mod topics;
mod transactions;
mod verifiable;

use std::path::PathBuf;

use clap::{Args, Parser};
use fleuve_client::{Admin, Client, Error, ErrorCode, Properties};

use crate::context::{Context, DEFAULT_SERVER};
use crate::failure::Failure;
use crate::output::line;

/// One of Apache Kafka's tools with its arguments.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tool {
    /// The script's name, without `.sh`.
    name: String,
    arguments: Vec<String>,
}

impl Tool {
    /// Takes the arguments of `fleuve` if they begin with `tool NAME`.
    pub(crate) fn of_arguments(arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut arguments = arguments;
        if arguments.next()? != "tool" {
            return None;
        }
        Some(Self { name: arguments.next().unwrap_or_default(), arguments: arguments.collect() })
    }
}

pub(crate) async fn run(tool: Tool) -> Result<(), Failure> {
    let Tool { name, arguments } = tool;
    let wants_version =
        arguments == ["--version"] || (name == "kafka-transactions" && arguments == ["-v"]);
    if wants_version {
        return line(format!("{} (Fleuve, speaks Kafka 4.3)", env!("CARGO_PKG_VERSION")));
    }
    match name.as_str() {
        "kafka-topics" => topics::run(parse(&name, arguments)?).await,
        "kafka-transactions" => transactions::run(parse(&name, arguments)?).await,
        "kafka-acls" => acls::run(parse(&name, arguments)?).await,
        "kafka-delegation-tokens" => tokens::run(parse(&name, arguments)?).await,
        "kafka-client-metrics" => cluster::client_metrics(parse(&name, arguments)?).await,
        "kafka-features" => features::run(parse(&name, arguments)?).await,
        "kafka-leader-election" => leaders::elect(parse(&name, arguments)?).await,
        "kafka-log-dirs" => cluster::log_dirs(parse(&name, arguments)?).await,
        "kafka-metadata-quorum" => cluster::quorum(parse(&name, arguments)?).await,
        "kafka-reassign-partitions" => reassign::reassign(parse(&name, arguments)?).await,
        "kafka-configs" => configs::run(parse(&name, arguments)?).await,
        "kafka-console-producer" => console::produce(parse(&name, arguments)?).await,
        "kafka-console-consumer" => console::consume(parse(&name, arguments)?).await,
        "kafka-groups" => groups::list_all(parse(&name, arguments)?).await,
        "kafka-consumer-groups" => groups::run(parse(&name, arguments)?).await,
        "kafka-share-groups" => shares::run(parse(&name, arguments)?).await,
        "kafka-streams-groups" => streams_groups::run(parse(&name, arguments)?).await,
        "kafka-get-offsets" => small::get_offsets(parse(&name, arguments)?).await,
        "kafka-delete-records" => small::delete_records(parse(&name, arguments)?).await,
        "kafka-broker-api-versions" => small::api_versions(parse(&name, arguments)?).await,
        "kafka-cluster" => cluster::cluster(parse(&name, arguments)?).await,
        "kafka-dump-log" => small::dump_log(parse(&name, arguments)?),
        "kafka-producer-perf-test" => perf::produce(parse(&name, arguments)?).await,
        "kafka-consumer-perf-test" => consumer_perf::consume(parse(&name, arguments)?).await,
        "kafka-verifiable-producer" => verifiable::produce(parse(&name, arguments)?).await,
        "kafka-verifiable-consumer" => verifiable::consume(parse(&name, arguments)?).await,
        "kafka-console-share-consumer" => share_console::consume(parse(&name, arguments)?).await,
        "kafka-share-consumer-perf-test" => share_console::measure(parse(&name, arguments)?).await,
        "kafka-verifiable-share-consumer" => {
            share_verifiable::consume(parse(&name, arguments)?).await
        }
        "kafka-e2e-latency" => latency::run(parse(&name, latency::named(arguments))?).await,
        "kafka-streams-application-reset" => streams_reset::run(parse(&name, arguments)?).await,
        "kafka-storage" => storage::run(parse(&name, arguments)?),
        "kafka-server-start" => server::start(parse(&name, arguments)?).await,
        "kafka-server-stop" => server::stop(&parse(&name, arguments)?),
        _ => Err(Failure::new(format!("there is no tool {name}: see the scripts in bin/"))),
    }
}

/// Options that nearly every tool has.
#[derive(Debug, Args)]
pub(crate) struct Connect {
    /// Brokers to ask first [env: FLEUVE_BOOTSTRAP_SERVER] [default: localhost:9092].
    #[arg(long)]
    bootstrap_server: Option<String>,
    /// A file of client properties.
    #[arg(long, visible_aliases = ["consumer.config", "consumer-config", "producer.config", "config-file", "admin.config"])]
    command_config: Option<PathBuf>,
}

impl Connect {
    fn context(&self) -> Result<Context, Failure> {
        let mut properties = match &self.command_config {
            Some(path) => Properties::load(path)?,
            None => Properties::new(),
        };
        // Read here and not by the parser, for which a variable would contradict
        // --bootstrap-controller.
        let given = self.bootstrap_server.clone().or_else(|| std::env::var(SERVER_VARIABLE).ok());
        if let Some(servers) = given {
            properties.set("bootstrap.servers", &servers)?;
        } else if properties.get("bootstrap.servers").is_none() {
            properties.set("bootstrap.servers", DEFAULT_SERVER)?;
        }
        Ok(Context::of(properties))
    }

    /// Connects for requests that may take so long, in ms.
    async fn admin_within(&self, timeout_ms: Option<u64>) -> Result<Admin, Failure> {
        let mut context = self.context()?;
        if let Some(timeout) = timeout_ms {
            context.set("request.timeout.ms", &timeout.to_string())?;
            context.set("default.api.timeout.ms", &timeout.to_string())?;
        }
        context.admin().await
    }
}

/// Names the brokers to ask first, for every command.
const SERVER_VARIABLE: &str = "FLEUVE_BOOTSTRAP_SERVER";

/// Options of tools that Kafka's controllers answer as well as its brokers.
#[derive(Debug, Args)]
pub(crate) struct ConnectEither {
    #[command(flatten)]
    connect: Connect,
    /// Controllers to ask first; where there is no listener of theirs, a broker's address does.
    #[arg(long, conflicts_with = "bootstrap_server")]
    bootstrap_controller: Option<String>,
}

impl ConnectEither {
    async fn admin(&self) -> Result<Admin, Failure> {
        let mut context = self.connect.context()?;
        let Some(address) = &self.bootstrap_controller else { return context.admin().await };
        context.set("bootstrap.controllers", address)?;
        let mut config = context.client_config()?;
        match Client::connect(config.clone()).await {
            Ok(client) => Ok(Admin::new(client)),
            // A broker, whose controller is inside and does the same.
            Err(error) if error.code() == Some(ErrorCode::MismatchedEndpointType) => {
                config.bootstrap_servers = std::mem::take(&mut config.bootstrap_controllers);
                Ok(Admin::new(Client::connect(config).await?))
            }
            Err(error @ Error::NoBroker { .. }) => Err(Failure::new(format!(
                "no answer from {address} ({error}): pass --bootstrap-server with the broker's \
                 address, or have the broker open a listener with controller.listener.names"
            ))),
            Err(error) => Err(error.into()),
        }
    }
}

/// Reads a tool's arguments; `--help` and mistakes end the process as clap does everywhere.
fn parse<T: Parser>(name: &str, arguments: Vec<String>) -> Result<T, Failure> {
    let arguments = std::iter::once(format!("{name}.sh")).chain(arguments);
    T::try_parse_from(arguments).map_err(|error| {
        if error.use_stderr() {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            Failure::new(format!("{first}: see {name}.sh --help"))
        } else {
            // Help goes to stdout and is no failure; printing may fail on a closed pipe only.
            let _ = error.print();
            Failure::BrokenPipe
        }
    })
}
