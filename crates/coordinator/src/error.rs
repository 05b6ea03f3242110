//! What can be wrong with a request to the group coordinator, in the coordinator's own words.
//!
//! Each variant names the protocol error that a handler answers with. The numbers themselves
//! belong to the handlers, see `fleuve_protocol::ErrorCode`.

/// Why the coordinator refuses a request, or part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum GroupError {
    /// The partition of `__consumer_offsets` is still being read: `COORDINATOR_LOAD_IN_PROGRESS`.
    #[error("the coordinator is still loading the group's partition")]
    LoadInProgress,
    /// The log cannot take records right now: `COORDINATOR_NOT_AVAILABLE`.
    #[error("the coordinator cannot serve the group right now")]
    NotAvailable,
    /// This shard no longer leads, or its log has failed: `NOT_COORDINATOR`.
    #[error("this is no longer the group's coordinator")]
    NotCoordinator,
    /// The empty group id is not allowed here: `INVALID_GROUP_ID`.
    #[error("the group id is invalid")]
    InvalidGroupId,
    /// There is no such group: `GROUP_ID_NOT_FOUND`.
    #[error("the group does not exist")]
    GroupIdNotFound,
    /// The member id does not belong to the group: `UNKNOWN_MEMBER_ID`.
    #[error("the member is not part of the group")]
    UnknownMemberId,
    /// The member must join again with the id it was just given: `MEMBER_ID_REQUIRED`.
    #[error("the member must rejoin with the id that comes with this error")]
    MemberIdRequired,
    /// The request is about another generation of the group: `ILLEGAL_GENERATION`.
    #[error("the generation is not the group's current one")]
    IllegalGeneration,
    /// Protocol type or assignors do not fit those of the group: `INCONSISTENT_GROUP_PROTOCOL`.
    #[error("the member's protocols do not fit the group's")]
    InconsistentGroupProtocol,
    /// The session timeout is outside the allowed range: `INVALID_SESSION_TIMEOUT`.
    #[error("the session timeout is outside the configured bounds")]
    InvalidSessionTimeout,
    /// The member has to rejoin: `REBALANCE_IN_PROGRESS`.
    #[error("the group is rebalancing, so a rejoin is needed")]
    RebalanceInProgress,
    /// Another process uses the same `group.instance.id`: `FENCED_INSTANCE_ID`.
    #[error("a newer member uses this group instance id")]
    FencedInstanceId,
    /// The group has `group.max.size` members already: `GROUP_MAX_SIZE_REACHED`.
    #[error("the group is full")]
    GroupMaxSizeReached,
    /// The group still has members: `NON_EMPTY_GROUP`.
    #[error("the group is not empty")]
    NonEmptyGroup,
    /// A member is subscribed to the topic: `GROUP_SUBSCRIBED_TO_TOPIC`.
    #[error("the group is subscribed to the topic")]
    GroupSubscribedToTopic,
    /// The text that accompanies the offset is too long: `OFFSET_METADATA_TOO_LARGE`.
    #[error("the offset's metadata is too long")]
    OffsetMetadataTooLarge,
    /// The member's epoch is not the one it should have: `FENCED_MEMBER_EPOCH`.
    #[error("the member's epoch is not current; it must give up all its partitions and rejoin")]
    FencedMemberEpoch,
    /// The epoch does not allow this commit or fetch: `STALE_MEMBER_EPOCH`.
    #[error("the member's epoch is not current; it must retry with the epoch it gets next")]
    StaleMemberEpoch,
    /// Another member uses the instance id and has not left: `UNRELEASED_INSTANCE_ID`.
    #[error("the instance id is in use by another member")]
    UnreleasedInstanceId,
    /// Nobody here knows this assignor: `UNSUPPORTED_ASSIGNOR`.
    #[error("the assignor is not supported")]
    UnsupportedAssignor,
    /// The expression cannot be compiled, or is too large: `INVALID_REGULAR_EXPRESSION`.
    #[error("the regular expression is not valid")]
    InvalidRegularExpression,
    /// The request contradicts itself: `INVALID_REQUEST`.
    #[error("{0}")]
    InvalidRequest(&'static str),
    /// The topology of a streams application cannot be meant: `STREAMS_INVALID_TOPOLOGY`.
    #[error("{0}")]
    StreamsInvalidTopology(&'static str),
    /// The group's protocol needs a later version of the request: `UNSUPPORTED_VERSION`.
    #[error("members of a consumer group must use a later version of this request")]
    UnsupportedVersion,
    /// There is no such topic or partition: `UNKNOWN_TOPIC_OR_PARTITION`.
    #[error("the topic or partition does not exist")]
    UnknownTopicOrPartition,
    /// The share group has no states of the topic: `UNKNOWN_TOPIC_OR_PARTITION`.
    #[error("there is no offset information to delete")]
    NoOffsetsToDelete,
    /// The log will never take this record, as it is too large: `UNKNOWN_SERVER_ERROR`.
    #[error("the record is too large for the offsets topic")]
    RecordTooLarge,
    /// A newer producer uses the transactional id: `INVALID_PRODUCER_EPOCH`.
    #[error("a newer producer uses this transactional id")]
    InvalidProducerEpoch,
    /// The transaction is not open: `INVALID_TXN_STATE`.
    #[error("the offsets are not part of an ongoing transaction")]
    NotInTransaction,
}

impl GroupError {
    /// Kafka's name for the error that a handler should answer with.
    pub fn kafka_name(self) -> &'static str {
        match self {
            Self::LoadInProgress => "COORDINATOR_LOAD_IN_PROGRESS",
            Self::NotAvailable => "COORDINATOR_NOT_AVAILABLE",
            Self::NotCoordinator => "NOT_COORDINATOR",
            Self::InvalidGroupId => "INVALID_GROUP_ID",
            Self::GroupIdNotFound => "GROUP_ID_NOT_FOUND",
            Self::UnknownMemberId => "UNKNOWN_MEMBER_ID",
            Self::MemberIdRequired => "MEMBER_ID_REQUIRED",
            Self::IllegalGeneration => "ILLEGAL_GENERATION",
            Self::InconsistentGroupProtocol => "INCONSISTENT_GROUP_PROTOCOL",
            Self::InvalidSessionTimeout => "INVALID_SESSION_TIMEOUT",
            Self::RebalanceInProgress => "REBALANCE_IN_PROGRESS",
            Self::FencedInstanceId => "FENCED_INSTANCE_ID",
            Self::GroupMaxSizeReached => "GROUP_MAX_SIZE_REACHED",
            Self::NonEmptyGroup => "NON_EMPTY_GROUP",
            Self::GroupSubscribedToTopic => "GROUP_SUBSCRIBED_TO_TOPIC",
            Self::OffsetMetadataTooLarge => "OFFSET_METADATA_TOO_LARGE",
            Self::FencedMemberEpoch => "FENCED_MEMBER_EPOCH",
            Self::StaleMemberEpoch => "STALE_MEMBER_EPOCH",
            Self::UnreleasedInstanceId => "UNRELEASED_INSTANCE_ID",
            Self::UnsupportedAssignor => "UNSUPPORTED_ASSIGNOR",
            Self::InvalidRegularExpression => "INVALID_REGULAR_EXPRESSION",
            Self::InvalidRequest(_) => "INVALID_REQUEST",
            Self::StreamsInvalidTopology(_) => "STREAMS_INVALID_TOPOLOGY",
            Self::UnsupportedVersion => "UNSUPPORTED_VERSION",
            Self::UnknownTopicOrPartition | Self::NoOffsetsToDelete => "UNKNOWN_TOPIC_OR_PARTITION",
            Self::RecordTooLarge => "UNKNOWN_SERVER_ERROR",
            Self::InvalidProducerEpoch => "INVALID_PRODUCER_EPOCH",
            Self::NotInTransaction => "INVALID_TXN_STATE",
        }
    }
}

/// Why the log did not take the records of a [`crate::Write`].
///
/// Each fate maps to the error that Kafka's coordinator gives its clients for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AppendError {
    /// Not now: too few in-sync replicas, or the partition is unknown or timed out.
    #[error("the log cannot take records right now")]
    Unavailable,
    /// This broker no longer leads the partition, or its log has failed.
    #[error("the log is led elsewhere or has failed")]
    NotLeader,
    /// The batch exceeds what the topic allows.
    #[error("the records are larger than the topic allows")]
    TooLarge,
    /// The log has seen a newer epoch of the transaction's producer.
    #[error("a newer producer has written to the log")]
    ProducerFenced,
    /// The producer's transaction is not open, or has ended meanwhile.
    #[error("the transaction is not open")]
    NotInTransaction,
}

impl From<AppendError> for GroupError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Unavailable => Self::NotAvailable,
            AppendError::NotLeader => Self::NotCoordinator,
            AppendError::TooLarge => Self::RecordTooLarge,
            AppendError::ProducerFenced => Self::InvalidProducerEpoch,
            AppendError::NotInTransaction => Self::NotInTransaction,
        }
    }
}
