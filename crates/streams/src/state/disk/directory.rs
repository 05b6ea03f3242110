//! The state directory of an application: the database, who has which task, and what is tidied away.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fjall::compaction::Leveled;
use fjall::{Database, KeyspaceCreateOptions};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::backend::{DiskBackend, partitions};
use super::dead::Dead;
use super::memtables::Memtables;
use super::snapshot::{self, StateSnapshot};
use crate::metrics::DiskMetrics;
use crate::runtime::TaskId;
use crate::state::{Backend, StoreError};
use crate::topology::{ChangelogKind, Plan, StoreSpec};

/// The state directory of one application, open and locked.
#[derive(Clone)]
pub(crate) struct StateDirectory {
    inner: Arc<Inner>,
}

struct Inner {
    application: String,
    path: PathBuf,
    memtables: Arc<Memtables>,
    memtable_bytes_max: u64,
    /// The subtopology of each store.
    owners: BTreeMap<String, u32>,
    /// The stores of joins, which look for spans of a key's events.
    of_joins: BTreeSet<String>,
    claims: Mutex<Claims>,
    released: Notify,
}

struct Claims {
    held: HashSet<TaskId>,
    /// When tasks were given up; those never held count from the start.
    given_up: HashMap<TaskId, Instant>,
    opened: Instant,
}

/// The right to a task's stores. Within one process too, only one may write them.
pub(crate) struct Claim {
    directory: StateDirectory,
    id: TaskId,
}

impl StateDirectory {
    /// Opens the directory of an application, and creates it if need be.
    pub(crate) fn open(
        state_dir: &Path,
        plan: &Plan,
        memory_bytes_max: u64,
    ) -> Result<Self, StoreError> {
        let path = state_dir.join(plan.application_id());
        std::fs::create_dir_all(&path).map_err(|error| StoreError::disk(error.into()))?;
        // Half for blocks that were read, half for what was written and is not in files yet.
        let half = (memory_bytes_max / 2).max(MEMORY_MIN);
        let dead = Arc::new(Dead::default());
        let filters = dead.clone();
        let database = Database::builder(&path)
            .cache_size(half)
            .worker_threads(WORKERS)
            .with_compaction_filter_factories(Arc::new(move |keyspace: &str| {
                Some(filters.filters_of(keyspace))
            }))
            .open()
            .map_err(|error| match error {
                fjall::Error::Locked => StoreError::Locked(path.clone()),
                error => StoreError::disk(error),
            })?;
        let mut owners = BTreeMap::new();
        for part in plan.subtopologies() {
            owners.extend(part.stores.iter().map(|store| (store.clone(), part.id)));
        }
        let is_of_join = |spec: &&StoreSpec| {
            matches!(spec.changelog, ChangelogKind::Window { duplicates: true, .. })
        };
        let of_joins = plan.stores.values().filter(is_of_join).map(|spec| spec.name.clone());
        let claims =
            Claims { held: HashSet::new(), given_up: HashMap::new(), opened: Instant::now() };
        Ok(Self {
            inner: Arc::new(Inner {
                application: plan.application_id().to_owned(),
                path,
                memtables: Arc::new(Memtables::new(database, half, dead)),
                memtable_bytes_max: half / 2,
                owners,
                of_joins: of_joins.collect(),
                claims: Mutex::new(claims),
                released: Notify::new(),
            }),
        })
    }

    /// Waits until nobody else has the task.
    pub(crate) async fn claim(&self, id: TaskId) -> Claim {
        loop {
            let released = self.inner.released.notified();
            tokio::pin!(released);
            // Listening before looking, so that no release is missed in between.
            released.as_mut().enable();
            if let Some(claim) = self.try_claim(id) {
                return claim;
            }
            released.await;
        }
    }

    /// The right to a task, unless somebody has it.
    pub(crate) fn try_claim(&self, id: TaskId) -> Option<Claim> {
        let free = self.inner.claims.lock().held.insert(id);
        free.then(|| Claim { directory: self.clone(), id })
    }

    /// How far the stores of tasks that nobody has now follow their changelogs: the sum of their offsets.
    pub(crate) fn positions(&self) -> Result<BTreeMap<TaskId, i64>, StoreError> {
        let mut positions = BTreeMap::new();
        for (store, subtopology) in &self.inner.owners {
            if !self.database().keyspace_exists(&keyspace_name(store)) {
                continue;
            }
            let keyspace = self.keyspace(store)?;
            for partition in partitions(&keyspace)? {
                let id = TaskId { subtopology: *subtopology, partition: partition as i32 };
                if self.inner.claims.lock().held.contains(&id) {
                    continue;
                }
                let memtables = self.inner.memtables.clone();
                let store = DiskBackend::new(memtables, keyspace.clone(), partition);
                if let Some(position) = store.position()? {
                    *positions.entry(id).or_insert(0) += position.offset;
                }
            }
        }
        Ok(positions)
    }

