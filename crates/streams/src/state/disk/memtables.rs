//! Keeps what all stores have in memtables within one budget, which the database does for each store only.

use std::time::{Duration, Instant};

use fjall::{Database, Keyspace};
use parking_lot::Mutex;

use crate::state::StoreError;

/// The database's memtables, those being written to files included.
pub(super) struct Memtables {
    database: Database,
    bytes_max: u64,
    keyspaces: Mutex<Vec<Keyspace>>,
}

impl Memtables {
    pub(super) fn new(database: Database, bytes_max: u64) -> Self {
        Self { database, bytes_max, keyspaces: Mutex::new(Vec::new()) }
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

    /// Has memtables written to files if they are half the budget, and waits for that if they are all of it.
    pub(super) fn relieve(&self) -> Result<(), StoreError> {
        if self.database.write_buffer_size() < self.bytes_max / 2 {
            return Ok(());
        }
        if self.database.outstanding_flushes() == 0 {
            for keyspace in self.keyspaces.lock().iter() {
                keyspace.rotate_memtable()?;
            }
        }
        // A flush that takes longer has failed or is about to, which the next commit will hear of.
        let begun = Instant::now();
        while self.database.write_buffer_size() > self.bytes_max
            && self.database.outstanding_flushes() > 0
            && begun.elapsed() < PATIENCE
        {
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

/// The pause between two looks at memtables that are being written.
const PAUSE: Duration = Duration::from_millis(1);
/// The longest wait for them.
const PATIENCE: Duration = Duration::from_secs(10);
