//! The windows of all groups, and the judgement on a group.

use std::collections::BTreeMap;

use fleuve_protocol::Str;

use super::rules::{PartitionState, judge};
use super::window::{Sample, Window};

/// How commits are gathered and judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LagSettings {
    /// Commits in a window; Burrow's `intervals`.
    pub intervals: usize,
    /// Commits closer together than this share a place; Burrow's `min-distance`.
    pub min_distance_ms: i64,
    /// The part of a window that must be filled before it is judged; Burrow's `minimum-complete`.
    pub minimum_complete: f32,
    /// Lag that is never wrong; Burrow's `allowed-lag`.
    pub allowed_lag: u64,
    /// How long commits from before the watch began are not judged, so that a consumer that
    /// outlived a restart of the broker gets the time to commit.
    pub grace_ms: i64,
    /// Windows that are kept; partitions beyond are not watched.
    pub windows_max: usize,
}

impl Default for LagSettings {
    fn default() -> Self {
        Self {
            intervals: 10,
            min_distance_ms: 1000,
            minimum_complete: 0.0,
            allowed_lag: 0,
            grace_ms: 60_000,
            windows_max: 50_000,
        }
    }
}

/// A commit that the log has taken in.
#[derive(Clone, Copy, Debug)]
pub struct Commit<'a> {
    /// The group.
    pub group: &'a Str,
    /// The topic.
    pub topic: &'a Str,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// When it was committed.
    pub timestamp_ms: i64,
    /// Where the partition ended then, if that is known.
    pub log_end: Option<i64>,
}

/// How a group fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupState {
    /// All partitions are OK.
    Ok,
    /// A partition falls behind.
    Warning,
    /// A partition has stopped, stalled or gone back.
    Error,
}

impl GroupState {
    /// Burrow's name of the state.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARN",
            Self::Error => "ERR",
        }
    }

    /// Burrow's number of the state.
    pub fn code(self) -> i32 {
        match self {
            Self::Ok => 1,
            Self::Warning => 2,
            Self::Error => 3,
        }
    }

    fn of(partition: PartitionState) -> Self {
        match partition {
            PartitionState::Ok => Self::Ok,
            PartitionState::Warning => Self::Warning,
            PartitionState::Stop | PartitionState::Stall | PartitionState::Rewind => Self::Error,
        }
    }
}

/// The judgement on one partition of a group.
#[derive(Clone, Debug, PartialEq)]
pub struct PartitionLag {
    /// The topic.
    pub topic: Str,
    /// The partition.
    pub partition: i32,
    /// How the group fares with it.
    pub state: PartitionState,
    /// The commits that were looked at, oldest first; never empty.
    pub samples: Vec<Sample>,
    /// Records between the last commit and the end of the log.
    pub current_lag: u64,
    /// The part of the window that is filled.
    pub complete: f32,
}

/// The judgement on a group.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupLag {
    /// The worst of its partitions.
    pub state: GroupState,
    /// The part of its partitions whose window is full.
    pub complete: f32,
    /// Its partitions, by topic and index.
    pub partitions: Vec<PartitionLag>,
}

impl GroupLag {
    /// Sums up the lag of all partitions.
    pub fn total_lag(&self) -> u64 {
        self.partitions.iter().map(|partition| partition.current_lag).sum()
    }

    /// The partition with the most lag.
    pub fn max_lag(&self) -> Option<&PartitionLag> {
        // Of equals the first, as the order is ours.
        self.partitions.iter().rev().max_by_key(|partition| partition.current_lag)
    }
}

/// Watches the commits of all groups.
#[derive(Debug, Default)]
pub struct LagWatch {
    settings: LagSettings,
    began_ms: i64,
    groups: BTreeMap<Str, Topics>,
    windows: usize,
}

type Topics = BTreeMap<Str, BTreeMap<i32, Window>>;

impl LagWatch {
    /// Begins to watch at `now_ms`.
    pub fn new(settings: LagSettings, now_ms: i64) -> Self {
        Self { settings, began_ms: now_ms, groups: BTreeMap::new(), windows: 0 }
    }

    /// Takes in a commit that was just appended.
    pub fn handle_commit(&mut self, commit: Commit<'_>, now_ms: i64) {
        let lag = commit.log_end.map(|end| lag_of(commit.offset, end));
        let sample = Sample {
            offset: commit.offset,
            timestamp_ms: commit.timestamp_ms,
            observed_ms: now_ms,
            lag,
        };
        let LagSettings { intervals, min_distance_ms, .. } = self.settings;
        if let Some(window) = self.window(&commit) {
            window.is_old = false;
            window.push(sample, intervals, min_distance_ms);
        }
    }

