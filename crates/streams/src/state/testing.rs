//! A place on disk for tests of stores.

use crate::runtime::TaskId;
use crate::state::disk::{Claim, DiskBackend, Keeping, StateDirectory};
use crate::state::{AnyStore, Backend};

/// A state directory of its own, with a task's right to it.
pub(super) struct Place {
    claim: Option<Claim>,
    state: Option<StateDirectory>,
    directory: tempfile::TempDir,
}

impl Place {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut place = Self { claim: None, state: None, directory };
        place.reopen();
        place
    }

    /// Opens the database anew, as a process does that comes after this one.
    pub(super) fn reopen(&mut self) {
        (self.claim, self.state) = (None, None);
        let app = crate::Topology::new("app");
        app.stream::<String, String>("in").group_by_key().count("store").to_stream().to("out");
        let plan = app.build().expect("a valid topology");
        let state = StateDirectory::open(self.directory.path(), &plan, 4 << 20);
        let state = state.expect("a directory");
        self.claim = state.try_claim(TaskId { subtopology: 0, partition: 0 });
        self.state = Some(state);
    }

    pub(super) fn backend(&self) -> DiskBackend {
        let claim = self.claim.as_ref().expect("nobody else has it");
        claim.backend("store").expect("a store")
    }

    /// Has a store keep its data here.
    pub(super) fn keep<S: AnyStore>(&self, mut store: S) -> S {
        let rest = store.move_to(self.backend()).expect("a working disk");
        assert!(rest.is_none(), "all of its data are on disk");
        store
    }

    /// Commits what a store has written.
    pub(super) fn commit(&self, store: &mut impl AnyStore) {
        let mut keeping = Keeping::default();
        store.before_commit();
        let backend = store.backend().and_then(Backend::disk);
        keeping.add(backend.expect("a store on disk"), None, true);
        keeping.write().expect("a working disk");
        store.after_commit().expect("a working disk");
    }
}

/// The next number of a sequence without a pattern.
pub(super) fn random(state: &mut u64, below: i64) -> i64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as i64 % below
}
