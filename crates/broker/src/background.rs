//! Work that nobody asked for: retention, compaction, checkpoints, flushes by time, timers of
//! groups and transactions.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::compaction;
use crate::markers;
use crate::moving;
use crate::node::Node;
use crate::share;

/// How often files are removed whose delay is over.
const REMOVAL_INTERVAL: Duration = Duration::from_secs(5);
/// How often topics with `flush.ms` are looked at, unless the operator says otherwise.
const FLUSH_LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How often it is looked how much room is left on the disks.
const SPACE_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is looked whether the metadata needs a checkpoint.
const METADATA_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The shortest time between two looks at the data directories.
const DIRECTORY_LOOKS_APART: Duration = Duration::from_millis(500);
/// How often the ends of logs are noted for the judgement on consumers' lag.
const LAG_LOOK_INTERVAL: Duration = Duration::from_secs(crate::probe::LAG_LOOK_SECONDS);

/// Starts all background work of a broker.
pub(crate) fn start(node: &Arc<Node>) -> Vec<JoinHandle<()>> {
    let log = &node.settings().log;
    let retention = Duration::from_millis(log.retention_check_interval_ms);
    let initial_delay = Duration::from_millis(log.initial_task_delay_ms);
    let checkpoint = Duration::from_millis(
        log.recovery_point_checkpoint_interval_ms.min(log.start_offset_checkpoint_interval_ms),
    );
    let expiration = Duration::from_millis(log.producer_id_expiration_check_interval_ms);
    let settings = node.settings();
    let prune = Duration::from_millis(settings.share_groups.topic_prune_interval_ms);
    let mut tasks = vec![
        every(node, retention, initial_delay, |node| node.enforce_retention()),
        every(node, checkpoint, checkpoint, |node| node.checkpoint_logs()),
        every(node, METADATA_LOOK_INTERVAL, METADATA_LOOK_INTERVAL, |node| {
            node.keep_metadata_checkpoints();
        }),
        every(node, REMOVAL_INTERVAL, REMOVAL_INTERVAL, |node| node.remove_deleted_files()),
        every(node, SPACE_LOOK_INTERVAL, SPACE_LOOK_INTERVAL, |node| node.look_for_space()),
        every(node, expiration, expiration, |node| node.expire_producers()),
        every(node, LAG_LOOK_INTERVAL, LAG_LOOK_INTERVAL, |node| node.lags.tick()),
        keep_group_time(node),
        keep_transaction_time(node),
        keep_producer_ids(node),
        tokio::spawn(markers::deliver(Arc::clone(node))),
        tokio::spawn(share::keep_time(Arc::clone(node))),
        tokio::spawn(share::run_errands(Arc::clone(node))),
        every(node, prune, prune, |node| node.shares.states.prune()),
    ];
    tasks.extend(remove_expired_tokens(node));
    tasks.extend(compaction::start(node));
    tasks.push(moving::start(node));
    tasks.push(look_after_directories(node));
    if !log.flush_before_ack {
        // With a flush before every acknowledgement there is nothing left to flush by time.
        let scheduled = log.flush_scheduler_interval_ms.map(Duration::from_millis);
        let look = scheduled.unwrap_or(FLUSH_LOOK_INTERVAL).min(FLUSH_LOOK_INTERVAL);
        tasks.push(every(node, look, look, |node| node.flush_by_time()));
    }
    tasks
}

/// Calls `work` on a thread that may block, again and again.
fn every(node: &Arc<Node>, period: Duration, delay: Duration, work: fn(&Node)) -> JoinHandle<()> {
    let node = Arc::clone(node);
    tokio::spawn(async move {
        // A period of zero means as often as possible; a millisecond is often enough.
        let period = period.max(Duration::from_millis(1));
        let mut ticks = interval_at(Instant::now() + delay, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let node = Arc::clone(&node);
            if tokio::task::spawn_blocking(move || work(&node)).await.is_err() {
                return;
            }
        }
    })
}

/// Looks at the data directories whenever a disk has refused something.
fn look_after_directories(node: &Arc<Node>) -> JoinHandle<()> {
    let node = Arc::clone(node);
    tokio::spawn(async move {
        loop {
            node.logs.disk_trouble.notified().await;
            let node = Arc::clone(&node);
            if tokio::task::spawn_blocking(move || node.look_after_directories()).await.is_err() {
                return;
            }
            // One look serves all that was refused meanwhile, and a disk in trouble is slow.
            tokio::time::sleep(DIRECTORY_LOOKS_APART).await;
        }
    })
}

fn remove_expired_tokens(node: &Arc<Node>) -> Option<JoinHandle<()>> {
    let keys = node.static_settings.access.tokens.as_ref()?;
    let period = Duration::from_millis(keys.check_interval_ms);
    let node = Arc::clone(node);
    Some(tokio::spawn(async move {
        loop {
            tokio::time::sleep(period).await;
            let now_ms = node.clock.wall_ms();
            if let Err(error) = node.change(move |c| c.remove_expired_tokens(now_ms)).await {
                tracing::warn!(%error, "delegation tokens whose time is over are not removed");
            }
        }
    }))
}

fn keep_group_time(node: &Arc<Node>) -> JoinHandle<()> {
    let node = Arc::clone(node);
    tokio::spawn(async move { node.groups.keep_time().await })
}

fn keep_transaction_time(node: &Arc<Node>) -> JoinHandle<()> {
    let node = Arc::clone(node);
    tokio::spawn(async move { node.transactions.keep_time().await })
}

fn keep_producer_ids(node: &Arc<Node>) -> JoinHandle<()> {
    let node = Arc::clone(node);
    tokio::spawn(async move { node.keep_producer_ids().await })
}
