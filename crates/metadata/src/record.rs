//! Records of the metadata log, and the bytes they are stored as.
//!
//! The key of such a record is null; the value is framed as in Kafka's `__cluster_metadata`:
//!
//! ```text
//! frame version  uvarint   always 1
//! type           uvarint   the record's API key
//! version        uvarint   the version of its layout
//! body           message of that type and version
//! ```
//!
//! Versions written are those of `metadata.version` 30 (4.3-IV0). Every version we know is read.
//! A type we do not know is an error and not skipped: an ACL left out would open what somebody
//! closed.

use bytes::Bytes;
use fleuve_protocol::messages::abort_transaction_record::AbortTransactionRecord;
use fleuve_protocol::messages::access_control_entry_record::AccessControlEntryRecord;
use fleuve_protocol::messages::begin_transaction_record::BeginTransactionRecord;
use fleuve_protocol::messages::broker_registration_change_record::BrokerRegistrationChangeRecord;
use fleuve_protocol::messages::clear_elr_record::ClearElrRecord;
use fleuve_protocol::messages::client_quota_record::ClientQuotaRecord;
use fleuve_protocol::messages::config_record::ConfigRecord;
use fleuve_protocol::messages::delegation_token_record::DelegationTokenRecord;
use fleuve_protocol::messages::end_transaction_record::EndTransactionRecord;
use fleuve_protocol::messages::feature_level_record::FeatureLevelRecord;
use fleuve_protocol::messages::fence_broker_record::FenceBrokerRecord;
use fleuve_protocol::messages::no_op_record::NoOpRecord;
use fleuve_protocol::messages::partition_change_record::PartitionChangeRecord;
use fleuve_protocol::messages::partition_record::PartitionRecord;
use fleuve_protocol::messages::producer_ids_record::ProducerIdsRecord;
use fleuve_protocol::messages::register_broker_record::RegisterBrokerRecord;
use fleuve_protocol::messages::register_controller_record::RegisterControllerRecord;
use fleuve_protocol::messages::remove_access_control_entry_record::RemoveAccessControlEntryRecord;
use fleuve_protocol::messages::remove_delegation_token_record::RemoveDelegationTokenRecord;
use fleuve_protocol::messages::remove_topic_record::RemoveTopicRecord;
use fleuve_protocol::messages::remove_user_scram_credential_record::RemoveUserScramCredentialRecord;
use fleuve_protocol::messages::topic_record::TopicRecord;
use fleuve_protocol::messages::unfence_broker_record::UnfenceBrokerRecord;
use fleuve_protocol::messages::unregister_broker_record::UnregisterBrokerRecord;
use fleuve_protocol::messages::user_scram_credential_record::UserScramCredentialRecord;
use fleuve_protocol::messages::zk_migration_state_record::ZkMigrationStateRecord;
use fleuve_protocol::{DecodeError, EncodeError, Message, Reader, Writer};

/// Reports bytes that are not a metadata record we can read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeRecordError {
    /// The frame around the record has a version of its own that we do not know.
    #[error("metadata record in a frame of version {0}; this release reads version 1")]
    Frame(u32),
    /// The type is unknown to this release, or known and not served.
    #[error("metadata record of type {0}, which this release does not know; use a newer one")]
    UnknownType(u32),
    /// The type is known and its layout is not.
    #[error(
        "{name} of version {version}, but this release reads {least} to {most}; use a newer one"
    )]
    UnknownVersion {
        /// Kafka's name of the record.
        name: &'static str,
        /// The version it is stored in.
        version: u32,
        /// The oldest version that can be read.
        least: i16,
        /// The newest version that can be read.
        most: i16,
    },
    /// The body is not what the type and version promise.
    #[error("metadata record is damaged: {0}")]
    Body(#[from] DecodeError),
    /// Bytes are left over.
    #[error("{name} is followed by {count} bytes that do not belong to it")]
    Trailing {
        /// Kafka's name of the record.
        name: &'static str,
        /// How many bytes are left.
        count: usize,
    },
}

/// The frame version that Kafka writes.
const FRAME_VERSION: u32 = 1;

