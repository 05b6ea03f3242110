//! The shard: all groups of one partition of `__consumer_offsets`.
//!
//! It finds the group that an event is for and lets it decide, keeps the ledger in step with the
//! log, and carries on with what waited for a record to be appended.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use bytes::Bytes;
use fleuve_os::Random;
use fleuve_protocol::Str;
use fleuve_types::Offset;

use crate::classic::{
    ClassicGroup, HeartbeatRequest, JoinRefusal, JoinRequest, LeaveRequest, LeaverOutcome,
    SyncRequest,
};
use crate::context::Context;
use crate::error::{AppendError, GroupError};
use crate::ledger::Ledger;
use crate::record::{Record, RecordError};
use crate::settings::GroupSettings;
use crate::step::{Now, Response, Step, Then, Token, Write};
use crate::timers::{Purpose, Timers};

/// Most records in a write whose records may be appended separately.
pub(crate) const RECORDS_PER_WRITE: usize = 1_000;

/// A group by its protocol. Consumer, share and streams groups will be variants beside the first.
#[derive(Debug)]
pub(crate) enum Group {
    Classic(ClassicGroup),
}

/// Events counted since the shard was made, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Rebalances that ended with an assignment in the log.
    pub rebalances_completed: u64,
    /// Members removed because they sent no heartbeat.
    pub members_expired: u64,
    /// Offsets that consumers committed.
    pub offset_commits: u64,
    /// Offsets deleted on request, or with their group or topic.
    pub offset_deletions: u64,
    /// Offsets whose retention ended.
    pub offsets_expired: u64,
}

/// Coordinates the groups whose state is in one partition of `__consumer_offsets`.
///
/// See the crate's documentation for how a driver uses it.
#[derive(Debug)]
pub struct GroupCoordinator {
    pub(crate) settings: GroupSettings,
    pub(crate) groups: BTreeMap<Str, Group>,
    pub(crate) counters: Counters,
    ledger: Ledger,
    random: Arc<dyn Random>,
    timers: Timers,
    phase: Phase,
    /// One past the last record applied.
    next_offset: Option<Offset>,
}

/// What the shard is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Loading,
    Serving,
    Unloaded,
}

impl GroupCoordinator {
    /// Makes a shard that knows nothing yet and is about to read its log.
    pub fn new(settings: GroupSettings, random: Arc<dyn Random>) -> Self {
        Self {
            settings,
            groups: BTreeMap::new(),
            counters: Counters::default(),
            ledger: Ledger::default(),
            random,
            timers: Timers::default(),
            phase: Phase::Loading,
            next_offset: None,
        }
    }

    /// Takes in a record of the log: the only way in which persistent state changes.
    ///
    /// While loading, the driver calls this for every record of the partition. Later the machine
    /// does it by itself when it learns that a write was appended.
    pub fn apply(&mut self, record: &Record, offset: Offset) {
        self.ledger.apply(record);
        self.next_offset = Some(offset.plus(1));
    }

