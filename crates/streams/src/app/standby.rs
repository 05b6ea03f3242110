//! Standbys: the state of tasks that run elsewhere, kept so near to their changelogs that taking over is a small step.
//!
//! ```text
//!              keep                  opened                      keep without it
//!   nothing ─────────▶ opening ───────────────▶ following ───────────────────────▶ lingering
//!                                                   │                                 │   │
//!                                                   └──────────── take ───────────────┘   └─▶ nothing, after a while
//! ```
//!
//! One reader follows the changelogs of all standbys of the process, whichever of its threads were told to keep them.
//! One that is no longer wanted is followed for a session timeout more: groups take a standby away before they
//! give out the task, and the thread that gets it goes on with the state that is there.
//!
//! Topics of the program that serve as changelogs are not followed: how much of them counts depends on what
//! the running task has committed. They are read when a task is taken over.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleuve_client::config::IsolationLevel;
use fleuve_client::consumer::{LATEST, Records, Start};
use fleuve_client::{Admin, Consumer};
use fleuve_types::TopicPartition;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::output::is_passing;
use super::restore::{Restorer, logged};
use super::{Settings, StreamsError};
use crate::query::{Applied, Desk, Shelf, Shelved};
use crate::runtime::{Task, TaskId};
use crate::state::StoreError;
use crate::state::disk::StateDirectory;

/// How a standby's store follows its changelog, as listeners see it.
#[derive(Clone, Debug)]
pub struct StandbyUpdate {
    /// The task, as `0_3`.
    pub task: String,
    /// The store.
    pub store: String,
    /// Its changelog's partition.
    pub changelog: TopicPartition,
    /// The offset it has come to.
    pub offset: i64,
    /// The end of the changelog, as far as it is known.
    pub end_offset: Option<i64>,
    /// The records that were applied: of a batch, or of the standby's whole life.
    pub records: u64,
}

/// Why a standby no longer follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandbySuspension {
    /// The task runs here now.
    Promoted,
    /// The state is kept elsewhere now, or nowhere.
    Migrated,
}

/// Who wants to know how standbys follow. The calls come from the task that follows; they must not wait.
pub trait StandbyListener: fmt::Debug + Send + Sync {
    /// A store begins to follow its changelog.
    fn update_started(&self, _: &StandbyUpdate) {}

    /// Some records have been applied.
    fn batch_loaded(&self, _: &StandbyUpdate) {}

    /// A store no longer follows.
    fn update_suspended(&self, _: &StandbyUpdate, _: StandbySuspension) {}
}

/// The standbys of a process, as its threads see them.
#[derive(Clone)]
pub(super) struct Standbys(Arc<Shared>);

struct Shared {
    restorer: Arc<Restorer>,
    shelf: Shelf,
    directory: Option<StateDirectory>,
    /// What each thread was told to keep.
    wanted: Mutex<BTreeMap<usize, BTreeSet<TaskId>>>,
    /// The records that followed tasks lack.
    lags: Lags,
    orders: mpsc::UnboundedSender<Order>,
}

type Lags = Arc<Mutex<BTreeMap<TaskId, i64>>>;

enum Order {
    /// These are wanted, and no others.
    Keep(BTreeSet<TaskId>),
    /// Hands a task over to the one who is to run it, if there is anything to hand over.
    Take(TaskId, oneshot::Sender<Option<Task>>),
}

impl Standbys {
    /// Tells what a thread is to keep; what other threads keep stays.
    pub(super) fn keep(&self, thread: usize, tasks: BTreeSet<TaskId>) {
        let mut wanted = self.0.wanted.lock();
        wanted.insert(thread, tasks);
        let all = wanted.values().flatten().copied().filter(|id| self.is_followed(*id)).collect();
        // Within the lock, so that the last word is the last one heard. When the application ends, nobody listens.
        let _ = self.0.orders.send(Order::Keep(all));
    }

