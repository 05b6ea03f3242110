//! What the tools about groups have in common where offsets are reset: where to, whether really, and
//! how the plan is shown.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use fleuve_client::Admin;
use fleuve_types::TopicPartition;

use super::grid::Grid;
use crate::failure::{Failure, explain};
use crate::output::line;
use crate::quantities::{now_ms, parse_duration, parse_time};
use crate::reset::{Plan, Target, from_csv, to_csv, within_logs};

/// Where to, and whether really.
#[derive(Debug, Args)]
pub(super) struct Reset {
    /// To the oldest records.
    #[arg(long)]
    to_earliest: bool,
    /// To the end.
    #[arg(long)]
    to_latest: bool,
    /// To where it stands.
    #[arg(long)]
    to_current: bool,
    /// To an offset.
    #[arg(long)]
    to_offset: Option<i64>,
    /// To a time, as 2026-11-21T10:00:00.000.
    #[arg(long)]
    to_datetime: Option<String>,
    /// Back by a duration, as PT1H30M.
    #[arg(long)]
    by_duration: Option<String>,
    /// On by so many records, or back.
    #[arg(long, allow_hyphen_values = true)]
    shift_by: Option<i64>,
    /// To what a file says that --export has written.
    #[arg(long)]
    from_file: Option<PathBuf>,
    /// Print the plan as lines for --from-file.
    #[arg(long)]
    export: bool,
    /// Do it.
    #[arg(long)]
    pub(super) execute: bool,
    /// Only show it, which is the default.
    #[arg(long, conflicts_with = "execute")]
    pub(super) dry_run: bool,
}

impl Reset {
    /// Reports whether the plan stands in a file.
    pub(super) fn is_from_file(&self) -> bool {
        self.from_file.is_some()
    }

    /// Reads the plans of groups from the file, if there is one.
    pub(super) async fn read(
        &self,
        admin: &Admin,
        names: &[String],
    ) -> Result<Option<BTreeMap<String, Plan>>, Failure> {
        let Some(path) = &self.from_file else { return Ok(None) };
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::new(format!("cannot read {}: {error}: check --from-file", path.display()))
        })?;
        let mut plans = BTreeMap::new();
        for (name, plan) in from_csv(&text, names)? {
            plans.insert(name, within_logs(admin, plan).await?);
        }
        Ok(Some(plans))
    }

    /// Where to.
    pub(super) fn target(&self) -> Result<Target, Failure> {
        if self.to_earliest {
            return Ok(Target::Beginning);
        }
        if self.to_latest {
            return Ok(Target::End);
        }
        if self.to_current {
            return Ok(Target::Current);
        }
        if let Some(offset) = self.to_offset {
            return Ok(Target::Offset(offset));
        }
        if let Some(by) = self.shift_by {
            return Ok(Target::Shift(by));
        }
        if let Some(text) = &self.to_datetime {
            return parse_time(text).map(Target::Time).ok_or_else(|| {
                Failure::new(format!("--to-datetime {text}: expected 2026-11-21T10:00:00.000"))
            });
        }
        if let Some(text) = &self.by_duration {
            return parse_duration(text).map(|ms| Target::Time(now_ms() - ms)).ok_or_else(|| {
                Failure::new(format!("--by-duration {text}: expected P1DT2H30M, or PT90S"))
            });
        }
        Err(Failure::new(
            "where to? pass --to-earliest, --to-latest, --to-current, --to-offset N, \
             --to-datetime T, --by-duration D, --shift-by N or --from-file FILE",
        ))
    }

    /// Shows plans, as a table or as lines for a file.
    pub(super) fn show(&self, plans: &BTreeMap<String, Plan>) -> Result<(), Failure> {
        if self.export {
            return line(to_csv(plans));
        }
        let columns = [
            ("GROUP", 15, true),
            ("TOPIC", 15, true),
            ("PARTITION", 10, false),
            ("NEW-OFFSET", 0, false),
        ];
        let mut grid = Grid::new(&columns);
        for (name, plan) in plans {
            grid.rows.extend(plan.iter().map(|(partition, offset)| {
                let index = partition.partition.to_string();
                vec![name.clone(), partition.topic.to_string(), index, offset.to_string()]
            }));
        }
        grid.print()
    }
}

/// Makes a group forget partitions, and tells of each.
pub(super) async fn forget(
    admin: &Admin,
    name: &str,
    partitions: &[TopicPartition],
) -> Result<(), Failure> {
    let results = match admin.delete_group_offsets(name, partitions).await {
        Ok(results) => results,
        Err(error) => {
            line(format!("\nError: {}", explain(&error)))?;
            return Err(Failure::Said);
        }
    };
    let failed = results.iter().any(|(_, result)| result.is_err());
    if failed {
        line("\nError: Encountered some partition-level error, see the follow-up details.")?;
    } else {
        line(format!("Request succeeded for deleting offsets from group {name}."))?;
    }
    let columns = [("TOPIC", 15, true), ("PARTITION", 10, false), ("STATUS", 15, false)];
    let mut grid = Grid::new(&columns);
    for (partition, result) in results {
        let status = match result {
            Ok(()) => "Successful".to_owned(),
            Err(error) => format!("Error: {}", explain(&error)),
        };
        grid.rows.push(vec![partition.topic.to_string(), partition.partition.to_string(), status]);
    }
    grid.print()?;
    if failed { Err(Failure::Said) } else { Ok(()) }
}
