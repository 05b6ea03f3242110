//! Brings a task's state back from its changelogs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fleuve_client::config::IsolationLevel;
use fleuve_client::consumer::{LATEST, Start};
use fleuve_client::{Admin, Client, Consumer, ConsumerConfig};
use fleuve_types::TopicPartition;

use super::{Guarantee, StreamsError};
use crate::runtime::{Globals, Task, TaskId};
use crate::state::Logged;
use crate::topology::Plan;

/// Makes a task, its stores as their changelogs say.
pub(super) async fn restored(
    plan: Arc<Plan>,
    id: TaskId,
    client: Client,
    guarantee: Guarantee,
    globals: Globals,
) -> Result<Task, StreamsError> {
    let mut task = Task::new(&plan, id, &globals);
    let isolation = match guarantee {
        Guarantee::AtLeastOnce => IsolationLevel::ReadUncommitted,
        Guarantee::ExactlyOnce => IsolationLevel::ReadCommitted,
    };
    let part = &plan.subtopologies()[id.subtopology as usize];
    let stores: HashMap<TopicPartition, &String> = part
        .stores
        .iter()
        .filter_map(|store| {
            let changelog = plan.changelog_of(store)?;
            Some((TopicPartition::new(changelog, id.partition), store))
        })
        .collect();
    if stores.is_empty() {
        return Ok(task);
    }
    let asked = stores.keys().map(|partition| (partition.clone(), LATEST)).collect();
    let mut ends = HashMap::new();
    for (partition, end) in Admin::new(client.clone()).list_offsets(&asked, isolation).await? {
        ends.insert(partition, end?.offset);
    }
    ends.retain(|_, end| *end > 0);
    if ends.is_empty() {
        return Ok(task);
    }
    let config = ConsumerConfig {
        isolation_level: isolation,
        auto_commit: false,
        ..ConsumerConfig::default()
    };
    let consumer = Consumer::new(client, config)?;
    let from: Vec<_> = ends.keys().map(|partition| (partition.clone(), Start::Beginning)).collect();
    consumer.assign(&from)?;
    let mut count = 0_u64;
    while !ends.is_empty() {
        if let Some(records) = consumer.poll(POLL).await? {
            let partition = records.partition().clone();
            let next = records.next_offset();
            for record in records.into_owned() {
                let (Some(key), store) = (record.key, stores[&partition]) else {
                    continue;
                };
                let logged = Logged {
                    key,
                    value: record.value,
                    timestamp: record.timestamp,
                    headers: record
                        .headers
                        .into_iter()
                        .map(|(key, value)| crate::record::Header { key, value })
                        .collect(),
                };
                task.restore(store, logged).map_err(|cause| StreamsError::Restore {
                    store: store.clone(),
                    cause: Arc::new(cause),
                })?;
                count += 1;
            }
            if ends.get(&partition).is_some_and(|end| next >= *end) {
                ends.remove(&partition);
            }
        }
        // Markers of transactions move the position without a record.
        ends.retain(|partition, end| {
            consumer.position(partition).is_none_or(|position| position < *end)
        });
    }
    consumer.close().await?;
    tracing::info!(task = %id, records = count, "state restored");
    Ok(task)
}

/// How long one poll of a changelog waits.
const POLL: Duration = Duration::from_millis(100);
