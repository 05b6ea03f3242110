//! Connects with TLS and SASL by a file of Kafka's properties, and says what the cluster is:
//! `secured client.properties`.
//!
//! ```text
//! bootstrap.servers=broker.example.org:9093
//! security.protocol=SASL_SSL
//! ssl.truststore.location=/etc/kafka/trust.p12
//! ssl.truststore.type=PKCS12
//! ssl.truststore.password=changeit
//! sasl.mechanism=SCRAM-SHA-512
//! sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \
//!     username="ada" password="lovelace";
//! ```

#![expect(clippy::print_stdout, reason = "an example shows its results")]

use std::path::Path;

use fleuve_client::{Admin, Client, ClientConfig, Properties, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "client.properties".to_owned());
    let properties = Properties::load(Path::new(&path))?;
    let client = Client::connect(ClientConfig::from_properties(&properties)?).await?;
    let cluster = Admin::new(client).describe_cluster().await?;
    println!("cluster {} of {} brokers", cluster.id, cluster.brokers.len());
    Ok(())
}
