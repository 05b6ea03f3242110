//! Instances of the program: who runs which task, what moves when one comes or goes, and what a crash leaves.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::TestDriver;
use super::topics::Turns;
use crate::error::ProcessingError;
use crate::runtime::{Globals, Place, RawRecord, Restorable, Task, TaskId};
use crate::state::disk::StateDirectory;
use crate::state::{Logged, StoreType};

/// A task of an instance.
pub(super) struct Running {
    pub(super) task: Task,
    pub(super) instance: usize,
    /// The next offset to give the task, by topic.
    pub(super) fetched: BTreeMap<Arc<str>, i64>,
}

impl TestDriver {
    /// Kills all instances as a crash would, and starts them again: state comes back from the changelogs, and what was
    /// not committed is processed once more.
    pub fn crash(&mut self) -> &mut Self {
        self.failure = None;
        self.keeps_store_commits = true;
        self.restored = 0;
        self.tasks.clear();
        self.standbys.clear();
        self.turns = Turns::default();
        self.held.clear();
        for instance in 0..self.instances.len() {
            if self.instances[instance].is_some() {
                self.instances[instance] = Some(self.filled_globals());
            }
        }
        self.share_out();
        self.settle();
        self
    }

    /// Starts another instance, which takes its share of the tasks. Returns its number.
    pub fn add_instance(&mut self) -> usize {
        let globals = self.filled_globals();
        self.instances.push(Some(globals));
        self.share_out();
        self.settle();
        self.instances.len() - 1
    }

    /// Stops an instance: it commits, and its tasks go to the others, or wait for one.
    pub fn stop_instance(&mut self, instance: usize) -> &mut Self {
        self.commit_instance(instance);
        self.of_instance(instance).for_each(|running| running.task.close());
        self.kill_instance(instance)
    }

    /// Kills an instance: what it did since its last commit is lost, and its tasks go to the others, or wait for one.
    pub fn kill_instance(&mut self, instance: usize) -> &mut Self {
        if let Some(globals) = self.instances.get_mut(instance) {
            *globals = None;
        }
        let lost: Vec<TaskId> =
            self.of_instance(instance).map(|running| running.task.id()).collect();
        for id in lost {
            self.tasks.remove(&id);
            self.turns.forget(id);
        }
        self.standbys.retain(|(_, at), _| *at != instance);
        self.share_out();
        self.settle();
        self
    }

    /// Moves a task, named as Kafka Streams does (`0_2`), to another instance as a rebalance would: it is committed and
    /// closed here, restored and opened there.
    ///
    /// # Panics
    /// If there is no such task or instance: the test is wrong.
    pub fn move_task(&mut self, task: &str, instance: usize) -> &mut Self {
        let known = self.tasks.keys().copied().find(|id| id.to_string() == task);
        let Some(id) = known else {
            panic!("there is no task {task}");
        };
        assert!(
            self.instances.get(instance).is_some_and(Option::is_some),
            "instance {instance} does not run"
        );
        self.hand_over(id, instance);
        self.place_standbys();
        self.settle();
        self
    }

    /// The tasks that an instance runs.
    pub fn tasks_of(&self, instance: usize) -> Vec<String> {
        let running = self.tasks.iter().filter(|(_, running)| running.instance == instance);
        running.map(|(id, _)| id.to_string()).collect()
    }

    /// The tasks whose state an instance keeps without running them.
    pub fn standbys_of(&self, instance: usize) -> Vec<String> {
        let kept = self.standbys.keys().filter(|(_, at)| *at == instance);
        kept.map(|(id, _)| id.to_string()).collect()
    }

    pub(super) fn of_instance(&mut self, instance: usize) -> impl Iterator<Item = &mut Running> {
        self.tasks.values_mut().filter(move |running| running.instance == instance)
    }

    pub(super) fn cached_bytes(&self, instance: usize) -> usize {
        let of_instance = self.tasks.values().filter(|running| running.instance == instance);
        of_instance.map(|running| running.task.cached_bytes()).sum()
    }

