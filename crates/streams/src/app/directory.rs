//! The state directory of a running application: opened before its threads, tidied while they run.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::{Settings, StreamsError};
use crate::state::disk::StateDirectory;
use crate::state::{StoreError, StoreType};
use crate::topology::Plan;

/// Opens the directory, if a store is to be there.
pub(super) async fn opened(
    plan: &Plan,
    settings: &Settings,
) -> Result<Option<StateDirectory>, StreamsError> {
    let is_on_disk = |store: &&crate::topology::StoreSpec| {
        let chosen = store.store_type.unwrap_or(settings.default_store());
        !store.global && chosen == StoreType::Disk
    };
    let Some(store) = plan.stores.values().find(is_on_disk) else {
        return Ok(None);
    };
    let Some(path) = &settings.state_dir else {
        return Err(StreamsError::NoStateDirectory(store.name.clone()));
    };
    let memory = settings.state_memory_bytes_max - settings.uncommitted_bytes_max();
    let begun = Instant::now();
    loop {
        match StateDirectory::open(path, plan, memory as u64) {
            // Perhaps a predecessor that is about to end.
            Err(StoreError::Locked(_)) if begun.elapsed() < LOCK_PATIENCE => {
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            opened => return opened.map(Some).map_err(StreamsError::state),
        }
    }
}

/// Deletes from time to time what tasks have left that moved away, until it is told to stop.
pub(super) async fn tidied(
    directory: StateDirectory,
    delay: Duration,
    mut stop: watch::Receiver<bool>,
) -> Result<(), StreamsError> {
    let pause = delay.clamp(TIDY_PAUSE_MIN, TIDY_PAUSE_MAX);
    loop {
        tokio::select! {
            biased;
            _ = stop.changed() => return Ok(()),
            () = tokio::time::sleep(pause) => {
                directory.tidy(delay).map_err(StreamsError::state)?;
            }
        }
    }
}

/// How long a directory may be locked before that is an error.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// The pause between two attempts.
const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// The shortest and the longest pause between two rounds of tidying.
const TIDY_PAUSE_MIN: Duration = Duration::from_millis(100);
const TIDY_PAUSE_MAX: Duration = Duration::from_secs(60);
