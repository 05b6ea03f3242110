//! Routing and retries against a scripted broker.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fleuve_protocol::messages::delete_groups_response::{
    DeletableGroupResult, DeleteGroupsResponse,
};
use fleuve_protocol::messages::find_coordinator_response::{Coordinator, FindCoordinatorResponse};
use fleuve_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use fleuve_protocol::{ApiKey, ErrorCode};
use fleuve_types::TopicPartition;

use crate::config::IsolationLevel;
use crate::error::{Advice, Error};
use crate::scripted::{Reply, ScriptedBroker, all_versions, metadata, send};
use crate::{Admin, consumer::LATEST};

#[tokio::test]
async fn a_refused_bootstrap_list_is_reported_at_once() {
    let broker = ScriptedBroker::new(1, |_| Reply::Nothing);
    broker.refuse(&[ErrorKind::ConnectionRefused]);
    let error = broker.client().refresh(&[], false).await.expect_err("refused");
    assert!(matches!(error, Error::NoBroker { refused: true, .. }), "{error}");
    assert_eq!(error.advice(), Advice::Retry);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_fails_once_is_tried_again_after_a_pause() {
    let broker = ScriptedBroker::new(1, |_| Reply::Nothing);
    broker.refuse(&[ErrorKind::ConnectionReset, ErrorKind::ConnectionRefused]);
    let topic = broker.client().topic("t", false).await.expect("third attempt");
    assert_eq!(topic.partitions.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_partition_whose_leader_moved_is_asked_for_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let broker = ScriptedBroker::new(1, move |request| {
        let code = match counter.fetch_add(1, Ordering::Relaxed) {
            0 => ErrorCode::NotLeaderOrFollower,
            _ => ErrorCode::None,
        };
        let partition = ListOffsetsPartitionResponse {
            error_code: code.code(),
            offset: 42,
            ..Default::default()
        };
        let topic = ListOffsetsTopicResponse { name: "t".into(), partitions: vec![partition] };
        send(&request, &ListOffsetsResponse { topics: vec![topic], ..Default::default() })
    });
    let partition = TopicPartition::new("t", 0);
    let asked_for = HashMap::from([(partition.clone(), LATEST)]);
    let found = Admin::new(broker.client())
        .list_offsets(&asked_for, IsolationLevel::ReadUncommitted)
        .await
        .expect("answered");
    assert_eq!(found[&partition].as_ref().expect("found").offset, 42);
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn an_error_that_a_retry_cannot_mend_comes_back_at_once() {
    let broker = ScriptedBroker::new(1, |_| Reply::Nothing);
    let asked_for = HashMap::from([(TopicPartition::new("t", 9), LATEST)]);
    let found = Admin::new(broker.client())
        .list_offsets(&asked_for, IsolationLevel::ReadUncommitted)
        .await
        .expect("a result for each");
    let error = found[&TopicPartition::new("t", 9)].as_ref().expect_err("no such partition");
    assert!(matches!(error, Error::NoSuchPartition { partition: 9, count: 1, .. }), "{error}");
    assert_eq!(error.advice(), Advice::Fix);
}

#[tokio::test(start_paused = true)]
async fn a_group_whose_coordinator_moved_is_looked_for_again() {
    let lookups = Arc::new(AtomicUsize::new(0));
    let counter = lookups.clone();
    let mut deletions = 0;
    let broker = ScriptedBroker::new(1, move |request| match request.key {
        ApiKey::FindCoordinator => {
            counter.fetch_add(1, Ordering::Relaxed);
            let coordinator = Coordinator {
                key: "g".into(),
                node_id: 1,
                host: "broker".into(),
                port: 9092,
                ..Default::default()
            };
            let coordinators = vec![coordinator];
            send(&request, &FindCoordinatorResponse { coordinators, ..Default::default() })
        }
        _ => {
            deletions += 1;
            let code = if deletions == 1 { ErrorCode::NotCoordinator } else { ErrorCode::None };
            let result = DeletableGroupResult { group_id: "g".into(), error_code: code.code() };
            send(&request, &DeleteGroupsResponse { results: vec![result], ..Default::default() })
        }
    });
    Admin::new(broker.client()).delete_group("g").await.expect("deleted by the second");
    assert_eq!(lookups.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn many_who_ask_for_a_topic_at_once_share_an_answer() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let broker = ScriptedBroker::raw(move |request| match request.key {
        ApiKey::ApiVersions => send(&request, &all_versions()),
        _ => {
            counter.fetch_add(1, Ordering::Relaxed);
            send(&request, &metadata(3))
        }
    });
    let client = broker.client();
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.topic("t", true).await.map(|t| t.partitions.len()) })
        })
        .collect();
    for one in waiting {
        assert_eq!(one.await.expect("no panic").expect("found"), 3);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}
