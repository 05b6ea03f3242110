//! Fleuve as a library: a broker inside a program or a test, and the client to talk to it.
//!
//! ```
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use fleuve::Embedded;
//! use fleuve::client::{Producer, ProducerConfig, Record};
//!
//! let broker = Embedded::start().await?;
//! let producer = Producer::new(broker.client(), ProducerConfig::default())?;
//! let written = producer.send_and_wait(Record::new("greetings").value(b"bonjour")).await?;
//! assert_eq!(written.offset, Some(0));
//! broker.shutdown().await;
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(example()).unwrap();
//! ```

mod embedded;

pub use embedded::{Builder, Embedded, EmbeddedError, InProcessTransport};
pub use fleuve_client as client;
