//! Why connections have ended.

use fleuve_http::{Exposition, Kind};

use super::Counter;
use crate::connection::CloseReason;

/// How many connections have ended, by reason.
#[derive(Debug, Default)]
pub(crate) struct Endings([Counter; CloseReason::NAMES.len()]);

impl Endings {
    /// Counts one.
    pub(crate) fn count(&self, reason: &CloseReason) {
        let known = CloseReason::NAMES.iter().position(|name| *name == reason.name());
        if let Some(counter) = known.and_then(|index| self.0.get(index)) {
            counter.add(1);
        }
    }

    /// Adds the family.
    pub(crate) fn write(&self, page: &mut Exposition) {
        let help = "Connections ended, by what ended them.";
        page.family("fleuve_connections_closed_total", Kind::Counter, help);
        for (name, counter) in CloseReason::NAMES.iter().zip(&self.0) {
            page.sample(&[("reason", name)], counter.get() as f64);
        }
    }
}
