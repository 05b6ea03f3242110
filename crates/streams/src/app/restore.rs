//! Brings a task's state back: what the disk has of it, and from its changelogs the rest.
//!
//! Every task is restored on its own, all its stores with one consumer; several tasks at the same time, as many as
//! the settings allow. What comes from a changelog is written to disk on the way, now and then with its position, so that
//! a restoration that is broken off goes on not far from where it was. How far the tasks of this process have come is in
//! [`Positions`], for whoever decides where tasks are to run.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleuve_client::admin::Resource;
use fleuve_client::config::{IsolationLevel, OffsetReset};
use fleuve_client::consumer::{EARLIEST, LATEST, OwnedRecord, Start};
use fleuve_client::{Admin, Client, Consumer, ConsumerConfig};
use fleuve_types::TopicPartition;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::layout::Layouts;
use super::{Guarantee, Settings, StreamsError, memory};
use crate::query::{Applied, Shelf};
use crate::runtime::{Globals, Place, Restorable, Task, TaskId};
use crate::state::disk::{Keeping, Position, StateDirectory};
use crate::state::{Logged, StoreError, StoreType};
use crate::topology::Plan;

/// One store's restoration, as listeners see it.
#[derive(Clone, Debug)]
pub struct Restoration {
    /// The task, as `0_3`.
    pub task: String,
    /// The store.
    pub store: String,
    /// Its changelog's partition.
    pub changelog: TopicPartition,
    /// The offset it begins at: the position on disk, or the changelog's beginning.
    pub start_offset: i64,
    /// The offset it ends at.
    pub end_offset: i64,
    /// The offset it has come to.
    pub offset: i64,
    /// The records restored so far.
    pub records: u64,
    /// The time since it began.
    pub elapsed: Duration,
}

