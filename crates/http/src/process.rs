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
/// Position of `num_threads` among those fields.
const THREADS_FIELD: usize = 17;
/// Position of `starttime`, in ticks since the machine started.
const START_TICKS_FIELD: usize = 19;
/// Position of `vsize`.
const VIRTUAL_BYTES_FIELD: usize = 20;
/// Position of `rss`.
const RESIDENT_PAGES_FIELD: usize = 21;
/// Page size of every platform we build for that has `/proc`.
const PAGE_BYTES: u64 = 4096;

/// Memory, processor time and descriptors that this process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessUsage {
    /// Bytes of memory that are resident.
    pub resident_bytes: u64,
    /// Bytes of address space.
    pub virtual_bytes: u64,
    /// Processor time spent in user and system mode.
    pub cpu: Duration,
    /// Threads.
    pub threads: u64,
    /// When the process started, in time since the machine did.
    pub started: Duration,
    /// Open file descriptors.
    pub open_descriptors: u64,
}

impl ProcessUsage {
    /// Reads the current usage; `None` where the platform has no `/proc`.
    pub fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let open_descriptors = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
        Some(Self { open_descriptors, ..parse_stat(&stat)? })
    }

    /// Adds the families that every Prometheus client library exports about its process.
    pub fn write(&self, page: &mut Exposition) {
        let gauges = [
            (
                "resident_memory_bytes",
                "Resident memory in bytes.",
                Some(self.resident_bytes as f64),
            ),
            ("virtual_memory_bytes", "Address space in bytes.", Some(self.virtual_bytes as f64)),
            ("open_fds", "Open file descriptors.", Some(self.open_descriptors as f64)),
            ("max_fds", "Most file descriptors that may be open.", descriptors_max()),
            ("threads", "Threads.", Some(self.threads as f64)),
            (
                "start_time_seconds",
                "When the process started, in seconds since 1970.",
                machine_start().map(|machine| machine + self.started.as_secs_f64()),
            ),
        ];
        page.family("process_cpu_seconds_total", Kind::Counter, "Processor time in seconds.")
            .sample(&[], self.cpu.as_secs_f64());
        for (name, help, value) in gauges {
            if let Some(value) = value {
                page.family(&format!("process_{name}"), Kind::Gauge, help).sample(&[], value);
            }
        }
    }
}

fn parse_stat(stat: &str) -> Option<ProcessUsage> {
    // The command name stands in parentheses and may itself hold spaces and parentheses.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let time = |ticks: u64| Duration::from_secs_f64(ticks as f64 / TICKS_PER_SECOND);
    Some(ProcessUsage {
        resident_bytes: number(RESIDENT_PAGES_FIELD)?.saturating_mul(PAGE_BYTES),
        virtual_bytes: number(VIRTUAL_BYTES_FIELD)?,
        cpu: time(number(USER_TICKS_FIELD)? + number(USER_TICKS_FIELD + 1)?),
        threads: number(THREADS_FIELD)?,
        started: time(number(START_TICKS_FIELD)?),
        open_descriptors: 0,
    })
}

/// The limit of open descriptors that is in force.
fn descriptors_max() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(f64::INFINITY),
        limit => limit.parse().ok(),
    }
}

/// When the machine started, in seconds since 1970.
fn machine_start() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_line_is_read_past_an_awkward_command_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 900 0 0 0 150 50 0 0 20 0 3 0 100 9000000 512 \
                    18446744073709551615 1 1 0";
        let usage = parse_stat(stat).expect("whole");
        let expected = ProcessUsage {
            resident_bytes: 512 * 4096,
            virtual_bytes: 9_000_000,
            cpu: Duration::from_secs(2),
            threads: 3,
            started: Duration::from_secs(1),
            open_descriptors: 0,
        };
        assert_eq!(usage, expected);
        assert_eq!(parse_stat("7 (a"), None);
        assert_eq!(parse_stat("7 (a) S 1"), None);
    }
}
