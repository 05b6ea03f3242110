//! Share groups (KIP-932): several members of one partition, acknowledgements of every kind.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleuve::client::admin::{Alteration, Resource};
use fleuve::client::config::{AcknowledgementMode, AcquireMode, ShareConsumerConfig};
use fleuve::client::share::{Acknowledge, ShareRecords};
use fleuve::client::{Admin, ShareConsumer};
use fleuve_protocol::{ApiKey, ErrorCode};
use fleuve_types::TopicPartition;

use crate::target::{PATIENCE, Target, for_each_target, unique};

for_each_target! {
    members_divide_the_records_of_one_partition
    explicit_acknowledgements_decide_who_gets_a_record_again
    polling_over_open_records_is_refused_and_unknown_records_are_told
    what_a_member_has_in_hand_goes_to_others_when_it_closes
    a_renewed_record_stays_in_hand
}

/// A group that reads from the beginning, as far as the broker has share groups at all.
async fn group(target: &Target, locks_ms: u32) -> Option<String> {
    if !target.offers(ApiKey::ShareFetch).await {
        return None;
    }
    let group = unique("share");
    let admin = Admin::new(target.client().await);
    let settings = [
        Alteration::Set("share.auto.offset.reset".to_owned(), "earliest".to_owned()),
        Alteration::Set("share.record.lock.duration.ms".to_owned(), locks_ms.to_string()),
    ];
    admin.alter_configs(&Resource::Group(group.clone()), &settings, false).await.expect("set");
    Some(group)
}

fn explicit(group: &str) -> ShareConsumerConfig {
    ShareConsumerConfig {
        acknowledgement_mode: AcknowledgementMode::Explicit,
        acquire_mode: AcquireMode::RecordLimit,
        ..ShareConsumerConfig::new(group)
    }
}

async fn member(target: &Target, config: ShareConsumerConfig, topic: &str) -> ShareConsumer {
    let consumer = ShareConsumer::new(target.client().await, config).expect("valid");
    consumer.subscribe(&[topic]).expect("open");
    consumer
}

async fn some(consumer: &ShareConsumer) -> ShareRecords {
    consumer.poll(PATIENCE).await.expect("readable").expect("records")
}

fn texts(records: &ShareRecords) -> Vec<String> {
    let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into();
    records.iter().map(|record| text(record.value)).collect()
}

async fn members_divide_the_records_of_one_partition(target: &Target) {
    let Some(group) = group(target, 30_000).await else { return };
    let topic = target.topic("divided", 1).await;
    let names: Vec<String> = (0..200).map(|index| index.to_string()).collect();
    for part in names.chunks(10) {
        let part: Vec<_> = part.iter().map(String::as_str).collect();
        target.write(&topic, 0, &part).await;
    }
    let config = ShareConsumerConfig {
        max_poll_records: 10,
        acquire_mode: AcquireMode::RecordLimit,
        ..ShareConsumerConfig::new(&group)
    };
    let members =
        [member(target, config.clone(), &topic).await, member(target, config, &topic).await];
    let mut seen = Vec::new();
    while seen.len() < names.len() {
        for member in &members {
            if let Some(records) = member.poll(Duration::from_secs(1)).await.expect("readable") {
                seen.extend(texts(&records));
            }
        }
    }
    let once: BTreeSet<_> = seen.iter().collect();
    assert_eq!((once.len(), seen.len()), (names.len(), names.len()), "each record once");
    for member in members {
        for (partition, result) in member.commit().await.expect("open") {
            result.unwrap_or_else(|error| panic!("{partition}: {error}"));
        }
        member.close().await.expect("closed");
    }
    // All of it is accepted, so that nobody gets it again.
    let late = member(target, ShareConsumerConfig::new(&group), &topic).await;
    assert!(late.poll(Duration::from_secs(1)).await.expect("readable").is_none());
    late.close().await.expect("closed");
}

