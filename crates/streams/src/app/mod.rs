//! A topology running against a cluster.
//!
//! Threads are members of one consumer group, named after the application. Each runs the tasks that the group gives
//! it: poll, process, and from time to time commit. More instances of the program, on this machine or others, join the
//! same group and take their share.

mod ahead;
mod assignor;
mod bounded;
mod directory;
mod endpoint;
mod globals;
mod group;
mod inside;
mod layout;
mod memory;
mod metadata;
mod moving;
mod output;
mod owners;
mod placement;
mod production;
mod rebalancing;
mod restore;
mod standby;
mod tasks;
mod thread;
mod told;
mod topics;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fleuve_client::admin::Removal;
use fleuve_client::config::OffsetReset;
use fleuve_client::{Admin, Client};
use fleuve_http::Server;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use directory::{export_state, import_state};
pub use group::StreamsGroupProtocol;
pub use restore::{Restoration, RestoreListener};
pub use standby::{StandbyListener, StandbySuspension, StandbyUpdate};

use crate::dsl::Topology;
use crate::error::{ProcessingError, TopologyError};
use crate::metrics::{StreamsMetrics, Trace};
use crate::query::{Answer, Query, QueryError, Shelf};
use crate::record::Data;
use crate::runtime::{DistributionSummary, Globals};
use crate::state::disk::StateDirectory;
use crate::state::{StateSnapshot, StoreError, StoreType};

use endpoint::Endpoint;
use inside::Inside;
pub use inside::{InstanceMetadata, KeyMetadata};
use layout::Layouts;
use owners::Owners;

/// What a record's effects are worth when the program dies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Guarantee {
    /// A record may be processed again after a crash.
    #[default]
    AtLeastOnce,
    /// Output, state and progress are written in one transaction.
    ExactlyOnce,
}

