//! The steps of a start: addresses, data directories, metadata, partitions.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fleuve_coordinator::share_state::ShareStateSettings;
use fleuve_coordinator::transaction::ProducerIds;
use fleuve_metadata::checkpoint::Voter;
use fleuve_metadata::config::{BrokerSettings, Listener as ListenerSettings, Listeners, Role};
use fleuve_metadata::controller::{Controller, Decision, Registration, TokenSettings};
use fleuve_metadata::image::Endpoint as RegisteredEndpoint;
use fleuve_protocol::Str;
use fleuve_storage::Flusher;
use fleuve_types::Uuid;
use tokio::net::lookup_host;
use tokio::sync::mpsc;

use crate::access::Access;
use crate::broker::{BoundListener, Components, DRAIN_MAX, StartError};
use crate::connection::{Budget, ConnectionGate, GateLimits, Limits, Listener, SocketOptions};
use crate::dispatch::APIS;
use crate::fetch_session::SessionCache;
use crate::group_settings::group_settings;
use crate::groups::Groups;
use crate::lags::Lags;
use crate::listening::Wish;
use crate::logs::{Logs, log_limits};
use crate::metadata_log::{FoundRecords, MetadataError, MetadataLog};
use crate::metrics::{Counter, Distribution, Endings, RequestCounters};
use crate::node::{Endpoint, ListenerState, Node};
use crate::partition::Partition;
use crate::producer_ids::ProducerIdBlock;
use crate::purgatory::Purgatory;
use crate::quotas::{Quotas, Window};
use crate::request_log::RequestLog;
use crate::share::{ShareStates, Shares};
use crate::telemetry::Telemetry;
use crate::topics::Topics;
use crate::transaction_settings::transaction_settings;
use crate::transactions::Transactions;

/// Requests of one connection that may await their answers.
const OUTSTANDING_PER_CONNECTION_MAX: usize = 1024;
/// Request bytes of one connection that may await their answers; one request may exceed it.
const OUTSTANDING_BYTES_PER_CONNECTION_MAX: usize = 32 << 20;
/// Answer bytes that may wait for a client to take them; one answer may exceed it.
const UNWRITTEN_BYTES_PER_CONNECTION_MAX: usize = 4 << 20;
/// Connections that the system keeps for us until we accept them, unless the operator says
/// otherwise; Linux cuts it down to `net.core.somaxconn`.
const BACKLOG: u32 = 4096;
/// Descriptors for what is neither a connection nor kept open by a log: listeners, files in use for
/// the length of a call, pages of metrics.
const DESCRIPTORS_BESIDES: usize = 64;
/// With fewer connections than these there is no point in going on.
const CONNECTIONS_MIN: usize = 16;
/// The leader epoch of the metadata log, which has only ever one leader.
const METADATA_EPOCH: i32 = 1;

/// Binds a listener.
pub(crate) async fn bind(
    settings: &BrokerSettings,
    listener: &ListenerSettings,
) -> Result<Listener, StartError> {
    let network = &settings.network;
    // Kafka's default buffers of 100 KiB are below what Linux sizes by itself for a way through a
    // network, and a fixed size switches that off; its default backlog of 50 makes a burst of clients
    // wait for their second SYN. So only what the operator asks for is taken from there.
    let is_set = |key: &str| settings.statics.get(key).is_some();
    let options = SocketOptions {
        send_bytes: network.send_buffer_bytes.filter(|_| is_set("socket.send.buffer.bytes")),
        receive_bytes: network
            .receive_buffer_bytes
            .filter(|_| is_set("socket.receive.buffer.bytes")),
        backlog: if is_set("socket.listen.backlog.size") {
            network.listen_backlog
        } else {
            BACKLOG
        },
    };
    let name = listener.name.clone();
    let address = resolve(listener).await?;
    let protected = address.ip().is_loopback() || listener.protection.authenticates();
    if !protected {
        if !network.allow_unauthenticated {
            return Err(StartError::Unprotected { listener: name, address });
        }
        tracing::warn!(
            listener = %name, %address,
            "this listener is reachable from other machines and asks nobody for a password"
        );
    }
    Listener::bind(address, options).map_err(|error| StartError::Bind {
        listener: name,
        address,
        error,
    })
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

/// Makes the gate that all connections pass.
pub(crate) async fn gate(
    settings: &Arc<BrokerSettings>,
    components: &Components,
) -> Result<Arc<ConnectionGate>, StartError> {
    // Whoever comes when there is no descriptor left waits outside, instead of taking one that a
    // log needs.
    let disk = &*components.disk;
    let ceiling = disk.open_files_max().map_or(usize::MAX, |max| {
        let kept = log_limits(disk).open_files() + DESCRIPTORS_BESIDES;
        usize::try_from(max).unwrap_or(usize::MAX).saturating_sub(kept).max(CONNECTIONS_MIN)
    });
    let quotas = &settings.quotas;
    let window = Window { samples: quotas.samples, sample_ms: quotas.sample_ms };
    let settings = Arc::clone(settings);
    let limits = tokio::task::spawn_blocking(move || {
        GateLimits::of(&settings.network, &settings.network.listeners)
    });
    let limits = limits.await.map_err(|_| StartError::Interrupted)?;
    let clock = Arc::clone(&components.clock);
    Ok(Arc::new(ConnectionGate::new(limits, window, clock).with_ceiling(ceiling)))
}

/// What a node is made of.
pub(crate) struct Opening<'a> {
    pub(crate) settings: &'a Arc<BrokerSettings>,
    pub(crate) components: &'a Components,
    pub(crate) listeners: &'a [BoundListener],
    pub(crate) flusher: &'a Arc<Flusher>,
    pub(crate) flush_times: &'a Arc<Distribution>,
    pub(crate) gate: &'a Arc<ConnectionGate>,
    /// Takes wishes that the listeners be looked at.
    pub(crate) wish: mpsc::UnboundedSender<Wish>,
}