    /// Takes the state of a task, as far as it has come, to run it.
    pub(super) async fn take(&self, id: TaskId) -> Option<Task> {
        self.0.wanted.lock().values_mut().for_each(|tasks| {
            tasks.remove(&id);
        });
        let (give, given) = oneshot::channel();
        self.0.orders.send(Order::Take(id, give)).ok()?;
        given.await.ok().flatten()
    }

    /// Forgets how far a task has come that a thread has given up.
    pub(super) fn forget(&self, id: TaskId) {
        self.0.restorer.positions().lock().remove(&id);
    }

    /// Whether a task has state that another process can follow.
    pub(super) fn is_followed(&self, id: TaskId) -> bool {
        !changelogs(&self.0.restorer, id).is_empty()
    }

    /// The records that a followed task lacks.
    pub(super) fn lag(&self, id: TaskId) -> Option<i64> {
        self.0.lags.lock().get(&id).copied()
    }

    /// The tasks that run in this process.
    pub(super) fn running(&self) -> impl Iterator<Item = TaskId> {
        let tasks = self.0.shelf.tasks().into_iter();
        tasks.filter(|(id, is_ready)| *is_ready && self.is_followed(*id)).map(|(id, _)| id)
    }

    /// How far the tasks have come whose state is in this process without running, also on disk.
    pub(super) fn positions(&self) -> BTreeMap<TaskId, i64> {
        let kept = self.0.directory.as_ref().map(StateDirectory::positions);
        let kept = kept.transpose().unwrap_or_else(|error| {
            tracing::warn!(%error, "what the state directory has is not known");
            None
        });
        let mut positions = kept.unwrap_or_default();
        positions.extend(self.0.restorer.positions().lock().iter());
        positions
    }

    /// The number of records in the changelogs of each of these tasks that has state.
    pub(super) async fn changelog_sizes(
        &self,
        ids: impl Iterator<Item = TaskId>,
    ) -> Result<BTreeMap<TaskId, u64>, StreamsError> {
        let mut owners = HashMap::new();
        for id in ids {
            let all = changelogs(&self.0.restorer, id);
            owners.extend(all.into_iter().map(|(_, changelog)| (changelog, id)));
        }
        let asked = owners.keys().map(|changelog| (changelog.clone(), LATEST)).collect();
        let admin = Admin::new(self.0.restorer.client().clone());
        let mut sizes = BTreeMap::new();
        for (changelog, end) in admin.list_offsets(&asked, IsolationLevel::ReadUncommitted).await? {
            let size = sizes.entry(owners[&changelog]).or_insert(0_u64);
            *size = size.saturating_add(u64::try_from(end?.offset).unwrap_or(0));
        }
        Ok(sizes)
    }
}

/// The stores of a task that can be followed, with their changelogs.
fn changelogs(restorer: &Restorer, id: TaskId) -> Vec<(String, TopicPartition)> {
    let plan = restorer.plan();
    let part = plan.subtopologies().get(id.subtopology as usize);
    let stores = part.into_iter().flat_map(|part| &part.stores);
    let followed = stores.filter_map(|store| {
        plan.stores.get(store).filter(|spec| spec.source_topic.is_none())?;
        let changelog = plan.changelog_of(store)?;
        Some((store.clone(), TopicPartition::new(changelog, id.partition)))
    });
    followed.collect()
}

/// Follows changelogs, until the application ends.
pub(super) struct Follower {
    restorer: Arc<Restorer>,
    listener: Option<Arc<dyn StandbyListener>>,
    lags: Lags,
    linger: Duration,
    orders: mpsc::UnboundedReceiver<Order>,
    wanted: BTreeSet<TaskId>,
    /// Standbys that could not be opened or followed, and when that is tried again.
    failed: BTreeMap<TaskId, Instant>,
    opening: BTreeMap<TaskId, AbortHandle>,
    opened: JoinSet<(TaskId, Result<Task, StreamsError>)>,
    followed: Followed,
    /// The store behind each changelog that is read.
    stores: HashMap<TopicPartition, (TaskId, String)>,
    consumer: Option<Consumer>,
    checkpointed: Instant,
    desk: Desk,
}

