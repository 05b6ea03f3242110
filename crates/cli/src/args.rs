//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands::{
    acl, bench, cluster, completions, config, consume, demo, doctor, group, log, produce, quota,
    serve, topic, transaction, user,
};

/// A streaming data platform in one binary: a Kafka-compatible broker and its tools.
#[derive(Debug, Parser)]
#[command(
    name = "fleuve",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "Examples:\n  \
        fleuve serve                                  start a broker on localhost:9092\n  \
        fleuve topic create greetings -p 3            create a topic\n  \
        echo bonjour | fleuve produce greetings       write a record\n  \
        fleuve consume greetings                      read what is there\n  \
        fleuve demo                                   list what there is to watch"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// Brokers to ask first, separated by commas.
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT",
        env = "FLEUVE_BOOTSTRAP_SERVER",
        help = "Brokers to ask first, separated by commas [default: localhost:9092]"
    )]
    pub(crate) bootstrap_server: Option<String>,
    /// A file of Kafka client properties.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) command_config: Option<PathBuf>,
    /// How to print results.
    #[arg(long, short = 'o', global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For both.
    Yaml,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a broker.
    Serve(serve::Serve),
    /// Create, list, describe, change and delete topics.
    Topic {
        #[command(subcommand)]
        command: topic::Topic,
    },
    /// Write records: one per line of stdin or of a file.
    Produce(produce::Produce),
    /// Read records.
    Consume(consume::Consume),
    /// List, describe, reset and delete groups of every kind.
    Group {
        #[command(subcommand)]
        command: group::Group,
    },
    /// Describe and change configurations of topics, brokers and groups.
    Config {
        #[command(subcommand)]
        command: config::Config,
    },
    /// Describe the cluster, its features and its quorum, and change them.
    Cluster {
        #[command(subcommand)]
        command: cluster::Cluster,
    },
    /// Describe and change quotas of users, clients and addresses.
    Quota {
        #[command(subcommand)]
        command: quota::Quota,
    },
    /// Create, list, change and delete users that log in with SCRAM.
    User {
        #[command(subcommand)]
        command: user::User,
    },
    /// Add, list and remove access control entries.
    Acl {
        #[command(subcommand)]
        command: acl::Acl,
    },
    /// List, describe and end transactions.
    Transaction {
        #[command(subcommand)]
        command: transaction::Transaction,
    },
    /// Look into log files, without a broker.
    Log {
        #[command(subcommand)]
        command: log::Log,
    },
    /// Look for what keeps clients and brokers from working, and say what to do.
    Doctor(doctor::Doctor),
    /// Measure rates and latencies.
    Bench {
        #[command(subcommand)]
        command: bench::Bench,
    },
    /// Watch the platform at work; without a name, list what there is to watch.
    Demo {
        #[command(subcommand)]
        command: Option<demo::Demo>,
    },
    /// Print a completion script for a shell.
    Completions(completions::Completions),
}
