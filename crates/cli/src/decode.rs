//! Records of the system's topics, as Kafka's tools show them.
//!
//! A key of a coordinator's topic begins with the number of its type, a value with the number of
//! its version; a metadata record has no key and begins with a frame version, type and version.

use bytes::Bytes;
use fleuve_protocol::json::{Json, show};
use fleuve_protocol::messages::*;
use fleuve_protocol::records::{ControlRecordType, EndTransactionMarker, Record};
use fleuve_protocol::{Message, Reader};
use serde_json::{Value, json};

/// Which records are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decoder {
    /// Committed offsets in `__consumer_offsets`.
    Offsets,
    /// Classic groups in `__consumer_offsets`.
    Groups,
    /// Everything in `__consumer_offsets`.
    Coordinator,
    /// `__transaction_state`.
    Transactions,
    /// Share groups in `__consumer_offsets`.
    ShareGroups,
    /// `__share_group_state`.
    Shares,
    /// `__cluster_metadata`.
    Metadata,
}

impl Decoder {
    /// Shows a record of a kind that was asked for; `None` for others.
    pub(crate) fn decode(self, key: Option<&[u8]>, value: Option<&[u8]>) -> Option<Value> {
        let number = key_type(key?)?;
        if !self.includes(number) {
            return None;
        }
        let (key, value) = self.parts(key, value)?;
        Some(json!({ "key": key, "value": value }))
    }

    /// Shows the key and the value of a record apart, as far as they can be read.
    pub(crate) fn parts(self, key: Option<&[u8]>, value: Option<&[u8]>) -> Option<(Value, Value)> {
        if self == Self::Metadata {
            return Some((Value::Null, metadata(value?)?));
        }
        let key = key?;
        let number = key_type(key)?;
        match self {
            Self::Offsets | Self::Groups | Self::ShareGroups | Self::Coordinator => {
                coordinator(number, key, value)
            }
            Self::Transactions => transactions(number, key, value),
            Self::Shares => shares(number, key, value),
            Self::Metadata => None,
        }
    }

    fn includes(self, number: i16) -> bool {
        match self {
            Self::Offsets => matches!(number, 0 | 1),
            Self::Groups => number == 2,
            // Of the group, of each member, and what its share-partitions are initialized for.
            Self::ShareGroups => matches!(number, 10..=15),
            _ => true,
        }
    }
}

fn key_type(key: &[u8]) -> Option<i16> {
    Some(i16::from_be_bytes(*key.first_chunk()?))
}

/// Reads key and value of a record whose types are known.
fn pair<K: Message + Json, V: Message + Json>(
    number: i16,
    key: &[u8],
    value: Option<&[u8]>,
) -> Option<(Value, Value)> {
    let mut reader = Reader::new(Bytes::copy_from_slice(key.get(2..)?));
    // Keys have the one version 0; the number in front is the type.
    let key = K::decode(&mut reader, 0).ok()?;
    let key = json!({ "type": number, "data": show(&key, 0) });
    let Some(value) = value else { return Some((key, Value::Null)) };
    let version = i16::from_be_bytes(*value.first_chunk()?);
    let mut reader = Reader::new(Bytes::copy_from_slice(value.get(2..)?));
    let data = V::decode(&mut reader, version).ok()?;
    Some((key, json!({ "version": version, "data": show(&data, version) })))
}

/// Chooses the types of key and value by the number in the key.
macro_rules! by_number {
    ($number:expr, $key:expr, $value:expr, $($at:pat => $k:ident, $v:ident;)*) => {
        match $number {
            $($at => pair::<$k, $v>($number, $key, $value),)*
            _ => None,
        }
    };
}

