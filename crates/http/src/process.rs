//! What the operating system says about this process.
//!
//! Read from `/proc`, hence Linux only; elsewhere the families are absent rather than wrong.

use std::fs;
use std::time::Duration;

use crate::{Exposition, Kind};

/// Clock ticks per second in `/proc/self/stat`; Linux fixes it at 100 for user space.
const TICKS_PER_SECOND: f64 = 100.0;
/// Position of `utime` among the fields that follow the command name in `/proc/self/stat`.
const USER_TICKS_FIELD: usize = 11;
/// Position of `rss` among those fields.
const RESIDENT_PAGES_FIELD: usize = 21;
/// Page size of every platform we build for that has `/proc`.
const PAGE_BYTES: u64 = 4096;

/// Memory, processor time and descriptors that this process uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProcessUsage {
    /// Bytes of memory that are resident.
    pub resident_bytes: u64,
    /// Processor time spent in user and system mode.
    pub cpu: Duration,
    /// Open file descriptors.
    pub open_descriptors: u64,
}

impl ProcessUsage {
    /// Reads the current usage; `None` where the platform has no `/proc`.
    pub fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let (resident_bytes, cpu) = parse_stat(&stat)?;
        let open_descriptors = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
        Some(Self { resident_bytes, cpu, open_descriptors })
    }

    /// Adds the families that every Prometheus client library exports about its process.
    pub fn write(&self, page: &mut Exposition) {
        page.family("process_resident_memory_bytes", Kind::Gauge, "Resident memory in bytes.")
            .sample(&[], self.resident_bytes as f64);
        page.family("process_cpu_seconds_total", Kind::Counter, "Processor time in seconds.")
            .sample(&[], self.cpu.as_secs_f64());
        page.family("process_open_fds", Kind::Gauge, "Open file descriptors.")
            .sample(&[], self.open_descriptors as f64);
    }
}

fn parse_stat(stat: &str) -> Option<(u64, Duration)> {
    // The command name stands in parentheses and may itself hold spaces and parentheses.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let ticks = number(USER_TICKS_FIELD)? + number(USER_TICKS_FIELD + 1)?;
    let cpu = Duration::from_secs_f64(ticks as f64 / TICKS_PER_SECOND);
    Some((number(RESIDENT_PAGES_FIELD)? * PAGE_BYTES, cpu))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_line_is_read_past_an_awkward_command_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 900 0 0 0 150 50 0 0 20 0 3 0 100 9000000 512 \
                    18446744073709551615 1 1 0";
        assert_eq!(parse_stat(stat), Some((512 * 4096, Duration::from_secs(2))));
        assert_eq!(parse_stat("7 (a"), None);
        assert_eq!(parse_stat("7 (a) S 1"), None);
    }
}
