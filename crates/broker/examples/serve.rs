//! Runs a broker until the process is told to stop: `serve DIRECTORY [key=value]...`.

use std::time::Duration;

use fleuve_broker::{Broker, Components};
use fleuve_metadata::config::{Override, Sources, load};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("usage: serve DIRECTORY [key=value]...")?;
    let mut overrides = vec![setting("log.dirs", &directory)];
    for argument in arguments {
        let (key, value) = argument.split_once('=').ok_or("settings are key=value")?;
        overrides.push(setting(key, value));
    }
    let (settings, _) = load(Sources { overrides: &overrides, ..Sources::default() })?;
    let broker = Broker::start(settings, Components::default()).await?;
    let mut report = String::new();
    for listener in broker.listeners() {
        report.push_str(&format!("listening kafka {}\n", listener.address));
    }
    report.push_str(&format!("ready in {} ms\n", broker.startup().as_millis()));
    use std::io::Write;
    std::io::stdout().write_all(report.as_bytes())?;
    std::io::stdout().flush()?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    tokio::time::timeout(Duration::from_secs(30), broker.shutdown()).await?;
    Ok(())
}

fn setting(key: &str, value: &str) -> Override {
    Override { key: key.to_owned(), value: value.to_owned(), flag: key.to_owned() }
}