    /// What each store has in files, of all tasks together. Rows that were written again count until files are merged.
    pub(crate) fn sizes(&self) -> Vec<DiskMetrics> {
        let there = |store: &&String| self.database().keyspace_exists(&keyspace_name(store));
        let sizes = self.inner.owners.keys().filter(there).filter_map(|store| {
            let keyspace = self.keyspace(store).ok()?;
            let (bytes, rows) = (keyspace.disk_space(), keyspace.approximate_len() as u64);
            Some(DiskMetrics { store: store.clone(), bytes, rows })
        });
        sizes.collect()
    }

    /// Deletes the data of tasks that nobody has had for so long. Returns how many there were.
    pub(crate) fn tidy(&self, delay: Duration) -> Result<usize, StoreError> {
        let mut tidied = HashSet::new();
        for (store, subtopology) in &self.inner.owners {
            if !self.database().keyspace_exists(&keyspace_name(store)) {
                continue;
            }
            let keyspace = self.keyspace(store)?;
            for partition in partitions(&keyspace)? {
                let id = TaskId { subtopology: *subtopology, partition: partition as i32 };
                let idle_since = {
                    let claims = self.inner.claims.lock();
                    claims.given_up.get(&id).copied().unwrap_or(claims.opened)
                };
                if idle_since.elapsed() < delay {
                    continue;
                }
                let Some(claim) = self.try_claim(id) else {
                    continue;
                };
                claim.backend(store)?.clear()?;
                drop(claim);
                // Dropping the claim has set the clock back, but its other stores are as old as this one.
                self.inner.claims.lock().given_up.insert(id, idle_since);
                if tidied.insert(id) {
                    tracing::info!(task = %id, "state of a task that has moved away is deleted");
                }
            }
        }
        Ok(tidied.len())
    }

    /// Writes all stores with their positions to a file, as they are at this moment.
    pub(crate) fn export(&self, file: &Path) -> Result<StateSnapshot, StoreError> {
        let stores = self.inner.owners.keys().cloned();
        snapshot::export(self.database(), &self.inner.application, stores, file)
    }

    /// Reads a file of [`Self::export`] into the directory of an application that has none yet.
    pub(crate) fn import(
        state_dir: &Path,
        application: &str,
        file: &Path,
    ) -> Result<StateSnapshot, StoreError> {
        snapshot::import(file, application, &state_dir.join(application))
    }

    fn keyspace(&self, store: &str) -> Result<fjall::Keyspace, StoreError> {
        let memtable = self.inner.memtable_bytes_max;
        let is_of_join = self.inner.of_joins.contains(store);
        let options = || {
            let strategy = Leveled::default()
                .with_l0_threshold(if is_of_join { EVENT_TABLES_MERGED } else { TABLES_MERGED })
                .with_table_target_size(TABLE_BYTES);
            KeyspaceCreateOptions::default()
                .max_memtable_size(memtable)
                .compaction_strategy(Arc::new(strategy))
        };
        let keyspace = self.database().keyspace(&keyspace_name(store), options)?;
        self.inner.memtables.add(&keyspace);
        Ok(keyspace)
    }

    fn database(&self) -> &Database {
        self.inner.memtables.database()
    }
}

impl std::fmt::Debug for StateDirectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateDirectory").field("path", &self.inner.path).finish_non_exhaustive()
    }
}

impl Claim {
    /// The task's share of a store.
    pub(crate) fn backend(&self, store: &str) -> Result<DiskBackend, StoreError> {
        let keyspace = self.directory.keyspace(store)?;
        let memtables = self.directory.inner.memtables.clone();
        Ok(DiskBackend::new(memtables, keyspace, self.id.partition as u32))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claims = self.directory.inner.claims.lock();
        claims.held.remove(&self.id);
        claims.given_up.insert(self.id, Instant::now());
        drop(claims);
        self.directory.inner.released.notify_waiters();
    }
}

pub(super) fn keyspace_name(store: &str) -> String {
    format!("store/{store}")
}

