//! The stores of a task: what is on disk, how far each follows its changelog, and how they get there.
//!
//! Whoever brings state back, for a task that is to run or for a standby, does it in these steps:
//!
//! 1. [`Task::open`] makes the task with its stores, on disk where they are to be there.
//! 2. [`Task::restorable`] tells which changelogs there are, and up to which positions the disk has them.
//! 3. [`Task::resume`] says for each store whether its position still means anything; otherwise it begins empty.
//! 4. [`Task::restore_batch`] applies changelog records, up to a position; [`Task::checkpoint`] writes both to disk.
//!
//! Once the commit of a running task has reached the cluster, [`Task::committed`] says so, [`Task::wrote`] tells the
//! offsets that its changelog records got, and [`Task::keep_in`] gives both away, to be written to disk with those of
//! other tasks; [`Task::kept`] says that they are there.

use std::sync::Arc;

use super::{Globals, Task, TaskId};
use crate::state::disk::{Claim, DiskBackend, Image, Keeping, Position};
use crate::state::{Backend, Logged, StoreError, StoreType};
use crate::topology::Plan;

/// A store as its task keeps it.
pub(super) struct StoreEntry {
    pub(super) name: String,
    /// The topic it is restored from, and written to unless it is a source of the program.
    pub(super) changelog: Option<Arc<str>>,
    /// Whether the changelog is a topic that the program reads, and so does not write.
    pub(super) is_source: bool,
    pub(super) disk: Option<OnDisk>,
    /// The offset of the first changelog record that the store does not have.
    offset: Option<i64>,
    /// The same, of what was written since the last commit.
    written: Option<i64>,
}

/// What a store has on disk.
pub(super) struct OnDisk {
    /// The store's share of the database, for its position.
    share: DiskBackend,
    /// For stores whose data are in typed maps.
    image: Option<Image>,
    position: Option<Position>,
    topic_id: [u8; 16],
}

/// A store that is restored from a changelog.
#[derive(Clone, Debug)]
pub(crate) struct Restorable {
    pub(crate) store: String,
    pub(crate) changelog: Arc<str>,
    /// What the disk says.
    pub(crate) position: Option<Position>,
}

/// What tasks are opened with.
pub(crate) struct Place<'a> {
    /// The right to the task's share of the disk, if the program keeps state there.
    pub(crate) claim: Option<Claim>,
    /// Where stores are that the program says nothing about.
    pub(crate) default: StoreType,
    pub(crate) globals: &'a Globals,
}

impl Task {
    /// A task whose stores keep their data where they are to.
    pub(crate) fn open(plan: &Plan, id: TaskId, place: Place<'_>) -> Result<Self, StoreError> {
        let mut task = Self::new(plan, id, place.globals);
        let Some(claim) = place.claim else {
            return Ok(task);
        };
        for (entry, store) in task.stores.iter_mut().zip(&mut task.cx.stores) {
            let chosen = plan.stores[&entry.name].store_type.unwrap_or(place.default);
            if chosen == StoreType::Disk {
                let backend = claim.backend(&entry.name)?;
                let share = backend.share();
                let image = store.move_to(backend)?.map(|rest| Image::new(&entry.name, rest));
                let position = share.position()?;
                entry.disk = Some(OnDisk { share, image, position, topic_id: [0; 16] });
            }
        }
        task.claim = Some(Arc::new(claim));
        Ok(task)
    }

    /// The stores that have changelogs.
    pub(crate) fn restorable(&self) -> Vec<Restorable> {
        let stores = self.stores.iter().filter_map(|entry| {
            Some(Restorable {
                store: entry.name.clone(),
                changelog: entry.changelog.clone()?,
                position: entry.disk.as_ref().and_then(|disk| disk.position),
            })
        });
        stores.collect()
    }

    /// Begins a store at its position on disk, or empty if that is not to be trusted. Returns where its changelog is to
    /// be read from, if not from its beginning.
    pub(crate) fn resume(
        &mut self,
        store: &str,
        topic_id: [u8; 16],
        trusted: bool,
    ) -> Result<Option<i64>, StoreError> {
        let index = self.index_of(store);
        let (entry, store) = (&mut self.stores[index], &mut self.cx.stores[index]);
        let Some(disk) = &mut entry.disk else {
            return Ok(None);
        };
        disk.topic_id = topic_id;
        let position = disk.position.filter(|_| trusted);
        match (position, &mut disk.image) {
            (Some(_), Some(image)) => {
                for record in image.records()? {
                    store.restore(record)?;
                }
            }
            (Some(_), None) => {}
            (None, image) => {
                disk.position = None;
                if let Some(image) = image {
                    image.backend.clear()?;
                }
                if let Some(backend) = store.backend() {
                    backend.clear()?;
                }
                store.reset();
            }
        }
        entry.offset = position.map(|position| position.offset);
        Ok(entry.offset)
    }

    /// Applies changelog records to a store, which then has everything before `next_offset`.
    pub(crate) fn restore_batch(
        &mut self,
        store: &str,
        records: impl Iterator<Item = Logged>,
        next_offset: i64,
    ) -> Result<u64, StoreError> {
        let index = self.index_of(store);
        let (entry, store) = (&mut self.stores[index], &mut self.cx.stores[index]);
        let mut image = entry.disk.as_mut().and_then(|disk| disk.image.as_mut());
        let mut count = 0;
        for record in records {
            if let Some(image) = &mut image {
                image.put(&record);
            }
            store.restore(record)?;
            count += 1;
        }
        entry.offset = entry.offset.max(Some(next_offset));
        Ok(count)
    }

