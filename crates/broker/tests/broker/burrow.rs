//! The judgement on consumers' lag, at Burrow's endpoints.

use fleuve_protocol::Str;
use fleuve_protocol::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use serde_json::{Value, json};

use crate::support::{TestBroker, TestClient};

async fn start() -> TestBroker {
    TestBroker::start(&[
        ("fleuve.metrics.listen", "127.0.0.1:0"),
        ("offsets.topic.num.partitions", "2"),
    ])
    .await
}

async fn commit(client: &mut TestClient, group: &'static str, offset: i64) {
    let commit = OffsetCommitRequest {
        group_id: Str::from(group),
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: Str::from("words"),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: 1,
                committed_offset: offset,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let committed = client.call(&commit, 9).await;
    assert_eq!(committed.topics[0].partitions[0].error_code, 0);
}

async fn json(broker: &TestBroker, path: &str) -> (String, Value) {
    let answer = broker.get(path).await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).expect("a status").to_owned();
    (status, serde_json::from_str(body).expect("JSON"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_lags_and_is_silent_has_stopped() {
    let broker = start().await;
    let mut client = broker.connect().await;
    client.create_topic("words", 2).await;
    crate::groups::find_coordinator_of(&mut client, "slow").await;
    client.produce("words", 1, &["a", "b", "c"]).await;
    commit(&mut client, "slow", 1).await;
    commit(&mut client, "done", 3).await;
    let (status, clusters) = json(&broker, "/v3/kafka").await;
    assert_eq!((status.as_str(), &clusters["error"]), ("200", &json!(false)));
    let cluster = clusters["clusters"][0].as_str().expect("one cluster").to_owned();
    assert_eq!(cluster, broker.broker.cluster_id().as_str());
    let at = |path: &str| format!("/v3/kafka/{cluster}/{path}");

    let (_, consumers) = json(&broker, &at("consumer")).await;
    assert_eq!(consumers["consumers"], json!(["done", "slow"]));
    let (_, topics) = json(&broker, &at("topic")).await;
    assert_eq!(topics["topics"], json!(["__consumer_offsets", "words"]));
    let (_, ends) = json(&broker, &at("topic/words")).await;
    assert_eq!(ends["offsets"], json!([0, 3]));
    let (_, readers) = json(&broker, &at("topic/words/consumers")).await;
    assert_eq!(readers["consumers"], json!(["done", "slow"]));

    let (_, done) = json(&broker, &at("consumer/done/lag")).await;
    assert_eq!(done["status"]["status"], "OK");
    assert_eq!(done["status"]["partitions"][0]["current_lag"], 0);
    // One commit spans no time, so any silence is longer; but the clock has to move on.
    let stopped = loop {
        let (_, slow) = json(&broker, &at("consumer/slow/status?x=y")).await;
        if slow["status"]["status"] == "ERR" {
            break slow["status"].clone();
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(stopped["totallag"], 2);
    assert_eq!(stopped["maxlag"]["status"], "STOP");
    assert_eq!(stopped["partitions"][0]["partition"], 1);
    assert_eq!(stopped["partitions"][0]["end"]["lag"], 2);
    assert_eq!(stopped["partitions"][0]["complete"], 0.1_f32);
    let (_, detail) = json(&broker, &at("consumer/slow")).await;
    let windows = &detail["topics"]["words"];
    assert_eq!(windows[0]["offsets"], json!([]), "nothing was committed for the first partition");
    assert_eq!(windows[1]["offsets"][9]["offset"], 1);
    assert_eq!(windows[1]["current-lag"], 2);

    let (status, missing) = json(&broker, &at("consumer/nobody/status")).await;
    assert_eq!((status.as_str(), &missing["status"]["status"]), ("404", &json!("NOTFOUND")));
    let (status, missing) = json(&broker, "/v3/kafka/elsewhere/consumer").await;
    assert_eq!((status.as_str(), &missing["error"]), ("404", &json!(true)));
    assert!(broker.get("/v3/config").await.starts_with("HTTP/1.1 404"));

    let page = broker.get("/metrics").await;
    for line in [
        format!("burrow_kafka_consumer_status{{cluster=\"{cluster}\",consumer_group=\"slow\"}} 3"),
        "kafka_consumergroup_lag_sum{consumergroup=\"slow\",topic=\"words\"} 2".to_owned(),
        "kafka_consumergroup_lag{consumergroup=\"done\",topic=\"words\",partition=\"1\"} 0"
            .to_owned(),
        "kafka_coordinator_group_groupmetadatamanager_numgroupsempty 2".to_owned(),
    ] {
        assert!(page.lines().any(|known| known == line), "{line} is missing in\n{page}");
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_before_a_restart_is_known_after_it() {
    let broker = start().await;
    let mut client = broker.connect().await;
    client.create_topic("words", 2).await;
    crate::groups::find_coordinator_of(&mut client, "slow").await;
    client.produce("words", 1, &["a", "b", "c"]).await;
    commit(&mut client, "slow", 1).await;
    let directory = broker.stop().await;
    let keys = [("fleuve.metrics.listen", "127.0.0.1:0")];
    let broker = TestBroker::start_in(directory, &keys).await;
    let cluster = broker.broker.cluster_id().to_string();
    let path = format!("/v3/kafka/{cluster}/consumer/slow/lag");
    // Groups are loaded beside everything else.
    let lag = loop {
        let (status, lag) = json(&broker, &path).await;
        if status == "200" {
            break lag["status"].clone();
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((&lag["totallag"], &lag["status"]), (&json!(2), &json!("OK")), "it has a minute");
    assert_eq!(lag["partitions"][0]["end"]["lag"], Value::Null);
    broker.stop().await;
}
