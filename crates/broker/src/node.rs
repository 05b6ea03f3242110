//! What all requests of a broker share.

mod asking;
mod chores;
mod following;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fleuve_metadata::checkpoint::Voter;
use fleuve_metadata::config::{BrokerSettings, Role};
use fleuve_metadata::controller::TokenSettings;
use fleuve_metadata::image::Image;
use fleuve_os::{Clock, Random};
use fleuve_protocol::Str;
use fleuve_security::CertificateNames;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot};

use crate::access::Access;
use crate::authentication::Present;
use crate::compaction::Compaction;
use crate::connection::{Budget, ConnectionGate};
use crate::fetch_session::SessionCache;
use crate::groups::{Groups, Shard};
use crate::lags::Lags;
use crate::listening::Wish;
use crate::log_levels::LogLevels;
use crate::logs::Logs;
use crate::metadata_log::MetadataLog;
use crate::metrics::{
    Authentications, Counter, Distribution, Endings, RequestCounters, TopicCounters,
};
use crate::partition::Surroundings;
use crate::producer_ids::ProducerIdBlock;
use crate::purgatory::Purgatory;
use crate::quotas::Quotas;
use crate::request_log::RequestLog;
use crate::share::{Shares, StateShard};
use crate::streams_topics::StreamsTopics;
use crate::telemetry::Telemetry;
use crate::topics::Topics;
use crate::transactions::Transactions;

/// Where clients of one listener are told to connect to.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) host: Str,
    pub(crate) port: i32,
}

/// A listener, as requests and metrics see it.
#[derive(Debug)]
pub(crate) struct ListenerState {
    pub(crate) name: String,
    pub(crate) opened: Counter,
    pub(crate) closed: Counter,
    pub(crate) authentications: Authentications,
    /// Whose certificate it shows, which decides what may take its place.
    pub(crate) certificate: Mutex<Option<CertificateNames>>,
    role: Role,
    endpoint: Endpoint,
    is_closed: AtomicBool,
}

impl ListenerState {
    /// Begins without connections.
    pub(crate) fn new(name: &str, role: Role, endpoint: Endpoint) -> Self {
        Self {
            name: name.to_owned(),
            opened: Counter::default(),
            closed: Counter::default(),
            authentications: Authentications::default(),
            certificate: Mutex::default(),
            role,
            endpoint,
            is_closed: AtomicBool::new(false),
        }
    }

    /// Reports whether connections are accepted under this name.
    pub(crate) fn is_open_as(&self, name: &str) -> bool {
        !self.is_closed.load(Ordering::Relaxed) && self.name == name
    }

    /// Notes that nobody can connect to it any more.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }
}

/// A log that somebody's state has to be read from.
#[derive(Debug)]
pub(crate) enum Unread {
    /// Groups and offsets.
    Groups(Arc<Shard>),
    /// What share groups did with records.
    ShareStates(Arc<StateShard>),
}