async fn explicit_acknowledgements_decide_who_gets_a_record_again(target: &Target) {
    let Some(group) = group(target, 30_000).await else { return };
    let topic = target.topic("explicit", 1).await;
    target.write(&topic, 0, &["accept", "release", "reject"]).await;
    let partition = TopicPartition::new(&*topic, 0);
    let consumer = member(target, explicit(&group), &topic).await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = told.clone();
    consumer.set_acknowledgement_callback(Arc::new(move |partition, runs, result| {
        heard.lock().expect("no panic").push((partition.clone(), runs.to_vec(), result.is_ok()));
    }));
    let records = some(&consumer).await;
    assert_eq!(texts(&records), ["accept", "release", "reject"]);
    for (record, verdict) in
        records.iter().zip([Acknowledge::Accept, Acknowledge::Release, Acknowledge::Reject])
    {
        assert_eq!(record.delivery_count, 1);
        consumer.acknowledge(&partition, record.offset.0, verdict).expect("in hand");
    }
    let results = consumer.commit().await.expect("open");
    assert!(results[&partition].is_ok(), "{results:?}");
    assert_eq!(
        *told.lock().expect("no panic"),
        [(partition.clone(), vec![(0, 0), (1, 1), (2, 2)], true)]
    );
    let again = some(&consumer).await;
    assert_eq!(texts(&again), ["release"]);
    assert_eq!(again.iter().next().map(|record| record.delivery_count), Some(2));
    consumer.acknowledge(&partition, 1, Acknowledge::Accept).expect("in hand");
    let (done, answered) = tokio::sync::oneshot::channel();
    let send = move |results| done.send(results).expect("waited for");
    consumer.commit_async(send).expect("open");
    assert!(answered.await.expect("called")[&partition].is_ok());
    assert!(consumer.poll(Duration::from_secs(1)).await.expect("readable").is_none());
    consumer.close().await.expect("closed");
}

async fn polling_over_open_records_is_refused_and_unknown_records_are_told(target: &Target) {
    let Some(group) = group(target, 30_000).await else { return };
    let topic = target.topic("open", 1).await;
    target.write(&topic, 0, &["a", "b"]).await;
    let partition = TopicPartition::new(&*topic, 0);
    let consumer = member(target, explicit(&group), &topic).await;
    let mut offsets: Vec<_> = some(&consumer).await.iter().map(|r| r.offset.0).collect();
    let error = consumer.poll(PATIENCE).await.expect_err("open records");
    assert!(error.to_string().contains("offset 0"), "{error}");
    consumer.acknowledge(&partition, 7, Acknowledge::Accept).expect_err("never given");
    while offsets.len() < 2 {
        for offset in &offsets {
            consumer.acknowledge(&partition, *offset, Acknowledge::Accept).expect("in hand");
        }
        offsets.extend(some(&consumer).await.iter().map(|r| r.offset.0));
    }
    consumer.close().await.expect("closed");
    let implicit = member(target, ShareConsumerConfig::new(&group), &topic).await;
    implicit.acknowledge(&partition, 0, Acknowledge::Accept).expect_err("implicit");
    implicit.close().await.expect("closed");
}

async fn what_a_member_has_in_hand_goes_to_others_when_it_closes(target: &Target) {
    let Some(group) = group(target, 60_000).await else { return };
    let topic = target.topic("handed", 1).await;
    target.write(&topic, 0, &["x"]).await;
    let first = member(target, explicit(&group), &topic).await;
    assert_eq!(texts(&some(&first).await), ["x"]);
    first.close().await.expect("closed");
    // Long before the lock would end.
    let second = member(target, explicit(&group), &topic).await;
    let records = some(&second).await;
    assert_eq!(texts(&records), ["x"]);
    assert_eq!(records.iter().next().map(|record| record.delivery_count), Some(2));
    second.close().await.expect("closed");
}

async fn a_renewed_record_stays_in_hand(target: &Target) {
    let Some(group) = group(target, 15_000).await else { return };
    let topic = target.topic("renewed", 1).await;
    target.write(&topic, 0, &["slow"]).await;
    let partition = TopicPartition::new(&*topic, 0);
    let consumer = member(target, explicit(&group), &topic).await;
    assert_eq!(texts(&some(&consumer).await), ["slow"]);
    assert_eq!(consumer.acquisition_lock_timeout(), Some(Duration::from_secs(15)));
    consumer.acknowledge(&partition, 0, Acknowledge::Renew).expect("in hand");
    let renewed = consumer.commit().await.expect("open").remove(&partition).expect("told");
    match renewed {
        Ok(()) => {
            consumer.acknowledge(&partition, 0, Acknowledge::Accept).expect("still in hand");
            assert!(consumer.commit().await.expect("open")[&partition].is_ok());
            consumer.acknowledge(&partition, 0, Acknowledge::Accept).expect_err("told");
        }
        // A broker before Kafka 4.2 cannot.
        Err(error) => assert_ne!(error.code(), Some(ErrorCode::InvalidRequest), "{error}"),
    }
    consumer.close().await.expect("closed");
}
