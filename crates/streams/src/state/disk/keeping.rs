//! What stores bring to disk together: what they have written since their last commits, with their positions.
//!
//! A little goes through the journal, all of it in one batch. Much goes into sorted tables at once, past journal and
//! memtable, which would cost as much again: of each store all its partitions with their positions. The tables of a
//! store come into the database in one step, after they have been synced. So with either way a crash leaves each store
//! at one of its positions, with just the data that belong there.
//!
//! Only of what is restored the positions come behind their data. A crash in between leaves data that are ahead, to
//! which the same records are applied once more, which changes nothing. Tables without positions are those of single
//! partitions, and seldom lie above each other: a changelog in the order of its keys is never merged.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use fjall::{AbstractTree, Keyspace, Slice};

use super::arrived::Arrived;
use super::backend::{DiskBackend, DiskBatch, PREFIX, position_key, put_data_key};
use super::memtables::{Memtables, wait_while};
use super::{Claim, Position};
use crate::state::StoreError;

/// What is to be brought to disk.
#[derive(Default)]
pub(crate) struct Keeping {
    /// By keyspace.
    stores: BTreeMap<u64, Vec<Share>>,
    /// The rights to the tasks whose stores these are, until all of it is written.
    claims: Vec<Arc<Claim>>,
    /// Whether positions come behind their data.
    restores: bool,
}

/// What one task has for one store.
pub(super) struct Share {
    pub(super) memtables: Arc<Memtables>,
    pub(super) keyspace: Keyspace,
    pub(super) partition: u32,
    pub(super) position: Option<Position>,
    pub(super) rows: Rows,
    pub(super) bytes: usize,
    /// Whether a changelog has it, too.
    pub(super) logged: bool,
}

pub(super) enum Rows {
    Written(BTreeMap<Bytes, Option<Bytes>>),
    Arrived(Arrived),
}

impl Keeping {
    /// What is restored, on the way or at the end.
    pub(crate) fn restored() -> Self {
        Self { restores: true, ..Self::default() }
    }

    /// Takes out what a store has written, to be kept with this position.
    pub(crate) fn add(
        &mut self,
        store: &mut DiskBackend,
        position: Option<Position>,
        logged: bool,
    ) {
        let share = store.take(position, logged);
        self.stores.entry(share.keyspace.id()).or_default().push(share);
    }

    /// Sees to it that nobody else gets a task before this is done.
    pub(crate) fn hold(&mut self, claim: Option<&Arc<Claim>>) {
        self.claims.extend(claim.cloned());
    }

    /// Writes everything. Takes as long as the disk does.
    pub(crate) fn write(self) -> Result<(), StoreError> {
        let Self { stores, claims, restores } = self;
        let (mut batch, mut much) = (None, Vec::new());
        for mut shares in stores.into_values() {
            shares.sort_by_key(|share| share.partition);
            let bytes: usize = shares.iter().map(|share| share.bytes).sum();
            // Stores without changelogs have nothing but the disk: they go there together.
            let small = if bytes < INGESTED_MIN || !shares.iter().all(|share| share.logged) {
                shares
            } else if restores {
                let positions = shares.iter_mut().map(Share::take_position).collect();
                much.push(shares);
                positions
            } else {
                much.push(shares);
                Vec::new()
            };
            for share in small {
                let batch = batch.get_or_insert_with(|| DiskBatch::new(&share.memtables));
                let keyspace = share.keyspace.clone();
                share.each(|key, value| {
                    batch.add(&keyspace, key, value);
                    Ok(())
                })?;
            }
        }
        let ingest_all = || much.into_iter().try_for_each(|shares| ingest(shares, true));
        let commit = || batch.map_or(Ok(()), DiskBatch::commit);
        if restores {
            ingest_all().and_then(|()| commit())?;
        } else {
            // Stores without changelogs first: what a crash keeps from the others is in theirs.
            commit().and_then(|()| ingest_all())?;
        }
        drop(claims);
        Ok(())
    }

    /// Writes tables, and ends before the last step: before the database has them, or their positions.
    #[cfg(test)]
    pub(super) fn write_without_end(self) -> Result<(), StoreError> {
        for mut shares in self.stores.into_values() {
            if self.restores {
                shares.iter_mut().for_each(|share| share.position = None);
            }
            ingest(shares, self.restores)?;
        }
        Ok(())
    }
}

/// Writes the shares of one store into tables, and has the database take them over.
fn ingest(shares: Vec<Share>, take_over: bool) -> Result<(), StoreError> {
    let Some(keyspace) = shares.first().map(|share| share.keyspace.clone()) else {
        return Ok(());
    };
    // Whoever writes faster than tables are merged would have ever more of them to ask.
    wait_while(|| keyspace.tree.l0_run_count() >= RUNS_MAX);
    let mut ingestion = keyspace.start_ingestion()?;
    for share in shares {
        share.each(|key, value| match value {
            Some(value) => Ok(ingestion.write(key, value)?),
            None => Ok(ingestion.write_tombstone(key)?),
        })?;
    }
    if take_over {
        ingestion.finish()?;
    }
    Ok(())
}

impl Share {
    /// The position apart from its data.
    fn take_position(&mut self) -> Self {
        Self {
            memtables: self.memtables.clone(),
            keyspace: self.keyspace.clone(),
            partition: self.partition,
            position: self.position.take(),
            rows: Rows::Arrived(Arrived::default()),
            bytes: 0,
            logged: self.logged,
        }
    }

    /// Gives away everything in the order of the database.
    fn each(
        self,
        mut give: impl FnMut(Slice, Option<Slice>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        if let Some(position) = self.position {
            let key = Slice::from(position_key(self.partition).to_vec());
            give(key, Some(Slice::from(position.to_bytes())))?;
        }
        match self.rows {
            Rows::Arrived(arrived) => {
                for (key, value) in arrived.into_sorted() {
                    give(key.into(), value.map(Slice::from))?;
                }
            }
            Rows::Written(rows) => {
                // One piece of memory for all keys.
                let length = rows.keys().map(|key| PREFIX + key.len()).sum();
                let mut keys = Vec::with_capacity(length);
                for key in rows.keys() {
                    put_data_key(&mut keys, self.partition, key);
                }
                let mut keys = Bytes::from(keys);
                for (key, value) in rows {
                    let key = keys.split_to(PREFIX + key.len());
                    give(key.into(), value.map(Slice::from))?;
                }
            }
        }
        Ok(())
    }
}

/// Less than this of a store is not worth a table of its own.
const INGESTED_MIN: usize = 2 << 20;
/// So many tables may lie above each other before somebody waits until they are merged.
const RUNS_MAX: usize = 24;
