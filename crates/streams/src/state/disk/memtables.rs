//! The database, with what it does not know of itself: keeps what all stores have in memtables within one budget, which
//! it does for each store only, and tells it what is dead.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fjall::{Database, Keyspace};
use parking_lot::Mutex;

use super::dead::Dead;
use crate::state::StoreError;

/// The database's memtables, those being written to files included.
pub(super) struct Memtables {
    database: Database,
    bytes_max: u64,
    keyspaces: Mutex<Vec<Keyspace>>,
    /// Bytes written since memtables were last begun, roughly.
    fresh: AtomicU64,
    dead: Arc<Dead>,
}

impl Memtables {
    /// Of a database that merges its tables without what is dead.
    pub(super) fn new(database: Database, bytes_max: u64, dead: Arc<Dead>) -> Self {
        let fresh = AtomicU64::new(0);
        Self { database, bytes_max, keyspaces: Mutex::new(Vec::new()), fresh, dead }
    }

    pub(super) fn dead(&self) -> &Dead {
        &self.dead
    }

    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    /// Counts a keyspace in.
    pub(super) fn add(&self, keyspace: &Keyspace) {
        let mut keyspaces = self.keyspaces.lock();
        if keyspaces.iter().all(|known| known.id() != keyspace.id()) {
            keyspaces.push(keyspace.clone());
        }
    }

    /// Counts so many bytes in that were written. Has memtables written to files at half the budget, once those before
    /// them have been.
    ///
    /// The database's own count of bytes would not do: tables that are ingested take memtables along without telling it.
    pub(super) fn wrote(&self, bytes: u64) -> Result<(), StoreError> {
        let fresh = self.fresh.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if fresh < self.bytes_max / 2 {
            return Ok(());
        }
        // A flush that takes longer has failed or is about to, which the next commit will hear of.
        wait_while(|| self.are_being_written());
        self.rotate()
    }

    fn are_being_written(&self) -> bool {
        self.keyspaces.lock().iter().any(|keyspace| keyspace.sealed_memtable_count() > 0)
    }

    /// How many memtables are being written to files, and the bytes since they were begun.
    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, u64) {
        let sealed = self.keyspaces.lock().iter().map(Keyspace::sealed_memtable_count).sum();
        (sealed, self.fresh.load(Ordering::Relaxed))
    }

    /// Begins new memtables; the threads of the database write the old ones to files.
    fn rotate(&self) -> Result<(), StoreError> {
        if self.fresh.swap(0, Ordering::Relaxed) > 0 {
            for keyspace in self.keyspaces.lock().iter() {
                keyspace.rotate_memtable()?;
            }
        }
        Ok(())
    }
}

/// Waits for the threads of the database, not for ever.
pub(super) fn wait_while(busy: impl Fn() -> bool) {
    let begun = Instant::now();
    while busy() && begun.elapsed() < PATIENCE {
        std::thread::sleep(PAUSE);
    }
}

/// The pause between two looks at what they do.
const PAUSE: Duration = Duration::from_millis(1);
/// The longest wait for them.
const PATIENCE: Duration = Duration::from_secs(10);
