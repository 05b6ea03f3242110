//! The broker as a whole: starting it, telling where it listens, stopping it.
//!
//! Start order: data directories, metadata log, partitions, sockets, background work. Sockets are
//! bound early, because a taken port is the most common mistake and should be found before
//! anything else is touched, but nothing is accepted until requests can be answered.
//!
//! Several brokers can live in one process; nothing here is global.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleuve_coordinator::GroupSettings;
use fleuve_http::Server;
use fleuve_metadata::config::{BrokerSettings, HostPort, Layers, Listener as ListenerSettings};
use fleuve_metadata::controller::{Controller, Registration, RegistrationError};
use fleuve_metadata::image::Endpoint as RegisteredEndpoint;
use fleuve_os::{Clock, Disk, OsDisk, OsRandom, Random, SystemClock};
use fleuve_protocol::Str;
use fleuve_storage::Flusher;
use fleuve_types::Uuid;
use tokio::net::lookup_host;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::background;
use crate::connection::{self, ConnectionGate, GateLimits, Limits, Listener, SocketOptions};
use crate::dispatch::{APIS, Dispatcher};
use crate::fetch_session::SessionCache;
use crate::groups::Groups;
use crate::logs::{Logs, LogsError};
use crate::metadata_log::{MetadataLog, MetadataReplayError};
use crate::metrics::RequestCounters;
use crate::node::{Endpoint, Node};
use crate::partition::Partition;
use crate::probe::NodeProbe;
use crate::purgatory::Purgatory;
use crate::request::Peer;

/// Requests of one connection that may await their answers.
const OUTSTANDING_PER_CONNECTION_MAX: usize = 1024;
/// Request bytes of one connection that may await their answers; one request may exceed it.
const OUTSTANDING_BYTES_PER_CONNECTION_MAX: usize = 32 << 20;
/// Answer bytes that may wait for a client to take them; one answer may exceed it.
const UNWRITTEN_BYTES_PER_CONNECTION_MAX: usize = 4 << 20;
/// How long connections may take to finish what they are at when the broker stops.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// Flushes that run at the same time, whose commits the file system then merges.
const FLUSH_THREADS: usize = 4;
/// The leader epoch of the metadata log, which has only ever one leader.
const METADATA_EPOCH: i32 = 1;

/// The world that a broker lives in.
#[derive(Clone, Debug)]
pub struct Components {
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Makes ids.
    pub random: Arc<dyn Random>,
    /// Holds the logs.
    pub disk: Arc<dyn Disk>,
}

impl Default for Components {
    /// The real world.
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock::new()),
            random: Arc::new(OsRandom),
            disk: Arc::new(OsDisk::new()),
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
}

/// A running broker.
#[derive(Debug)]
pub struct Broker {
    node: Arc<Node>,
    listeners: Vec<BoundListener>,
    http: Option<Server>,
    stop: watch::Sender<bool>,
    /// Yields nothing until every connection has ended.
    connections: mpsc::Receiver<Infallible>,
    tasks: Tasks,
    flusher: Arc<Flusher>,
    startup: Duration,
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
        let sockets = bind(&settings).await?;
        let flusher = Arc::new(Flusher::start(FLUSH_THREADS).map_err(StartError::Thread)?);
        let gate = Arc::new(ConnectionGate::new(GateLimits {
            total_max: settings.network.connections_max,
            per_address_max: settings.network.connections_per_ip_max,
            overrides: address_overrides(&settings).await,
            rate_max: creation_rate(&settings),
        }));
        let listeners: Vec<BoundListener> = sockets
            .iter()
            .map(|(name, socket)| BoundListener { name: name.clone(), address: socket.address() })
            .collect();
        let node = open_node(&settings, &components, &listeners, &flusher).await?;
        let http = start_http(&settings, &node, &gate).await;