    /// Takes in key and value of a record while loading.
    ///
    /// Record types of other rooms are passed over, as Kafka does with types it does not know;
    /// says whether the record was one of ours.
    pub fn replay(
        &mut self,
        key: Bytes,
        value: Option<Bytes>,
        offset: Offset,
    ) -> Result<bool, RecordError> {
        match Record::decode(key, value) {
            Ok(record) => {
                self.apply(&record, offset);
                Ok(true)
            }
            Err(RecordError::UnknownType(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The log has been read to its end: groups are taken up where it left them.
    pub fn handle_loaded(&mut self, now: Now) -> Step {
        let mut step = Step::default();
        if self.phase != Phase::Loading {
            return step;
        }
        self.phase = Phase::Serving;
        for (id, value) in self.ledger.groups() {
            let group = match value {
                Some(value) => ClassicGroup::load(id.clone(), value, now.wall),
                None => ClassicGroup::empty(id.clone(), now.wall),
            };
            self.groups.insert(id.clone(), Group::Classic(group));
        }
        let (groups, mut cx) = self.split(now, &mut step);
        for Group::Classic(group) in groups.values_mut() {
            group.resume(&mut cx);
        }
        cx.schedule(Purpose::Expiration, cx.settings.offsets_retention_check_interval_ms);
        step
    }

    /// The shard is given up, because the partition is led elsewhere or its log has failed:
    /// everyone who waits is sent to look for the coordinator.
    pub fn handle_unload(&mut self, now: Now) -> Step {
        let mut step = Step::default();
        let (groups, mut cx) = self.split(now, &mut step);
        for Group::Classic(group) in groups.values_mut() {
            group.abandon(&mut cx, GroupError::NotCoordinator);
        }
        self.groups.clear();
        self.timers.clear();
        self.ledger = Ledger::default();
        self.phase = Phase::Unloaded;
        step
    }

    /// Changes the settings; they hold from the next event on.
    pub fn update_settings(&mut self, settings: GroupSettings) {
        self.settings = settings;
    }

    /// Handles JoinGroup.
    pub fn handle_join(&mut self, now: Now, token: Token, request: &JoinRequest) -> Step {
        let mut step = Step::default();
        if let Err(refusal) = self.join(now, token, request, &mut step) {
            step.reply(token, Response::Join(Err(refusal)));
        }
        step
    }

    /// Handles SyncGroup.
    pub fn handle_sync(&mut self, now: Now, token: Token, request: &SyncRequest) -> Step {
        let mut step = Step::default();
        let outcome = self.check_serving_group(&request.group_id).and_then(|()| {
            let (groups, mut cx) = self.split(now, &mut step);
            match groups.get_mut(&request.group_id) {
                Some(Group::Classic(group)) => group.sync(&mut cx, token, request),
                None => Err(GroupError::UnknownMemberId),
            }
        });
        if let Err(error) = outcome {
            step.reply(token, Response::Sync(Err(error)));
        }
        step
    }

    /// Handles Heartbeat.
    pub fn handle_heartbeat(&mut self, now: Now, token: Token, request: &HeartbeatRequest) -> Step {
        let mut step = Step::default();
        let outcome = match self.check_serving_group(&request.group_id) {
            // Members that outlive a change of coordinator need not notice it.
            Err(GroupError::LoadInProgress) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                let (groups, mut cx) = self.split(now, &mut step);
                match groups.get_mut(&request.group_id) {
                    Some(Group::Classic(group)) => group.heartbeat_received(&mut cx, request),
                    None => Err(GroupError::UnknownMemberId),
                }
            }
        };
        step.reply(token, Response::Heartbeat(outcome));
        step
    }

    /// Handles LeaveGroup.
    pub fn handle_leave(&mut self, now: Now, token: Token, request: &LeaveRequest) -> Step {
        let mut step = Step::default();
        let outcome = self.check_serving_group(&request.group_id).map(|()| {
            let (groups, mut cx) = self.split(now, &mut step);
            match groups.get_mut(&request.group_id) {
                Some(Group::Classic(group)) => group.leave(&mut cx, &request.members),
                None => strangers(request),
            }
        });
        step.reply(token, Response::Leave(outcome));
        step
    }

    /// A write is in the log, with its first record at `base_offset`.
    pub fn handle_appended(&mut self, now: Now, write: Write, base_offset: Offset) -> Step {
        let mut step = Step::default();
        if self.phase != Phase::Serving {
            return self.handle_append_failed(now, write, AppendError::NotLeader);
        }
        let end = base_offset.plus(write.records.len() as i64);
        for (index, record) in write.records.iter().enumerate() {
            self.apply(record, base_offset.plus(index as i64));
            self.follow(now, record, end, &mut step);
        }
        let (groups, mut cx) = self.split(now, &mut step);
        match write.then {
            Then::Nothing | Then::CreateGroup { .. } => {}
            Then::Reply { token, response } => cx.step.reply_after(token, response, Some(end)),
            Then::InstallAssignment { group, generation, assignments, .. } => {
                if let Some(Group::Classic(group)) = groups.get_mut(&group) {
                    group.install_assignment(&mut cx, generation, assignments);
                }
            }
            Then::FinishReplacement(replacement) => {
                if let Some(Group::Classic(group)) = groups.get_mut(&replacement.group) {
                    group.finish_replacement(&mut cx, &replacement);
                }
            }
        }
        step
    }

    /// A write is not in the log and never will be, or cannot be encoded
    /// ([`AppendError::TooLarge`]).
    ///
    /// A write that was appended but got lost before it was durable is another matter: then the
    /// whole shard has to be unloaded, as its state has gone too far.
    pub fn handle_append_failed(&mut self, now: Now, write: Write, error: AppendError) -> Step {
        let mut step = Step::default();
        let error = GroupError::from(error);
        let (groups, mut cx) = self.split(now, &mut step);
        match write.then {
            Then::Nothing => {}
            Then::Reply { token, response } => cx.step.reply_not_stored(token, response, error),
            Then::CreateGroup { group } => {
                if let Some(Group::Classic(mut group)) = groups.remove(&group) {
                    group.abandon(&mut cx, error);
                }
            }
            Then::InstallAssignment { group, generation, leader, .. } => {
                if let Some(Group::Classic(group)) = groups.get_mut(&group) {
                    group.reject_assignment(&mut cx, generation, &leader, error);
                }
            }
            Then::FinishReplacement(replacement) => {
                if let Some(Group::Classic(group)) = groups.get_mut(&replacement.group) {
                    group.revert_replacement(&mut cx, &replacement, error);
                }
            }
        }
        step
    }

    /// When [`Self::tick`] has to be called next, on the monotonic clock in milliseconds.
    pub fn next_deadline(&self) -> Option<i64> {
        self.timers.next_deadline_ms()
    }

    /// Lets everything happen whose time has come.
    pub fn tick(&mut self, now: Now) -> Step {
        let mut step = Step::default();
        while let Some(purpose) = self.timers.pop_due(now.monotonic_ms) {
            let (groups, mut cx) = self.split(now, &mut step);
            match purpose {
                Purpose::Join { group } => {
                    if let Some(Group::Classic(group)) = groups.get_mut(&group) {
                        group.join_timer_fired(&mut cx);
                    }
                }
                Purpose::Sync { group } => {
                    if let Some(Group::Classic(group)) = groups.get_mut(&group) {
                        group.sync_timer_fired(&mut cx);
                    }
                }
                Purpose::Heartbeat { group, member } => {
                    if let Some(Group::Classic(group)) = groups.get_mut(&group) {
                        group.heartbeat_expired(&mut cx, &member);
                    }
                }
                Purpose::Expiration => {
                    let interval_ms = cx.settings.offsets_retention_check_interval_ms;
                    cx.schedule(Purpose::Expiration, interval_ms);
                    self.expire_offsets(now, &mut step);
                }
            }
        }
        step
    }

    /// The persistent state.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// One past the last record applied; none before the first.
    pub fn next_offset(&self) -> Option<Offset> {
        self.next_offset
    }

    /// What has been counted so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether requests can be served.
    pub(crate) fn check_serving(&self) -> Result<(), GroupError> {
        match self.phase {
            Phase::Serving => Ok(()),
            Phase::Loading => Err(GroupError::LoadInProgress),
            Phase::Unloaded => Err(GroupError::NotCoordinator),
        }
    }

    /// Whether requests can be served that need a proper group id.
    pub(crate) fn check_serving_group(&self, group_id: &str) -> Result<(), GroupError> {
        if group_id.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        self.check_serving()
    }

    /// Separates the groups from what they need to decide.
    pub(crate) fn split<'a>(
        &'a mut self,
        now: Now,
        step: &'a mut Step,
    ) -> (&'a mut BTreeMap<Str, Group>, Context<'a>) {
        let cx = Context {
            now,
            settings: &self.settings,
            random: &*self.random,
            timers: &mut self.timers,
            counters: &mut self.counters,
            step,
        };
        (&mut self.groups, cx)
    }

    fn join(
        &mut self,
        now: Now,
        token: Token,
        request: &JoinRequest,
        step: &mut Step,
    ) -> Result<(), JoinRefusal> {
        let refuse = |error| JoinRefusal { error, member_id: request.member_id.clone() };
        self.check_serving_group(&request.group_id).map_err(refuse)?;
        let allowed = self.settings.min_session_timeout_ms..=self.settings.max_session_timeout_ms;
        if !allowed.contains(&request.session_timeout_ms) {
            return Err(refuse(GroupError::InvalidSessionTimeout));
        }
        let (groups, mut cx) = self.split(now, step);
        if let Some(Group::Classic(group)) = groups.get_mut(&request.group_id) {
            return group.join(&mut cx, token, request);
        }
        if !request.member_id.is_empty() {
            return Err(refuse(GroupError::UnknownMemberId));
        }
        let id = request.group_id.detach();
        let mut group = ClassicGroup::empty(id.clone(), now.wall);
        let outcome = group.join(&mut cx, token, request);
        // Kafka keeps and records the group even if its first member was turned away; we see no
        // reason to.
        if !group.is_deserted() {
            cx.step.write(vec![group.to_first_record()], Then::CreateGroup { group: id.clone() });
            groups.insert(id, Group::Classic(group));
        }
        outcome
    }

    /// Keeps the groups in step with a record that was just applied.
    fn follow(&mut self, now: Now, record: &Record, end: Offset, step: &mut Step) {
        let (groups, mut cx) = self.split(now, step);
        match record {
            Record::Group { group, value: Some(_) } => {
                if let Some(Group::Classic(group)) = groups.get_mut(group) {
                    group.note_stored(end);
                }
            }
            Record::Group { group, value: None } => {
                if let Some(Group::Classic(mut group)) = groups.remove(group) {
                    // Only groups without members are deleted. Should a driver have let someone
                    // join in between, they are not forgotten.
                    group.abandon(&mut cx, GroupError::NotAvailable);
                }
            }
            Record::Offset { key, value } => {
                if value.is_some()
                    && let Entry::Vacant(place) = groups.entry(key.group.clone())
                {
                    let id = key.group.detach();
                    place.insert(Group::Classic(ClassicGroup::empty(id, now.wall)));
                }
            }
        }
    }
}

/// The outcome of leaving a group that does not exist.
fn strangers(request: &LeaveRequest) -> Vec<LeaverOutcome> {
    request
        .members
        .iter()
        .map(|leaver| LeaverOutcome {
            member_id: leaver.member_id.clone(),
            group_instance_id: leaver.group_instance_id.clone(),
            outcome: Err(GroupError::UnknownMemberId),
        })
        .collect()
}
