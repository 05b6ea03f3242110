//! Committing: what counts as worked on, and telling the group of it in the order asked for.

use std::collections::HashMap;

use fleuve_protocol::ErrorCode;
use fleuve_types::TopicPartition;
use futures_util::FutureExt;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;
use tracing::Instrument;

use super::offsets::{self, Committed};
use super::state::Member;
use super::{Consumer, Shared};
use crate::BoxFuture;
use crate::error::{Error, Result};

impl Consumer {
    /// Commits the positions after everything that was given out, and waits for it.
    ///
    /// A consumer that has subscribed commits as a member of its group. Outside of it every commit
    /// fails with UNKNOWN_MEMBER_ID or ILLEGAL_GENERATION, and so does this one if the group has
    /// given the member up since the last poll, with records that were not committed: others read
    /// them again. The next poll is in the group again.
    pub async fn commit(&self) -> Result<()> {
        self.mark_given();
        self.shared.check_forfeited()?;
        let (offsets, turn) = self.shared.begin_commit();
        self.shared.commit_these(offsets, turn).await
    }

    /// Commits as [`Consumer::commit`] does, but in the background; `done` is told how it went.
    ///
    /// Commits take effect in the order they were asked for.
    pub fn commit_async(&self, done: impl FnOnce(Result<()>) + Send + 'static) {
        self.mark_given();
        let forfeited = self.shared.check_forfeited();
        let (offsets, turn) = self.shared.begin_commit();
        let shared = self.shared.clone();
        tokio::spawn(async move {
            done(match forfeited {
                Ok(()) => shared.commit_these(offsets, turn).await,
                Err(error) => Err(error),
            });
        });
    }

    /// Commits these offsets: for each partition the next one to be read.
    pub async fn commit_offsets(&self, offsets: HashMap<TopicPartition, i64>) -> Result<()> {
        let offsets = offsets.into_iter();
        let offsets = offsets.map(|(partition, offset)| (partition, Committed::at(offset)));
        self.commit_with_metadata(offsets.collect()).await
    }

    /// Commits these offsets with their leader epochs and texts.
    pub async fn commit_with_metadata(
        &self,
        offsets: HashMap<TopicPartition, Committed>,
    ) -> Result<()> {
        let turn = self.shared.line_up();
        self.shared.commit_these(offsets, turn).await
    }

    /// Returns what the application has been given and not committed: for each partition the next
    /// offset to be read.
    pub fn positions_to_commit(&self) -> HashMap<TopicPartition, Committed> {
        self.mark_given();
        let offsets = self.shared.lock().uncommitted();
        offsets.into_iter().map(|(partition, place)| (partition, place.into())).collect()
    }

    /// Returns what the group has committed for these partitions.
    pub async fn committed(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<HashMap<TopicPartition, Committed>> {
        let group = self.shared.group()?;
        // Offsets of a transaction that is being ended are waited for.
        offsets::fetch_committed(&self.shared.client, group, Some(partitions), true).await
    }

    /// Counts everything that was given out as worked on, but not what [`Consumer::next`] still
    /// holds.
    pub(super) fn mark_given(&self) {
        let mut state = self.shared.lock();
        state.mark_processed();
        // Whoever holds the lock is waiting in a poll, and then nothing is held back.
        if let Ok(singly) = self.singly.try_lock()
            && let (Some(records), Some(place)) = (&singly.records, singly.given)
            && state.is_current(records)
            && let Ok(assigned) = state.assigned_mut(records.partition())
        {
            assigned.processed = Some(place);
        }
    }
}

/// A place in the line of commits.
pub(super) type Turn = BoxFuture<'static, OwnedMutexGuard<()>>;

impl Shared {
    /// Returns in whose name to commit. Nobody's is good enough for partitions that no group gives.
    fn committing_member(&self, offsets: &HashMap<TopicPartition, Committed>) -> Result<Member> {
        let state = self.lock();
        let member = state.member.clone();
        let is_outside = member.id.is_empty() || member.generation < 0;
        // A group without members takes commits of nobody: those of one that it has given up, too.
        if is_outside && state.reads_for_group() && !offsets.is_empty() {
            return Err(self.outside(&member));
        }
        Ok(member)
    }

    /// Fails if records that were given out went to others before they were committed.
    fn check_forfeited(&self) -> Result<()> {
        if self.lock().forfeited { Err(self.outside(&Member::default())) } else { Ok(()) }
    }

    /// What the group would answer if it could tell.
    fn outside(&self, member: &Member) -> Error {
        let code = match member.id.is_empty() {
            true => ErrorCode::UnknownMemberId,
            false => ErrorCode::IllegalGeneration,
        };
        let subject = format!("group {}", self.config.group_id.as_deref().unwrap_or_default());
        let words = "nothing was committed: the consumer was not a member all the time since its last poll, and others may have its partitions";
        Error::broker_said(subject, code, Some(words))
    }

    /// Takes a place in the line of commits, at once and not when it is first waited for.
    fn line_up(&self) -> Turn {
        // A task out of budget would be sent away before it has its place.
        let turn = tokio::task::unconstrained(self.committing.clone().lock_owned());
        let mut turn: Turn = Box::pin(turn);
        match turn.as_mut().now_or_never() {
            Some(guard) => Box::pin(std::future::ready(guard)),
            None => turn,
        }
    }

    /// Returns what is to be committed, with its place in the line: no commit of older positions
    /// can come behind it.
    pub(super) fn begin_commit(&self) -> (HashMap<TopicPartition, Committed>, Turn) {
        let state = self.lock();
        let offsets = state.uncommitted().into_iter();
        let offsets = offsets.map(|(partition, place)| (partition, place.into())).collect();
        (offsets, self.line_up())
    }

    pub(super) async fn commit_these(
        &self,
        offsets: HashMap<TopicPartition, Committed>,
        turn: Turn,
    ) -> Result<()> {
        let span = tracing::debug_span!(
            "commit",
            group = self.config.group_id,
            partitions = offsets.len(),
            error = tracing::field::Empty
        );
        let done = self.commit_in_turn(offsets, turn).instrument(span.clone()).await;
        if let Err(error) = &done {
            span.record("error", tracing::field::display(error));
        }
        done
    }

    async fn commit_in_turn(
        &self,
        offsets: HashMap<TopicPartition, Committed>,
        turn: Turn,
    ) -> Result<()> {
        let _turn = turn.await;
        let began = Instant::now();
        let instance = self.config.group_instance_id.as_deref();
        let mut retrying = self.client.retrying("OffsetCommit");
        loop {
            let member = self.committing_member(&offsets)?;
            let committed =
                offsets::commit(&self.client, self.group()?, &member, instance, &offsets).await;
            match committed {
                Ok(()) => break,
                // The next heartbeat brings the new epoch.
                Err(error) if error.code() == Some(ErrorCode::StaleMemberEpoch) => {
                    retrying.after_passing(error).await?;
                }
                Err(error) => return Err(error),
            }
        }
        self.counters.commit_time.add_time(began.elapsed());
        if !self.config.interceptors.is_empty() {
            let told =
                offsets.iter().map(|(partition, committed)| (partition.clone(), committed.offset));
            let told = told.collect();
            for interceptor in self.config.interceptors.iter() {
                interceptor.on_commit(&told);
            }
        }
        let mut state = self.lock();
        for (partition, committed) in offsets {
            if let Ok(assigned) = state.assigned_mut(&partition) {
                assigned.committed = Some(committed.offset);
            }
        }
        Ok(())
    }
}