    /// Gives every task an instance: as evenly as possible, and otherwise where the task is.
    pub(super) fn share_out(&mut self) {
        let mut loads: BTreeMap<usize, usize> = self
            .instances
            .iter()
            .enumerate()
            .filter(|(_, globals)| globals.is_some())
            .map(|(instance, _)| (instance, 0))
            .collect();
        if loads.is_empty() {
            return;
        }
        let plan = self.plan.clone();
        let all: Vec<TaskId> = plan
            .subtopologies()
            .iter()
            .filter(|part| !part.global)
            .flat_map(|part| {
                (0..self.partitions_of(part.id))
                    .map(|partition| TaskId { subtopology: part.id, partition })
            })
            .collect();
        let most = all.len().div_ceil(loads.len());
        let mut moving = Vec::new();
        for id in all {
            let load = self.tasks.get(&id).and_then(|running| loads.get_mut(&running.instance));
            match load.filter(|load| **load < most) {
                Some(load) => *load += 1,
                None => moving.push(id),
            }
        }
        for id in moving {
            // What nobody runs goes where its state is; what is only to be shared needs room there, too.
            let is_lost = !self.tasks.contains_key(&id);
            let fits = |instance: usize, load: usize| {
                self.standbys.contains_key(&(id, instance)) && (is_lost || load < most)
            };
            let least = loads.iter_mut().min_by_key(|(at, load)| (!fits(**at, **load), **load));
            if let Some((instance, load)) = least {
                *load += 1;
                let instance = *instance;
                self.hand_over(id, instance);
            }
        }
        self.place_standbys();
    }

    /// Gives every task with state its standbys: where they are as far as that is right, otherwise where there are
    /// fewest.
    fn place_standbys(&mut self) {
        let tasks = &self.tasks;
        self.standbys
            .retain(|(id, at), _| tasks.get(id).is_some_and(|running| running.instance != *at));
        if self.standby_replicas == 0 {
            return;
        }
        let ids: Vec<TaskId> = self.tasks.keys().copied().collect();
        for id in ids {
            while let Some(at) = self.next_standby(id) {
                let standby = self.opened(id, at);
                self.standbys.insert((id, at), standby);
            }
        }
        self.follow();
    }

    /// The instance for another standby of a task, if it is to have one.
    fn next_standby(&self, id: TaskId) -> Option<usize> {
        let copies = self.standbys.keys().filter(|(known, _)| *known == id).count();
        if copies >= self.standby_replicas || !self.is_followed(id) {
            return None;
        }
        let runs = self.tasks[&id].instance;
        let live = (0..self.instances.len()).filter(|at| self.instances[*at].is_some());
        live.filter(|at| *at != runs && !self.standbys.contains_key(&(id, *at)))
            .min_by_key(|at| self.standbys.keys().filter(|(_, kept_at)| kept_at == at).count())
    }

    /// Whether a task has state that others can follow.
    fn is_followed(&self, id: TaskId) -> bool {
        let stores = &self.plan.subtopologies()[id.subtopology as usize].stores;
        stores.iter().any(|store| {
            self.plan.stores[store].source_topic.is_none()
                && self.plan.changelog_of(store).is_some()
        })
    }

    /// Brings the standbys to the ends of their changelogs.
    pub(super) fn follow(&mut self) {
        for ((id, at), mut standby) in std::mem::take(&mut self.standbys) {
            self.catch_up(&mut standby, None);
            self.standbys.insert((id, at), standby);
        }
    }

    /// Moves a task to an instance from wherever it was.
    fn hand_over(&mut self, id: TaskId, instance: usize) {
        if let Some(from) = self.tasks.get(&id).map(|running| running.instance) {
            if from == instance {
                return;
            }
            // As a thread does before it gives a task up.
            self.commit_instance(from);
        }
        if let Some(mut running) = self.tasks.remove(&id) {
            running.task.close();
        }
        self.turns.forget(id);
        self.held.retain(|waiting| waiting.id != id);
        self.open(id, instance);
    }

    /// Begins a task: with the state that its changelogs tell, at the offsets that were committed.
    fn open(&mut self, id: TaskId, instance: usize) {
        if self.instances[instance].is_none() {
            return;
        }
        let kept = self.standbys.remove(&(id, instance));
        let mut task = kept.unwrap_or_else(|| self.opened(id, instance));
        let committed = self.committed.get(&id).cloned().unwrap_or_default();
        self.restored += self.catch_up(&mut task, Some(&committed));
        if let Some(progress) = self.progress.get(&id) {
            task.go_on_from(progress);
        }
        if let Err(error) = task.init(self.now_ms) {
            self.failure = Some(error);
        }
        for (topic, offset) in &committed {
            task.begins_at(topic, *offset);
        }
        self.tasks.insert(id, Running { task, instance, fetched: committed });
        let plan = self.plan.clone();
        for topic in &plan.subtopologies()[id.subtopology as usize].source_topics {
            self.deliver(id, topic);
        }
    }