impl Restoration {
    /// Records restored per second.
    pub fn rate(&self) -> f64 {
        self.records as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// Who wants to know how restorations go. The calls come from the threads that restore; they must not wait.
pub trait RestoreListener: std::fmt::Debug + Send + Sync {
    /// A store's restoration begins.
    fn restore_started(&self, _: &Restoration) {}

    /// Some records have been restored.
    fn batch_restored(&self, _: &Restoration) {}

    /// A store is restored.
    fn restore_ended(&self, _: &Restoration) {}
}

/// How far the tasks of this process follow their changelogs that do not run: the sum of the offsets of their stores.
pub(super) type Positions = Arc<Mutex<BTreeMap<TaskId, i64>>>;

/// Opens tasks and restores them.
pub(super) struct Restorer {
    plan: Arc<Plan>,
    layouts: Layouts,
    client: Client,
    positions: Positions,
    /// Where it is told how restorations go.
    shelf: Shelf,
    isolation: IsolationLevel,
    globals: Globals,
    directory: Option<StateDirectory>,
    default_store: StoreType,
    listener: Option<Arc<dyn RestoreListener>>,
    fetch_max_bytes: i32,
    /// So much of a task is written to disk at once.
    piece_bytes: usize,
    /// So many tasks are restored at the same time.
    permits: Semaphore,
}

impl Restorer {
    pub(super) fn new(
        plan: Arc<Plan>,
        layouts: Layouts,
        client: Client,
        settings: &Settings,
        globals: Globals,
        directory: Option<StateDirectory>,
        shelf: Shelf,
    ) -> Self {
        Self {
            plan,
            layouts,
            client,
            positions: Positions::default(),
            shelf,
            isolation: match settings.guarantee {
                Guarantee::AtLeastOnce => IsolationLevel::ReadUncommitted,
                Guarantee::ExactlyOnce => IsolationLevel::ReadCommitted,
            },
            globals,
            directory,
            default_store: settings.default_store(),
            listener: settings.restore_listener.clone(),
            fetch_max_bytes: memory::fetch_bytes_max(settings.memory().fetched_of_restoration)
                .min(2 * FETCH_BYTES),
            piece_bytes: match settings.memory_bytes_max {
                Some(_) => settings.memory().uncommitted / settings.restorations_max.max(1),
                None => PIECE_BYTES,
            }
            .clamp(PIECE_BYTES_MIN, PIECE_BYTES),
            permits: Semaphore::new(settings.restorations_max.max(1)),
        }
    }

    pub(super) fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn positions(&self) -> &Positions {
        &self.positions
    }

    /// Notes how far a task has come.
    pub(super) fn note(&self, task: &Task) {
        let stores = task.restorable().into_iter().filter(|store| !self.is_source(store));
        let offsets = stores.filter_map(|store| task.offset_of(&store.store));
        self.positions.lock().insert(task.id(), offsets.sum());
    }

    /// Whether a store is restored from a topic that the program reads.
    pub(super) fn is_source(&self, store: &Restorable) -> bool {
        self.plan.stores[&store.store].source_topic.is_some()
    }

    /// Makes a task with what the disk has of its stores, as far as that can be trusted. Waits while another thread of
    /// this process has the task.
    pub(super) async fn open(&self, id: TaskId) -> Result<Task, StreamsError> {
        let claim = match &self.directory {
            Some(directory) => Some(directory.claim(id).await),
            None => None,
        };
        let place = Place { claim, default: self.default_store, globals: &self.globals };
        let mut task =
            Task::open(&self.layouts.now().plan, id, place).map_err(StreamsError::state)?;
        let stores = task.restorable();
        if stores.iter().all(|store| store.position.is_none()) {
            for store in stores {
                let topic_id = self.topic_id(&store.changelog).await?;
                task.resume(&store.store, topic_id, false)
                    .map_err(|cause| failed(&store, cause))?;
            }
            self.note(&task);
            return Ok(task);
        }
        let earliest = self.offsets(id, &stores, EARLIEST, IsolationLevel::ReadUncommitted).await?;
        // Not those of committed records: a transaction that hangs may hold them below what we have.
        let latest = self.offsets(id, &stores, LATEST, IsolationLevel::ReadUncommitted).await?;
        for store in stores {
            let topic_id = self.topic_id(&store.changelog).await?;
            let partition = TopicPartition::new(store.changelog.clone(), id.partition);
            let mut trusted = false;
            if let Some(position) = store.position {
                let changelog = Changelog {
                    topic_id,
                    earliest: earliest[&partition],
                    latest: latest[&partition],
                    tombstones_kept: self.tombstones_kept(&store, position).await?,
                };
                match changelog.judge(position, now_ms()) {
                    Ok(()) => trusted = true,
                    Err(reason) => tracing::warn!(
                        task = %id, store = store.store, offset = position.offset, reason,
                        "state on disk cannot be continued and is rebuilt from its changelog"
                    ),
                }
            }
            task.resume(&store.store, topic_id, trusted).map_err(|cause| failed(&store, cause))?;
        }
        self.note(&task);
        Ok(task)
    }

    /// Restores what the changelogs have now and the task does not have. Returns how many records that were. Topics that
    /// the program reads itself tell a task no more than those before it have `processed`, by offsets.
    pub(super) async fn catch_up(
        &self,
        task: &mut Task,
        processed: &HashMap<TopicPartition, i64>,
    ) -> Result<u64, StreamsError> {
        let id = task.id();
        let stores = task.restorable();
        if stores.is_empty() {
            return Ok(0);
        }
        let Ok(_permit) = self.permits.acquire().await else {
            return Ok(0);
        };
        // To the very end, also with exactly once: the last transaction of whoever had the task before may be decided
        // and its markers not yet written. A reader of committed records waits for them, and must not stop before.
        // Transactions in the program's own sources are others' business.
        let (sources, written): (Vec<Restorable>, Vec<Restorable>) =
            stores.iter().cloned().partition(|store| self.is_source(store));
        let mut ends = self.offsets(id, &written, LATEST, IsolationLevel::ReadUncommitted).await?;
        if !sources.is_empty() {
            let mut read = self.offsets(id, &sources, LATEST, self.isolation).await?;
            for (partition, end) in &mut read {
                *end = (*end).min(processed.get(partition).copied().unwrap_or(0));
            }
            ends.extend(read);
        }
        let earliest = self.offsets(id, &stores, EARLIEST, self.isolation).await?;
        let started = Instant::now();
        let mut from = Vec::new();
        let mut running: HashMap<TopicPartition, Restoration> = HashMap::new();
        for store in &stores {
            let partition = TopicPartition::new(store.changelog.clone(), id.partition);
            let offset = task.offset_of(&store.store).unwrap_or(0).max(earliest[&partition]);
            let end_offset = ends[&partition];
            if offset >= end_offset {
                ends.remove(&partition);
                continue;
            }
            from.push((partition.clone(), Start::Offset(offset)));
            let restoration = Restoration {
                task: id.to_string(),
                store: store.store.clone(),
                changelog: partition.clone(),
                start_offset: offset,
                end_offset,
                offset,
                records: 0,
                elapsed: Duration::ZERO,
            };
            self.tell(&restoration, |listener, it| listener.restore_started(it));
            running.insert(partition, restoration);
        }
        let note = |records, running: &HashMap<TopicPartition, Restoration>| {
            let lag = running.values().map(|it| it.end_offset - it.offset).sum();
            self.shelf.note_restored(id, Applied { records, lag: Some(lag) });
        };
        note(0, &running);
        if from.is_empty() {
            return Ok(0);
        }
        let consumer = self.consumer()?;
        consumer.assign(&from)?;
        let (mut count, mut pieces) = (0, 0);
        let mut told = started;
        while !ends.is_empty() {
            if let Some(records) = consumer.poll(POLL).await? {
                let partition = records.partition().clone();
                let next = records.next_offset();
                if let Some(restoration) = running.get_mut(&partition) {
                    // A source has records behind what is state.
                    let (end, next) = (restoration.end_offset, next.min(restoration.end_offset));
                    let wanted = records.into_owned().filter(|record| record.offset < end);
                    let logged = wanted.filter_map(logged);
                    let restored =
                        task.restore_batch(&restoration.store, logged, next).map_err(|cause| {
                            StreamsError::Restore {
                                store: restoration.store.clone(),
                                cause: Arc::new(cause),
                            }
                        })?;
                    count += restored;
                    restoration.records += restored;
                    restoration.offset = next;
                    restoration.elapsed = started.elapsed();
                    self.note(task);
                    self.tell(restoration, |listener, it| listener.batch_restored(it));
                    note(count, &running);
                }
                if task.uncommitted_bytes() > self.piece_bytes {
                    pieces += 1;
                    let mut keeping = Keeping::restored();
                    if pieces % CHECKPOINT_EVERY == 0 {
                        task.checkpoint_in(&mut keeping, now_ms());
                        write(keeping).await?;
                        task.kept().map_err(StreamsError::state)?;
                    } else {
                        task.restored_in(&mut keeping);
                        write(keeping).await?;
                    }
                }
            }
            // Markers of transactions move the position without a record.
            let mut ended = Vec::new();
            ends.retain(|partition, end| {
                let open = consumer.position(partition).is_none_or(|position| position < *end);
                if !open {
                    ended.push(partition.clone());
                }
                open
            });
            for partition in ended {
                let Some(restoration) = running.get_mut(&partition) else {
                    continue;
                };
                let end = restoration.end_offset;
                task.restore_batch(&restoration.store, std::iter::empty(), end)
                    .map_err(StreamsError::state)?;
                restoration.offset = restoration.offset.max(end);
                restoration.elapsed = started.elapsed();
                self.tell(restoration, |listener, it| listener.restore_ended(it));
            }
            if told.elapsed() > PROGRESS {
                told = Instant::now();
                for it in running.values().filter(|it| ends.contains_key(&it.changelog)) {
                    tracing::info!(
                        task = %id, store = it.store, records = it.records, offset = it.offset,
                        end = it.end_offset, per_second = it.rate() as u64, "restoring"
                    );
                }
            }
        }
        note(count, &running);
        consumer.close().await?;
        let mut keeping = Keeping::restored();
        task.checkpoint_in(&mut keeping, now_ms());
        write(keeping).await?;
        task.kept().map_err(StreamsError::state)?;
        let elapsed_ms = started.elapsed().as_millis() as u64;
        tracing::info!(task = %id, records = count, elapsed_ms, "state restored");
        Ok(count)
    }

    /// A reader of changelogs.
    pub(super) fn consumer(&self) -> Result<Consumer, StreamsError> {
        let config = ConsumerConfig {
            isolation_level: self.isolation,
            auto_commit: false,
            // What retention has ended meanwhile is too old for the stores, too.
            offset_reset: OffsetReset::Earliest,
            fetch_max_bytes: self.fetch_max_bytes,
            max_partition_fetch_bytes: FETCH_BYTES.min(self.fetch_max_bytes),
            ..ConsumerConfig::default()
        };
        Ok(Consumer::new(self.client.clone(), config)?)
    }

    fn tell(&self, restoration: &Restoration, act: impl Fn(&dyn RestoreListener, &Restoration)) {
        if let Some(listener) = &self.listener {
            act(&**listener, restoration);
        }
    }

    /// An offset of every changelog partition.
    async fn offsets(
        &self,
        id: TaskId,
        stores: &[Restorable],
        which: i64,
        isolation: IsolationLevel,
    ) -> Result<HashMap<TopicPartition, i64>, StreamsError> {
        let partition =
            |store: &Restorable| TopicPartition::new(store.changelog.clone(), id.partition);
        let asked = stores.iter().map(|store| (partition(store), which)).collect();
        let admin = Admin::new(self.client.clone());
        let mut offsets = HashMap::new();
        for (partition, found) in admin.list_offsets(&asked, isolation).await? {
            offsets.insert(partition, found?.offset);
        }
        for store in stores {
            offsets.entry(partition(store)).or_insert(0);
        }
        Ok(offsets)
    }

    async fn topic_id(&self, topic: &str) -> Result<[u8; 16], StreamsError> {
        Ok(self.client.topic(topic, false).await?.id.0)
    }

    /// How long the changelog keeps tombstones, if the state on disk may be older than that.
    async fn tombstones_kept(
        &self,
        store: &Restorable,
        position: Position,
    ) -> Result<Option<Duration>, StreamsError> {
        if now_ms() - position.written_ms < YOUNG_MS {
            return Ok(None);
        }
        let topic = Resource::Topic(store.changelog.to_string());
        let configs = Admin::new(self.client.clone()).describe_configs(&topic, false).await?;
        let of = |key: &str| {
            configs.iter().find(|entry| entry.name == key).and_then(|entry| entry.value.clone())
        };
        if !of("cleanup.policy").is_some_and(|policy| policy.contains("compact")) {
            return Ok(None);
        }
        let kept_ms = of("delete.retention.ms").and_then(|value| value.parse().ok());
        Ok(kept_ms.map(Duration::from_millis))
    }
}

/// What is known of a changelog's partition.
struct Changelog {
    topic_id: [u8; 16],
    earliest: i64,
    latest: i64,
    /// How long deletions are kept, where that may matter.
    tombstones_kept: Option<Duration>,
}

impl Changelog {
    /// Whether reading on from a position gives the whole state; if not, why.
    fn judge(&self, position: Position, now_ms: i64) -> Result<(), &'static str> {
        // Zero is what brokers say that know no topic ids.
        if self.topic_id != position.topic_id && self.topic_id != [0; 16] {
            return Err("its changelog was deleted and created again");
        }
        if position.offset > self.latest {
            return Err("its changelog ends before it");
        }
        if position.offset < self.earliest {
            return Err("its changelog does not have the next records any more");
        }
        let age_ms = now_ms.saturating_sub(position.written_ms);
        if position.offset < self.latest
            && self.tombstones_kept.is_some_and(|kept| age_ms as u128 > kept.as_millis())
        {
            return Err("it is so old that compaction may have removed deletions it does not have");
        }
        Ok(())
    }
}

/// A changelog record; one without a key says nothing.
pub(super) fn logged(record: OwnedRecord) -> Option<Logged> {
    let headers = record.headers.into_iter();
    Some(Logged {
        key: record.key?,
        value: record.value,
        timestamp: record.timestamp,
        headers: headers.map(|(key, value)| crate::record::Header { key, value }).collect(),
    })
}

/// Writes what a task has restored. Other tasks go on meanwhile, and whoever fetches for this one.
async fn write(keeping: Keeping) -> Result<(), StreamsError> {
    match tokio::task::spawn_blocking(move || keeping.write()).await {
        Ok(written) => written.map_err(StreamsError::state),
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and this task with it.
            Err(_) => Err(StreamsError::state(std::io::Error::other("ended").into())),
        },
    }
}

