//! What the tests of this crate share.

use std::sync::Arc;

use fleuve_sim::{SimClock, SimDisk, SimRandom};

use crate::environment::{Environment, Limits};

/// Makes an environment on a simulated disk that has a root directory.
pub(crate) fn environment() -> (Environment, SimDisk) {
    let disk = SimDisk::new();
    let environment = Environment::new(
        Arc::new(disk.clone()),
        Arc::new(SimClock::at(1_700_000_000_000)),
        Arc::new(SimRandom::seeded(1)),
        Limits { tail_cache_bytes: 0, idle_open_files: 16 },
    );
    (environment, disk)
}