#[derive(Default)]
struct Followed(BTreeMap<TaskId, Following>);

struct Following {
    task: Task,
    records: u64,
    /// Until when nobody needs to want it.
    until: Option<Instant>,
}

impl Shelved for Followed {
    fn find(&mut self, id: TaskId) -> Option<&mut Task> {
        self.0.get_mut(&id).map(|following| &mut following.task)
    }
}

impl Follower {
    pub(super) fn new(
        restorer: Arc<Restorer>,
        shelf: Shelf,
        directory: Option<StateDirectory>,
        settings: &Settings,
    ) -> (Standbys, Self) {
        let (told, orders) = mpsc::unbounded_channel();
        let lags = Lags::default();
        let follower = Self {
            restorer: restorer.clone(),
            listener: settings.standby_listener.clone(),
            lags: lags.clone(),
            linger: settings.session_timeout,
            orders,
            wanted: BTreeSet::new(),
            failed: BTreeMap::new(),
            opening: BTreeMap::new(),
            opened: JoinSet::new(),
            followed: Followed::default(),
            stores: HashMap::new(),
            consumer: None,
            checkpointed: Instant::now(),
            desk: Desk::of_standbys(shelf.clone()),
        };
        let wanted = Mutex::default();
        let shared = Shared { restorer, shelf, directory, wanted, lags, orders: told };
        (Standbys(Arc::new(shared)), follower)
    }

