//! Where to move what a group has committed.
//!
//! A plan is made first and carried out later, if at all: it can be shown, written to a file and
//! read back.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fleuve_client::Admin;
use fleuve_client::config::IsolationLevel;
use fleuve_client::consumer::{Committed, LATEST};
use fleuve_types::TopicPartition;

use crate::commands::topic::log_ends;
use crate::failure::Failure;

/// New offsets by partition.
pub(crate) type Plan = BTreeMap<TopicPartition, i64>;

/// How the new offset of a partition is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Beginning,
    End,
    Current,
    Offset(i64),
    Time(i64),
    Shift(i64),
}

impl Target {
    /// The new offset of a partition whose log holds what is from `first` to before `next`; nothing
    /// if it is to be shifted from where nobody stands.
    fn of(self, current: Option<i64>, at_time: Option<i64>, first: i64, next: i64) -> Option<i64> {
        let offset = match self {
            Self::Beginning => first,
            Self::End => next,
            // Stays even outside of the log: where a reader then begins is its own setting.
            Self::Current => return Some(current.unwrap_or(next)),
            Self::Offset(offset) => offset,
            Self::Shift(by) => current?.saturating_add(by),
            Self::Time(_) => at_time.filter(|offset| *offset >= 0).unwrap_or(next),
        };
        Some(within(offset, first, next))
    }
}

/// Holds an offset to a log. Not `clamp`, which panics should a log have become shorter while its ends were asked for.
pub(crate) fn within(offset: i64, first: i64, next: i64) -> i64 {
    offset.min(next).max(first)
}

/// Finds the new offset of each partition, within what its log holds unless it stays.
pub(crate) async fn plan(
    admin: &Admin,
    target: Target,
    partitions: &[TopicPartition],
    committed: &HashMap<TopicPartition, Committed>,
) -> Result<Plan, Failure> {
    let ends = log_ends(admin, partitions).await?;
    let mut at_time = HashMap::new();
    if let Target::Time(time) = target {
        let asked = partitions.iter().map(|partition| (partition.clone(), time)).collect();
        at_time = admin.list_offsets(&asked, IsolationLevel::ReadUncommitted).await?;
    }
    let mut plan = Plan::new();
    for partition in partitions {
        let Some(&(first, next)) = ends.get(partition) else { continue };
        let current = committed.get(partition).map(|committed| committed.offset);
        let at_time = at_time.remove(partition).transpose()?.map(|found| found.offset);
        let offset = target.of(current, at_time, first, next).ok_or_else(|| {
            Failure::new(format!(
                "cannot shift {partition}: the group has committed nothing for it; pass \
                 --to beginning or end"
            ))
        })?;
        plan.insert(partition.clone(), offset);
    }
    Ok(plan)
}

/// Holds a plan's offsets to what the logs hold.
pub(crate) async fn within_logs(admin: &Admin, plan: Plan) -> Result<Plan, Failure> {
    let partitions: Vec<_> = plan.keys().cloned().collect();
    let ends = log_ends(admin, &partitions).await?;
    let clamp = |(partition, offset): (TopicPartition, i64)| {
        let (first, next) = ends.get(&partition).copied().unwrap_or((offset, offset));
        (partition, within(offset, first, next))
    };
    Ok(plan.into_iter().map(clamp).collect())
}

/// Reads `TOPIC` and `TOPIC:0,1` texts.
pub(crate) async fn expand(
    admin: &Admin,
    texts: &[String],
) -> Result<Vec<TopicPartition>, Failure> {
    let mut partitions = BTreeSet::new();
    for text in texts {
        let (topic, indexes) = match text.split_once(':') {
            Some((topic, indexes)) => (topic, Some(indexes)),
            None => (text.as_str(), None),
        };
        let count = admin.client().topic(topic, false).await?.partitions.len() as i32;
        let indexes: Vec<i32> = match indexes {
            None => (0..count).collect(),
            Some(indexes) => indexes
                .split(',')
                .map(|index| index.parse().ok().filter(|index| (0..count).contains(index)))
                .collect::<Option<_>>()
                .ok_or_else(|| {
                    Failure::new(format!("{text}: topic {topic} has partitions 0 to {}", count - 1))
                })?,
        };
        partitions.extend(indexes.into_iter().map(|index| TopicPartition::new(topic, index)));
    }
    Ok(partitions.into_iter().collect())
}

/// The partitions whose ends are known, with the end of each.
pub(crate) async fn ends_of(
    admin: &Admin,
    partitions: &BTreeSet<TopicPartition>,
) -> Result<HashMap<TopicPartition, i64>, Failure> {
    let asked = partitions.iter().map(|partition| (partition.clone(), LATEST)).collect();
    match admin.list_offsets(&asked, IsolationLevel::ReadUncommitted).await {
        Ok(ends) => Ok(ends
            .into_iter()
            .filter_map(|(partition, end)| Some((partition, end.ok()?.offset)))
            .collect()),
        // A topic that was deleted keeps committed offsets for a while.
        Err(error) if error.code().is_some() => Ok(HashMap::new()),
        Err(error) => Err(error.into()),
    }
}

