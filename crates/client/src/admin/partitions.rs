//! Partitions: their offsets, and deleting their oldest records.

use std::collections::HashMap;

use fleuve_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use fleuve_types::TopicPartition;

use super::Admin;
use crate::client::PartitionAnswer;
use crate::config::IsolationLevel;
use crate::consumer::{LogOffset, offsets};
use crate::error::Result;

impl Admin {
    /// Asks for the offsets of timestamps, or of [`crate::consumer::EARLIEST`],
    /// [`crate::consumer::LATEST`] and [`crate::consumer::MAX_TIMESTAMP`].
    pub async fn list_offsets(
        &self,
        timestamps: &HashMap<TopicPartition, i64>,
        isolation: IsolationLevel,
    ) -> Result<HashMap<TopicPartition, Result<LogOffset>>> {
        offsets::list_offsets(&self.client, timestamps, isolation).await
    }

    /// Deletes the records before these offsets (-1: all) and returns the new log start offsets.
    pub async fn delete_records(
        &self,
        before: &HashMap<TopicPartition, i64>,
    ) -> Result<HashMap<TopicPartition, Result<i64>>> {
        let partitions: Vec<_> = before.keys().cloned().collect();
        let timeout_ms = self.timeout_ms();
        let build = |theirs: &[TopicPartition], _| {
            let mut topics: Vec<DeleteRecordsTopic> = Vec::new();
            for partition in theirs {
                let asked = DeleteRecordsPartition {
                    partition_index: partition.partition,
                    offset: before[partition],
                };
                match topics.iter_mut().find(|topic| *topic.name == *partition.topic) {
                    Some(topic) => topic.partitions.push(asked),
                    None => topics.push(DeleteRecordsTopic {
                        name: partition.topic.to_string().into(),
                        partitions: vec![asked],
                    }),
                }
            }
            DeleteRecordsRequest { topics, timeout_ms }
        };
        self.client
            .call_leaders::<DeleteRecordsRequest, _>(&partitions, build, |response| {
                let mut answers = Vec::new();
                for topic in response.topics {
                    for answer in topic.partitions {
                        answers.push(PartitionAnswer {
                            partition: TopicPartition::new(&*topic.name, answer.partition_index),
                            error_code: answer.error_code,
                            value: answer.low_watermark,
                        });
                    }
                }
                answers
            })
            .await
    }
}
