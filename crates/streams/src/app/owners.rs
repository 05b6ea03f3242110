//! Which instance has which task, as the group's coordinator tells.
//!
//! Every member says in the group where its instance listens (`application.server`): as user data with the classic
//! protocol, as its endpoint with the streams protocol. So an instance that does not have what it is asked for describes
//! its own group, and remembers the answer until it turns out to be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleuve_client::{Admin, Client};
use parking_lot::Mutex;

use super::layout::Layouts;
use super::told::Told;
use crate::runtime::TaskId;

/// The instances of an application and their tasks.
pub(super) struct Owners {
    client: Client,
    group: String,
    layouts: Layouts,
    known: Mutex<Known>,
}

#[derive(Clone, Default)]
struct Known {
    owners: Arc<BTreeMap<TaskId, String>>,
    /// Where instances listen, also those without tasks.
    servers: BTreeSet<String>,
    asked: Option<Instant>,
}

impl Owners {
    pub(super) fn new(client: Client, layouts: Layouts) -> Self {
        Self {
            client,
            group: layouts.now().plan.application_id().to_owned(),
            layouts,
            known: Mutex::default(),
        }
    }

    /// The address of the instance that has a task, as far as is known. `stale` is what turned out to be wrong.
    pub(super) async fn of(&self, id: TaskId, stale: Option<&str>) -> Option<String> {
        let known = self.known.lock().owners.get(&id).cloned();
        if known.is_some() && known.as_deref() != stale {
            return known;
        }
        self.all().await.get(&id).cloned()
    }

    /// The address of the instance that had a task when that was last asked.
    pub(super) fn last_known(&self, id: TaskId) -> Option<String> {
        self.known.lock().owners.get(&id).cloned()
    }

    /// Every task whose instance says where it listens.
    pub(super) async fn all(&self) -> Arc<BTreeMap<TaskId, String>> {
        self.known().await.owners
    }

    /// Where the instances listen that say so, whatever they have.
    pub(super) async fn servers(&self) -> BTreeSet<String> {
        self.known().await.servers
    }

    async fn known(&self) -> Known {
        let known = self.known.lock().clone();
        if known.asked.is_some_and(|asked| asked.elapsed() < ASKED_AGAIN_AFTER) {
            return known;
        }
        match self.describe().await {
            Ok((owners, servers)) => {
                let asked = Some(Instant::now());
                let now = Known { owners: Arc::new(owners), servers, asked };
                *self.known.lock() = now.clone();
                now
            }
            Err(error) => {
                tracing::warn!(%error, "the owners of tasks are not known");
                known
            }
        }
    }

    async fn describe(
        &self,
    ) -> fleuve_client::Result<(BTreeMap<TaskId, String>, BTreeSet<String>)> {
        let admin = Admin::new(self.client.clone());
        let layout = self.layouts.now();
        let (mut owners, mut servers) = (BTreeMap::new(), BTreeSet::new());
        let classic = admin.describe_group(&self.group).await;
        for member in classic.iter().flat_map(|group| &group.members) {
            let Some(server) = Told::of_bytes(member.user_data.as_ref()).application_server else {
                continue;
            };
            servers.insert(server.clone());
            for (id, reads) in &layout.tasks {
                if reads.iter().any(|partition| member.assignment.contains(partition)) {
                    owners.insert(*id, server.clone());
                }
            }
        }
        if classic.as_ref().is_ok_and(|group| !group.members.is_empty()) {
            return Ok((owners, servers));
        }
        let streams = admin.describe_streams_group(&self.group).await?;
        for member in &streams.members {
            let Some((host, port)) = &member.endpoint else {
                continue;
            };
            servers.insert(format!("{host}:{port}"));
            for (subtopology, partitions) in &member.assignment.active {
                let Ok(subtopology) = subtopology.parse() else {
                    continue;
                };
                for partition in partitions {
                    let id = TaskId { subtopology, partition: *partition };
                    owners.insert(id, format!("{host}:{port}"));
                }
            }
        }
        Ok((owners, servers))
    }
}

/// How often the coordinator is asked at most.
const ASKED_AGAIN_AFTER: Duration = Duration::from_millis(500);
