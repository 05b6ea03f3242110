//! The block of producer ids at hand.

use std::ops::Range;

use fleuve_coordinator::transaction::ProducerIds;
use fleuve_types::ProducerId;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Ids that the controller has given to this broker and that nobody has got yet.
#[derive(Debug, Default)]
pub(crate) struct ProducerIdBlock {
    ids: Mutex<Range<i64>>,
    wanted: Notify,
}

impl ProducerIdBlock {
    /// Reports whether the block is used up.
    pub(crate) fn is_empty(&self) -> bool {
        self.ids.lock().is_empty()
    }

    /// Takes another block, unless somebody was quicker: the smaller part of it is then unused.
    pub(crate) fn refill(&self, block: Range<i64>) {
        let mut ids = self.ids.lock();
        if ids.is_empty() {
            *ids = block;
        }
    }

    /// Waits until somebody found the block empty.
    pub(crate) async fn wanted(&self) {
        self.wanted.notified().await;
    }
}

impl ProducerIds for ProducerIdBlock {
    fn next(&self) -> Option<ProducerId> {
        let id = self.ids.lock().next();
        if id.is_none() {
            self.wanted.notify_one();
        }
        id.map(ProducerId)
    }
}