    /// Takes in a commit found in the log at the start: the lag at its time is not known.
    pub fn handle_replayed(&mut self, commit: Commit<'_>, now_ms: i64) {
        let LagSettings { intervals, min_distance_ms, .. } = self.settings;
        let Some(window) = self.window(&commit) else { return };
        // A commit that came in meanwhile is the later one.
        if window.last().is_some() && !window.is_old {
            return;
        }
        window.is_old = true;
        let sample = Sample {
            offset: commit.offset,
            timestamp_ms: commit.timestamp_ms,
            observed_ms: now_ms,
            lag: None,
        };
        window.push(sample, intervals, min_distance_ms);
    }

    /// Forgets what a group committed for a partition.
    pub fn handle_forgotten(&mut self, group: &str, topic: &str, partition: i32) {
        let Some(topics) = self.groups.get_mut(group) else { return };
        if let Some(partitions) = topics.get_mut(topic) {
            self.windows -= usize::from(partitions.remove(&partition).is_some());
            if partitions.is_empty() {
                topics.remove(topic);
            }
        }
        if topics.is_empty() {
            self.groups.remove(group);
        }
    }

    /// Notes where the logs end now; to be called every few seconds.
    pub fn tick(&mut self, end_of: impl Fn(&Str, i32) -> Option<i64>) {
        let intervals = self.settings.intervals;
        for (topic, partitions) in self.groups.values_mut().flatten() {
            for (partition, window) in partitions {
                if let Some(end) = end_of(topic, *partition) {
                    window.push_end(end, intervals);
                }
            }
        }
    }

    /// The groups that have committed something, by name.
    pub fn groups(&self) -> impl Iterator<Item = &Str> {
        self.groups.keys()
    }

    /// The groups that have committed something for a topic, by name.
    pub fn groups_of(&self, topic: &str) -> impl Iterator<Item = &Str> {
        let of_topic = move |(_, topics): &(&Str, &Topics)| topics.contains_key(topic);
        self.groups.iter().filter(of_topic).map(|(group, _)| group)
    }

    /// Judges a group; none if it has committed nothing.
    pub fn evaluate(
        &self,
        group: &str,
        now_ms: i64,
        end_of: impl Fn(&Str, i32) -> Option<i64>,
    ) -> Option<GroupLag> {
        let topics = self.groups.get(group)?;
        let mut partitions = Vec::new();
        for (topic, windows) in topics {
            for (partition, window) in windows {
                let samples = window.samples();
                let Some(last) = samples.last() else { continue };
                let complete = samples.len() as f32 / self.settings.intervals as f32;
                let end = end_of(topic, *partition);
                let current_lag = end.map_or(0, |end| lag_of(last.offset, end));
                let in_grace = window.is_old && now_ms < self.began_ms + self.settings.grace_ms;
                let state = if in_grace || complete < self.settings.minimum_complete {
                    PartitionState::Ok
                } else {
                    let allowed = self.settings.allowed_lag;
                    judge(&samples, &window.ends(), current_lag, now_ms, allowed)
                };
                partitions.push(PartitionLag {
                    topic: topic.clone(),
                    partition: *partition,
                    state,
                    samples,
                    current_lag,
                    complete,
                });
            }
        }
        let full = partitions.iter().filter(|partition| partition.complete >= 1.0).count();
        let worst = partitions.iter().map(|partition| GroupState::of(partition.state)).max();
        Some(GroupLag {
            state: worst.unwrap_or(GroupState::Ok),
            complete: if partitions.is_empty() {
                0.0
            } else {
                full as f32 / partitions.len() as f32
            },
            partitions,
        })
    }

    /// The window that a commit belongs to; none if there are too many already.
    fn window(&mut self, commit: &Commit<'_>) -> Option<&mut Window> {
        let known = self
            .groups
            .get(commit.group)
            .and_then(|topics| topics.get(commit.topic)?.get(&commit.partition))
            .is_some();
        if !known {
            if self.windows >= self.settings.windows_max {
                return None;
            }
            self.windows += 1;
            // Copies, because the names may be slices of a whole request.
            let topics = self.groups.entry(commit.group.detach()).or_default();
            let partitions = topics.entry(commit.topic.detach()).or_default();
            partitions.insert(commit.partition, Window::default());
        }
        self.groups.get_mut(commit.group)?.get_mut(commit.topic)?.get_mut(&commit.partition)
    }
}