/// Reads a plan from lines `TOPIC,PARTITION,OFFSET` or `GROUP,TOPIC,PARTITION,OFFSET`, which are
/// what [`to_csv`] and Kafka's `--export` write. Lines of one group may leave its name out.
pub(crate) fn from_csv(text: &str, groups: &[String]) -> Result<BTreeMap<String, Plan>, Failure> {
    let mut plans: BTreeMap<String, Plan> = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let wrong = || {
            Failure::new(format!(
                "line {}: `{line}`: expected TOPIC,PARTITION,OFFSET, or GROUP before that",
                number + 1
            ))
        };
        let fields: Vec<_> = line.split(',').map(|field| field.trim().trim_matches('"')).collect();
        let (group, fields) = match (fields.as_slice(), groups) {
            ([group, rest @ ..], _) if rest.len() == 3 => ((*group).to_owned(), rest),
            (rest, [group]) if rest.len() == 3 => (group.clone(), rest),
            _ => return Err(wrong()),
        };
        let [topic, partition, offset] = fields else { return Err(wrong()) };
        let partition = partition.parse().map_err(|_| wrong())?;
        let offset = offset.parse().map_err(|_| wrong())?;
        let plan = plans.entry(group).or_default();
        plan.insert(TopicPartition::new(*topic, partition), offset);
    }
    if plans.is_empty() {
        return Err(Failure::new("the file names no partitions"));
    }
    Ok(plans)
}

/// Picks the plans of groups, empty ones for those that are not there.
pub(crate) fn of_groups(
    plans: BTreeMap<String, Plan>,
    groups: &[String],
) -> BTreeMap<String, Plan> {
    let mut plans = plans;
    let pick = |group: &String| (group.clone(), plans.remove(group).unwrap_or_default());
    groups.iter().map(pick).collect()
}

/// Writes plans as lines that [`from_csv`] reads. Whoever reads them for one group that is named
/// needs no names in them.
pub(crate) fn to_csv(plans: &BTreeMap<String, Plan>, with_groups: bool) -> String {
    let mut text = String::new();
    for (group, plan) in plans {
        for (partition, offset) in plan {
            if with_groups {
                text.push_str(group);
                text.push(',');
            }
            text.push_str(&format!("{},{},{offset}\n", partition.topic, partition.partition));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(offset: i64) -> Plan {
        Plan::from([(TopicPartition::new("t", 2), offset)])
    }

    #[test]
    fn new_offsets_are_within_the_log_unless_they_stay() {
        let of = |target: Target, current| target.of(current, None, 10, 20);
        assert_eq!(of(Target::Beginning, None), Some(10));
        assert_eq!(of(Target::Offset(500), None), Some(20));
        assert_eq!(of(Target::Shift(-5), Some(12)), Some(10));
        assert_eq!(of(Target::Shift(-5), None), None);
        assert_eq!(of(Target::Current, Some(3)), Some(3));
        assert_eq!(of(Target::Current, Some(25)), Some(25));
        assert_eq!(of(Target::Current, None), Some(20));
        assert_eq!(Target::Time(1).of(None, Some(13), 10, 20), Some(13));
        assert_eq!(Target::Time(1).of(None, Some(-1), 10, 20), Some(20));
    }

    #[test]
    fn plans_survive_a_file() {
        let one = BTreeMap::from([("g".to_owned(), plan(7))]);
        assert_eq!(to_csv(&one, false), "t,2,7\n");
        assert_eq!(to_csv(&one, true), "g,t,2,7\n");
        assert_eq!(from_csv("t,2,7\n\n", &["g".to_owned()]).expect("valid"), one);
        let two = BTreeMap::from([("g".to_owned(), plan(7)), ("h".to_owned(), plan(8))]);
        assert_eq!(to_csv(&two, true), "g,t,2,7\nh,t,2,8\n");
        assert_eq!(from_csv(&to_csv(&two, true), &[]).expect("valid"), two);
        assert_eq!(from_csv("\"g\",\"t\",2,7", &[]).expect("quoted").len(), 1);
    }

    #[test]
    fn only_groups_that_are_meant_are_picked() {
        let plans = BTreeMap::from([("g".to_owned(), plan(7)), ("h".to_owned(), plan(8))]);
        let picked = of_groups(plans, &["g".to_owned(), "i".to_owned()]);
        let expected = BTreeMap::from([("g".to_owned(), plan(7)), ("i".to_owned(), Plan::new())]);
        assert_eq!(picked, expected);
    }

    #[test]
    fn lines_that_say_too_little_are_named() {
        let wrong = from_csv("t,2,7", &[]).expect_err("whose?").to_string();
        assert!(wrong.starts_with("line 1: `t,2,7`"), "{wrong}");
        assert!(from_csv("t,x,7", &["g".to_owned()]).is_err());
        assert!(from_csv("\n", &["g".to_owned()]).is_err());
    }
}