/// The state of a broker.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: i32,
    pub(crate) rack: Option<Str>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) topics: Arc<Topics>,
    pub(crate) sessions: SessionCache,
    pub(crate) purgatory: Arc<Purgatory>,
    pub(crate) groups: Arc<Groups>,
    pub(crate) transactions: Arc<Transactions>,
    pub(crate) shares: Shares,
    pub(crate) metadata: MetadataLog,
    /// What clients push about themselves.
    pub(crate) telemetry: Telemetry,
    /// This node as a voter of the metadata quorum.
    pub(crate) voter: Voter,
    pub(crate) logs: Logs,
    pub(crate) surroundings: Surroundings,
    /// Sums over all topics.
    pub(crate) counters: TopicCounters,
    /// In the order of the table of APIs.
    pub(crate) request_counters: Vec<RequestCounters>,
    pub(crate) request_log: RequestLog,
    /// What is written to the process's log, if anybody may know.
    pub(crate) log_levels: Option<Arc<dyn LogLevels>>,
    /// How long flushes took.
    pub(crate) flush_times: Arc<Distribution>,
    pub(crate) lags: Arc<Lags>,
    /// By the index of the listener; those that are closed stay, so that indexes do.
    pub(crate) listeners: RwLock<Vec<Arc<ListenerState>>>,
    /// Where the HTTP door is, if it is open, once that is known.
    pub(crate) http_door: OnceLock<Option<SocketAddr>>,
    /// Who may connect.
    pub(crate) gate: Arc<ConnectionGate>,
    /// The memory of requests.
    pub(crate) request_budget: Arc<Budget>,
    /// Requests that were refused because they would create too many partitions.
    pub(crate) oversized_requests: Counter,
    /// Why connections have ended.
    pub(crate) endings: Endings,
    /// Batches that were refused because they decompress to too much.
    pub(crate) bombs: Counter,
    /// Answers that ended early because a log could not be read.
    pub(crate) read_failures: Counter,
    /// Takes wishes that the listeners be looked at.
    pub(crate) wish: mpsc::UnboundedSender<Wish>,
    /// The number of this broker's registration.
    pub(crate) broker_epoch: i64,
    /// What the operator wrote, without dynamic configs.
    pub(crate) static_settings: Arc<BrokerSettings>,
    pub(crate) settings: RwLock<Arc<BrokerSettings>>,
    /// Who may do what; `None` lets everybody do everything.
    pub(crate) access: Option<Access>,
    /// How delegation tokens are made, if they are.
    pub(crate) tokens: Option<TokenSettings>,
    /// Internal topics of streams applications that are being created.
    pub(crate) streams_topics: StreamsTopics,
    pub(crate) producer_ids: Arc<ProducerIdBlock>,
    pub(crate) quotas: Quotas,
    pub(crate) compaction: Compaction,
    pub(crate) stopping: AtomicBool,
}

impl Node {
    /// The cluster as of the last change.
    pub(crate) fn image(&self) -> Arc<Image> {
        self.metadata.image()
    }

    /// The settings in force.
    pub(crate) fn settings(&self) -> Arc<BrokerSettings> {
        Arc::clone(&self.settings.read())
    }

    /// What messages of authentication are judged by.
    pub(crate) fn present<'a>(&'a self, image: &'a Image) -> Present<'a> {
        Present { image, now_ms: self.clock.wall_ms(), tokens: self.tokens.as_ref() }
    }

    /// How long somebody who failed to authenticate waits for the answer.
    pub(crate) fn failed_authentication_delay(&self) -> Duration {
        Duration::from_millis(self.static_settings.network.failed_authentication_delay_ms)
    }

    /// The address that clients of a listener are told.
    pub(crate) fn endpoint(&self, listener: usize) -> Endpoint {
        self.listeners.read()[listener].endpoint.clone()
    }

    /// The listeners of the broker, or of the controller, that are open, with the addresses that
    /// clients are told.
    pub(crate) fn open_listeners(&self, role: Role) -> Vec<(String, Endpoint)> {
        let listeners = self.listeners.read();
        let of_role = listeners.iter().filter(|it| it.role == role);
        let open = of_role.filter(|it| !it.is_closed.load(Ordering::Relaxed));
        open.map(|it| (it.name.clone(), it.endpoint.clone())).collect()
    }

    /// Brings the listeners in line with the settings in force.
    pub(crate) async fn settle_listeners(&self) -> Result<(), String> {
        let (wish, settled) = oneshot::channel();
        let stopping = || "the broker is stopping".to_owned();
        self.wish.send(wish).map_err(|_| stopping())?;
        settled.await.map_err(|_| stopping())?
    }

    /// Reports whether access is controlled at all.
    pub(crate) fn has_authorizer(&self) -> bool {
        self.access.is_some()
    }

    /// Reports whether the broker is on its way down.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}
