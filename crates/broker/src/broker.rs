//! The broker as a whole: starting it, telling where it listens, stopping it.
//!
//! Start order: data directories, metadata log, partitions, sockets, background work. Sockets are
//! bound early, because a taken port is the most common mistake and should be found before
//! anything else is touched, but nothing is accepted until requests can be answered.
//!
//! Several brokers can live in one process; nothing here is global.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleuve_metadata::config::BrokerSettings;
use fleuve_metadata::controller::RegistrationError;
use fleuve_os::{Clock, Disk, OsDisk, OsRandom, Random, SystemClock};
use fleuve_protocol::Str;
use fleuve_storage::Flusher;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::connection::{self, InProcessConnection, Limits};
use crate::dispatch::Dispatcher;
use crate::http_door::HttpDoor;
use crate::listening::{Listening, Prepared, Surroundings};
use crate::log_levels::LogLevels;
use crate::logs::LogsError;
use crate::metadata_log::MetadataReplayError;
use crate::metrics::Distribution;
use crate::node::Node;
use crate::request::Peer;
use crate::{background, startup};

/// How long connections may take to finish what they are at when the broker stops.
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(2);
/// Flushes that run at the same time, whose commits the file system then merges.
const FLUSH_THREADS: usize = 4;

/// The world that a broker lives in.
#[derive(Clone, Debug)]
pub struct Components {
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Makes ids.
    pub random: Arc<dyn Random>,
    /// Holds the logs.
    pub disk: Arc<dyn Disk>,
    /// Says and changes what is written to the process's log, if anybody may.
    pub log_levels: Option<Arc<dyn LogLevels>>,
}