macro_rules! records {
    ($($(#[$doc:meta])* $name:ident($message:ty) = $version:literal,)*) => {
        /// A record of the metadata log.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Record {
            $($(#[$doc])* $name($message),)*
        }

        impl Record {
            /// Returns Kafka's name of the record.
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => <$message>::NAME,)*
                }
            }

            /// Returns the bytes to store as the record's value.
            ///
            /// An error means that a field holds what its layout cannot, such as a text of more
            /// than 32767 bytes, where that is the limit.
            pub fn encode(&self) -> Result<Bytes, EncodeError> {
                let mut writer = Writer::new();
                writer.write_uvarint(FRAME_VERSION);
                match self {
                    $(Self::$name(message) => {
                        let api_key = <$message>::API_KEY.expect("metadata records have a type");
                        writer.write_uvarint(api_key as u32);
                        writer.write_uvarint($version);
                        message.encode(&mut writer, $version)?;
                    })*
                }
                Ok(writer.into_bytes())
            }

            fn decode_body(
                api_key: u32,
                version: u32,
                reader: &mut Reader,
            ) -> Result<Self, DecodeRecordError> {
                $(if <$message>::API_KEY.is_some_and(|known| known as u32 == api_key) {
                    return decode_message::<$message>(version, reader).map(Self::$name);
                })*
                Err(DecodeRecordError::UnknownType(api_key))
            }
        }

        $(impl From<$message> for Record {
            fn from(message: $message) -> Self {
                Self::$name(message)
            }
        })*
    };
}

records! {
    /// A broker has joined, or joined anew.
    RegisterBroker(RegisterBrokerRecord) = 4,
    /// A broker has left for good.
    UnregisterBroker(UnregisterBrokerRecord) = 0,
    /// A topic exists; its partitions follow.
    Topic(TopicRecord) = 0,
    /// A partition exists.
    Partition(PartitionRecord) = 2,
    /// A config is set, or with null deleted.
    Config(ConfigRecord) = 0,
    /// Something about a partition is different now.
    PartitionChange(PartitionChangeRecord) = 2,
    /// A broker is out of reach.
    FenceBroker(FenceBrokerRecord) = 0,
    /// A broker is back.
    UnfenceBroker(UnfenceBrokerRecord) = 0,
    /// A topic is gone, with its partitions and configs.
    RemoveTopic(RemoveTopicRecord) = 0,
    /// A feature has this level now.
    FeatureLevel(FeatureLevelRecord) = 0,
    /// Producer ids below this one are given out.
    ProducerIds(ProducerIdsRecord) = 0,
    /// Something about a broker is different now.
    BrokerRegistrationChange(BrokerRegistrationChangeRecord) = 3,
    /// Nothing; controllers write it to show that they are alive.
    NoOp(NoOpRecord) = 0,
    /// The records up to the end count together or not at all.
    BeginTransaction(BeginTransactionRecord) = 0,
    /// The records since the begin count.
    EndTransaction(EndTransactionRecord) = 0,
    /// The records since the begin do not count.
    AbortTransaction(AbortTransactionRecord) = 0,
    /// The eligible leader replicas of a topic, or of all, are forgotten.
    ClearElr(ClearElrRecord) = 0,
    /// A controller has joined.
    RegisterController(RegisterControllerRecord) = 0,
    /// A quota is set, or removed.
    ClientQuota(ClientQuotaRecord) = 0,
    /// A user has a credential.
    UserScramCredential(UserScramCredentialRecord) = 0,
    /// A credential is gone.
    RemoveUserScramCredential(RemoveUserScramCredentialRecord) = 0,
    /// An access control entry exists.
    AccessControlEntry(AccessControlEntryRecord) = 0,
    /// An access control entry is gone.
    RemoveAccessControlEntry(RemoveAccessControlEntryRecord) = 0,
    /// A delegation token exists, or has another expiry.
    DelegationToken(DelegationTokenRecord) = 0,
    /// A delegation token is gone.
    RemoveDelegationToken(RemoveDelegationTokenRecord) = 0,
    /// How far a migration from ZooKeeper had come; means nothing any more.
    ZkMigrationState(ZkMigrationStateRecord) = 0,
}

impl Record {
    /// Reads a record from the value it is stored as.
    pub fn decode(value: Bytes) -> Result<Self, DecodeRecordError> {
        let mut reader = Reader::new(value);
        let frame = reader.read_uvarint("frame version")?;
        if frame != FRAME_VERSION {
            return Err(DecodeRecordError::Frame(frame));
        }
        let api_key = reader.read_uvarint("type")?;
        let version = reader.read_uvarint("version")?;
        let record = Self::decode_body(api_key, version, &mut reader)?;
        match reader.remaining() {
            0 => Ok(record),
            count => Err(DecodeRecordError::Trailing { name: record.name(), count }),
        }
    }
}

fn decode_message<M: Message>(version: u32, reader: &mut Reader) -> Result<M, DecodeRecordError> {
    match i16::try_from(version) {
        Ok(number) if M::VALID_VERSIONS.contains(number) => Ok(M::decode(reader, number)?),
        _ => Err(DecodeRecordError::UnknownVersion {
            name: M::NAME,
            version,
            least: M::VALID_VERSIONS.min,
            most: M::VALID_VERSIONS.max,
        }),
    }
}

#[cfg(test)]
mod tests;