/// Threads that write files and compact them.
///
/// Of several the first never compacts, and spins while there is something to compact.
const WORKERS: usize = 1;
/// So many new tables are merged at once: the more, the less often a row is written again, and the more tables a read
/// may have to ask.
const TABLES_MERGED: u8 = 8;
/// The same for stores of joins, which have to search each table for every event that may have a partner.
const EVENT_TABLES_MERGED: u8 = 4;
/// The size of a merged table. While it is written, the blocks that its rows come from stay in memory.
const TABLE_BYTES: u64 = 32 << 20;
/// The least memory for either half.
const MEMORY_MIN: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use std::ops::Bound;

    use bytes::Bytes;

    use super::*;
    use crate::state::disk::{Keeping, Position};

    fn plan() -> Arc<Plan> {
        let app = crate::Topology::new("app");
        app.stream::<String, String>("in").group_by_key().count("counts").to_stream().to("out");
        app.build().expect("a valid topology")
    }

    const ID: TaskId = TaskId { subtopology: 0, partition: 0 };

    /// Brings what a store has written to disk.
    fn keep(backend: &mut DiskBackend) {
        let mut keeping = Keeping::default();
        keeping.add(backend, None, true);
        keeping.write().expect("a working disk");
    }

    #[test]
    fn memtables_stay_within_their_budget() {
        let directory = tempfile::tempdir().expect("a directory");
        let budget = 4 << 20;
        let state = StateDirectory::open(directory.path(), &plan(), budget).expect("a directory");
        let claim = state.try_claim(ID).expect("nobody else has it");
        let mut backend = claim.backend("counts").expect("a store");
        let value = Bytes::from(vec![7; 1000]);
        for round in 0..200_u64 {
            for number in 0..100_u64 {
                let key = Bytes::copy_from_slice(&(round * 100 + number).to_be_bytes());
                backend.put(key, Some(value.clone()));
            }
            keep(&mut backend);
            // Half the budget is for memtables; the other half for blocks. The database's own count of their bytes goes
            // down some time after they have gone.
            let (sealed, fresh) = state.inner.memtables.held();
            assert!(sealed <= 1, "{sealed} memtables are being written after round {round}");
            assert!(fresh < budget / 4, "{fresh} bytes in the memtable after round {round}");
        }
        assert_eq!(backend.entries().expect("a working disk"), 20_000);
    }

    #[test]
    fn what_is_ingested_replaces_what_was_committed_and_is_there_after_a_restart() {
        let directory = tempfile::tempdir().expect("a directory");
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let state = StateDirectory::open(directory.path(), &plan(), 4 << 20).expect("a directory");
        let claims = [0, 1].map(|partition| state.try_claim(TaskId { subtopology: 0, partition }));
        let [mut restored, mut neighbour] = claims
            .each_ref()
            .map(|claim| claim.as_ref().expect("free").backend("counts").expect("a store"));
        for backend in [&mut restored, &mut neighbour] {
            backend.put(bytes("changed"), Some(bytes("before")));
            backend.put(bytes("removed"), Some(bytes("before")));
            keep(backend);
        }
        let value = Bytes::from(vec![7; 1000]);
        for number in 0..2_000 {
            restored.put(bytes(&format!("key-{number}")), Some(value.clone()));
        }
        restored.put(bytes("changed"), Some(bytes("after")));
        restored.put(bytes("removed"), None);
        keep(&mut restored);
        // Too little for a table of its own.
        restored.put(bytes("little"), Some(bytes("late")));
        keep(&mut restored);
        assert_eq!(restored.uncommitted_bytes(), 0);
        let [size] = &state.sizes()[..] else {
            panic!("one store has something: {:?}", state.sizes());
        };
        assert!(size.store == "counts" && size.bytes > 0 && size.rows >= 2_004, "{size:?}");
        drop((restored, neighbour, claims, state));

        let state = StateDirectory::open(directory.path(), &plan(), 4 << 20).expect("a directory");
        let claims = [0, 1].map(|partition| state.try_claim(TaskId { subtopology: 0, partition }));
        let [mut restored, mut neighbour] = claims
            .each_ref()
            .map(|claim| claim.as_ref().expect("free").backend("counts").expect("a store"));
        let mut get = |key: &str| restored.get(key.as_bytes()).expect("a working disk");
        assert_eq!((get("changed"), get("removed")), (Some(bytes("after")), None));
        assert_eq!((get("key-1999"), get("little")), (Some(value), Some(bytes("late"))));
        assert_eq!(restored.entries().expect("a working disk"), 2_002);
        assert_eq!(neighbour.get(b"changed").expect("a working disk"), Some(bytes("before")));
        assert_eq!(neighbour.entries().expect("a working disk"), 2);
    }

    #[test]
    fn a_crash_while_much_is_written_leaves_the_last_position_and_nothing_is_lost() {
        for begin in [Keeping::default, Keeping::restored] {
            let directory = tempfile::tempdir().expect("a directory");
            let open = || {
                let state = StateDirectory::open(directory.path(), &plan(), 4 << 20);
                let state = state.expect("a directory");
                let claim = state.try_claim(ID).expect("nobody else has it");
                let backend = claim.backend("counts").expect("a store");
                (state, claim, backend)
            };
            // Each piece changes all keys of the one before it, and adds some.
            let take = |backend: &mut DiskBackend, piece: u32| {
                for number in (0..2_500 * piece).rev() {
                    let parts = [&piece.to_be_bytes()[..], &[7; 1000]];
                    backend.restore(format!("key-{number:06}").as_bytes(), Some(parts));
                }
                let mut keeping = begin();
                let offset = i64::from(piece);
                let position = Position { topic_id: [1; 16], offset, written_ms: 0 };
                keeping.add(backend, Some(position), true);
                keeping
            };
            let offset = |backend: &DiskBackend| {
                let position = backend.position().expect("a working disk");
                position.map(|position| position.offset)
            };
            let expect = |backend: &mut DiskBackend, piece: u32| {
                assert_eq!(offset(backend), Some(i64::from(piece)));
                let rows = backend.range(Bound::Unbounded, Bound::Unbounded).expect("a disk");
                assert_eq!(rows.len(), 2_500 * piece as usize);
                assert!(rows.iter().all(|(_, value)| value[..4] == piece.to_be_bytes()));
            };
            for piece in 1..=2 {
                let (state, _claim, mut backend) = open();
                take(&mut backend, piece).write().expect("a working disk");
                assert!(state.inner.memtables.held().1 < 1_000, "it goes past the memtable");
                expect(&mut backend, piece);
            }
            let (state, claim, mut backend) = open();
            expect(&mut backend, 2);
            take(&mut backend, 3).write_without_end().expect("a working disk");
            drop((backend, claim, state));
            let (_state, _claim, mut backend) = open();
            assert_eq!(offset(&backend), Some(2));
            take(&mut backend, 3).write().expect("a working disk");
            expect(&mut backend, 3);
        }
    }

    #[test]
    fn state_of_tasks_that_moved_away_is_deleted_and_that_of_others_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = StateDirectory::open(directory.path(), &plan(), 1 << 20).expect("a directory");
        let entries = |claim: &Claim| {
            claim.backend("counts").and_then(|mut backend| backend.entries()).expect("a count")
        };
        let claims: Vec<Claim> = (0..2)
            .filter_map(|partition| state.try_claim(TaskId { subtopology: 0, partition }))
            .collect();
        for claim in &claims {
            let mut backend = claim.backend("counts").expect("a store");
            backend.put(Bytes::from_static(b"key"), Some(Bytes::from_static(b"value")));
            keep(&mut backend);
        }
        assert!(state.try_claim(ID).is_none(), "a task has one owner");
        let mut claims = claims.into_iter();
        let (moved, stays) = (claims.next(), claims.next().expect("two claims"));
        drop(moved);
        assert_eq!(state.tidy(Duration::from_secs(3600)).expect("a working disk"), 0);
        assert_eq!(state.tidy(Duration::ZERO).expect("a working disk"), 1);
        assert_eq!(entries(&state.try_claim(ID).expect("free again")), 0);
        assert_eq!(entries(&stays), 1);
    }

    #[test]
    fn damaged_and_foreign_snapshots_are_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        let state = StateDirectory::open(&path("state"), &plan(), 1 << 20).expect("a directory");
        let claim = state.try_claim(ID).expect("nobody else has it");
        let mut backend = claim.backend("counts").expect("a store");
        backend.put(Bytes::from_static(b"key"), Some(Bytes::from_static(b"value")));
        keep(&mut backend);
        let exported = state.export(&path("file")).expect("a snapshot");
        assert_eq!((exported.stores, exported.entries), (1, 1));
        let whole = std::fs::read(path("file")).expect("the file");
        assert_eq!(exported.bytes, whole.len() as u64);
        for cut in 0..whole.len() {
            std::fs::write(path("cut"), &whole[..cut]).expect("a file");
            let refused = StateDirectory::import(&path("other"), "app", &path("cut"));
            assert!(refused.is_err(), "cut at {cut}");
            let mut changed = whole.clone();
            changed[cut] ^= 1;
            std::fs::write(path("cut"), &changed).expect("a file");
            let refused = StateDirectory::import(&path("other"), "app", &path("cut"));
            assert!(refused.is_err(), "changed at {cut}");
        }
        let error = StateDirectory::import(&path("other"), "another", &path("file"));
        assert!(error.expect_err("another's").to_string().contains("another application"));
        assert!(!path("other").exists(), "nothing is written before the file is checked");
        let imported = StateDirectory::import(&path("other"), "app", &path("file"));
        assert_eq!(imported.expect("a whole file"), exported);
        let again = StateDirectory::import(&path("other"), "app", &path("file"));
        assert!(again.expect_err("not empty").to_string().contains("there already"));
    }
}
