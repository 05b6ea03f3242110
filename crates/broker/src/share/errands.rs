//! What machines of groups want done in `__share_group_state`, and the clock of share-partitions.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fleuve_coordinator::Effect;
use fleuve_coordinator::share_state::{ShareKey, UNINITIALIZED_START};
use fleuve_protocol::Str;
use fleuve_types::Uuid;
use tokio::time::timeout;

use super::live::NEVER;
use super::states::{StateError, Stored};
use super::terms::ShareTerms;
use crate::node::Node;

/// Runs the errands of group machines, one after the other, until the future is dropped.
///
/// An errand that fails is given again: by heartbeats that still wait for it, or at the next start.
pub(crate) async fn run_errands(node: Arc<Node>) {
    loop {
        match node.groups.next_errand().await {
            Effect::InitializeShares { group, state_epoch, partitions } => {
                match initialize(&node, &group, state_epoch, &partitions).await {
                    Ok(()) => node.groups.tell(&group, |machine, _| {
                        machine.handle_shares_initialized(&group, &partitions)
                    }),
                    Err(error) => {
                        tracing::warn!(%group, %error, "states of share-partitions do not begin");
                    }
                }
            }
            Effect::DeleteShares { group, topics } => match delete(&node, &group, &topics).await {
                Ok(()) => node
                    .groups
                    .tell(&group, |machine, _| machine.handle_shares_deleted(&group, &topics)),
                Err(error) => {
                    tracing::warn!(%group, %error, "states of share-partitions are not deleted");
                }
            },
            Effect::ShareMemberGone { group, member } => {
                // Who leaves acknowledges its last records after that, and then ends its session.
                if !node.shares.sessions.is_connected(&group, &member) {
                    node.shares.member_gone(&node, &group, &member);
                }
            }
            Effect::Reply { .. } => unreachable!("answers are no errands"),
        }
    }
}

/// Ends locks at their deadlines, until the future is dropped.
pub(crate) async fn keep_time(node: Arc<Node>) {
    let shares = &node.shares;
    loop {
        let now_ms = shares.now_ms();
        let mut soonest = NEVER;
        let all = shares.all();
        for live in &all {
            if live.deadline_ms() <= now_ms {
                let terms = ShareTerms::of(&node, &live.key.group);
                let outcome = live.expire(&shares.states, now_ms, &terms);
                shares.put_aside_if_fenced(live, &outcome);
            }
            soonest = soonest.min(live.deadline_ms());
        }
        shares.planned_ms.store(soonest, Ordering::Release);
        // A deadline that came up between the look and the store has seen the old plan.
        let missed = shares.all().iter().any(|live| live.deadline_ms() < soonest);
        let sleep_ms = if missed { 0 } else { (soonest - now_ms).clamp(1, 3_600_000) };
        let _ = timeout(Duration::from_millis(sleep_ms as u64), shares.replan.notified()).await;
    }
}

async fn initialize(
    node: &Arc<Node>,
    group: &Str,
    state_epoch: i32,
    partitions: &[(Uuid, Vec<i32>)],
) -> Result<(), StateError> {
    if node.shares.states.shard_count() == 0 {
        node.create_share_state_topic().await.map_err(|error| {
            tracing::warn!(%error, "the topic for states of share groups cannot be created");
            StateError::NotAvailable
        })?;
    }
    let mut last: Vec<Stored> = Vec::new();
    for (topic_id, indexes) in partitions {
        for partition in indexes {
            let key = ShareKey { group: group.clone(), topic_id: *topic_id, partition: *partition };
            // The errand may have been done before: what is in use must not begin anew.
            if node.shares.states.summary(&key)?.is_none() {
                last.push(node.shares.states.initialize(&key, state_epoch, UNINITIALIZED_START)?);
            }
        }
    }
    for stored in &last {
        node.shares.states.durable(stored).await?;
    }
    Ok(())
}

async fn delete(node: &Arc<Node>, group: &Str, topics: &[Uuid]) -> Result<(), StateError> {
    if node.shares.states.shard_count() == 0 {
        return Ok(());
    }
    let mut last: Vec<Stored> = Vec::new();
    for topic_id in topics {
        let count = node.topics.by_id(topic_id).map_or(0, |topic| topic.partitions.len());
        for partition in 0..i32::try_from(count).unwrap_or(i32::MAX) {
            let key = ShareKey { group: group.clone(), topic_id: *topic_id, partition };
            last.extend(node.shares.states.delete(&key)?);
        }
    }
    for stored in &last {
        node.shares.states.durable(stored).await?;
    }
    Ok(())
}