impl Default for Components {
    /// The real world.
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock::new()),
            random: Arc::new(OsRandom),
            disk: Arc::new(OsDisk::new()),
            log_levels: None,
        }
    }
}

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener's host has no address.
    #[error("listener {listener}: the host `{host}` cannot be resolved: {error}")]
    Resolve {
        /// The listener's name.
        listener: String,
        /// The host as written.
        host: String,
        /// What the system says.
        error: io::Error,
    },
    /// A listener's address cannot be bound.
    #[error("listener {listener}: cannot listen on {address}: {error}")]
    Bind {
        /// The listener's name.
        listener: String,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// A listener's certificates, users or rules cannot be used.
    #[error("listener {listener}: {reason}")]
    Protection {
        /// The listener's name.
        listener: String,
        /// What is wrong, without secrets.
        reason: String,
    },
    /// The authorizer cannot be made of what the operator wrote.
    #[error("{0}")]
    Access(String),
    /// A listener's host turned out to be an address that other machines reach.
    #[error(
        "listener {listener}: {address} is reachable from other machines, and nobody would have \
         to authenticate; bind it to 127.0.0.1, give it SASL or ssl.client.auth=required, or allow \
         it with fleuve.allow.unauthenticated.network=true"
    )]
    Unprotected {
        /// The listener's name.
        listener: String,
        /// The address.
        address: SocketAddr,
    },
    /// The address for metrics cannot be bound, and somebody asked for it.
    #[error("fleuve.metrics.listen: cannot listen on {host}:{port}: {error}")]
    Metrics {
        /// The host as written.
        host: String,
        /// The port.
        port: u16,
        /// What the system says.
        error: io::Error,
    },
    /// A data directory cannot be used.
    #[error("{0}")]
    Logs(#[from] LogsError),
    /// The metadata log cannot be used.
    #[error("{0}")]
    Metadata(#[from] MetadataReplayError),
    /// The metadata log cannot be written.
    #[error("the metadata log cannot be written: {0}")]
    MetadataWrite(String),
    /// The data belongs to a release that this one does not understand.
    #[error("{0}")]
    Registration(#[from] RegistrationError),
    /// A thread cannot be started.
    #[error("a thread cannot be started: {0}")]
    Thread(io::Error),
    /// A task of the start ended early.
    #[error("the start was interrupted")]
    Interrupted,
}

/// A listener that accepts connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundListener {
    /// The listener's name.
    pub name: String,
    /// The address, with the port that the system chose where 0 was asked for.
    pub address: SocketAddr,
    /// Whether it is the controller that answers there.
    pub is_controllers: bool,
}

/// A running broker.
#[derive(Debug)]
pub struct Broker {
    node: Arc<Node>,
    listeners: Vec<BoundListener>,
    http: Option<HttpDoor>,
    stop: watch::Sender<bool>,
    /// Yields nothing until every connection has ended.
    connections: mpsc::Receiver<Infallible>,
    tasks: Tasks,
    flusher: Arc<Flusher>,
    startup: Duration,
    limits: Limits,
    /// Held by every connection; the broker's own copy serves those within the process.
    alive: Option<mpsc::Sender<Infallible>>,
}

/// Tasks that end with the broker, also with one that is dropped instead of shut down.
#[derive(Debug)]
struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl Broker {
    /// Starts a broker; it serves requests when this returns.
    pub async fn start(
        settings: BrokerSettings,
        components: Components,
    ) -> Result<Self, StartError> {
        let begun = Instant::now();
        let settings = Arc::new(settings);
        let mut prepared = Vec::new();
        for listener in settings.network.listeners.all() {
            prepared.push(Prepared::bind(&settings, listener, &*components.random).await?);
        }
        let flush_times = Arc::<Distribution>::default();
        let times = Arc::clone(&flush_times);
        let flusher =
            Flusher::start_observed(settings.log.dirs.len(), FLUSH_THREADS, move |took| {
                times.record(took)
            });
        let flusher = Arc::new(flusher.map_err(StartError::Thread)?);
        let gate = startup::gate(&settings, &components).await?;
        let listeners: Vec<BoundListener> = prepared.iter().map(Prepared::bound).collect();
        let (wish, wishes) = mpsc::unbounded_channel();
        let node = startup::open_node(startup::Opening {
            settings: &settings,
            components: &components,
            listeners: &listeners,
            flusher: &flusher,
            flush_times: &flush_times,
            gate: &gate,
            wish,
        })
        .await?;
        let http = HttpDoor::open(&settings, &node).await?;
        node.http_door.get_or_init(|| http.as_ref().map(HttpDoor::address));

        let (stop, stopped) = watch::channel(false);
        let (alive, connections) = mpsc::channel(1);
        let limits = startup::limits(&settings);
        let mut tasks = Tasks(background::start(&node));
        let around =
            Surroundings { node: Arc::clone(&node), gate, limits, stopped, alive: alive.clone() };
        tasks.0.push(Listening::start(around, prepared).keep(wishes));
        // What was set while the broker ran the last time holds again.
        if let Err(error) = node.settle_listeners().await {
            tracing::error!(%error, "not all listeners are as they should be");
        }
        let startup = begun.elapsed();
        tracing::info!(id = node.id, ?startup, "broker started");
        let alive = Some(alive);
        Ok(Self {
            node,
            listeners,
            http,
            stop,
            connections,
            tasks,
            flusher,
            startup,
            limits,
            alive,
        })
    }

    /// Where it listens, in the order of the settings; behind those of the broker come those of the controller.
    pub fn listeners(&self) -> &[BoundListener] {
        &self.listeners
    }

    /// Where metrics and health are served, if they are.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(HttpDoor::address)
    }

    /// How long the start took.
    pub fn startup(&self) -> Duration {
        self.startup
    }

    /// Connects from within the process, without a socket.
    ///
    /// Frames are the same as on a socket, and replies name the addresses of the first listener.
    /// The limits of listeners on how many may connect do not apply.
    pub fn connect_in_process(&self) -> InProcessConnection {
        let (connection, peer) = connection::in_process();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let dispatcher = Dispatcher::new(Arc::clone(&self.node), Peer::new(address, 0));
        let (limits, stopped, alive) = (self.limits, self.stop.subscribe(), self.alive.clone());
        tokio::spawn(async move {
            let reason = connection::serve_in_process(peer, dispatcher, limits, stopped).await;
            tracing::debug!(%reason, "connection within the process closed");
            drop(alive);
        });
        connection
    }

    /// The id of the cluster.
    pub fn cluster_id(&self) -> Str {
        self.node.image().cluster_id().clone()
    }

    /// Stops accepting, finishes what is under way, makes everything durable and closes the logs.
    pub async fn shutdown(mut self) {
        let begun = Instant::now();
        self.node.stopping.store(true, std::sync::atomic::Ordering::Release);
        self.stop.send_replace(true);
        self.alive = None;
        let topics = self.node.topics.all();
        for partition in topics.iter().flat_map(|topic| &topic.partitions) {
            partition.waiters.wake_fetches();
        }
        self.node.groups.abandon();
        self.node.transactions.abandon();
        self.node.shares.retire_all();
        // Connections end by themselves after the drain time; this is a second line of defence.
        if timeout(2 * DRAIN_MAX, self.connections.recv()).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
        drop(self.tasks);
        if let Some(http) = self.http.take() {
            http.shutdown().await;
        }
        let node = Arc::clone(&self.node);
        let flusher = self.flusher;
        let closed = tokio::task::spawn_blocking(move || {
            // Whoever holds it besides is about to let go; then it ends with its last holder.
            if let Some(flusher) = Arc::into_inner(flusher) {
                flusher.stop();
            }
            node.close_logs();
        });
        if closed.await.is_err() {
            tracing::error!("the logs are not closed; the next start will check them");
        }
        tracing::info!(id = self.node.id, took = ?begun.elapsed(), "broker stopped");
    }
}
