//! How the tools that measure consumers report.

use clap::Args;

use super::dates::{DateFormat, USUAL};
use crate::failure::Failure;

/// What they all take.
#[derive(Debug, Args)]
pub(super) struct Reporting {
    /// Leave the heading out.
    #[arg(long)]
    pub(super) hide_header: bool,
    /// Accepted: the system sizes socket buffers.
    #[arg(long)]
    socket_buffer_size: Option<i32>,
    /// How times are written, in the letters of Java's SimpleDateFormat.
    #[arg(long, default_value = USUAL)]
    date_format: String,
    /// Say every --reporting-interval how it goes.
    #[arg(long)]
    pub(super) show_detailed_stats: bool,
    /// How often, in ms.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..))]
    reporting_interval: u64,
}

impl Reporting {
    /// How times are written.
    pub(super) fn dates(&self) -> Result<DateFormat, Failure> {
        DateFormat::parse(&self.date_format)
    }

    /// How often it is said how it goes.
    pub(super) fn interval_ms(&self) -> i64 {
        i64::try_from(self.reporting_interval).unwrap_or(i64::MAX)
    }
}