fn failed(store: &Restorable, cause: StoreError) -> StreamsError {
    StreamsError::Restore { store: store.store.clone(), cause: Arc::new(cause) }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// How long one poll of a changelog waits.
const POLL: Duration = Duration::from_millis(100);
/// Bytes of one changelog partition that one fetch asks for: restoration is the only reader, and wants everything.
const FETCH_BYTES: i32 = 2 << 20;
/// Restored bytes of a task that wait for the disk: what comes there at once costs several syncs, however much it is.
const PIECE_BYTES: usize = 24 << 20;
/// The same where memory is short.
const PIECE_BYTES_MIN: usize = 2 << 20;
/// So often they are brought there before their position is written too: it gets in the way of tables that would
/// otherwise not have to be merged.
const CHECKPOINT_EVERY: u32 = 10;
/// How often a restoration that goes on is logged.
const PROGRESS: Duration = Duration::from_secs(10);
/// State on disk of this age needs no thought of tombstones: no topic forgets them so soon.
const YOUNG_MS: i64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGELOG: Changelog = Changelog {
        topic_id: [1; 16],
        earliest: 10,
        latest: 20,
        tombstones_kept: Some(Duration::from_millis(1000)),
    };

    fn at(offset: i64) -> Position {
        Position { topic_id: [1; 16], offset, written_ms: 5000 }
    }

    #[test]
    fn a_position_within_the_changelog_is_continued() {
        for offset in [10, 15, 20] {
            assert_eq!(CHANGELOG.judge(at(offset), 6000), Ok(()));
        }
    }

    #[test]
    fn a_position_that_the_changelog_cannot_continue_is_refused() {
        let refused = |offset, now_ms| CHANGELOG.judge(at(offset), now_ms).expect_err("refused");
        assert!(refused(9, 6000).contains("next records"));
        assert!(refused(21, 6000).contains("ends before"));
        assert!(refused(15, 6001).contains("deletions"));
        let another = Position { topic_id: [2; 16], ..at(15) };
        assert!(CHANGELOG.judge(another, 6000).expect_err("refused").contains("created again"));
    }

    #[test]
    fn old_state_that_lacks_nothing_and_brokers_without_topic_ids_are_continued() {
        assert_eq!(CHANGELOG.judge(at(20), i64::MAX), Ok(()));
        let nameless = Changelog { topic_id: [0; 16], ..CHANGELOG };
        assert_eq!(nameless.judge(at(15), 6000), Ok(()));
    }
}