/// Opens the data directories and reads the metadata; the node can answer requests afterwards.
pub(crate) async fn open_node(opening: Opening<'_>) -> Result<Arc<Node>, StartError> {
    let Opening { settings, components, listeners, flusher, flush_times, gate, wish } = opening;
    let Components { clock, random, .. } = components.clone();
    let access = Access::new(&settings.access).map_err(StartError::Access)?;
    let (opening, world) = (Arc::clone(settings), components.clone());
    let opened = tokio::task::spawn_blocking(move || Logs::open(&opening, &world));
    let (logs, found) = opened.await.map_err(|_| StartError::Interrupted)??;
    let purgatory = Arc::new(Purgatory::default());
    // The metadata log is flushed before anything is said about it, whatever the setting for
    // topics.
    let metadata_surroundings = logs.surroundings(flusher, true);
    let metadata_partition =
        Arc::new(Partition::new(found.log, METADATA_EPOCH, &metadata_surroundings));
    if metadata_partition.high_watermark() < metadata_partition.log_end_offset() {
        metadata_partition.request_flush();
    }
    let controller = Controller::new(logs.cluster_id(), Arc::clone(settings));
    let metadata = MetadataLog::replay(
        metadata_partition,
        &FoundRecords {
            checkpoint: found.checkpoint,
            records: &found.records,
            bytes_behind: found.bytes_behind,
        },
        controller,
        Arc::clone(&clock),
        Arc::clone(&purgatory),
    )?;
    let endpoints = endpoints(settings, listeners);
    let voter = voter(settings, &logs, &endpoints);
    // Small, and before anything else can be asked.
    metadata
        .found(logs.metadata_place(), &voter)
        .map_err(|error| StartError::MetadataWrite(error.to_string()))?;
    if !found.bootstrap.is_empty() {
        let decision = Decision { records: found.bootstrap, reply: () };
        let begun = metadata.begin().await.carry_out(decision).await;
        begun.map_err(|error| StartError::MetadataWrite(error.to_string()))?;
    }
    let broker_epoch = register(settings, components, &logs, &metadata, &endpoints).await?;
    let surroundings = logs.surroundings(flusher, settings.log.flush_before_ack);
    let topics = Arc::<Topics>::default();
    let lags = Arc::new(Lags::new(Arc::clone(&topics), Arc::clone(&clock)));
    let groups = Groups::new(
        Arc::clone(&clock),
        Arc::clone(&random),
        Arc::clone(&purgatory),
        group_settings(settings),
        Duration::from_millis(settings.offsets.commit_timeout_ms),
        Arc::clone(&lags),
    );
    let producer_ids = Arc::new(ProducerIdBlock::default());
    let transactions = Transactions::new(
        Arc::clone(&clock),
        Arc::clone(&purgatory),
        Arc::clone(&producer_ids) as Arc<dyn ProducerIds>,
        transaction_settings(settings, &metadata.image()),
        Duration::from_millis(settings.offsets.commit_timeout_ms),
    );
    let share = &settings.share_groups;
    let states = ShareStates::new(
        Arc::clone(&clock),
        Arc::clone(&purgatory),
        ShareStateSettings {
            updates_per_snapshot: share.updates_per_snapshot,
            cold_after_ms: share.cold_snapshot_interval_ms,
        },
        Duration::from_millis(share.write_timeout_ms),
    );
    let shares = Shares::new(states, share.sessions_max, Arc::clone(&clock));
    let node = Arc::new(Node {
        id: settings.node.id.0,
        rack: settings.node.rack.clone().map(Str::from),
        clock,
        random,
        topics,
        sessions: SessionCache::new(settings.fetch.sessions_max),
        purgatory,
        groups: Arc::new(groups),
        transactions: Arc::new(transactions),
        telemetry: Telemetry::new(settings.network.telemetry_bytes_max),
        shares,
        metadata,
        voter,
        logs,
        surroundings,
        counters: Default::default(),
        request_counters: APIS.iter().map(|_| RequestCounters::default()).collect(),
        request_log: RequestLog::new(Duration::from_millis(settings.metrics.slow_request_ms)),
        log_levels: components.log_levels.clone(),
        flush_times: Arc::clone(flush_times),
        lags,
        listeners: parking_lot::RwLock::new(
            listeners
                .iter()
                .zip(endpoints)
                .map(|(listener, endpoint)| {
                    let role = role_of(listener);
                    Arc::new(ListenerState::new(&listener.name, role, endpoint))
                })
                .collect(),
        ),
        http_door: OnceLock::new(),
        gate: Arc::clone(gate),
        request_budget: Arc::new(Budget::new(settings.network.queued_request_bytes_max)),
        oversized_requests: Counter::default(),
        endings: Endings::default(),
        bombs: Counter::default(),
        read_failures: Counter::default(),
        wish,
        broker_epoch,
        static_settings: Arc::clone(settings),
        settings: parking_lot::RwLock::new(Arc::clone(settings)),
        access,
        tokens: settings.access.tokens.as_ref().map(|keys| TokenSettings {
            secret_key: keys.secret_key.expose().to_owned(),
            lifetime_max_ms: keys.lifetime_max_ms,
            renew_period_ms: keys.renew_period_ms,
        }),
        streams_topics: Default::default(),
        producer_ids,
        quotas: Quotas::new(Arc::clone(&components.clock), &settings.quotas),
        compaction: Default::default(),
        stopping: Default::default(),
    });
    if let Some(access) = &node.access {
        access.show(&node.image());
    }
    node.take_dynamic_settings(&node.image());
    node.quotas.take(node.image().quotas());
    let looking = Arc::clone(&node);
    let looked = tokio::task::spawn_blocking(move || {
        looking.gate.take_quotas(looking.image().quotas());
    });
    looked.await.map_err(|_| StartError::Interrupted)?;
    let opening = Arc::clone(&node);
    let opened = tokio::task::spawn_blocking(move || opening.open_all_topics());
    let shards = opened.await.map_err(|_| StartError::Interrupted)?;
    node.report_directories()
        .await
        .map_err(|error| StartError::MetadataWrite(error.to_string()))?;
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
    let write_error = |error: MetadataError| StartError::MetadataWrite(error.to_string());
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

/// This node as a voter of the metadata quorum, at the address of the controller's listener, or of
/// the broker's where there is none.
fn voter(settings: &BrokerSettings, logs: &Logs, endpoints: &[Endpoint]) -> Voter {
    let listeners = &settings.network.listeners;
    let listener = listeners.controller.first();
    let index = if listener.is_some() { listeners.open.len() } else { 0 };
    let (host, port) = match endpoints.get(index) {
        Some(endpoint) => (endpoint.host.clone(), endpoint.port as u16),
        None => (Str::from("localhost"), 0),
    };
    Voter {
        id: settings.node.id,
        directory: logs.directory_ids().first().copied().unwrap_or(Uuid::ZERO),
        listener: Str::copy_from(listener.map_or("CONTROLLER", |listener| &listener.name)),
        host,
        port,
    }
}

fn role_of(listener: &BoundListener) -> Role {
    if listener.is_controllers { Role::Controller } else { Role::Broker }
}

/// What clients of each listener are told.
fn endpoints(settings: &BrokerSettings, bound: &[BoundListener]) -> Vec<Endpoint> {
    let listeners = &settings.network.listeners;
    let pairs = listeners.all().zip(bound);
    pairs.map(|((_, listener), bound)| endpoint(listeners, listener, bound)).collect()
}

/// What clients of a listener are told: the advertised address, or else the bound one.
pub(crate) fn endpoint(
    listeners: &Listeners,
    listener: &ListenerSettings,
    bound: &BoundListener,
) -> Endpoint {
    let advertised = listeners.advertised.iter().find(|known| known.name == listener.name);
    let (host, port) = match advertised {
        Some(advertised) => (advertised.host.as_str(), advertised.port),
        None => (listener.host.as_str(), 0),
    };
    Endpoint {
        host: Str::copy_from(host),
        port: i32::from(if port == 0 { bound.address.port() } else { port }),
    }
}

/// What one connection may hold.
pub(crate) fn limits(settings: &BrokerSettings) -> Limits {
    Limits {
        request_bytes_max: settings.network.request_bytes_max,
        unauthenticated_bytes_max: settings.network.unauthenticated_bytes_max,
        outstanding_max: OUTSTANDING_PER_CONNECTION_MAX,
        outstanding_bytes_max: OUTSTANDING_BYTES_PER_CONNECTION_MAX,
        unwritten_bytes_max: UNWRITTEN_BYTES_PER_CONNECTION_MAX,
        idle_max: settings.network.idle_max_ms.map(Duration::from_millis),
        authentication_max: settings.network.authentication_timeout_ms.map(Duration::from_millis),
        receive_max: settings.network.receive_timeout_ms.map(Duration::from_millis),
        send_max: settings.network.send_timeout_ms.map(Duration::from_millis),
        drain_max: DRAIN_MAX,
    }
}