/// How an application runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `num.stream.threads`. The default is 1.
    pub threads: usize,
    /// `processing.guarantee`.
    pub guarantee: Guarantee,
    /// `commit.interval.ms`: 30 seconds, or 100 ms with exactly once, unless set.
    pub commit_interval: Option<Duration>,
    /// `statestore.cache.max.bytes`, shared among the threads. The default is 10 MiB; with 0 there are no caches.
    pub cache_bytes_max: usize,
    /// `replication.factor` of internal topics; -1 takes the cluster's default.
    pub replication_factor: i16,
    /// `auto.offset.reset` where nothing is committed. The default is the beginning.
    pub offset_reset: OffsetReset,
    /// `session.timeout.ms`.
    pub session_timeout: Duration,
    /// `transaction.timeout.ms` of the producers, with exactly once: after an instance has died in the middle of a
    /// transaction, readers of committed records wait so long. The default is ten seconds, as Kafka Streams sets it.
    pub transaction_timeout: Duration,
    /// `state.dir`: where stores on disk are, in a directory named after the application. Without one all state is in
    /// memory. Each instance needs its own.
    pub state_dir: Option<PathBuf>,
    /// `dsl.store.suppliers.class`: where stores are that the program says nothing about. On disk if there is a
    /// directory, unless set.
    pub default_store: Option<StoreType>,
    /// Memory for all stores on disk: blocks that were read, memtables, and what waits for a commit. The default is
    /// 64 MiB.
    pub state_memory_bytes_max: usize,
    /// One budget for the memory that the application keeps records in, if it is to have one: a quarter for caches, a
    /// quarter for records fetched ahead, half for stores on disk. It overrides the settings of each.
    pub memory_bytes_max: Option<usize>,
    /// `state.cleanup.delay.ms`: how long state stays on disk of a task that has moved away. The default is ten
    /// minutes.
    pub state_cleanup_delay: Duration,
    /// How many tasks are restored at the same time. The default is twice the number of cores, at least 4 and
    /// at most 8.
    pub restorations_max: usize,
    /// Who is told how restorations go.
    pub restore_listener: Option<Arc<dyn RestoreListener>>,
    /// `application.server`: where this instance answers over HTTP, `HOST:PORT`, or `:PORT` on the loopback. Other
    /// instances reach it there too. Whoever can reach the address can read the state.
    pub application_server: Option<String>,
    /// `group.protocol`. The default is the classic one, as in Kafka Streams.
    pub group_protocol: StreamsGroupProtocol,
    /// `group.instance.id`: makes the threads static members, named after it and numbered. They keep their tasks while
    /// they are away for less than the session timeout.
    pub group_instance_id: Option<String>,
    /// `max.task.idle.ms`: how long a task with several inputs waits for records of one that has none at the broker
    /// either; `None` (Kafka's -1) does not even wait for those that are there. The default is zero.
    pub max_task_idle: Option<Duration>,
    /// Traces one record in so many, of each task; 0 for none. The default is 1,000.
    pub trace_every: u64,
    /// `num.standby.replicas`: the processes beside its own that keep the state of a task. The default is 0. With the
    /// streams group protocol it is the group's setting `streams.num.standby.replicas` that counts.
    pub num_standby_replicas: usize,
    /// `acceptable.recovery.lag`: a process that lacks no more changelog records of a task than these may run it at once;
    /// otherwise the task stays where it is until the process has its state. The default is 10,000.
    pub acceptable_recovery_lag: u64,
    /// `max.warmup.replicas`: so many tasks at a time bring their state to where they are to run. The default is 2.
    pub max_warmup_replicas: usize,
    /// `probing.rebalance.interval.ms`: after this time the group looks once more whether tasks can move, if none of the
    /// warm-ups has asked for it before. The default is ten minutes.
    pub probing_rebalance_interval: Duration,
    /// `client.tag.*`: where this instance runs, such as its zone.
    pub client_tags: BTreeMap<String, String>,
    /// `rack.aware.assignment.tags`: tags in which the standbys of a task are to differ from it and from one another.
    pub rack_aware_assignment_tags: Vec<String>,
    /// Who is told how standbys follow.
    pub standby_listener: Option<Arc<dyn StandbyListener>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            threads: 1,
            guarantee: Guarantee::AtLeastOnce,
            commit_interval: None,
            cache_bytes_max: 10 << 20,
            replication_factor: -1,
            offset_reset: OffsetReset::Earliest,
            session_timeout: Duration::from_secs(45),
            transaction_timeout: Duration::from_secs(10),
            state_dir: None,
            default_store: None,
            state_memory_bytes_max: 64 << 20,
            memory_bytes_max: None,
            state_cleanup_delay: Duration::from_secs(600),
            restorations_max: std::thread::available_parallelism()
                .map_or(4, |cores| 2 * cores.get())
                .clamp(4, 8),
            restore_listener: None,
            application_server: None,
            group_protocol: StreamsGroupProtocol::Classic,
            group_instance_id: None,
            max_task_idle: Some(Duration::ZERO),
            trace_every: 1_000,
            num_standby_replicas: 0,
            acceptable_recovery_lag: 10_000,
            max_warmup_replicas: 2,
            probing_rebalance_interval: Duration::from_secs(600),
            client_tags: BTreeMap::new(),
            rack_aware_assignment_tags: Vec::new(),
            standby_listener: None,
        }
    }
}

impl Settings {
    fn commit_interval(&self) -> Duration {
        self.commit_interval.unwrap_or(match self.guarantee {
            Guarantee::AtLeastOnce => Duration::from_secs(30),
            Guarantee::ExactlyOnce => Duration::from_millis(100),
        })
    }

    fn default_store(&self) -> StoreType {
        self.default_store.unwrap_or(match self.state_dir {
            Some(_) => StoreType::Disk,
            None => StoreType::Memory,
        })
    }
}

