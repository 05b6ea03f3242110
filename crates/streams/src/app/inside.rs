//! What a running application tells about itself: its stores, asked here or at the instance that has them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use fleuve_http::Exposition;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::layout::Layouts;
use super::owners::Owners;
use crate::metrics::page::About;
use crate::metrics::{Rates, StreamsMetrics, page};
use crate::query::{
    Answer, Ask, JsonReply, Query, QueryError, Request, Rows, Shelf, Target, partition_for,
};
use crate::record::Data;
use crate::runtime::{Globals, TaskId};
use crate::state::disk::StateDirectory;
use crate::topology::Plan;

/// The inside of an application, as queries see it.
pub(super) struct Inside {
    pub(super) plan: Arc<Plan>,
    pub(super) layouts: Layouts,
    pub(super) shelf: Shelf,
    pub(super) globals: Globals,
    pub(super) owners: Owners,
    /// `application.server`, as others know this instance.
    pub(super) server: OnceLock<String>,
    pub(super) rates: Mutex<Rates>,
    /// The process's id.
    pub(super) process: Arc<str>,
    pub(super) directory: Option<StateDirectory>,
}

/// An instance of an application, as Kafka Streams' `StreamsMetadata`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceMetadata {
    /// Where it answers: `application.server`.
    pub application_server: String,
    /// The tasks that it runs.
    pub tasks: Vec<String>,
    /// The stores of these tasks.
    pub stores: BTreeSet<String>,
}

/// Who has a key, as Kafka Streams' `KeyQueryMetadata`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyMetadata {
    /// The partition that the key is in.
    pub partition: i32,
    /// The task of that partition.
    pub task: String,
    /// Where the instance that runs the task answers, if it says so.
    pub application_server: Option<String>,
}

impl Inside {
    fn count_of(&self, subtopology: u32) -> i32 {
        self.layouts.now().tasks_of(subtopology)
    }

    /// The numbers of this instance.
    pub(super) fn metrics(&self) -> StreamsMetrics {
        let disk = self.directory.as_ref().map(StateDirectory::sizes).unwrap_or_default();
        StreamsMetrics { disk, ..self.shelf.metrics() }
    }

