//! Makes a topic, changes a setting of it, and looks at it: `administration SERVERS TOPIC`.

#![expect(clippy::print_stdout, reason = "an example shows its results")]

use std::time::Duration;

use fleuve_client::admin::{Alteration, NewTopic, Resource};
use fleuve_client::{Admin, Client, ClientConfig, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let servers = arguments.next().unwrap_or_else(|| "localhost:9092".to_owned());
    let topic = arguments.next().unwrap_or_else(|| "ledger".to_owned());
    let retention = run(Client::connect(ClientConfig::new(&servers)?).await?, &topic).await?;
    println!("{topic} keeps records for {retention} ms");
    Ok(())
}

/// Makes `topic` and returns how long it keeps records.
pub(crate) async fn run(client: Client, topic: &str) -> Result<String> {
    let admin = Admin::new(client);
    for (name, result) in admin.create_topics(&[NewTopic::new(topic).partitions(3)], false).await? {
        // Every item has a result of its own.
        result.inspect_err(|error| println!("{name}: {error}"))?;
    }
    let resource = Resource::Topic(topic.to_owned());
    let day = Alteration::Set("retention.ms".to_owned(), A_DAY.to_owned());
    admin.alter_configs(&resource, &[day], false).await?;
    // The controller has decided it; the broker that is asked now may hear of it a moment later.
    for _ in 0..PATIENCE {
        let configs = admin.describe_configs(&resource, false).await?;
        let retention = configs.into_iter().find(|config| config.name == "retention.ms");
        if let Some(value) = retention.and_then(|config| config.value)
            && value == A_DAY
        {
            return Ok(value);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok("an unknown number of".to_owned())
}

/// 24 hours in milliseconds.
const A_DAY: &str = "86400000";
/// How often to look whether it has come into force, and how long to wait in between.
const PATIENCE: usize = 200;
const PAUSE: Duration = Duration::from_millis(50);