    /// Follows until it is told to stop.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            let due = self.next_due();
            tokio::select! {
                biased;
                _ = stop.changed() => break,
                order = self.orders.recv() => match order {
                    Some(Order::Keep(wanted)) => self.keep(wanted),
                    Some(Order::Take(id, give)) => self.hand_over(id, give),
                    None => break,
                },
                Some(opened) = self.opened.join_next() => {
                    if let Ok((id, result)) = opened {
                        self.begin(id, result);
                    }
                }
                () = self.desk.answer(&mut self.followed) => {}
                polled = poll(self.consumer.as_ref()) => match polled {
                    Ok(Some(records)) => self.apply(records),
                    Ok(None) => self.followed.0.keys().for_each(|id| self.note_lag(*id)),
                    Err(error) => tracing::warn!(%error, "standbys are followed on"),
                },
                () = sleep_until(due) => {}
            }
            self.tidy();
        }
        self.checkpoint();
        if let Some(consumer) = self.consumer
            && let Err(error) = consumer.close().await
        {
            tracing::debug!(%error, "the reader of standbys");
        }
    }

    fn keep(&mut self, wanted: BTreeSet<TaskId>) {
        self.opening.retain(|id, work| {
            let stays = wanted.contains(id);
            if !stays {
                work.abort();
            }
            stays
        });
        self.failed.retain(|id, _| wanted.contains(id));
        for (id, following) in &mut self.followed.0 {
            following.until = match wanted.contains(id) {
                true => None,
                false => following.until.or(Some(Instant::now() + self.linger)),
            };
        }
        self.wanted = wanted;
        for id in self.wanted.clone() {
            let is_known = self.followed.0.contains_key(&id)
                || self.opening.contains_key(&id)
                || self.failed.contains_key(&id);
            if !is_known {
                self.open(id);
            }
        }
    }

    fn open(&mut self, id: TaskId) {
        let restorer = self.restorer.clone();
        // Apart, because it may wait for whoever has the task's part of the disk.
        let work = self.opened.spawn(async move { (id, restorer.open(id).await) });
        self.opening.insert(id, work);
    }

    fn begin(&mut self, id: TaskId, opened: Result<Task, StreamsError>) {
        if self.opening.remove(&id).is_none() {
            return;
        }
        let task = match opened {
            Ok(task) => task,
            Err(error) => {
                let is_brief = matches!(&error, StreamsError::Client(error) if is_passing(error));
                tracing::warn!(task = %id, %error, "a standby could not be opened");
                let pause = if is_brief { RETRY_PAUSE } else { RETRY_PAUSE_LONG };
                self.failed.insert(id, Instant::now() + pause);
                return;
            }
        };
        for (store, changelog) in changelogs(&self.restorer, id) {
            self.stores.insert(changelog, (id, store));
        }
        self.followed.0.insert(id, Following { task, records: 0, until: None });
        self.read_on();
        self.tell_all(id, |listener, update| listener.update_started(update));
    }

    /// Reads the changelogs of all that are followed, and no others.
    fn read_on(&mut self) {
        let followed = &self.followed;
        let from: Vec<(TopicPartition, Start)> = self
            .stores
            .iter()
            .filter_map(|(changelog, (id, store))| {
                let offset = followed.0.get(id)?.task.offset_of(store);
                Some((changelog.clone(), offset.map_or(Start::Beginning, Start::Offset)))
            })
            .collect();
        self.desk.show_standbys(followed.0.keys().copied());
        let assigned = match &self.consumer {
            Some(consumer) => consumer.assign(&from).map_err(Into::into),
            None => self.restorer.consumer().and_then(|consumer| {
                consumer.assign(&from)?;
                self.consumer = Some(consumer);
                Ok(())
            }),
        };
        if let Err(error) = assigned {
            tracing::error!(%error, "standbys cannot be followed");
        }
    }

    fn hand_over(&mut self, id: TaskId, give: oneshot::Sender<Option<Task>>) {
        self.wanted.remove(&id);
        self.failed.remove(&id);
        if let Some(work) = self.opening.remove(&id) {
            work.abort();
        }
        let task = self.release(id, StandbySuspension::Promoted);
        // Whoever asked may have given the task up meanwhile.
        let _ = give.send(task);
    }

    /// Ends following a task.
    fn release(&mut self, id: TaskId, why: StandbySuspension) -> Option<Task> {
        self.advance(id);
        self.tell_all(id, |listener, update| listener.update_suspended(update, why));
        let following = self.followed.0.remove(&id)?;
        self.stores.retain(|_, (of, _)| *of != id);
        self.lags.lock().remove(&id);
        if why == StandbySuspension::Migrated {
            self.restorer.positions().lock().remove(&id);
        }
        self.read_on();
        let records = following.records;
        tracing::info!(task = %id, records, ?why, "a standby ends");
        Some(following.task)
    }

    fn apply(&mut self, records: Records) {
        let changelog = records.partition().clone();
        let next = records.next_offset();
        let Some((id, store)) = self.stores.get(&changelog).cloned() else {
            return;
        };
        let Some(following) = self.followed.0.get_mut(&id) else {
            return;
        };
        let task = &mut following.task;
        let applied = task
            .restore_batch(&store, records.into_owned().filter_map(logged), next)
            .and_then(|count| {
                if task.uncommitted_bytes() > UNCOMMITTED_MAX {
                    task.checkpoint(now_ms())?;
                }
                Ok(count)
            });
        match applied {
            Ok(count) => {
                following.records += count;
                self.restorer.note(&following.task);
                self.note_lag(id);
                self.tell(id, &store, &changelog, count, |listener, update| {
                    listener.batch_loaded(update);
                });
            }
            Err(error) => self.give_up(id, &error),
        }
    }

    fn give_up(&mut self, id: TaskId, error: &StoreError) {
        tracing::warn!(task = %id, %error, "a standby cannot go on, and begins anew");
        drop(self.release(id, StandbySuspension::Migrated));
        if self.wanted.contains(&id) {
            self.failed.insert(id, Instant::now() + RETRY_PAUSE_LONG);
        }
    }

    /// Follows markers of transactions, too, which move a position without a record.
    fn advance(&mut self, id: TaskId) {
        let (Some(consumer), Some(following)) = (&self.consumer, self.followed.0.get_mut(&id))
        else {
            return;
        };
        for (changelog, (_, store)) in self.stores.iter().filter(|(_, (of, _))| *of == id) {
            if let Some(position) = consumer.position(changelog)
                && let Err(error) =
                    following.task.restore_batch(store, std::iter::empty(), position)
            {
                tracing::warn!(task = %id, %error, "the position is told later");
            }
        }
    }

    fn note_lag(&self, id: TaskId) {
        let Some(consumer) = &self.consumer else {
            return;
        };
        let lags = self.stores.iter().filter(|(_, (of, _))| *of == id).map(|(changelog, _)| {
            Some((consumer.high_watermark(changelog)? - consumer.position(changelog)?).max(0))
        });
        let lag = lags.sum::<Option<i64>>();
        match lag {
            Some(lag) => self.lags.lock().insert(id, lag),
            None => self.lags.lock().remove(&id),
        };
        if let Some(Following { records, .. }) = self.followed.0.get(&id) {
            self.desk.note_followed(id, Applied { records: *records, lag });
        }
    }

    /// Does what the time of day brings.
    fn tidy(&mut self) {
        let now = Instant::now();
        let ended: Vec<TaskId> = self
            .followed
            .0
            .iter()
            .filter(|(_, following)| following.until.is_some_and(|until| until <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in ended {
            if let Some(mut task) = self.release(id, StandbySuspension::Migrated)
                && let Err(error) = task.checkpoint(now_ms())
            {
                tracing::warn!(task = %id, %error, "what a standby had is not on disk");
            }
        }
        let again: Vec<TaskId> =
            self.failed.iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id).collect();
        for id in again {
            self.failed.remove(&id);
            self.open(id);
        }
        if self.checkpointed + CHECKPOINT_INTERVAL <= now {
            self.checkpoint();
        }
    }

    /// Writes to disk what is to be there.
    fn checkpoint(&mut self) {
        self.checkpointed = Instant::now();
        for id in self.followed.0.keys().copied().collect::<Vec<_>>() {
            self.advance(id);
            self.note_lag(id);
            let task = self.followed.find(id);
            if let Some(Err(error)) = task.map(|task| task.checkpoint(now_ms())) {
                self.give_up(id, &error);
            }
        }
    }

    fn next_due(&self) -> Instant {
        let lingering = self.followed.0.values().filter_map(|following| following.until);
        let dues = lingering.chain(self.failed.values().copied());
        dues.fold(self.checkpointed + CHECKPOINT_INTERVAL, Instant::min)
    }

    fn tell_all(&self, id: TaskId, act: impl Fn(&dyn StandbyListener, &StandbyUpdate)) {
        let records = self.followed.0.get(&id).map_or(0, |following| following.records);
        for (changelog, (_, store)) in self.stores.iter().filter(|(_, (of, _))| *of == id) {
            self.tell(id, store, changelog, records, &act);
        }
    }

    fn tell(
        &self,
        id: TaskId,
        store: &str,
        changelog: &TopicPartition,
        records: u64,
        act: impl Fn(&dyn StandbyListener, &StandbyUpdate),
    ) {
        let (Some(listener), Some(following)) = (&self.listener, self.followed.0.get(&id)) else {
            return;
        };
        let end = self.consumer.as_ref().and_then(|consumer| consumer.high_watermark(changelog));
        let update = StandbyUpdate {
            task: id.to_string(),
            store: store.to_owned(),
            changelog: changelog.clone(),
            offset: following.task.offset_of(store).unwrap_or(0),
            end_offset: end,
            records,
        };
        act(&**listener, &update);
    }
}

/// Waits for records, for ever if nothing is read.
async fn poll(consumer: Option<&Consumer>) -> Result<Option<Records>, fleuve_client::Error> {
    match consumer {
        Some(consumer) => consumer.poll(POLL).await,
        None => pending().await,
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// How long one poll of the changelogs waits.
const POLL: Duration = Duration::from_secs(1);
/// Bytes of a standby that wait for the disk.
const UNCOMMITTED_MAX: usize = 8 << 20;
/// How often standbys on disk write down how far they are, beside what their size calls for.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(10);
/// Before a standby is tried again after an error that passes, and after another one.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
const RETRY_PAUSE_LONG: Duration = Duration::from_secs(10);
