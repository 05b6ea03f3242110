//! The shard: all groups of one partition of `__consumer_offsets`.
//!
//! It finds the group that an event is for and lets it decide, keeps the ledger in step with the
//! log, and carries on with what waited for a record to be appended.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use fleuve_os::Random;
use fleuve_protocol::Str;
use fleuve_types::{Offset, ProducerId, Uuid};

use crate::classic::{
    ClassicGroup, HeartbeatRequest, JoinRefusal, JoinRequest, LeaveRequest, LeaverOutcome,
    SyncRequest,
};
use crate::configs::{GroupConfigs, Timing};
use crate::consumer;
use crate::context::Context;
use crate::error::{AppendError, GroupError};
use crate::history::RebalanceCause;
use crate::ledger::Ledger;
use crate::modern::{Companion, FENCE_RETRY_MS};
use crate::record::{Record, RecordError};
use crate::settings::{GroupSettings, StreamsSettings};
use crate::share::{ShareGroup, ShareRecord};
use crate::step::{Effect, Now, Response, Step, Then, Token, Write};
use crate::streams::{self, StreamsCompanion};
use crate::timers::{Purpose, Timers};
use crate::topics::{NoTopics, TopicView};

/// Most records in a write whose records may be appended separately.
pub(crate) const RECORDS_PER_WRITE: usize = 1_000;

/// A group by its protocol.
#[derive(Debug)]
pub(crate) enum Group {
    Classic(Box<ClassicGroup>),
    /// The soft side of a consumer group; the group itself is in the ledger.
    Consumer(Companion),
    /// The soft side of a share group; the group itself is in the ledger.
    Share(Companion),
    /// The soft side of a streams group.
    Streams(Box<StreamsCompanion>),
}