fn lag_of(offset: i64, end: i64) -> u64 {
    u64::try_from(end.saturating_sub(offset)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: LagSettings = LagSettings {
        intervals: 3,
        min_distance_ms: 1000,
        minimum_complete: 0.0,
        allowed_lag: 0,
        grace_ms: 60_000,
        windows_max: 4,
    };

    struct Scene {
        watch: LagWatch,
        group: Str,
        topic: Str,
    }

    impl Scene {
        fn new() -> Self {
            let watch = LagWatch::new(SETTINGS, 0);
            Self { watch, group: Str::from("g"), topic: Str::from("t") }
        }

        fn commit(&mut self, partition: i32, offset: i64, end: i64, now_ms: i64) {
            let commit = Commit {
                group: &self.group,
                topic: &self.topic,
                partition,
                offset,
                timestamp_ms: now_ms,
                log_end: Some(end),
            };
            self.watch.handle_commit(commit, now_ms);
        }

        fn evaluate(&self, now_ms: i64, end: i64) -> GroupLag {
            self.watch.evaluate("g", now_ms, |_, _| Some(end)).expect("it has committed")
        }
    }

    #[test]
    fn a_group_is_as_its_worst_partition() {
        let mut scene = Scene::new();
        for step in 0..3 {
            let now_ms = step * 10_000;
            scene.commit(0, 100, 100, now_ms);
            scene.commit(1, 10 * step, 100 + 20 * step, now_ms);
        }
        let lag = scene.evaluate(20_000, 140);
        assert_eq!(lag.state, GroupState::Warning);
        let states: Vec<_> = lag.partitions.iter().map(|p| p.state).collect();
        assert_eq!(states, [PartitionState::Ok, PartitionState::Warning]);
        assert_eq!((lag.total_lag(), lag.complete), (160, 1.0));
        assert_eq!(lag.max_lag().expect("partitions").partition, 1);
        assert_eq!(scene.evaluate(41_000, 140).state, GroupState::Error, "both have stopped");
    }

    #[test]
    fn ends_seen_lately_keep_a_quiet_group_from_being_stopped() {
        let mut scene = Scene::new();
        scene.commit(0, 50, 50, 0);
        scene.watch.tick(|_, _| Some(50));
        assert_eq!(scene.evaluate(30_000, 60).state, GroupState::Ok);
        for _ in 0..3 {
            scene.watch.tick(|_, _| Some(60));
        }
        assert_eq!(scene.evaluate(40_000, 60).state, GroupState::Error);
    }

    #[test]
    fn commits_from_before_the_start_are_given_time() {
        let mut scene = Scene::new();
        let (group, topic) = (scene.group.clone(), scene.topic.clone());
        let old = Commit {
            group: &group,
            topic: &topic,
            partition: 0,
            offset: 5,
            timestamp_ms: -1_000_000,
            log_end: None,
        };
        scene.watch.handle_replayed(old, 0);
        assert_eq!(scene.evaluate(59_999, 9).state, GroupState::Ok);
        assert_eq!(scene.evaluate(60_000, 9).state, GroupState::Error);
        scene.commit(0, 9, 9, 60_000);
        assert_eq!(scene.evaluate(60_000, 9).state, GroupState::Ok);
        scene.watch.handle_replayed(old, 60_000);
        assert_eq!(scene.evaluate(60_000, 9).partitions[0].samples.len(), 2, "it is outdated");
    }

    #[test]
    fn an_incomplete_window_is_judged_only_if_that_is_wanted() {
        let settings = LagSettings { minimum_complete: 0.6, ..SETTINGS };
        let mut scene = Scene { watch: LagWatch::new(settings, 0), ..Scene::new() };
        scene.commit(0, 5, 9, 0);
        assert_eq!(scene.evaluate(10_000, 9).state, GroupState::Ok);
        scene.commit(0, 5, 9, 10_000);
        assert_eq!(scene.evaluate(10_000, 9).state, GroupState::Error);
    }

    #[test]
    fn what_is_forgotten_makes_room_for_others() {
        let mut scene = Scene::new();
        for partition in 0..6 {
            scene.commit(partition, 1, 1, 0);
        }
        assert_eq!(scene.evaluate(0, 1).partitions.len(), 4, "there are four windows");
        for partition in 0..6 {
            scene.watch.handle_forgotten("g", "t", partition);
        }
        assert_eq!(scene.watch.groups().count(), 0);
        assert_eq!(scene.watch.groups_of("t").count(), 0);
        scene.commit(5, 1, 1, 0);
        assert_eq!(scene.watch.groups_of("t").count(), 1);
        assert_eq!(scene.watch.evaluate("other", 0, |_, _| None), None);
    }
}
