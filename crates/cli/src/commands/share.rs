//! The part of `fleuve group` that is about share groups, which have start offsets and lags instead of
//! committed offsets. Which kind a group is of is asked of the cluster.

use std::collections::HashMap;

use fleuve_client::Admin;
use fleuve_client::admin::ShareOffset;
use fleuve_client::consumer::Committed;
use fleuve_types::TopicPartition;
use serde_json::json;

use super::group::Described;
use crate::failure::Failure;

/// Shows where a share group stands.
pub(crate) async fn describe(admin: &Admin, name: &str) -> Result<Described, Failure> {
    let group = admin.describe_share_group(name).await?;
    let offsets = admin.share_group_offsets(name).await?;
    let partitions: Vec<_> = offsets
        .iter()
        .map(|(partition, offset)| {
            json!({
                "topic": *partition.topic, "partition": partition.partition,
                "start_offset": offset.start, "lag": offset.lag,
            })
        })
        .collect();
    let total: i64 = offsets.values().filter_map(|offset| offset.lag).sum();
    let members = group.members.len();
    let number = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let rows = offsets.iter().map(|(partition, offset)| {
        vec![
            partition.topic.to_string(),
            partition.partition.to_string(),
            number(offset.start),
            number(offset.lag),
        ]
    });
    Ok(Described {
        value: json!({
            "group": name, "type": "share", "state": group.state, "members": members,
            "partitions": partitions,
        }),
        headline: format!("{name}  {}  share group  {members} members  lag {total}", group.state),
        headers: &["topic", "partition", "start", "lag"],
        rows: rows.collect(),
    })
}

/// Where a share group stands, in the form that plans of resets are made from.
pub(crate) async fn starts(
    admin: &Admin,
    name: &str,
) -> Result<HashMap<TopicPartition, Committed>, Failure> {
    let offsets = admin.share_group_offsets(name).await?;
    let known = |(partition, offset): (TopicPartition, ShareOffset)| {
        Some((partition, Committed::at(offset.start?)))
    };
    Ok(offsets.into_iter().filter_map(known).collect())
}
