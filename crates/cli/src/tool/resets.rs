//! What the tools about groups have in common, mostly where offsets are reset: where to, whether
//! really, and how the plan is shown.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use fleuve_client::Admin;
use fleuve_types::TopicPartition;

use super::grid::Grid;
use crate::failure::{Failure, explain};
use crate::output::line;
use crate::quantities::{now_ms, parse_duration, parse_time};
use crate::reset::{Plan, Target, from_csv, of_groups, to_csv, within_logs};

/// Where to, and whether really.
#[derive(Debug, Args)]
pub(super) struct Reset {
    #[command(flatten)]
    to: To,
    /// Print the plan as lines for --from-file.
    #[arg(long)]
    export: bool,
    /// Do it.
    #[arg(long)]
    pub(super) execute: bool,
    /// Only show it.
    #[arg(long, conflicts_with = "execute")]
    pub(super) dry_run: bool,
}

/// Where to: one of these.
#[derive(Debug, Args)]
#[group(required = false, multiple = false)]
struct To {
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
}

impl Reset {
    /// Reports whether the plan stands in a file.
    pub(super) fn is_from_file(&self) -> bool {
        self.to.from_file.is_some()
    }

    /// Reads the plans of groups from the file, if there is one, and tells of those it lacks, whose
    /// plans are empty. Lines may leave the group out if `named` is one.
    pub(super) async fn read(
        &self,
        admin: &Admin,
        named: &[String],
        groups: &[String],
    ) -> Result<Option<BTreeMap<String, Plan>>, Failure> {
        let Some(path) = &self.to.from_file else { return Ok(None) };
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::new(format!("cannot read {}: {error}: check --from-file", path.display()))
        })?;
        let mut plans = BTreeMap::new();
        for (name, plan) in of_groups(from_csv(&text, named)?, groups) {
            if plan.is_empty() {
                line(format!("\nError: No reset plan for group {name} found"))?;
            }
            plans.insert(name, within_logs(admin, plan).await?);
        }
        Ok(Some(plans))
    }

    /// Where to.
    pub(super) fn target(&self) -> Result<Target, Failure> {
        let to = &self.to;
        if to.to_earliest {
            return Ok(Target::Beginning);
        }
        if to.to_latest {
            return Ok(Target::End);
        }
        if to.to_current {
            return Ok(Target::Current);
        }
        if let Some(offset) = to.to_offset {
            return Ok(Target::Offset(offset));
        }
        if let Some(by) = to.shift_by {
            return Ok(Target::Shift(by));
        }
        if let Some(text) = &to.to_datetime {
            return parse_time(text).map(Target::Time).ok_or_else(|| {
                Failure::new(format!("--to-datetime {text}: expected 2026-11-21T10:00:00.000"))
            });
        }
        if let Some(text) = &to.by_duration {
            return parse_duration(text)
                .map(|ms| Target::Time(now_ms().saturating_sub(ms)))
                .ok_or_else(|| {
                    Failure::new(format!("--by-duration {text}: expected P1DT2H30M, or PT90S"))
                });
        }
        Err(Failure::new(
            "where to? pass --to-earliest, --to-latest, --to-current, --to-offset N, \
             --to-datetime T, --by-duration D, --shift-by N or --from-file FILE",
        ))
    }

    /// Shows plans, as a table or as lines for a file, in which one group that is `named` is left
    /// out.
    pub(super) fn show(
        &self,
        plans: &BTreeMap<String, Plan>,
        named: &[String],
    ) -> Result<(), Failure> {
        if self.export {
            return line(to_csv(plans, named.len() != 1));
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

/// Refuses options among which something is missing, and says what.
pub(super) fn needs(is_there: bool, what: &str) -> Result<(), Failure> {
    if is_there { Ok(()) } else { Err(Failure::new(what)) }
}

/// Refuses what is done to groups if none is named.
pub(super) fn needs_groups(named: &[String], all: bool) -> Result<(), Failure> {
    needs(all || !named.is_empty(), "no group: pass --group NAME or --all-groups")
}

/// Refuses `--describe --state VALUE`: a value is for lists.
pub(super) fn needs_no_state(state: Option<&str>) -> Result<(), Failure> {
    needs(state.is_none_or(str::is_empty), "--describe takes --state without a value")
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Tool {
        #[command(flatten)]
        reset: Reset,
    }

    #[test]
    fn there_is_one_target() {
        let target = |arguments: &str| {
            let tool = Tool::try_parse_from(arguments.split(' ')).ok()?;
            tool.reset.target().ok()
        };
        assert_eq!(target("tool --to-earliest --execute"), Some(Target::Beginning));
        assert_eq!(target("tool --shift-by -5 --export"), Some(Target::Shift(-5)));
        for arguments in [
            "tool --execute",
            "tool --to-earliest --to-offset 500",
            "tool --to-current --shift-by -1",
            "tool --to-latest --from-file plan.csv",
            "tool --to-latest --execute --dry-run",
        ] {
            assert_eq!(target(arguments), None, "{arguments}");
        }
    }
}