fn coordinator(number: i16, key: &[u8], value: Option<&[u8]>) -> Option<(Value, Value)> {
    by_number! { number, key, value,
        0 | 1 => OffsetCommitKey, OffsetCommitValue;
        2 => GroupMetadataKey, GroupMetadataValue;
        3 => ConsumerGroupMetadataKey, ConsumerGroupMetadataValue;
        4 => ConsumerGroupPartitionMetadataKey, ConsumerGroupPartitionMetadataValue;
        5 => ConsumerGroupMemberMetadataKey, ConsumerGroupMemberMetadataValue;
        6 => ConsumerGroupTargetAssignmentMetadataKey, ConsumerGroupTargetAssignmentMetadataValue;
        7 => ConsumerGroupTargetAssignmentMemberKey, ConsumerGroupTargetAssignmentMemberValue;
        8 => ConsumerGroupCurrentMemberAssignmentKey, ConsumerGroupCurrentMemberAssignmentValue;
        10 => ShareGroupMemberMetadataKey, ShareGroupMemberMetadataValue;
        11 => ShareGroupMetadataKey, ShareGroupMetadataValue;
        12 => ShareGroupTargetAssignmentMetadataKey, ShareGroupTargetAssignmentMetadataValue;
        13 => ShareGroupTargetAssignmentMemberKey, ShareGroupTargetAssignmentMemberValue;
        14 => ShareGroupCurrentMemberAssignmentKey, ShareGroupCurrentMemberAssignmentValue;
        15 => ShareGroupStatePartitionMetadataKey, ShareGroupStatePartitionMetadataValue;
        16 => ConsumerGroupRegularExpressionKey, ConsumerGroupRegularExpressionValue;
        17 => StreamsGroupMetadataKey, StreamsGroupMetadataValue;
        19 => StreamsGroupMemberMetadataKey, StreamsGroupMemberMetadataValue;
        20 => StreamsGroupTargetAssignmentMetadataKey, StreamsGroupTargetAssignmentMetadataValue;
        21 => StreamsGroupTargetAssignmentMemberKey, StreamsGroupTargetAssignmentMemberValue;
        22 => StreamsGroupCurrentMemberAssignmentKey, StreamsGroupCurrentMemberAssignmentValue;
        23 => StreamsGroupTopologyKey, StreamsGroupTopologyValue;
    }
}

fn transactions(number: i16, key: &[u8], value: Option<&[u8]>) -> Option<(Value, Value)> {
    by_number! { number, key, value,
        0 => TransactionLogKey, TransactionLogValue;
    }
}

fn shares(number: i16, key: &[u8], value: Option<&[u8]>) -> Option<(Value, Value)> {
    by_number! { number, key, value,
        0 => ShareSnapshotKey, ShareSnapshotValue;
        1 => ShareUpdateKey, ShareUpdateValue;
    }
}

