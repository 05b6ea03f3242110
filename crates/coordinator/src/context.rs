//! What a group needs from its surroundings while it handles one event.

use std::fmt::Write as _;

use fleuve_os::Random;
use fleuve_protocol::Str;

use crate::coordinator::Counters;
use crate::settings::GroupSettings;
use crate::step::{Now, Step};
use crate::timers::{Purpose, Timers};

/// The surroundings of a group during one call.
pub(crate) struct Context<'a> {
    pub(crate) now: Now,
    pub(crate) settings: &'a GroupSettings,
    pub(crate) random: &'a dyn Random,
    pub(crate) timers: &'a mut Timers,
    pub(crate) counters: &'a mut Counters,
    pub(crate) step: &'a mut Step,
}

impl Context<'_> {
    /// Sets a timer. It never fires within the call that set it: with a timeout of zero, which
    /// clients may ask for, a timer that sets itself again would otherwise never let go.
    pub(crate) fn schedule(&mut self, purpose: Purpose, delay_ms: i64) {
        let deadline_ms = self.now.monotonic_ms.saturating_add(delay_ms.max(1));
        self.timers.schedule(purpose, deadline_ms);
    }

    /// Sets a timer unless it is set already.
    pub(crate) fn schedule_if_absent(&mut self, purpose: Purpose, delay_ms: i64) {
        if !self.timers.is_scheduled(&purpose) {
            self.schedule(purpose, delay_ms);
        }
    }

    /// Cancels the timers of a member of a modern group.
    pub(crate) fn forget_member(&mut self, group: Str, member: Str) {
        let session = Purpose::Heartbeat { group: group.clone(), member: member.clone() };
        self.timers.cancel(session);
        self.forget_classic_member(&group, &member);
        self.timers.cancel(Purpose::Revocation { group, member });
    }

    /// Cancels the timers that only classic members of consumer groups have.
    pub(crate) fn forget_classic_member(&mut self, group: &Str, member: &Str) {
        let (group, member) = (group.clone(), member.clone());
        self.timers.cancel(Purpose::MemberJoin { group: group.clone(), member: member.clone() });
        self.timers.cancel(Purpose::MemberSync { group, member });
    }

    /// Makes a member id: `prefix`, a dash, and a random UUID as Java prints it.
    pub(crate) fn new_member_id(&self, prefix: &str) -> Str {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes);
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let mut id = String::with_capacity(prefix.len() + 37);
        id.push_str(prefix);
        for (index, byte) in bytes.iter().enumerate() {
            if matches!(index, 0 | 4 | 6 | 8 | 10) {
                id.push('-');
            }
            // Writing to a string cannot fail.
            let _ = write!(id, "{byte:02x}");
        }
        id.into()
    }
}
