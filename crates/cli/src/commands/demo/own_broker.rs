//! A broker for the time of a demo.

use std::path::PathBuf;
use std::time::Instant;

use fleuve_broker::{Broker, Components};
use fleuve_metadata::config::{Override, Sources, load};

use crate::failure::Failure;
use crate::output::note;

/// A broker with its data in a directory that goes away.
pub(super) struct OwnBroker {
    broker: Broker,
    pub(super) address: String,
    directory: PathBuf,
}

impl OwnBroker {
    pub(super) async fn start() -> Result<Self, Failure> {
        let directory = std::env::temp_dir().join(format!("fleuve-demo-{}", std::process::id()));
        let setting = |key: &str, value: &str| Override {
            key: key.to_owned(),
            value: value.to_owned(),
            flag: "demo".to_owned(),
        };
        let overrides = [
            setting("listeners", "PLAINTEXT://127.0.0.1:0"),
            setting("log.dirs", &directory.display().to_string()),
            setting("group.initial.rebalance.delay.ms", "0"),
        ];
        let sources =
            Sources { file: None, overrides: &overrides, host_name: "localhost", outside: None };
        let (settings, _) = load(sources).map_err(Failure::new)?;
        let began = Instant::now();
        let broker = Broker::start(settings, Components::default()).await.map_err(Failure::new)?;
        let address = broker.listeners()[0].address.to_string();
        note(format!(
            "started a broker for this demo at {address} in {} ms",
            began.elapsed().as_millis()
        ));
        Ok(Self { broker, address, directory })
    }

    pub(super) async fn stop(self) {
        self.broker.shutdown().await;
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            note(format!("warning: {} stays behind: {error}", self.directory.display()));
        }
    }
}