    /// The offset up to which a store has its changelog.
    pub(crate) fn offset_of(&self, store: &str) -> Option<i64> {
        self.stores[self.index_of(store)].offset
    }

    /// Tells the offsets behind the records that the task wrote to its changelogs.
    pub(crate) fn wrote(&mut self, next_offset_of: impl Fn(&Arc<str>) -> Option<i64>) {
        for entry in self.stores.iter_mut().filter(|entry| !entry.is_source) {
            if let Some(offset) = entry.changelog.as_ref().and_then(&next_offset_of) {
                entry.written = entry.written.max(Some(offset));
            }
        }
    }

    /// Tells that what the last [`Self::commit`] gave is durable.
    pub(crate) fn committed(&mut self) {
        for queue in self.queues.iter_mut() {
            let Some(position) = queue.position.take() else {
                continue;
            };
            let fed = |entry: &&mut StoreEntry| {
                entry.is_source && entry.changelog.as_ref() == Some(&queue.topic)
            };
            if let Some(entry) = self.stores.iter_mut().find(fed) {
                entry.written = Some(position);
            }
        }
    }

    /// Gives away what was committed, for the stores on disk to keep it. After [`Self::committed`] and [`Self::wrote`].
    pub(crate) fn keep_in(&mut self, keeping: &mut Keeping, wall_clock_ms: i64) {
        for entry in &mut self.stores {
            if let Some(written) = entry.written.take() {
                entry.offset = entry.offset.max(Some(written));
            }
        }
        self.checkpoint_in(keeping, wall_clock_ms);
    }

    /// Gives away what the stores have for the disk, and up to which positions.
    pub(crate) fn checkpoint_in(&mut self, keeping: &mut Keeping, wall_clock_ms: i64) {
        keeping.hold(self.claim.as_ref());
        for (entry, store) in self.stores.iter_mut().zip(&mut self.cx.stores) {
            let Some(disk) = &mut entry.disk else {
                continue;
            };
            store.before_commit();
            let moved =
                |offset: &i64| disk.position.is_none_or(|position| position.offset != *offset);
            let position = entry.offset.filter(moved).map(|offset| Position {
                topic_id: disk.topic_id,
                offset,
                written_ms: wall_clock_ms,
            });
            disk.position = position.or(disk.position);
            let data = match &mut disk.image {
                Some(image) => Some(&mut image.backend),
                None => store.backend().and_then(Backend::disk),
            };
            keeping.add(data.unwrap_or(&mut disk.share), position, entry.changelog.is_some());
        }
    }

    /// Gives away what was restored, but not its positions: should those never come, what lies between is restored once
    /// more.
    pub(crate) fn restored_in(&mut self, keeping: &mut Keeping) {
        keeping.hold(self.claim.as_ref());
        for (entry, store) in self.stores.iter_mut().zip(&mut self.cx.stores) {
            if let Some(disk) = &mut entry.disk {
                let data = match &mut disk.image {
                    Some(image) => Some(&mut image.backend),
                    None => store.backend().and_then(Backend::disk),
                };
                keeping.add(data.unwrap_or(&mut disk.share), None, entry.changelog.is_some());
            }
        }
    }

    /// Tells that the disk has what was given away last.
    pub(crate) fn kept(&mut self) -> Result<(), StoreError> {
        for (entry, store) in self.stores.iter().zip(&mut self.cx.stores) {
            if entry.disk.is_some() {
                store.after_commit()?;
            }
        }
        Ok(())
    }

    /// Writes what was restored, and up to which positions, to disk.
    pub(crate) fn checkpoint(&mut self, wall_clock_ms: i64) -> Result<(), StoreError> {
        let mut keeping = Keeping::restored();
        self.checkpoint_in(&mut keeping, wall_clock_ms);
        keeping.write()?;
        self.kept()
    }

    /// Whether some store on disk has no changelog, and so nothing but the disk.
    pub(crate) fn has_unlogged(&self) -> bool {
        self.stores.iter().any(|entry| entry.disk.is_some() && entry.changelog.is_none())
    }

    /// Bytes that wait for a commit before they go to disk.
    pub(crate) fn uncommitted_bytes(&mut self) -> usize {
        let mut bytes = 0;
        for (entry, store) in self.stores.iter().zip(&mut self.cx.stores) {
            let Some(disk) = &entry.disk else {
                continue;
            };
            bytes += store.backend().map_or(0, |backend| backend.uncommitted_bytes());
            bytes += disk.image.as_ref().map_or(0, |image| image.backend.uncommitted_bytes());
        }
        bytes
    }

    fn index_of(&self, store: &str) -> usize {
        self.stores
            .iter()
            .position(|entry| entry.name == store)
            .expect("a driver names stores of the task")
    }
}

impl StoreEntry {
    pub(super) fn new(plan: &Plan, name: String) -> Self {
        Self {
            changelog: plan.changelog_of(&name).map(Arc::from),
            is_source: plan.stores[&name].source_topic.is_some(),
            disk: None,
            offset: None,
            written: None,
            name,
        }
    }

    /// Follows what the store wrote, where its data are not on disk themselves.
    pub(super) fn follow(&mut self, logged: &[Logged]) {
        if let Some(image) = self.disk.as_mut().and_then(|disk| disk.image.as_mut()) {
            for record in logged {
                image.put(record);
            }
        }
    }
}
