//! The state directory of an application: the database, who has which task, and what is tidied away.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fjall::{Database, KeyspaceCreateOptions};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::backend::{DiskBackend, partitions};
use super::memtables::Memtables;
use crate::runtime::TaskId;
use crate::state::{Backend, StoreError};
use crate::topology::Plan;

/// The state directory of one application, open and locked.
#[derive(Clone)]
pub(crate) struct StateDirectory {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    memtables: Arc<Memtables>,
    memtable_bytes_max: u64,
    /// The subtopology of each store.
    owners: BTreeMap<String, u32>,
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
        let database =
            Database::builder(&path).cache_size(half).worker_threads(WORKERS).open().map_err(
                |error| match error {
                    fjall::Error::Locked => StoreError::Locked(path.clone()),
                    error => StoreError::disk(error),
                },
            )?;
        let mut owners = BTreeMap::new();
        for part in plan.subtopologies() {
            owners.extend(part.stores.iter().map(|store| (store.clone(), part.id)));
        }
        let claims =
            Claims { held: HashSet::new(), given_up: HashMap::new(), opened: Instant::now() };
        Ok(Self {
            inner: Arc::new(Inner {
                path,
                memtables: Arc::new(Memtables::new(database, half)),
                memtable_bytes_max: half / 2,
                owners,
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

    fn keyspace(&self, store: &str) -> Result<fjall::Keyspace, StoreError> {
        let memtable = self.inner.memtable_bytes_max;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(memtable);
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

fn keyspace_name(store: &str) -> String {
    format!("store/{store}")
}

/// Threads that write files and compact them.
const WORKERS: usize = 2;
/// The least memory for either half.
const MEMORY_MIN: u64 = 1 << 20;
