//! Kafka's error codes: what a response says when something went wrong.
//!
//! Only request handlers and the client speak in these codes; inner rooms have errors of their
//! own. Codes that a newer peer invents are kept as numbers by the caller, see
//! [`ErrorCode::from_code`].

use std::fmt;

/// Declares the enum and its tables from one list, so that a code cannot miss a column.
macro_rules! error_codes {
    ($($(#[$attribute:meta])* $code:literal $variant:ident $name:literal $retry:ident $message:literal)*) => {
        /// An error code of the Kafka protocol.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        #[repr(i16)]
        pub enum ErrorCode {
            $(
                #[doc = concat!("`", $name, "`: ", $message, ".")]
                $(#[$attribute])*
                $variant = $code,
            )*
        }

        impl ErrorCode {
            /// Every code, in ascending order.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The code with this number, or `None` if Kafka 4.3 knows no such code.
            pub fn from_code(code: i16) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// Kafka's name for the code, such as `NOT_LEADER_OR_FOLLOWER`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// One sentence for people, without a final period.
            pub fn message(self) -> &'static str {
                match self {
                    $(Self::$variant => $message,)*
                }
            }

            fn retry(self) -> Retry {
                match self {
                    $(Self::$variant => Retry::$retry,)*
                }
            }
        }
    };
}

/// What Kafka's clients do about a code without asking the application.
#[derive(PartialEq)]
enum Retry {
    /// Report it.
    No,
    /// Try again.
    Yes,
    /// Ask for fresh metadata, then try again.
    Refresh,
}

#[rustfmt::skip]
error_codes! {
     -1 UnknownServerError "UNKNOWN_SERVER_ERROR" No "the server failed in a way it did not foresee"
      #[default]
      0 None "NONE" No "no error"
      1 OffsetOutOfRange "OFFSET_OUT_OF_RANGE" No "the offset lies outside the range the partition holds"
      2 CorruptMessage "CORRUPT_MESSAGE" Yes "the message is corrupt: wrong checksum, impossible size, or no key where one is required"
      3 UnknownTopicOrPartition "UNKNOWN_TOPIC_OR_PARTITION" Refresh "the broker does not host this topic partition"
      4 InvalidFetchSize "INVALID_FETCH_SIZE" No "the fetch size is invalid"
      5 LeaderNotAvailable "LEADER_NOT_AVAILABLE" Refresh "the partition has no leader at the moment"
      6 NotLeaderOrFollower "NOT_LEADER_OR_FOLLOWER" Refresh "the broker is not the leader, or not a replica, of this partition"
      7 RequestTimedOut "REQUEST_TIMED_OUT" Yes "the request timed out"
      8 BrokerNotAvailable "BROKER_NOT_AVAILABLE" No "the broker is not available"
      9 ReplicaNotAvailable "REPLICA_NOT_AVAILABLE" Refresh "the replica is not available on this broker"
     10 MessageTooLarge "MESSAGE_TOO_LARGE" No "the message is larger than the server accepts"
     11 StaleControllerEpoch "STALE_CONTROLLER_EPOCH" No "the controller has moved to another node"
     12 OffsetMetadataTooLarge "OFFSET_METADATA_TOO_LARGE" No "the metadata string of the committed offset is too long"
     13 NetworkException "NETWORK_EXCEPTION" Refresh "the connection broke before the response came"
     14 CoordinatorLoadInProgress "COORDINATOR_LOAD_IN_PROGRESS" Yes "the coordinator is still loading its state"
     15 CoordinatorNotAvailable "COORDINATOR_NOT_AVAILABLE" Yes "the coordinator is not available"
     16 NotCoordinator "NOT_COORDINATOR" Yes "the broker is not the coordinator asked for"
     17 InvalidTopicException "INVALID_TOPIC_EXCEPTION" No "the topic name is invalid, or the topic does not allow this operation"
     18 RecordListTooLarge "RECORD_LIST_TOO_LARGE" No "the batch is larger than a segment may be"
     19 NotEnoughReplicas "NOT_ENOUGH_REPLICAS" Yes "fewer replicas are in sync than the topic requires"
     20 NotEnoughReplicasAfterAppend "NOT_ENOUGH_REPLICAS_AFTER_APPEND" Yes "the records were written, but to fewer in-sync replicas than required"
     21 InvalidRequiredAcks "INVALID_REQUIRED_ACKS" No "acks must be 0, 1 or -1"
     22 IllegalGeneration "ILLEGAL_GENERATION" No "the generation id is not the group's current one"
     23 InconsistentGroupProtocol "INCONSISTENT_GROUP_PROTOCOL" No "the member shares no protocol with the rest of the group"
     24 InvalidGroupId "INVALID_GROUP_ID" No "the group id is invalid"
     25 UnknownMemberId "UNKNOWN_MEMBER_ID" No "the coordinator does not know this member"
     26 InvalidSessionTimeout "INVALID_SESSION_TIMEOUT" No "the session timeout is outside the range the broker allows"
     27 RebalanceInProgress "REBALANCE_IN_PROGRESS" No "the group is rebalancing and the member must rejoin"
     28 InvalidCommitOffsetSize "INVALID_COMMIT_OFFSET_SIZE" No "the offset commit is too large to store"
     29 TopicAuthorizationFailed "TOPIC_AUTHORIZATION_FAILED" No "access to the topic is denied"
     30 GroupAuthorizationFailed "GROUP_AUTHORIZATION_FAILED" No "access to the group is denied"
     31 ClusterAuthorizationFailed "CLUSTER_AUTHORIZATION_FAILED" No "access to the cluster is denied"
     32 InvalidTimestamp "INVALID_TIMESTAMP" No "the timestamp is outside the range the topic accepts"
     33 UnsupportedSaslMechanism "UNSUPPORTED_SASL_MECHANISM" No "the broker does not support this SASL mechanism"
     34 IllegalSaslState "ILLEGAL_SASL_STATE" No "the request does not fit the state of the SASL exchange"
     35 UnsupportedVersion "UNSUPPORTED_VERSION" No "the broker does not support this version of the API"
     36 TopicAlreadyExists "TOPIC_ALREADY_EXISTS" No "a topic with this name exists already"
     37 InvalidPartitions "INVALID_PARTITIONS" No "the number of partitions is invalid"
     38 InvalidReplicationFactor "INVALID_REPLICATION_FACTOR" No "the replication factor is below 1 or above the number of brokers"
     39 InvalidReplicaAssignment "INVALID_REPLICA_ASSIGNMENT" No "the replica assignment is invalid"
     40 InvalidConfig "INVALID_CONFIG" No "the configuration is invalid"
     41 NotController "NOT_CONTROLLER" Yes "the node is not the active controller"
     42 InvalidRequest "INVALID_REQUEST" No "the request is malformed or contradicts itself"
     43 UnsupportedForMessageFormat "UNSUPPORTED_FOR_MESSAGE_FORMAT" No "the topic's message format does not support this request"
     44 PolicyViolation "POLICY_VIOLATION" No "the request violates a policy of the cluster"
     45 OutOfOrderSequenceNumber "OUT_OF_ORDER_SEQUENCE_NUMBER" No "the sequence number does not follow the last one of this producer"
     46 DuplicateSequenceNumber "DUPLICATE_SEQUENCE_NUMBER" No "the sequence number has been written before"
     47 InvalidProducerEpoch "INVALID_PRODUCER_EPOCH" No "the producer epoch is old: a newer instance has taken over"
     48 InvalidTxnState "INVALID_TXN_STATE" No "the transaction's state does not allow this operation"
     49 InvalidProducerIdMapping "INVALID_PRODUCER_ID_MAPPING" No "the producer id is not the one assigned to the transactional id"
     50 InvalidTransactionTimeout "INVALID_TRANSACTION_TIMEOUT" No "the transaction timeout exceeds the broker's maximum"
     51 ConcurrentTransactions "CONCURRENT_TRANSACTIONS" Yes "another operation on the same transaction is under way"
     52 TransactionCoordinatorFenced "TRANSACTION_COORDINATOR_FENCED" No "the coordinator that sent the marker has been replaced by a newer one"
     53 TransactionalIdAuthorizationFailed "TRANSACTIONAL_ID_AUTHORIZATION_FAILED" No "access to the transactional id is denied"
     54 SecurityDisabled "SECURITY_DISABLED" No "security features are disabled"
     55 OperationNotAttempted "OPERATION_NOT_ATTEMPTED" No "the operation was not tried because an earlier one failed"
     56 KafkaStorageError "KAFKA_STORAGE_ERROR" Refresh "the broker's disk failed while it accessed the log"
     57 LogDirNotFound "LOG_DIR_NOT_FOUND" No "the log directory is not one of the broker's"
     58 SaslAuthenticationFailed "SASL_AUTHENTICATION_FAILED" No "authentication failed"
     59 UnknownProducerId "UNKNOWN_PRODUCER_ID" No "the broker keeps no state for this producer id"
     60 ReassignmentInProgress "REASSIGNMENT_IN_PROGRESS" No "a reassignment of the partition is in progress"
     61 DelegationTokenAuthDisabled "DELEGATION_TOKEN_AUTH_DISABLED" No "delegation tokens are not enabled"
     62 DelegationTokenNotFound "DELEGATION_TOKEN_NOT_FOUND" No "the delegation token does not exist"
     63 DelegationTokenOwnerMismatch "DELEGATION_TOKEN_OWNER_MISMATCH" No "the principal is neither owner nor renewer of the delegation token"
     64 DelegationTokenRequestNotAllowed "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED" No "delegation tokens cannot be requested over this kind of connection"
     65 DelegationTokenAuthorizationFailed "DELEGATION_TOKEN_AUTHORIZATION_FAILED" No "access to the delegation token is denied"
     66 DelegationTokenExpired "DELEGATION_TOKEN_EXPIRED" No "the delegation token has expired"
     67 InvalidPrincipalType "INVALID_PRINCIPAL_TYPE" No "the type of the principal is not supported"
     68 NonEmptyGroup "NON_EMPTY_GROUP" No "the group still has members"
     69 GroupIdNotFound "GROUP_ID_NOT_FOUND" No "the group does not exist"
     70 FetchSessionIdNotFound "FETCH_SESSION_ID_NOT_FOUND" Yes "the fetch session does not exist any more"
     71 InvalidFetchSessionEpoch "INVALID_FETCH_SESSION_EPOCH" Yes "the epoch of the fetch session is invalid"
     72 ListenerNotFound "LISTENER_NOT_FOUND" Refresh "the partition's leader lacks the listener that the request came in on"
     73 TopicDeletionDisabled "TOPIC_DELETION_DISABLED" No "topic deletion is disabled"
     74 FencedLeaderEpoch "FENCED_LEADER_EPOCH" Refresh "the leader epoch in the request is older than the broker's"
     75 UnknownLeaderEpoch "UNKNOWN_LEADER_EPOCH" Yes "the leader epoch in the request is newer than the broker's"
     76 UnsupportedCompressionType "UNSUPPORTED_COMPRESSION_TYPE" No "the compression codec is not supported here"
     77 StaleBrokerEpoch "STALE_BROKER_EPOCH" No "the broker epoch is no longer the current one"
     78 OffsetNotAvailable "OFFSET_NOT_AVAILABLE" Yes "the new leader does not know a reliable end offset yet"
     79 MemberIdRequired "MEMBER_ID_REQUIRED" No "the member must join again with the id it has just been given"
     80 PreferredLeaderNotAvailable "PREFERRED_LEADER_NOT_AVAILABLE" Refresh "the preferred leader is not available"
     81 GroupMaxSizeReached "GROUP_MAX_SIZE_REACHED" No "the group has reached its maximum size"
     82 FencedInstanceId "FENCED_INSTANCE_ID" No "another member has registered with the same group instance id"
     83 EligibleLeadersNotAvailable "ELIGIBLE_LEADERS_NOT_AVAILABLE" Refresh "no eligible leader is available"
     84 ElectionNotNeeded "ELECTION_NOT_NEEDED" Refresh "the partition already has the leader that was asked for"
     85 NoReassignmentInProgress "NO_REASSIGNMENT_IN_PROGRESS" No "no reassignment of the partition is in progress"
     86 GroupSubscribedToTopic "GROUP_SUBSCRIBED_TO_TOPIC" No "the group is subscribed to the topic, so its offsets cannot be deleted"
     87 InvalidRecord "INVALID_RECORD" No "a record did not pass the broker's validation"
     88 UnstableOffsetCommit "UNSTABLE_OFFSET_COMMIT" Yes "a transaction has offsets for the partition that are not decided yet"
     89 ThrottlingQuotaExceeded "THROTTLING_QUOTA_EXCEEDED" Yes "a quota has been exceeded"
     90 ProducerFenced "PRODUCER_FENCED" No "a newer producer with the same transactional id has taken over"
     91 ResourceNotFound "RESOURCE_NOT_FOUND" No "the request names something that does not exist"
     92 DuplicateResource "DUPLICATE_RESOURCE" No "the request names the same thing twice"
     93 UnacceptableCredential "UNACCEPTABLE_CREDENTIAL" No "the credential does not meet the requirements"
     94 InconsistentVoterSet "INCONSISTENT_VOTER_SET" No "sender or receiver is not in the expected voter set"
     95 InvalidUpdateVersion "INVALID_UPDATE_VERSION" No "the version given for the update is invalid"
     96 FeatureUpdateFailed "FEATURE_UPDATE_FAILED" No "the features could not be updated"
     97 PrincipalDeserializationFailure "PRINCIPAL_DESERIALIZATION_FAILURE" No "the principal of a forwarded request could not be read"
     98 SnapshotNotFound "SNAPSHOT_NOT_FOUND" No "the snapshot does not exist"
     99 PositionOutOfRange "POSITION_OUT_OF_RANGE" No "the position lies outside the snapshot"
    100 UnknownTopicId "UNKNOWN_TOPIC_ID" Refresh "the broker does not host a topic with this id"
    101 DuplicateBrokerRegistration "DUPLICATE_BROKER_REGISTRATION" No "the broker id is in use"
    102 BrokerIdNotRegistered "BROKER_ID_NOT_REGISTERED" No "the broker id is not registered"
    103 InconsistentTopicId "INCONSISTENT_TOPIC_ID" Refresh "the topic id is not the one the log has"
    104 InconsistentClusterId "INCONSISTENT_CLUSTER_ID" No "the cluster id is not the one of this cluster"
    105 TransactionalIdNotFound "TRANSACTIONAL_ID_NOT_FOUND" No "the transactional id does not exist"
    106 FetchSessionTopicIdError "FETCH_SESSION_TOPIC_ID_ERROR" Yes "topic ids are used inconsistently in the fetch session"
    107 IneligibleReplica "INELIGIBLE_REPLICA" No "the new in-sync set holds a replica that may not be in it"
    108 NewLeaderElected "NEW_LEADER_ELECTED" No "the partition was updated and has a new leader"
    109 OffsetMovedToTieredStorage "OFFSET_MOVED_TO_TIERED_STORAGE" No "the offset has moved to tiered storage"
    110 FencedMemberEpoch "FENCED_MEMBER_EPOCH" No "the member epoch is fenced: the member must give up its partitions and rejoin"
    111 UnreleasedInstanceId "UNRELEASED_INSTANCE_ID" No "another member still uses the group instance id"
    112 UnsupportedAssignor "UNSUPPORTED_ASSIGNOR" No "the group does not support the assignor or its version"
    113 StaleMemberEpoch "STALE_MEMBER_EPOCH" No "the member epoch is out of date and comes anew with the next heartbeat"
    114 MismatchedEndpointType "MISMATCHED_ENDPOINT_TYPE" No "the request was sent to the wrong kind of endpoint"
    115 UnsupportedEndpointType "UNSUPPORTED_ENDPOINT_TYPE" No "this kind of endpoint is not supported"
    116 UnknownControllerId "UNKNOWN_CONTROLLER_ID" No "the controller id is not known"
    117 UnknownSubscriptionId "UNKNOWN_SUBSCRIPTION_ID" No "the telemetry subscription id is unknown or out of date"
    118 TelemetryTooLarge "TELEMETRY_TOO_LARGE" No "the telemetry push is larger than the broker accepts"
    119 InvalidRegistration "INVALID_REGISTRATION" No "the controller rejected the broker's registration"
    120 TransactionAbortable "TRANSACTION_ABORTABLE" No "the transaction failed and must be aborted, after which the producer can go on"
    121 InvalidRecordState "INVALID_RECORD_STATE" No "the record is not in a state that can be acknowledged"
    122 ShareSessionNotFound "SHARE_SESSION_NOT_FOUND" Yes "the share session does not exist"
    123 InvalidShareSessionEpoch "INVALID_SHARE_SESSION_EPOCH" Yes "the epoch of the share session is invalid"
    124 FencedStateEpoch "FENCED_STATE_EPOCH" No "the state epoch of the share group is not the current one"
    125 InvalidVoterKey "INVALID_VOTER_KEY" No "the voter key is not the one of the receiving replica"
    126 DuplicateVoter "DUPLICATE_VOTER" No "the voter is in the voter set already"
    127 VoterNotFound "VOTER_NOT_FOUND" No "the voter is not in the voter set"
    128 InvalidRegularExpression "INVALID_REGULAR_EXPRESSION" No "the regular expression is invalid"
    129 RebootstrapRequired "REBOOTSTRAP_REQUIRED" No "the client's metadata is too old: it must bootstrap again"
    130 StreamsInvalidTopology "STREAMS_INVALID_TOPOLOGY" No "the topology is invalid"
    131 StreamsInvalidTopologyEpoch "STREAMS_INVALID_TOPOLOGY_EPOCH" No "the topology epoch is invalid"
    132 StreamsTopologyFenced "STREAMS_TOPOLOGY_FENCED" No "the topology epoch is out of date"
    133 ShareSessionLimitReached "SHARE_SESSION_LIMIT_REACHED" Yes "the broker holds as many share sessions as it may"
}

impl ErrorCode {
    /// The number on the wire.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// Whether this is anything but `NONE`.
    pub fn is_error(self) -> bool {
        self != Self::None
    }

    /// Whether the same request may succeed when it is sent again.
    pub fn is_retriable(self) -> bool {
        self.retry() != Retry::No
    }

    /// Whether the sender should refresh its metadata before it tries again.
    pub fn is_invalid_metadata(self) -> bool {
        self.retry() == Retry::Refresh
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name(), self.message())
    }
}

impl std::error::Error for ErrorCode {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Code, name, retriable, invalid metadata: as Apache Kafka 4.3.1 prints them.
    const APACHE: &str = include_str!("../tests/vectors/error_codes.tsv");

    #[test]
    fn every_code_is_as_in_apache_kafka() {
        let ours: String = ErrorCode::ALL
            .iter()
            .map(|error| {
                let (retry, refresh) = (error.is_retriable(), error.is_invalid_metadata());
                format!("{}\t{}\t{retry}\t{refresh}\n", error.code(), error.name())
            })
            .collect();
        assert_eq!(ours, APACHE);
    }

    #[test]
    fn codes_read_back_and_unknown_ones_do_not() {
        for error in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_code(error.code()), Some(*error));
        }
        assert_eq!(ErrorCode::from_code(-2), None);
        assert_eq!(ErrorCode::from_code(134), None);
    }
}