    /// Asks the tasks of this instance.
    pub(super) async fn query<A: Send + 'static>(
        &self,
        mut query: Query<A>,
    ) -> Result<Answer<A>, QueryError> {
        let mut here = self.shelf.tasks();
        let ids = match query.target(&self.plan, |part| self.count_of(part))? {
            Target::Global => return query.ask_global(&self.globals),
            Target::Tasks(ids) => ids,
            Target::Any(ids) => {
                if query.is_stale_enough {
                    let standbys = ids.iter().filter(|id| self.shelf.has_standby(**id));
                    here.extend(standbys.map(|id| (*id, true)));
                }
                let known: Vec<TaskId> =
                    ids.iter().filter(|id| here.contains_key(id)).copied().collect();
                if known.is_empty() { ids } else { known }
            }
        };
        let is_here = |id: &TaskId| {
            here.contains_key(id) || (query.is_stale_enough && self.shelf.has_standby(*id))
        };
        if let Some(missing) = ids.iter().find(|id| !is_here(id)) {
            return Err(query.not_here(*missing, self.owners.last_known(*missing)));
        }
        self.shelf.query(query, &ids).await?.ok_or(QueryError::Ended)
    }

    /// Finds out who has a key.
    pub(super) async fn key_metadata<K: Data>(
        &self,
        store: &str,
        key: &K,
    ) -> Result<KeyMetadata, QueryError> {
        let subtopology = self.plan.home_of(store)?;
        let bytes = self.plan.face_of(store)?.key_bytes(store, key)?;
        let partition = partition_for(bytes.as_deref(), self.count_of(subtopology));
        let id = TaskId { subtopology, partition };
        let application_server = self.owners.of(id, None).await;
        Ok(KeyMetadata { partition, task: id.to_string(), application_server })
    }

    /// All instances that say where they answer.
    pub(super) async fn instances(&self) -> Vec<InstanceMetadata> {
        let mut instances: BTreeMap<String, InstanceMetadata> = BTreeMap::new();
        for (id, server) in &*self.owners.all().await {
            let instance = instances.entry(server.clone()).or_default();
            instance.application_server.clone_from(server);
            instance.tasks.push(id.to_string());
            if let Some(part) = self.plan.subtopologies().get(id.subtopology as usize) {
                instance.stores.extend(part.stores.iter().cloned());
            }
        }
        instances.into_values().collect()
    }

    /// Answers what is asked over HTTP; `None` if nothing is there.
    pub(super) async fn get(&self, path: &str) -> Option<JsonReply> {
        if path == "/instances" {
            let instances = self.instances().await.into_iter().map(|instance| {
                json!({
                    "applicationServer": instance.application_server,
                    "tasks": instance.tasks,
                    "stores": instance.stores,
                })
            });
            return Some(JsonReply { status: 200, json: Value::Array(instances.collect()) });
        }
        if path == "/topology" {
            return Some(JsonReply { status: 200, json: self.topology() });
        }
        if path == "/traces" {
            return Some(JsonReply { status: 200, json: self.globals.traces().to_json() });
        }
        Some(match Request::parse(path)? {
            Ok(Request::Stores) => {
                JsonReply { status: 200, json: self.plan.stores_to_json().into() }
            }
            Ok(Request::Ask(ask)) => match self.rows(&ask).await {
                Ok(rows) => ask.reply(rows),
                Err(reply) => reply,
            },
            Err(reply) => reply,
        })
    }

    /// The topology with the numbers of this instance: records and rates of nodes, entries of stores, lag and dropped
    /// records of subtopologies.
    fn topology(&self) -> Value {
        let (metrics, now) = (self.metrics(), Instant::now());
        let mut rates = self.rates.lock();
        let mut json = self.layouts.now().plan.to_json();
        for part in json["subtopologies"].as_array_mut().into_iter().flatten() {
            let id = format!("{}_", part["id"]);
            let tasks: Vec<_> =
                metrics.tasks.iter().filter(|task| task.task.starts_with(&id)).collect();
            let nodes = || tasks.iter().flat_map(|task| &task.nodes);
            for node in part["nodes"].as_array_mut().into_iter().flatten() {
                let same = nodes().filter(|counted| node["name"] == *counted.node);
                let processed: u64 = same.map(|counted| counted.processed).sum();
                let rate = rates.rate(&format!("{id} {}", node["name"]), processed, now);
                node["processed"] = processed.into();
                node["rate"] = rate.into();
            }
            let mut stores: BTreeMap<&str, u64> = BTreeMap::new();
            for store in tasks.iter().flat_map(|task| &task.stores) {
                if let Some(entries) = store.entries {
                    *stores.entry(&store.store).or_default() += entries;
                }
            }
            let inputs = || tasks.iter().flat_map(|task| &task.inputs);
            let dropped: u64 = tasks.iter().flat_map(|task| task.dropped.values()).sum();
            let of_part = part["stores"].as_array().cloned().unwrap_or_default();
            let on_disk =
                metrics.disk.iter().filter(|disk| of_part.iter().any(|it| *it == disk.store));
            let mut bytes: BTreeMap<&str, u64> = BTreeMap::new();
            for disk in on_disk {
                stores.entry(&disk.store).or_insert(disk.rows);
                bytes.insert(&disk.store, disk.bytes);
            }
            part["storeEntries"] = json!(stores);
            part["storeBytes"] = json!(bytes);
            part["tasks"] = json!(tasks.iter().map(|task| &task.task).collect::<Vec<_>>());
            part["lag"] = inputs().filter_map(|input| input.lag).sum::<i64>().into();
            part["buffered"] = inputs().map(|input| input.buffered).sum::<usize>().into();
            part["dropped"] = dropped.into();
        }
        json
    }

    /// Writes the metrics of this instance.
    pub(super) fn write_metrics(&self, page: &mut Exposition) {
        let about = About {
            application: self.plan.application_id(),
            process: &self.process,
            topology: &self.layouts.now().plan.describe(),
        };
        page::write(page, &about, &self.metrics(), &mut self.rates.lock());
    }

    async fn rows(&self, ask: &Ask) -> Result<Rows, JsonReply> {
        let ids = match ask.target(&self.plan, |part| self.count_of(part))? {
            Target::Global => return Ok(ask.ask_global(&self.plan, &self.globals)?),
            Target::Tasks(ids) | Target::Any(ids) => ids,
        };
        let mut found = Rows::default();
        for id in ids {
            let rows = self.rows_of(ask, id).await?;
            ask.gather(&mut found, rows);
        }
        Ok(found)
    }

    /// Asks one task wherever it is. What another instance passed on is answered here or not at all, so that two that
    /// take each other for the owner do not ask each other for ever. Where a standby may answer, all others are asked
    /// if the owner does not.
    async fn rows_of(&self, ask: &Ask, id: TaskId) -> Result<Rows, JsonReply> {
        let is_here = self.shelf.tasks().contains_key(&id);
        if is_here || (ask.is_stale_enough && self.shelf.has_standby(id)) {
            return Ok(self.shelf.rows(&self.plan, ask, id).await?);
        }
        let (store, task) = (ask.store.clone(), id.to_string());
        if ask.routed {
            let owner = self.owners.last_known(id);
            return Err(QueryError::NotHere { store, task, owner }.into());
        }
        let mut stale: Option<String> = None;
        for _ in 0..OWNERS_ASKED_MAX {
            let Some(owner) = self.owners.of(id, stale.as_deref()).await else {
                if ask.is_stale_enough {
                    break;
                }
                return Err(QueryError::NotHere { store, task, owner: None }.into());
            };
            if Some(&owner) == self.server.get() || Some(&owner) == stale.as_ref() {
                break;
            }
            if let Some(reply) = reply_of(&owner, ask, id).await {
                return ask.read_reply(reply);
            }
            stale = Some(owner);
        }
        if ask.is_stale_enough {
            for server in self.owners.servers().await {
                let is_other =
                    Some(&server) != self.server.get() && Some(&server) != stale.as_ref();
                if is_other && let Some(reply) = reply_of(&server, ask, id).await {
                    return ask.read_reply(reply);
                }
            }
        }
        // The group says it is here, or with somebody who does not have it: it is moving.
        Err(QueryError::Rebalancing { store, task }.into())
    }
}

/// What another instance answers for one task; nothing if it does not answer, or does not have it in a state to be asked.
async fn reply_of(server: &str, ask: &Ask, id: TaskId) -> Option<JsonReply> {
    let path = ask.path_to(id.partition);
    match fleuve_http::get(server, &path, PATIENCE, REPLY_BYTES_MAX).await {
        Ok((421, _)) => None,
        Ok((status, body)) => {
            let json: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let is_elsewhere = json["error"] == "rebalancing" || json["error"] == "ended";
            (!is_elsewhere || !ask.is_stale_enough).then_some(JsonReply { status, json })
        }
        Err(error) => {
            tracing::debug!(%error, %server, "the instance does not answer");
            None
        }
    }
}

/// Instances that are asked for one task, because the first one known has given it up.
const OWNERS_ASKED_MAX: usize = 2;
/// How long another instance has for its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer of another instance that is passed on.
const REPLY_BYTES_MAX: usize = 64 << 20;
