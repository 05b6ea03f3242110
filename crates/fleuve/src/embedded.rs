//! A broker inside this process, and the transport that reaches it without a socket.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use fleuve_broker::{Broker, Components, StartError};
use fleuve_client::transport::{FrameReceiver, FrameSender, LENGTH_BYTES, Link, Pieces, Transport};
use fleuve_client::{BoxFuture, Client, ClientConfig};
use fleuve_metadata::config::{Override, Sources, load};
use tokio::sync::mpsc;

/// Why an embedded broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// A setting is not acceptable.
    #[error("{0}")]
    Settings(String),
    /// There is no place for the data.
    #[error("no temporary directory: {0}")]
    Directory(#[from] io::Error),
    /// The broker refused to start.
    #[error("{0}")]
    Start(#[from] StartError),
}

/// How an embedded broker is to start; made by [`Embedded::builder`].
#[derive(Clone, Debug, Default)]
pub struct Builder {
    data_dir: Option<PathBuf>,
    settings: Vec<(String, String)>,
}

impl Builder {
    /// Keeps data in `directory`, which outlives the broker; the default is a temporary one.
    pub fn data_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(directory.into());
        self
    }

    /// Sets a broker property by Kafka's name.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Starts the broker; it serves requests when this returns.
    pub async fn start(self) -> Result<Embedded, EmbeddedError> {
        let (directory, temporary) = match self.data_dir {
            Some(directory) => (directory, None),
            None => {
                let temporary = tempfile::tempdir()?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        let mut pairs = vec![
            ("listeners".to_owned(), "PLAINTEXT://127.0.0.1:0".to_owned()),
            // A group of one program need not wait for others to join.
            ("group.initial.rebalance.delay.ms".to_owned(), "0".to_owned()),
            ("log.dirs".to_owned(), directory.display().to_string()),
        ];
        for (key, value) in self.settings {
            pairs.retain(|(present, _)| *present != key);
            pairs.push((key, value));
        }
        let overrides: Vec<_> = pairs
            .into_iter()
            .map(|(key, value)| Override { key, value, flag: "Embedded".to_owned() })
            .collect();
        let sources =
            Sources { file: None, overrides: &overrides, host_name: "localhost", outside: None };
        let (settings, _) = load(sources).map_err(|error| {
            let problems: Vec<_> = error.problems.errors.iter().map(ToString::to_string).collect();
            EmbeddedError::Settings(problems.join("; "))
        })?;
        let broker = Broker::start(settings, Components::default()).await?;
        Ok(Embedded { broker: Arc::new(broker), temporary })
    }
}

/// A running broker in this process.
///
/// Programs in the same process reach it through [`Embedded::client`] without a socket; others at
/// [`Embedded::bootstrap_servers`].
#[derive(Debug)]
pub struct Embedded {
    broker: Arc<Broker>,
    /// Removed when the broker is gone.
    temporary: Option<tempfile::TempDir>,
}

impl Embedded {
    /// Starts a broker on temporary data.
    pub async fn start() -> Result<Self, EmbeddedError> {
        Self::builder().start().await
    }

    /// Begins to describe a broker.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Returns where other processes reach it, as `host:port`.
    pub fn bootstrap_servers(&self) -> String {
        self.broker.listeners()[0].address.to_string()
    }

    /// Returns where its metrics page is, if `fleuve.metrics.listen` names a place.
    pub fn http_address(&self) -> Option<std::net::SocketAddr> {
        self.broker.http_address()
    }

    /// Makes a client with default settings that reaches the broker without a socket.
    pub fn client(&self) -> Client {
        self.client_with(ClientConfig::default())
    }

    /// Makes a client that reaches the broker without a socket.
    pub fn client_with(&self, mut config: ClientConfig) -> Client {
        config.bootstrap_servers = vec![self.bootstrap_servers()];
        Client::with_transport(config, Arc::new(self.transport()))
    }

    /// Returns the transport of such clients.
    pub fn transport(&self) -> InProcessTransport {
        InProcessTransport { broker: Arc::downgrade(&self.broker) }
    }

    /// Stops the broker, making everything durable, and removes temporary data.
    pub async fn shutdown(self) {
        let Self { broker, temporary } = self;
        // Transports hold the broker weakly, and only while they connect.
        if let Some(broker) = Arc::into_inner(broker) {
            broker.shutdown().await;
        }
        drop(temporary);
    }
}

/// Hands frames to a broker of the same process, whatever address is asked for.
#[derive(Clone, Debug)]
pub struct InProcessTransport {
    broker: std::sync::Weak<Broker>,
}

impl Transport for InProcessTransport {
    fn connect<'a>(&'a self, _: &'a str, _: u16, _: usize) -> BoxFuture<'a, io::Result<Link>> {
        let link = match self.broker.upgrade() {
            Some(broker) => {
                let connection = broker.connect_in_process();
                Ok(Link {
                    sender: Box::new(Sender { requests: connection.requests }),
                    receiver: Box::new(Receiver { responses: connection.responses }),
                })
            }
            None => Err(io::ErrorKind::ConnectionRefused.into()),
        };
        Box::pin(std::future::ready(link))
    }
}

struct Sender {
    requests: mpsc::Sender<Vec<Bytes>>,
}

impl FrameSender for Sender {
    fn send<'a>(&'a mut self, segments: &'a mut Vec<Bytes>) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            let mut segments = segments.drain(..);
            while let Some(first) = segments.next() {
                // Every frame begins with its length, in a segment of its own.
                let length = first.first_chunk::<4>().map(|length| i32::from_be_bytes(*length));
                let length = length.and_then(|length| usize::try_from(length).ok());
                let length = length.ok_or(io::ErrorKind::InvalidData)?;
                let mut missing = (4 + length).saturating_sub(first.len());
                let mut frame = vec![first];
                while missing > 0 {
                    let next = segments.next().ok_or(io::ErrorKind::InvalidData)?;
                    missing = missing.saturating_sub(next.len());
                    frame.push(next);
                }
                let sent = self.requests.send(frame).await;
                sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            }
            Ok(())
        })
    }
}

struct Receiver {
    responses: mpsc::Receiver<Vec<Bytes>>,
}

impl FrameReceiver for Receiver {
    fn receive<'a>(&'a mut self) -> BoxFuture<'a, io::Result<Pieces>> {
        Box::pin(async move {
            let Some(segments) = self.responses.recv().await else {
                let text = "the broker closed the connection";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
            };
            let mut frame = Pieces::from(segments);
            frame.skip(LENGTH_BYTES);
            Ok(frame)
        })
    }
}