impl Group {
    /// The soft side of a group whose other side is in the ledger.
    fn companion_mut(&mut self) -> Option<&mut Companion> {
        match self {
            Self::Classic(_) => None,
            Self::Consumer(companion) | Self::Share(companion) => Some(companion),
            Self::Streams(companion) => Some(&mut companion.common),
        }
    }
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
    topics: Arc<dyn TopicView>,
    configs: Arc<GroupConfigs>,
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
            topics: Arc::new(NoTopics),
            configs: Arc::default(),
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
        self.apply_in(record, offset, None);
    }

    fn apply_in(&mut self, record: &Record, offset: Offset, producer: Option<ProducerId>) {
        self.ledger.apply(record, offset, producer);
        self.next_offset = Some(offset.plus(1));
    }

    /// Takes in the marker that ends a transaction while loading.
    pub fn replay_marker(&mut self, producer: ProducerId, committed: bool, offset: Offset) {
        self.ledger.apply_marker(producer, committed);
        self.next_offset = Some(offset.plus(1));
    }

    /// A marker that ends a transaction is in the log, which decides about its offsets.
    ///
    /// Whoever appends markers asks [`Self::is_serving`] first: a shard that is being loaded may
    /// have read past the place.
    pub fn handle_marker(&mut self, producer: ProducerId, committed: bool, offset: Offset) {
        if self.phase == Phase::Serving {
            self.replay_marker(producer, committed, offset);
        }
    }

    /// Whether requests are served: the log is loaded and not given up.
    pub fn is_serving(&self) -> bool {
        self.phase == Phase::Serving
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
        self.replay_in(key, value, offset, None)
    }

    /// Takes in key and value of a record that was written in the transaction of `producer`, if
    /// any, while loading; see [`Self::replay`].
    pub fn replay_in(
        &mut self,
        key: Bytes,
        value: Option<Bytes>,
        offset: Offset,
        producer: Option<ProducerId>,
    ) -> Result<bool, RecordError> {
        match Record::decode(key, value) {
            Ok(record) => {
                self.apply_in(&record, offset, producer);
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
            self.groups.insert(id.clone(), Group::Classic(Box::new(group)));
        }
        let mut revoking = Vec::new();
        for (id, group) in self.ledger.consumer_groups() {
            self.groups.insert(id.clone(), Group::Consumer(Companion::default()));
            revoking.extend(group.revoking_members().map(|(member, timeout_ms)| {
                (Purpose::Revocation { group: id.clone(), member: member.clone() }, timeout_ms)
            }));
        }
        let sessions = self.ledger.consumer_groups().flat_map(|(id, group)| {
            let usual_ms = self.consumer_timing(id).session_timeout_ms;
            group.members().iter().map(move |(member, state)| {
                let own_ms = state.classic.as_ref().map(|classic| classic.session_timeout_ms);
                let session = Purpose::Heartbeat { group: id.clone(), member: member.clone() };
                (session, own_ms.unwrap_or(usual_ms))
            })
        });
        let mut sessions: Vec<(Purpose, i32)> = sessions.collect();
        for (id, group) in self.ledger.streams_groups() {
            self.groups.insert(id.clone(), Group::Streams(Box::default()));
            let timeout_ms = self.settings.streams.of(id, &self.configs).timing.session_timeout_ms;
            sessions.extend(group.members().keys().map(|member| {
                (Purpose::Heartbeat { group: id.clone(), member: member.clone() }, timeout_ms)
            }));
            revoking.extend(group.revoking_members().map(|(member, timeout_ms)| {
                (Purpose::Revocation { group: id.clone(), member: member.clone() }, timeout_ms)
            }));
        }
        for (id, group) in self.ledger.share_groups() {
            let since = Some(now.monotonic_ms).filter(|_| !group.initializing().is_empty());
            let companion = Companion { initializing_since_ms: since, ..Companion::default() };
            self.groups.insert(id.clone(), Group::Share(companion));
            let timeout_ms = self.share_timing(id).session_timeout_ms;
            sessions.extend(group.member_ids().map(|member| {
                (Purpose::Heartbeat { group: id.clone(), member: member.clone() }, timeout_ms)
            }));
            // Whoever was at it before the restart is not any more.
            step.effects.extend(unfinished_shares(id, group));
        }
        let (groups, mut cx) = self.split(now, &mut step);
        for group in groups.values_mut() {
            if let Group::Classic(group) = group {
                group.resume(&mut cx);
            }
        }
        for (purpose, timeout_ms) in sessions.into_iter().chain(revoking) {
            cx.schedule(purpose, timeout_ms.into());
        }
        cx.schedule(Purpose::Expiration, cx.settings.offsets_retention_check_interval_ms);
        step
    }

    /// The shard is given up, because the partition is led elsewhere or its log has failed:
    /// everyone who waits is sent to look for the coordinator.
    pub fn handle_unload(&mut self, now: Now) -> Step {
        let mut step = Step::default();
        let (groups, mut cx) = self.split(now, &mut step);
        for group in groups.values_mut() {
            if let Group::Classic(group) = group {
                group.abandon(&mut cx, GroupError::NotCoordinator);
            }
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

    /// Topics have changed: groups look at them anew with their next heartbeats.
    pub fn handle_topics_changed(&mut self, topics: Arc<dyn TopicView>) {
        self.topics = topics;
    }

    /// Configs of groups have changed; they hold from the next event on.
    pub fn handle_configs_changed(&mut self, configs: Arc<GroupConfigs>) {
        self.configs = configs;
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
                Some(Group::Consumer(_)) => self.classic_syncs(now, token, request, &mut step),
                Some(Group::Share(_) | Group::Streams(_)) | None => {
                    Err(GroupError::UnknownMemberId)
                }
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
                    Some(Group::Consumer(_)) => self.classic_beats(now, request, &mut step),
                    Some(Group::Share(_) | Group::Streams(_)) | None => {
                        Err(GroupError::UnknownMemberId)
                    }
                }
            }
        };
        step.reply(token, Response::Heartbeat(outcome));
        step
    }

    /// Handles LeaveGroup.
    pub fn handle_leave(&mut self, now: Now, token: Token, request: &LeaveRequest) -> Step {
        let mut step = Step::default();
        let is_consumer = matches!(self.groups.get(&request.group_id), Some(Group::Consumer(_)));
        if is_consumer && self.phase == Phase::Serving {
            if let Err(error) = self.leave_consumer_group(now, token, request, &mut step) {
                step.reply(token, Response::Leave(Err(error)));
            }
            return step;
        }
        let outcome = self.check_serving_group(&request.group_id).map(|()| {
            let (groups, mut cx) = self.split(now, &mut step);
            match groups.get_mut(&request.group_id) {
                Some(Group::Classic(group)) => group.leave(&mut cx, &request.members),
                Some(Group::Consumer(_) | Group::Share(_) | Group::Streams(_)) | None => {
                    strangers(request)
                }
            }
        });
        step.reply(token, Response::Leave(outcome));
        step
    }

    /// A write is in the log, with its first record at `base_offset`.
    pub fn handle_appended(&mut self, now: Now, mut write: Write, base_offset: Offset) -> Step {
        let mut step = Step::default();
        if self.phase != Phase::Serving {
            return self.handle_append_failed(now, write, AppendError::NotLeader);
        }
        let end = base_offset.plus(write.records.len() as i64);
        let migration = match &mut write.then {
            Then::Modern(aftermath) => {
                aftermath.migration.take().map(|migration| (aftermath.group.clone(), migration))
            }
            _ => None,
        };
        let migration = migration.map(|(group, migration)| {
            let history = self.leave_protocol(now, &group, &mut step);
            (group, migration, history)
        });
        for (index, record) in write.records.iter().enumerate() {
            let producer = write.producer.map(|producer| producer.id);
            self.apply_in(record, base_offset.plus(index as i64), producer);
            self.follow(now, record, end, &mut step);
        }
        if let Some((group, migration, history)) = migration {
            self.enter_protocol(now, &group, migration, history, end, &mut step);
        }
        let has_members = match &write.then {
            Then::Modern(aftermath) => {
                let group = self.ledger.streams_group(&aftermath.group);
                group.is_some_and(|group| !group.members().is_empty())
            }
            _ => false,
        };
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
            Then::Modern(mut aftermath) => {
                if let Some(group) = groups.get_mut(&aftermath.group) {
                    if let Group::Streams(companion) = group {
                        companion.note_stored(aftermath.configured.take(), has_members);
                    }
                    if let Some(companion) = group.companion_mut() {
                        companion.note(&mut aftermath);
                    }
                }
                if let Some(member) = aftermath.replaced.take() {
                    let group = aftermath.group.clone();
                    cx.forget_member(group, member);
                }
                if let Some((token, response)) = aftermath.reply {
                    cx.step.reply_after(token, response, Some(end));
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
                if let Some(Group::Classic(mut classic)) = groups.remove(&group) {
                    classic.abandon(&mut cx, error);
                }
                // It may have been meant to take the place of an empty group of another protocol.
                if self.ledger.consumer_group(&group).is_some() {
                    self.groups.insert(group, Group::Consumer(Companion::default()));
                } else if self.ledger.streams_group(&group).is_some() {
                    self.groups.insert(group, Group::Streams(Box::default()));
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
            Then::Modern(aftermath) => {
                for member in aftermath.gone {
                    let group = aftermath.group.clone();
                    cx.schedule(Purpose::Heartbeat { group, member }, FENCE_RETRY_MS);
                }
                if let Some((token, response)) = aftermath.reply {
                    cx.step.reply_not_stored(token, response, error);
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
        let mut expired: BTreeMap<Str, BTreeMap<Str, RebalanceCause>> = BTreeMap::new();
        let mut assigning = Vec::new();
        let mut expired_sharers: BTreeMap<Str, BTreeSet<Str>> = BTreeMap::new();
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
                Purpose::Heartbeat { group, member } => match groups.get_mut(&group) {
                    Some(Group::Classic(group)) => group.heartbeat_expired(&mut cx, &member),
                    Some(Group::Consumer(_) | Group::Streams(_)) => {
                        let cause = RebalanceCause::HeartbeatExpired;
                        expired.entry(group).or_default().insert(member, cause);
                    }
                    Some(Group::Share(_)) => {
                        expired_sharers.entry(group).or_default().insert(member);
                    }
                    None => {}
                },
                Purpose::Revocation { group, member } => {
                    let cause = RebalanceCause::RevocationExpired;
                    expired.entry(group).or_default().entry(member).or_insert(cause);
                }
                Purpose::MemberJoin { group, member } => {
                    let cause = RebalanceCause::JoinExpired;
                    expired.entry(group).or_default().entry(member).or_insert(cause);
                }
                Purpose::MemberSync { group, member } => {
                    let cause = RebalanceCause::SyncExpired;
                    expired.entry(group).or_default().entry(member).or_insert(cause);
                }
                Purpose::InitialAssignment { group } => assigning.push(group),
                Purpose::Expiration => {
                    let interval_ms = cx.settings.offsets_retention_check_interval_ms;
                    cx.schedule(Purpose::Expiration, interval_ms);
                    self.expire_offsets(now, &mut step);
                }
            }
        }
        self.expire_members(now, expired, assigning, &mut step);
        self.expire_share_members(now, expired_sharers, &mut step);
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

    /// The topics as the shard was last shown them.
    pub(crate) fn topics(&self) -> &dyn TopicView {
        &*self.topics
    }

    /// Removes members of modern groups whose time is up, and hands out the tasks of streams
    /// groups whose first members have had the time to come.
    fn expire_members(
        &mut self,
        now: Now,
        expired: BTreeMap<Str, BTreeMap<Str, RebalanceCause>>,
        assigning: Vec<Str>,
        step: &mut Step,
    ) {
        let mut of_consumers = BTreeMap::new();
        let mut changed = BTreeSet::new();
        for (group, due) in expired {
            match self.groups.get(&group) {
                Some(Group::Streams(_)) => {
                    if self.expire_streams_members(now, &group, due, step) {
                        changed.insert(group);
                    }
                }
                _ => {
                    of_consumers.insert(group, due);
                }
            }
        }
        self.expire_consumers(now, of_consumers, step);
        for group in assigning {
            if changed.contains(&group) {
                // The assignment has to know who is gone, which is not in the log yet.
                let (_, mut cx) = self.split(now, step);
                cx.schedule(Purpose::InitialAssignment { group }, 1);
            } else {
                self.assign_streams_group(now, &group, step);
            }
        }
    }

    /// What holds for a streams group.
    pub(crate) fn streams_settings(&self, group: &str) -> StreamsSettings {
        self.settings.streams.of(group, &self.configs)
    }

    /// Whether something will happen at some time.
    pub(crate) fn is_scheduled(&self, purpose: &Purpose) -> bool {
        self.timers.is_scheduled(purpose)
    }

    /// The periods that hold for a share group.
    pub(crate) fn share_timing(&self, group: &str) -> Timing<i32> {
        self.settings.share.timing_of(group, &self.configs)
    }

    /// The periods of a consumer group.
    pub(crate) fn consumer_timing(&self, group: &str) -> Timing<i32> {
        self.settings.consumer.timing_of(group, &self.configs)
    }

    /// Makes an id as Kafka prints random ones.
    pub(crate) fn new_uuid(&self) -> Str {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes);
        Uuid::from_random_bytes(bytes).to_string().into()
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
        let mut records = Vec::new();
        if let Some(Group::Consumer(_)) = self.groups.get(&request.group_id)
            && let Some(group) = self.ledger.consumer_group(&request.group_id)
        {
            if !group.members().is_empty() {
                return self.classic_joins(now, token, request, step);
            }
            records = consumer::group_tombstones(&request.group_id, group);
        }
        if let Some(Group::Streams(_)) = self.groups.get(&request.group_id)
            && let Some(group) = self.ledger.streams_group(&request.group_id)
        {
            if !group.members().is_empty() {
                return Err(JoinRefusal::without_id(GroupError::InconsistentGroupProtocol));
            }
            records = streams::group_tombstones(&request.group_id);
        }
        if let Some(Group::Share(_)) = self.groups.get(&request.group_id) {
            return Err(JoinRefusal::without_id(GroupError::InconsistentGroupProtocol));
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
            records.push(group.to_first_record());
            cx.step.write(records, Then::CreateGroup { group: id.clone() });
            groups.insert(id, Group::Classic(Box::new(group)));
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
            Record::Consumer { group, record } => {
                let exists = self.ledger.consumer_group(group).is_some();
                match self.groups.entry(group.detach()) {
                    Entry::Occupied(place) if !exists => {
                        if matches!(place.get(), Group::Consumer(_)) {
                            place.remove();
                        }
                    }
                    Entry::Occupied(mut place) => match place.get_mut() {
                        Group::Consumer(companion) => companion.stored_until = Some(end),
                        Group::Streams(_) if record.is_tombstone() => {}
                        // A group without records of its own gives way. A tombstone may well
                        // belong to the group that a classic one has taken the place of.
                        Group::Classic(_) if record.is_tombstone() => {}
                        Group::Classic(_) | Group::Streams(_) => {
                            place.insert(Group::Consumer(Companion::stored(end)));
                        }
                        Group::Share(_) => {}
                    },
                    Entry::Vacant(place) if exists => {
                        place.insert(Group::Consumer(Companion::stored(end)));
                    }
                    Entry::Vacant(_) => {}
                }
            }
            Record::Streams { group, record } => {
                let exists = self.ledger.streams_group(group).is_some();
                let stored = || {
                    let common = Companion::stored(end);
                    Group::Streams(Box::new(StreamsCompanion { common, ..Default::default() }))
                };
                match self.groups.entry(group.detach()) {
                    Entry::Occupied(place) if !exists => {
                        if matches!(place.get(), Group::Streams(_)) {
                            place.remove();
                            let group = group.detach();
                            self.timers.cancel(Purpose::InitialAssignment { group });
                        }
                    }
                    Entry::Occupied(mut place) => match place.get_mut() {
                        Group::Streams(companion) => companion.common.stored_until = Some(end),
                        Group::Share(_) => {}
                        Group::Classic(_) | Group::Consumer(_) if record.is_tombstone() => {}
                        Group::Classic(_) | Group::Consumer(_) => {
                            place.insert(stored());
                        }
                    },
                    Entry::Vacant(place) if exists => {
                        place.insert(stored());
                    }
                    Entry::Vacant(_) => {}
                }
            }
            Record::Share { group, record } => self.follow_share(now, group, record, end, step),
            Record::Offset { key, value } => {
                if value.is_some()
                    && let Entry::Vacant(place) = groups.entry(key.group.clone())
                {
                    let id = key.group.detach();
                    place.insert(Group::Classic(Box::new(ClassicGroup::empty(id, now.wall))));
                }
            }
        }
    }
}

impl GroupCoordinator {
    /// Keeps a share group's companion in step with a record that was just applied.
    fn follow_share(
        &mut self,
        now: Now,
        id: &Str,
        record: &ShareRecord,
        end: Offset,
        step: &mut Step,
    ) {
        let Some(group) = self.ledger.share_group(id) else {
            if matches!(self.groups.get(id), Some(Group::Share(_))) {
                self.groups.remove(id);
            }
            return;
        };
        let place = self.groups.entry(id.detach());
        let created = || Group::Share(Companion::stored(end));
        let Group::Share(companion) = place.or_insert_with(created) else { return };
        companion.stored_until = Some(end);
        match record {
            ShareRecord::StatePartitions(_) => {
                // Heartbeats look at what is there to assign.
                companion.checked = None;
                let waits = !group.initializing().is_empty();
                companion.initializing_since_ms = waits.then_some(now.monotonic_ms);
                // Deletions are in the hands of whoever asked for them.
                let is_begin = |effect: &Effect| matches!(effect, Effect::InitializeShares { .. });
                step.effects.extend(unfinished_shares(id, group).filter(is_begin));
            }
            ShareRecord::Member { member, value: None } => {
                step.effects
                    .push(Effect::ShareMemberGone { group: id.detach(), member: member.detach() });
            }
            _ => {}
        }
    }
}

/// What has to be done about share-partitions whose states are half begun or half deleted.
fn unfinished_shares(id: &Str, group: &ShareGroup) -> impl Iterator<Item = Effect> {
    let partitions = group.initializing();
    let topics = group.deleting();
    let begin = (!partitions.is_empty()).then(|| Effect::InitializeShares {
        group: id.detach(),
        state_epoch: group.epoch(),
        partitions,
    });
    let delete = (!topics.is_empty()).then(|| Effect::DeleteShares { group: id.detach(), topics });
    begin.into_iter().chain(delete)
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
