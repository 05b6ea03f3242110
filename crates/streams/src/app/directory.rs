//! The state directory of a running application: opened before its threads, tidied while they run.

use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::{Settings, StreamsError};
use crate::dsl::Topology;
use crate::state::disk::StateDirectory;
use crate::state::{StateSnapshot, StoreError, StoreType};
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
    let memory = settings.memory().database;
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

/// Writes the state of an application that does not run from its directory to a file, as
/// [`crate::Streams::export_state`].
pub async fn export_state(
    topology: &Topology,
    state_dir: &Path,
    file: &Path,
) -> Result<StateSnapshot, StreamsError> {
    let plan = topology.build()?;
    let settings = Settings {
        state_dir: Some(state_dir.to_owned()),
        state_memory_bytes_max: EXPORT_MEMORY,
        ..Settings::default()
    };
    match opened(&plan, &settings).await? {
        Some(directory) => exported(directory, file).await,
        None => Err(StreamsError::NoStateDirectory("of any kind".to_owned())),
    }
}

/// Writes all stores of a directory to a file.
pub(super) async fn exported(
    directory: StateDirectory,
    file: &Path,
) -> Result<StateSnapshot, StreamsError> {
    let file = file.to_owned();
    in_background(move || directory.export(&file)).await
}

/// Reads a file of [`crate::Streams::export_state`] into a state directory that has nothing of the application yet. The
/// application goes on from there: it restores what its changelogs have beyond the snapshot. A cluster with other
/// changelogs rebuilds the state from those.
pub async fn import_state(
    application_id: &str,
    state_dir: &Path,
    file: &Path,
) -> Result<StateSnapshot, StreamsError> {
    let (id, state_dir, file) = (application_id.to_owned(), state_dir.to_owned(), file.to_owned());
    in_background(move || StateDirectory::import(&state_dir, &id, &file)).await
}

/// Does what takes a while on a thread that may be blocked.
async fn in_background(
    work: impl FnOnce() -> Result<StateSnapshot, StoreError> + Send + 'static,
) -> Result<StateSnapshot, StreamsError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(StreamsError::state),
        Err(error) => Err(StreamsError::Panic(error.to_string())),
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
/// Memory for reading the state of an application that does not run.
const EXPORT_MEMORY: usize = 8 << 20;
