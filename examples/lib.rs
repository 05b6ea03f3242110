//! Applications that `fleuve demo NAME` runs, one folder each.
//!
//! An application is what its README says, a topology in `topology.rs`, and a [`Demo`] in `mod.rs` that creates topics,
//! feeds data and shows what comes out. It gets a client and knows nothing else of the cluster, so it runs on a broker in
//! this process as on any Apache Kafka. What they share is in [`kit`]. How to add one stands in `README.md`.

pub mod kit;

pub mod music;
#[path = "page-views/mod.rs"]
pub mod page_views;
#[path = "word-count/mod.rs"]
pub mod word_count;

use clap::ArgMatches;
use fleuve_client::BoxFuture;
use fleuve_streams::Topology;

pub use kit::{DemoError, Screen, Stage};

/// Every application, in the order in which they are listed.
pub const DEMOS: &[Entry] = &[
    Entry::of::<word_count::WordCount>(),
    Entry::of::<page_views::PageViews>(),
    Entry::of::<music::Music>(),
];

/// An application that can be run as a demo. Its fields are its options on the command line.
pub trait Demo: clap::Args + Send + 'static {
    /// What follows `fleuve demo`.
    const NAME: &'static str;
    /// One sentence for the list.
    const ABOUT: &'static str;

    /// What it runs with `fleuve-streams`.
    fn topology() -> Topology;

    /// Runs until the stage says so, or, where nobody watches, until everything that was fed has come out.
    fn run(self, stage: Stage) -> impl Future<Output = Result<(), DemoError>> + Send;
}

/// An application in the list.
pub struct Entry {
    /// What follows `fleuve demo`.
    pub name: &'static str,
    /// One sentence about it.
    pub about: &'static str,
    topology: fn() -> Topology,
    arguments: fn(clap::Command) -> clap::Command,
    run: fn(&ArgMatches, Stage) -> BoxFuture<'static, Result<(), DemoError>>,
}

impl Entry {
    /// The entry of an application.
    pub const fn of<D: Demo>() -> Self {
        Self {
            name: D::NAME,
            about: D::ABOUT,
            topology: D::topology,
            arguments: |command| D::augment_args(command),
            run: |arguments, stage| match D::from_arg_matches(arguments) {
                Ok(demo) => Box::pin(demo.run(stage)),
                Err(error) => Box::pin(std::future::ready(Err(DemoError::new(error)))),
            },
        }
    }

    /// The command with the application's options added.
    pub fn with_arguments(&self, command: clap::Command) -> clap::Command {
        (self.arguments)(command.about(self.about))
    }

    /// What it runs with `fleuve-streams`.
    pub fn topology(&self) -> Topology {
        (self.topology)()
    }

    /// Runs it with the options that were given.
    pub fn run(
        &self,
        arguments: &ArgMatches,
        stage: Stage,
    ) -> BoxFuture<'static, Result<(), DemoError>> {
        (self.run)(arguments, stage)
    }
}
