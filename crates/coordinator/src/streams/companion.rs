//! What is remembered of a streams group beside its records, and beside what all groups have.
//!
//! All of it is soft, as in Kafka: a restart forgets a request to stop the application, members are
//! told the endpoints anew, and the topology is held against the topics once more.

use std::sync::Arc;

use fleuve_protocol::Str;

use super::configure::Configured;
use crate::modern::Companion;

/// The soft side of a streams group.
#[derive(Debug, Default)]
pub(crate) struct StreamsCompanion {
    pub(crate) common: Companion,
    /// The topology as it was last held against the topics.
    pub(crate) configured: Option<Arc<Configured>>,
    /// The member that asked all others to stop.
    pub(crate) shutdown_requested_by: Option<Str>,
    /// Grows when processes come to answer queries about other partitions.
    pub(crate) endpoint_epoch: i32,
}

impl StreamsCompanion {
    /// Notes that records of a decision are in the log.
    pub(crate) fn note_stored(&mut self, configured: Option<Arc<Configured>>, has_members: bool) {
        self.configured = configured.or_else(|| self.configured.take());
        if !has_members {
            // Whoever joins next begins anew.
            self.shutdown_requested_by = None;
        }
    }
}