        let (stop, stopped) = watch::channel(false);
        let (alive, connections) = mpsc::channel(1);
        let limits = limits(&settings);
        let mut tasks = Tasks(background::start(&node));
        for (index, (name, socket)) in sockets.into_iter().enumerate() {
            tasks.0.push(tokio::spawn(accept(Acceptor {
                name,
                index,
                socket,
                gate: Arc::clone(&gate),
                node: Arc::clone(&node),
                limits,
                stopped: stopped.clone(),
                alive: alive.clone(),
            })));
        }
        drop(alive);
        let startup = begun.elapsed();
        tracing::info!(id = node.id, ?startup, "broker started");
        Ok(Self { node, listeners, http, stop, connections, tasks, flusher, startup })
    }

    /// Where it listens, in the order of the settings.
    pub fn listeners(&self) -> &[BoundListener] {
        &self.listeners
    }

    /// Where metrics and health are served, if they are.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(Server::address)
    }

    /// How long the start took.
    pub fn startup(&self) -> Duration {
        self.startup
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
        let topics = self.node.topics.all();
        for partition in topics.iter().flat_map(|topic| &topic.partitions) {
            partition.waiters.wake_fetches();
        }
        self.node.groups.abandon();
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

async fn bind(settings: &BrokerSettings) -> Result<Vec<(String, Listener)>, StartError> {
    let network = &settings.network;
    // Kafka's default of 100 KiB is below what Linux sizes by itself, and a fixed size switches
    // that off; so only what the operator asks for is set.
    let is_set = |key: &str| settings.statics.get(key).is_some();
    let options = SocketOptions {
        send_bytes: network.send_buffer_bytes.filter(|_| is_set("socket.send.buffer.bytes")),
        receive_bytes: network
            .receive_buffer_bytes
            .filter(|_| is_set("socket.receive.buffer.bytes")),
        backlog: network.listen_backlog,
    };
    let mut sockets = Vec::new();
    for listener in &network.listeners.open {
        let name = listener.name.clone();
        let address = resolve(listener).await?;
        if !address.ip().is_loopback() {
            tracing::warn!(
                listener = %name, %address,
                "this listener is reachable from other machines and asks nobody for a password"
            );
        }
        let socket = Listener::bind(address, options).map_err(|error| StartError::Bind {
            listener: name.clone(),
            address,
            error,
        })?;
        sockets.push((name, socket));
    }
    Ok(sockets)
}

async fn resolve(listener: &ListenerSettings) -> Result<SocketAddr, StartError> {
    if listener.host.is_empty() {
        return Ok(SocketAddr::from(([0, 0, 0, 0], listener.port)));
    }
    let failure = |error| StartError::Resolve {
        listener: listener.name.clone(),
        host: listener.host.clone(),
        error,
    };
    let found = lookup_host((listener.host.as_str(), listener.port)).await.map_err(failure)?;
    let found: Vec<SocketAddr> = found.collect();
    // A name such as localhost has addresses of both kinds; clients try the older one first.
    let first = found.iter().find(|address| address.is_ipv4()).or_else(|| found.first());
    first.copied().ok_or_else(|| failure(io::Error::other("it has no address")))
}

/// `max.connection.creation.rate`, unless it is so high that it means no limit.
fn creation_rate(settings: &BrokerSettings) -> Option<u32> {
    let value = Layers::of_statics(&settings.statics).value("max.connection.creation.rate")?;
    let rate = u32::try_from(value.as_integer()?).ok()?;
    (rate < i32::MAX as u32).then_some(rate)
}

/// The limits of single addresses; the operator may name them by host.
async fn address_overrides(settings: &BrokerSettings) -> HashMap<IpAddr, usize> {
    let mut overrides = HashMap::new();
    for (host, limit) in &settings.network.connections_per_ip_overrides {
        match lookup_host((host.as_str(), 0)).await {
            Ok(found) => overrides.extend(found.map(|address| (address.ip(), *limit))),
            Err(error) => {
                tracing::warn!(%host, %error, "no limit of its own for a host without address");
            }
        }
    }
    overrides
}

async fn open_node(
    settings: &Arc<BrokerSettings>,
    components: &Components,
    listeners: &[BoundListener],
    flusher: &Arc<Flusher>,
) -> Result<Arc<Node>, StartError> {
    let Components { clock, random, .. } = components.clone();
    let (opening, world) = (Arc::clone(settings), components.clone());
    let opened = tokio::task::spawn_blocking(move || Logs::open(&opening, &world));
    let (logs, found) = opened.await.map_err(|_| StartError::Interrupted)??;
    let purgatory = Arc::new(Purgatory::default());
    // The metadata log is flushed before anything is said about it, whatever the setting for
    // topics.
    let metadata_partition = Arc::new(Partition::new(found.log, METADATA_EPOCH, flusher, true));
    if metadata_partition.high_watermark() < metadata_partition.log_end_offset() {
        metadata_partition.request_flush();
    }
    let controller = Controller::new(logs.cluster_id(), Arc::clone(settings));
    let metadata = MetadataLog::replay(
        metadata_partition,
        &found.records,
        controller,
        Arc::clone(&clock),
        Arc::clone(&purgatory),
    )?;
    let endpoints = endpoints(settings, listeners);
    let broker_epoch = register(settings, components, &logs, &metadata, &endpoints).await?;
    let groups = Groups::new(
        Arc::clone(&clock),
        Arc::clone(&random),
        Arc::clone(&purgatory),
        group_settings(settings),
        Duration::from_millis(settings.offsets.commit_timeout_ms),
    );
    let node = Arc::new(Node {
        id: settings.node.id.0,
        rack: settings.node.rack.clone().map(Str::from),
        clock,
        random,
        topics: Default::default(),
        sessions: SessionCache::new(settings.fetch.sessions_max),
        purgatory,
        groups: Arc::new(groups),
        metadata,
        logs,
        flusher: Arc::downgrade(flusher),
        counters: Default::default(),
        request_counters: APIS.iter().map(|_| RequestCounters::default()).collect(),
        endpoints,
        broker_epoch,
        static_settings: Arc::clone(settings),
        settings: parking_lot::RwLock::new(Arc::clone(settings)),
        producer_ids: Default::default(),
        stopping: Default::default(),
    });
    node.take_dynamic_settings(&node.image());
    let opening = Arc::clone(&node);
    let opened = tokio::task::spawn_blocking(move || opening.open_all_topics());
    let shards = opened.await.map_err(|_| StartError::Interrupted)?;
    node.make_recovered_records_durable().await;
    // Groups answer that they are loading until they are; nothing else waits for them.
    let loading = Arc::clone(&node);
    tokio::task::spawn_blocking(move || loading.load_groups(shards));
    Ok(node)
}

/// Writes down that this broker is here, and returns the number of its registration.
async fn register(
    settings: &BrokerSettings,
    components: &Components,
    logs: &Logs,
    metadata: &MetadataLog,
    endpoints: &[Endpoint],
) -> Result<i64, StartError> {
    let write_error =
        |error: crate::metadata_log::MetadataError| StartError::MetadataWrite(error.to_string());
    let mut changing = metadata.begin().await;
    let first = changing.controller().finish_replay();
    changing.carry_out(first).await.map_err(write_error)?;
    let mut incarnation = [0; 16];
    components.random.fill(&mut incarnation);
    let open = &settings.network.listeners.open;
    let registration = Registration {
        incarnation: Uuid::from_random_bytes(incarnation),
        endpoints: open
            .iter()
            .zip(endpoints)
            .map(|(listener, endpoint)| RegisteredEndpoint {
                listener: Str::copy_from(&listener.name),
                host: endpoint.host.clone(),
                port: endpoint.port as u16,
                security_protocol: listener.protocol.wire_id(),
            })
            .collect(),
        rack: settings.node.rack.as_deref().map(Str::copy_from),
        directories: logs.directory_ids(),
        was_clean: logs.was_clean(),
    };
    let next_offset = changing.next_offset();
    let decision = changing.controller().register_broker(&registration, next_offset);
    let (epoch, _) = changing.carry_out(decision).await.map_err(write_error)?;
    Ok(epoch?.0)
}

/// What clients of each listener are told: the advertised address, or else the bound one.
fn endpoints(settings: &BrokerSettings, bound: &[BoundListener]) -> Vec<Endpoint> {
    let network = &settings.network.listeners;
    let endpoint = |(listener, bound): (&ListenerSettings, &BoundListener)| {
        let advertised = network.advertised.iter().find(|known| known.name == listener.name);
        let (host, port) = match advertised {
            Some(advertised) => (advertised.host.as_str(), advertised.port),
            None => (listener.host.as_str(), 0),
        };
        Endpoint {
            host: Str::copy_from(host),
            port: i32::from(if port == 0 { bound.address.port() } else { port }),
        }
    };
    network.open.iter().zip(bound).map(endpoint).collect()
}

fn group_settings(settings: &BrokerSettings) -> GroupSettings {
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    GroupSettings {
        min_session_timeout_ms: settings.groups.session_timeout_min_ms,
        max_session_timeout_ms: settings.groups.session_timeout_max_ms,
        initial_rebalance_delay_ms: settings.groups.initial_rebalance_delay_ms,
        max_size: settings.groups.members_max,
        offset_metadata_max_bytes: settings.offsets.metadata_bytes_max,
        offsets_retention_ms: signed(settings.offsets.retention_ms),
        offsets_retention_check_interval_ms: signed(settings.offsets.retention_check_interval_ms),
    }
}

fn limits(settings: &BrokerSettings) -> Limits {
    Limits {
        request_bytes_max: settings.network.request_bytes_max,
        outstanding_max: OUTSTANDING_PER_CONNECTION_MAX,
        outstanding_bytes_max: OUTSTANDING_BYTES_PER_CONNECTION_MAX,
        unwritten_bytes_max: UNWRITTEN_BYTES_PER_CONNECTION_MAX,
        idle_max: settings.network.idle_max_ms.map(Duration::from_millis),
        drain_max: DRAIN_MAX,
    }
}

/// Starts the endpoint for metrics. A broker without metrics is better than none, so that a taken
/// port only earns a warning.
async fn start_http(
    settings: &BrokerSettings,
    node: &Arc<Node>,
    gate: &Arc<ConnectionGate>,
) -> Option<Server> {
    let HostPort { host, port } = settings.metrics.listen.clone()?;
    let host = if host.is_empty() { "0.0.0.0".to_owned() } else { host };
    let probe = Arc::new(NodeProbe::new(Arc::clone(node), Arc::clone(gate)));
    let started = async {
        let address = lookup_host((host.as_str(), port)).await?.next();
        let address = address.ok_or_else(|| io::Error::other("the host has no address"))?;
        Server::start(address, probe).await
    };
    match started.await {
        Ok(server) => Some(server),
        Err(error) => {
            tracing::warn!(%host, port, %error, "metrics are not served");
            None
        }
    }
}

/// What the task of a listener needs.
struct Acceptor {
    name: String,
    index: usize,
    socket: Listener,
    gate: Arc<ConnectionGate>,
    node: Arc<Node>,
    limits: Limits,
    stopped: watch::Receiver<bool>,
    alive: mpsc::Sender<Infallible>,
}

async fn accept(acceptor: Acceptor) {
    let Acceptor { name, index, socket, gate, node, limits, mut stopped, alive } = acceptor;
    let connection_stopped = stopped.clone();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept(&gate) => accepted,
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        let (stream, admission) = accepted;
        let Ok(address) = stream.peer_addr() else { continue };
        let dispatcher = Dispatcher::new(Arc::clone(&node), Peer { address, listener: index });
        let stopped = connection_stopped.clone();
        let alive = alive.clone();
        let name = name.clone();
        tokio::spawn(async move {
            let reason = connection::serve(stream, dispatcher, limits, stopped).await;
            if reason.is_peers_fault() {
                tracing::warn!(listener = %name, peer = %address, %reason, "connection closed");
            } else {
                tracing::debug!(listener = %name, peer = %address, %reason, "connection closed");
            }
            drop((admission, alive));
        });
    }
}