/// Reads a metadata record: three unsigned varints (frame version, type, version), then the data.
fn metadata(value: &[u8]) -> Option<Value> {
    let mut rest = value;
    let mut varint = || {
        let mut number = 0u32;
        for shift in (0..35).step_by(7) {
            let (byte, after) = rest.split_first()?;
            rest = after;
            number |= u32::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return i16::try_from(number).ok();
            }
        }
        None
    };
    let (_frame, number, version) = (varint()?, varint()?, varint()?);
    let mut reader = Reader::new(Bytes::copy_from_slice(rest));
    macro_rules! by_type {
        ($($at:literal $name:literal => $kind:ident;)*) => {
            match number {
                $($at => {
                    let data = $kind::decode(&mut reader, version).ok()?;
                    Some(json!({ "type": $name, "version": version, "data": show(&data, version) }))
                })*
                _ => None,
            }
        };
    }
    by_type! {
        0 "REGISTER_BROKER_RECORD" => RegisterBrokerRecord;
        1 "UNREGISTER_BROKER_RECORD" => UnregisterBrokerRecord;
        2 "TOPIC_RECORD" => TopicRecord;
        3 "PARTITION_RECORD" => PartitionRecord;
        4 "CONFIG_RECORD" => ConfigRecord;
        5 "PARTITION_CHANGE_RECORD" => PartitionChangeRecord;
        7 "FENCE_BROKER_RECORD" => FenceBrokerRecord;
        8 "UNFENCE_BROKER_RECORD" => UnfenceBrokerRecord;
        9 "REMOVE_TOPIC_RECORD" => RemoveTopicRecord;
        10 "DELEGATION_TOKEN_RECORD" => DelegationTokenRecord;
        11 "USER_SCRAM_CREDENTIAL_RECORD" => UserScramCredentialRecord;
        12 "FEATURE_LEVEL_RECORD" => FeatureLevelRecord;
        14 "CLIENT_QUOTA_RECORD" => ClientQuotaRecord;
        15 "PRODUCER_IDS_RECORD" => ProducerIdsRecord;
        17 "BROKER_REGISTRATION_CHANGE_RECORD" => BrokerRegistrationChangeRecord;
        18 "ACCESS_CONTROL_ENTRY_RECORD" => AccessControlEntryRecord;
        19 "REMOVE_ACCESS_CONTROL_ENTRY_RECORD" => RemoveAccessControlEntryRecord;
        20 "NO_OP_RECORD" => NoOpRecord;
        21 "ZK_MIGRATION_STATE_RECORD" => ZkMigrationStateRecord;
        22 "REMOVE_USER_SCRAM_CREDENTIAL_RECORD" => RemoveUserScramCredentialRecord;
        23 "BEGIN_TRANSACTION_RECORD" => BeginTransactionRecord;
        24 "END_TRANSACTION_RECORD" => EndTransactionRecord;
        25 "ABORT_TRANSACTION_RECORD" => AbortTransactionRecord;
        26 "REMOVE_DELEGATION_TOKEN_RECORD" => RemoveDelegationTokenRecord;
        27 "REGISTER_CONTROLLER_RECORD" => RegisterControllerRecord;
        28 "CLEAR_ELR_RECORD" => ClearElrRecord;
    }
}

/// What a control record says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Control {
    /// Its type.
    pub(crate) name: &'static str,
    /// All of it, as Kafka's tool writes it.
    pub(crate) text: String,
    /// What it holds.
    pub(crate) data: Value,
}

/// Reads a control record.
pub(crate) fn control(record: &Record<'_>) -> Result<Control, String> {
    let marker = EndTransactionMarker::of(record).map_err(|error| error.to_string())?;
    if let Some(EndTransactionMarker { committed, coordinator_epoch }) = marker {
        let name = if committed { "COMMIT" } else { "ABORT" };
        let text = format!("endTxnMarker: {name} coordinatorEpoch: {coordinator_epoch}");
        return Ok(Control { name, text, data: json!({ "coordinatorEpoch": coordinator_epoch }) });
    }
    let value = record.value.unwrap_or_default();
    let kind = ControlRecordType::of(record).map_err(|error| error.to_string())?;
    let (name, label, data) = match kind {
        ControlRecordType::LeaderChange => {
            ("LEADER_CHANGE", "LeaderChange:", versioned::<LeaderChangeMessage>(value))
        }
        ControlRecordType::SnapshotHeader => {
            ("SNAPSHOT_HEADER", "SnapshotHeader", versioned::<SnapshotHeaderRecord>(value))
        }
        ControlRecordType::SnapshotFooter => {
            ("SNAPSHOT_FOOTER", "SnapshotFooter", versioned::<SnapshotFooterRecord>(value))
        }
        ControlRecordType::KraftVersion => {
            ("KRAFT_VERSION", "KRaftVersion", versioned::<KRaftVersionRecord>(value))
        }
        ControlRecordType::KraftVoters => {
            ("KRAFT_VOTERS", "KRaftVoters", versioned::<VotersRecord>(value))
        }
        ControlRecordType::Abort | ControlRecordType::Commit | ControlRecordType::Unknown(_) => {
            let text = format!("controlType: UNKNOWN({})", kind.id());
            return Ok(Control { name: "UNKNOWN", text, data: Value::Null });
        }
    };
    let data = data.ok_or_else(|| format!("{label} cannot be read"))?;
    Ok(Control { name, text: format!("{label} {data}"), data })
}