    /// A task with what its instance has of its state.
    fn opened(&mut self, id: TaskId, instance: usize) -> Task {
        let directory = self.state_dir.as_ref().map(|state_dir| {
            self.directories.entry(instance).or_insert_with(|| {
                let own = state_dir.join(format!("instance-{instance}"));
                let opened = StateDirectory::open(&own, &self.plan, STATE_MEMORY);
                opened.unwrap_or_else(|error| panic!("{error}"))
            })
        });
        let claim = directory.and_then(|directory| directory.try_claim(id));
        let globals = self.instances[instance].as_ref().unwrap_or(&self.globals);
        let place = Place { claim, default: StoreType::Disk, globals };
        let mut task = Task::open(&self.plan, id, place)
            .unwrap_or_else(|error| panic!("opening {id}: {error}"));
        let committed = self.committed.get(&id);
        for restorable in task.restorable() {
            let end = self.end_of(id, &restorable.changelog, committed);
            let position = restorable.position;
            let trusted = position.is_some_and(|position| position.offset as usize <= end);
            task.resume(&restorable.store, [0; 16], trusted)
                .unwrap_or_else(|error| panic!("resuming {}: {error}", restorable.store));
        }
        task
    }

    /// Where a task's changelog ends for one that has read its sources so far. A source topic that serves as changelog
    /// tells no more than the task has read.
    fn end_of(
        &self,
        id: TaskId,
        changelog: &Arc<str>,
        committed: Option<&BTreeMap<Arc<str>, i64>>,
    ) -> usize {
        let topic = self.topics.get(changelog);
        let records = topic.and_then(|topic| topic.partitions.get(id.partition as usize));
        let end = records.map_or(0, Vec::len);
        let part = &self.plan.subtopologies()[id.subtopology as usize];
        if !part.source_topics.contains(&**changelog) {
            return end;
        }
        let read = committed.and_then(|committed| committed.get(changelog)).copied();
        end.min(read.unwrap_or(0) as usize)
    }

    /// Restores what the changelogs have and a task does not have. Returns how many records that were.
    fn catch_up(&self, task: &mut Task, committed: Option<&BTreeMap<Arc<str>, i64>>) -> u64 {
        let (id, mut count) = (task.id(), 0);
        for Restorable { store, changelog, .. } in task.restorable() {
            let end = self.end_of(id, &changelog, committed);
            let from = task.offset_of(&store).map_or(0, |offset| offset as usize);
            let topic = self.topics.get(&changelog);
            let records = topic.and_then(|topic| topic.partitions.get(id.partition as usize));
            let tail = records.and_then(|records| records.get(from..end)).unwrap_or_default();
            let logged = tail.iter().filter_map(|record| {
                Some(Logged {
                    key: record.key.clone()?,
                    value: record.value.clone(),
                    timestamp: record.timestamp,
                    headers: record.headers.clone(),
                })
            });
            count += task
                .restore_batch(&store, logged, end as i64)
                .unwrap_or_else(|error| panic!("restoring {store}: {error}"));
        }
        if let Err(error) = task.checkpoint(self.now_ms) {
            panic!("restoring {id}: {error}");
        }
        count
    }

    /// The global tables of an instance that begins now: their topics are read from their beginnings.
    fn filled_globals(&mut self) -> Globals {
        let globals = self.globals.emptied(&self.plan);
        for topic in globals.topics() {
            let partitions = self.topics.get(topic).map(|topic| &topic.partitions);
            for record in partitions.into_iter().flatten().flatten() {
                if let Err(error) = apply_to(&globals, record.clone(), self.now_ms) {
                    self.failure = Some(error);
                }
            }
        }
        // These dead letters were sent when their records came.
        globals.take_dead_letters();
        globals
    }
}

/// Applies a record to a global table. Attempts follow one another at once: nothing else happens meanwhile anyway.
pub(super) fn apply_to(
    globals: &Globals,
    record: RawRecord,
    now_ms: i64,
) -> Result<(), ProcessingError> {
    let mut failed = 0;
    loop {
        let Err(error) = globals.apply(record.clone(), now_ms) else {
            return Ok(());
        };
        failed += 1;
        if globals.pause_ms(&error, failed).is_none() {
            return globals.give_up(record, error);
        }
    }
}

/// Memory of an instance's stores on disk.
const STATE_MEMORY: u64 = 8 << 20;