/// Why an application did not start, or stopped.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StreamsError {
    /// The topology is not valid.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// A source topic is missing.
    #[error("topic {0} does not exist; create it before the application starts")]
    MissingTopic(String),
    /// The broker is to share out tasks that patterns decide about.
    #[error("Pattern subscriptions are not supported with the STREAMS protocol.")]
    PatternOfBroker,
    /// A dead-letter topic is missing.
    #[error("dead-letter topic {0} does not exist; create it before the application starts")]
    MissingDeadLetterTopic(String),
    /// Topics that must have the same number of partitions differ.
    #[error(
        "{what} need the same number of partitions, but have {counts}; repartition one of the streams"
    )]
    Copartition {
        /// The topics.
        what: String,
        /// Their numbers of partitions.
        counts: String,
    },
    /// An internal topic exists with another number of partitions than the topology needs.
    #[error(
        "internal topic {topic} has {found} partitions where {needed} are needed; reset the application"
    )]
    InternalTopic {
        /// The topic.
        topic: String,
        /// What it has.
        found: usize,
        /// What it needs.
        needed: usize,
    },
    /// The instance cannot answer over HTTP.
    #[error("application.server {given}: {cause}")]
    ApplicationServer {
        /// What is set.
        given: String,
        /// Why not.
        cause: String,
    },
    /// A record could not be processed.
    #[error(transparent)]
    Processing(#[from] ProcessingError),
    /// A store could not be restored.
    #[error("restoring {store}: {cause}")]
    Restore {
        /// The store.
        store: String,
        /// What happened.
        cause: Arc<StoreError>,
    },
    /// The state directory cannot be used.
    #[error(transparent)]
    State(Arc<StoreError>),
    /// A store is to be on disk, and there is no directory.
    #[error("store {0} is to be on disk: set the state directory")]
    NoStateDirectory(String),
    /// The cluster.
    #[error(transparent)]
    Client(#[from] fleuve_client::Error),
    /// A member of the group has asked for the end of the whole application.
    #[error("the application is to end: {0}")]
    Shutdown(String),
    /// A thread panicked.
    #[error("a stream thread panicked: {0}")]
    Panic(String),
}

impl StreamsError {
    fn state(error: StoreError) -> Self {
        Self::State(Arc::new(error))
    }
}

/// A running application.
pub struct Streams {
    inside: Arc<Inside>,
    endpoint: Option<Server>,
    setup: thread::Setup,
    stop: watch::Sender<bool>,
    globals: Globals,
    threads: JoinSet<Result<(), StreamsError>>,
    handles: BTreeMap<usize, Handle>,
    /// Whoever keeps the standbys, which is no thread that could be missed.
    following: JoinSet<()>,
    directory: Option<StateDirectory>,
}

/// What is kept of a thread that runs.
struct Handle {
    stop: watch::Sender<bool>,
    /// Closes when the thread has ended.
    ended: watch::Receiver<()>,
}

impl Streams {
    /// Creates the internal topics and starts the threads.
    pub async fn start(
        topology: &Topology,
        client: Client,
        settings: Settings,
    ) -> Result<Self, StreamsError> {
        Self::launch(topology, client, settings, false).await
    }

    /// [`Self::start`], with sources that end where they end now, or do not end.
    async fn launch(
        topology: &Topology,
        client: Client,
        settings: Settings,
        bounded: bool,
    ) -> Result<Self, StreamsError> {
        let plan = topology.build()?;
        // Without a budget every change is sent on, not only the last one before a commit.
        let plan = if settings.cache_bytes_max == 0 { plan.without_caching() } else { plan };
        let admin = Admin::new(client.clone());
        let by_broker = group::is_brokers_work(&plan, &admin, &settings).await?;
        let tables = Globals::new(&plan);
        let follows = !by_broker && !bounded;
        let layouts =
            Layouts::found(plan.clone(), &client, &settings, tables.clone(), follows).await?;
        let ends = match bounded {
            true => Some(bounded::ends(&layouts.now(), &client, &settings).await?),
            false => None,
        };
        let (stop, _) = watch::channel(false);
        let mut threads = JoinSet::new();
        tables.traces().set_every(settings.trace_every);
        if let Some(filling) = globals::filled(&tables, &client, &settings).await? {
            threads.spawn(filling.run(stop.subscribe()));
        }
        let directory = directory::opened(&plan, &settings).await?;
        if let Some(directory) = &directory {
            let (directory, stop) = (directory.clone(), stop.subscribe());
            threads.spawn(directory::tidied(directory, settings.state_cleanup_delay, stop));
        }
        let shelf = Shelf::default();
        let restorer = Arc::new(restore::Restorer::new(
            plan.clone(),
            layouts.clone(),
            client.clone(),
            &settings,
            tables.clone(),
            directory.clone(),
            shelf.clone(),
        ));
        let (standbys, follower) =
            standby::Follower::new(restorer.clone(), shelf.clone(), directory.clone(), &settings);
        let mut following = JoinSet::new();
        following.spawn(follower.run(stop.subscribe()));
        let listening = match &settings.application_server {
            Some(server) => Some(endpoint::address(server).await?),
            None => None,
        };
        let inside = Inside {
            plan: plan.clone(),
            layouts: layouts.clone(),
            shelf,
            globals: tables.clone(),
            owners: Owners::new(client.clone(), layouts.clone()),
            server: OnceLock::new(),
            rates: Mutex::default(),
            process: Arc::from(process_id()),
            directory: directory.clone(),
        };
        let inside = Arc::new(inside);
        let mut settings = settings;
        let mut endpoint = None;
        if let Some((host, address)) = listening {
            let server = Endpoint::new(inside.clone(), host.clone()).start(address).await?;
            // The system may have chosen the port.
            let known_as = format!("{host}:{}", server.address().port());
            settings.application_server = Some(inside.server.get_or_init(|| known_as).clone());
            endpoint = Some(server);
        }
        let count = settings.threads.max(1);
        let setup = thread::Setup {
            number: 0,
            plan,
            layouts,
            client,
            settings,
            process: inside.process.clone(),
            by_broker,
            ends,
            closing: bounded::Closing::default(),
            restorer,
            standbys,
            shelf: inside.shelf.clone(),
            threads: Arc::default(),
        };
        let handles = BTreeMap::new();
        let mut running = Self {
            inside,
            endpoint,
            setup,
            stop,
            globals: tables,
            threads,
            handles,
            following,
            directory,
        };
        for _ in 0..count {
            running.add_thread().await?;
        }
        Ok(running)
    }

    /// Asks the stores of this instance: `running.query(in_store("counts").key::<String, i64>(word)).await`.
    ///
    /// The thread of a task answers between two records, or while it waits for the cluster.
    pub async fn query<A: Send + 'static>(&self, query: Query<A>) -> Result<Answer<A>, QueryError> {
        self.inside.query(query).await
    }

    /// Finds out which instance has a key.
    pub async fn key_metadata<K: Data>(
        &self,
        store: &str,
        key: &K,
    ) -> Result<KeyMetadata, QueryError> {
        self.inside.key_metadata(store, key).await
    }

    /// The instances of the application that have [`Settings::application_server`] set.
    pub async fn instances(&self) -> Vec<InstanceMetadata> {
        self.inside.instances().await
    }

    /// The numbers of this instance, as its threads told them last: once a second.
    pub fn metrics(&self) -> StreamsMetrics {
        self.inside.metrics()
    }

    /// The last traces of records, the newest first.
    pub fn traces(&self) -> Vec<Trace> {
        self.inside.globals.traces().last()
    }

    /// Where this instance answers over HTTP, with the port that the system chose where 0 was asked for.
    pub fn application_server(&self) -> Option<&str> {
        self.inside.server.get().map(String::as_str)
    }

    /// Writes the stores on disk with their positions to a file, which must not exist, while the application runs on.
    /// Read into the empty directory of another instance by [`import_state`], it spares that the restoration.
    pub async fn export_state(&self, file: &Path) -> Result<StateSnapshot, StreamsError> {
        match self.directory.clone() {
            Some(directory) => directory::exported(directory, file).await,
            None => Err(StreamsError::NoStateDirectory("of any kind".to_owned())),
        }
    }

    /// What processors of this instance have counted so far, by name.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        self.globals.tallies().counters()
    }

    /// What processors of this instance gave to distributions so far, by name.
    pub fn distributions(&self) -> BTreeMap<String, DistributionSummary> {
        self.globals.tallies().distributions()
    }

    /// Starts another thread, which takes its share of the tasks, and returns its number.
    pub async fn add_thread(&mut self) -> Result<usize, StreamsError> {
        self.handles.retain(|_, handle| handle.ended.has_changed().is_ok());
        let number = (0..).find(|number| !self.handles.contains_key(number)).unwrap_or_default();
        let (stop, stopped) = watch::channel(false);
        let setup = thread::Setup { number, ..self.setup.clone() };
        let thread = thread::Thread::new(setup, stopped).await?;
        let (ending, ended) = watch::channel(());
        self.handles.insert(number, Handle { stop, ended });
        self.setup.threads.store(self.handles.len(), Ordering::Relaxed);
        let failing = Failing(Some(self.inside.shelf.clone()));
        self.threads.spawn(async move {
            let result = thread.run().await;
            failing.ended(&result);
            drop(ending);
            result
        });
        Ok(number)
    }

    /// Stops the thread added last, whose tasks the others take over, and returns its number; `None` if there is none.
    /// An error of the thread is told by [`Self::failed`] or [`Self::close`].
    pub async fn remove_thread(&mut self) -> Result<Option<usize>, StreamsError> {
        let Some((number, mut handle)) = self.handles.pop_last() else {
            return Ok(None);
        };
        handle.stop.send_replace(true);
        // The channel says nothing before it closes.
        while handle.ended.changed().await.is_ok() {}
        self.setup.threads.store(self.handles.len(), Ordering::Relaxed);
        let setup = thread::Setup { number, ..self.setup.clone() };
        if let Some(instance) = setup.instance_id() {
            // Otherwise the group keeps its place until the session ends.
            let admin = Admin::new(self.setup.client.clone());
            let group = self.setup.plan.application_id();
            let members = [Removal::Static(instance)];
            admin.remove_members(group, &members, "the stream thread was removed").await?;
        }
        Ok(Some(number))
    }

    /// The number of threads that run.
    pub fn threads(&self) -> usize {
        self.handles.values().filter(|handle| handle.ended.has_changed().is_ok()).count()
    }

    /// Waits until a thread fails, and returns why; `None` once all threads have ended without an error.
    pub async fn failed(&mut self) -> Option<StreamsError> {
        loop {
            if let Err(error) = flatten(self.threads.join_next().await?) {
                return Some(error);
            }
        }
    }

    /// Commits, leaves the group and ends. Returns the first error of a thread.
    pub async fn close(mut self) -> Result<(), StreamsError> {
        self.stop.send_replace(true);
        for handle in self.handles.values() {
            handle.stop.send_replace(true);
        }
        let mut result = Ok(());
        while let Some(ended) = self.threads.join_next().await {
            let ended = flatten(ended);
            if result.is_ok() {
                result = ended;
            }
        }
        while self.following.join_next().await.is_some() {}
        if let Some(endpoint) = self.endpoint.take() {
            endpoint.shutdown().await;
        }
        result
    }
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams")
            .field("application", &self.setup.plan.application_id())
            .field("threads", &self.threads())
            .finish_non_exhaustive()
    }
}

/// Counts its thread as failed, unless that ends without an error: a panic is one, too.
struct Failing(Option<Shelf>);

impl Failing {
    fn ended(mut self, result: &Result<(), StreamsError>) {
        if result.is_ok() {
            self.0 = None;
        }
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        if let Some(shelf) = &self.0 {
            shelf.note_failed();
        }
    }
}

/// A name that other processes do not have.
fn process_id() -> String {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let number = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", number(), number())
}

fn flatten(
    ended: Result<Result<(), StreamsError>, tokio::task::JoinError>,
) -> Result<(), StreamsError> {
    match ended {
        Ok(result) => result,
        Err(error) => Err(StreamsError::Panic(error.to_string())),
    }
}