/// Reads a message that begins with the version it is written in.
fn versioned<M: Message + Json>(value: &[u8]) -> Option<Value> {
    let version = i16::from_be_bytes(*value.first_chunk()?);
    if !M::VALID_VERSIONS.contains(version) {
        return None;
    }
    let message = M::decode(&mut Reader::new(Bytes::copy_from_slice(value)), version).ok()?;
    Some(show(&message, version))
}

#[cfg(test)]
mod tests {
    use fleuve_protocol::Writer;
    use fleuve_protocol::records::Headers;
    use fleuve_types::{Offset, TimestampMs};

    use super::*;

    fn bytes<M: Message>(number: i16, message: &M, version: i16) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.write_i16(number);
        message.encode(&mut writer, version).expect("valid");
        writer.into_bytes().to_vec()
    }

    #[test]
    fn an_offset_is_shown_and_a_group_passed_over() {
        let key = OffsetCommitKey { group: "g".into(), topic: "t".into(), partition: 3 };
        let key = bytes(1, &key, 0);
        let value = OffsetCommitValue { offset: 42, ..Default::default() };
        let value = bytes(4, &value, 4);
        let shown = Decoder::Offsets.decode(Some(&key), Some(&value)).expect("an offset");
        assert_eq!(shown["key"]["data"], json!({ "group": "g", "topic": "t", "partition": 3 }));
        assert_eq!((&shown["key"]["type"], &shown["value"]["version"]), (&json!(1), &json!(4)));
        assert_eq!(shown["value"]["data"]["offset"], 42);
        assert_eq!(Decoder::Groups.decode(Some(&key), Some(&value)), None);
        let tombstone = Decoder::Offsets.decode(Some(&key), None).expect("a tombstone");
        assert_eq!(tombstone["value"], Value::Null);
    }

    #[test]
    fn control_records_are_called_what_they_are() {
        let said = |kind: ControlRecordType, value: &[u8]| {
            control(&Record {
                offset: Offset(0),
                timestamp: TimestampMs(0),
                key: Some(&kind.key()),
                value: Some(value),
                headers: Headers::default(),
            })
        };
        let text = |kind, value: &[u8]| said(kind, value).expect("well formed").text;
        assert_eq!(
            text(ControlRecordType::Commit, &[0, 0, 0, 0, 0, 7]),
            "endTxnMarker: COMMIT coordinatorEpoch: 7"
        );
        let mut writer = Writer::new();
        let header = SnapshotHeaderRecord { version: 0, last_contained_log_timestamp: 5 };
        header.encode(&mut writer, 0).expect("valid");
        assert_eq!(
            text(ControlRecordType::SnapshotHeader, &writer.into_bytes()),
            r#"SnapshotHeader {"version":0,"lastContainedLogTimestamp":5}"#
        );
        let mut writer = Writer::new();
        LeaderChangeMessage { leader_id: 1, ..Default::default() }
            .encode(&mut writer, 0)
            .expect("valid");
        let change = said(ControlRecordType::LeaderChange, &writer.into_bytes()).expect("valid");
        assert_eq!((change.name, &change.data["leaderId"]), ("LEADER_CHANGE", &json!(1)));
        assert!(change.text.starts_with("LeaderChange: {\"version\":0,"), "{}", change.text);
        assert_eq!(text(ControlRecordType::Unknown(9), b""), "controlType: UNKNOWN(9)");
        assert!(said(ControlRecordType::Commit, b"").is_err());
        assert!(said(ControlRecordType::KraftVoters, b"\0\x63").is_err());
    }

    #[test]
    fn damage_is_no_record() {
        for bytes in [&b""[..], b"\0", b"\0\x01", b"\0\x01\xff\xff\xff\xff", b"\x7f\xff"] {
            for decoder in [Decoder::Coordinator, Decoder::Transactions, Decoder::Shares] {
                assert_eq!(decoder.parts(Some(bytes), None), None, "{bytes:?}");
            }
            assert_eq!(Decoder::Metadata.parts(None, Some(bytes)), None, "{bytes:?}");
        }
    }
}
