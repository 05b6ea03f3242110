//! What a connection makes of a broker that answers late, oddly or not at all.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleuve_protocol::frame::{RequestFrame, encode_response};
use fleuve_protocol::messages::heartbeat_request::HeartbeatRequest;
use fleuve_protocol::messages::heartbeat_response::HeartbeatResponse;
use fleuve_protocol::{ApiKey, ErrorCode};

use super::*;
use crate::scripted::{Reply, ScriptedBroker, all_versions, body, send, versions};

async fn open(broker: &ScriptedBroker) -> Result<Connection> {
    let settings = Settings {
        client_id: "test".into(),
        request_timeout: Duration::from_secs(30),
        authenticator: None,
    };
    Connection::open("broker:9092".to_owned(), broker.link(), settings).await
}

fn heartbeat(generation_id: i32) -> HeartbeatRequest {
    HeartbeatRequest { generation_id, ..HeartbeatRequest::default() }
}

/// Answers with the generation as throttle time, so that answers can be told apart.
fn echo(request: &RequestFrame) -> Vec<Bytes> {
    let generation = body::<HeartbeatRequest>(request).generation_id;
    let response = HeartbeatResponse { throttle_time_ms: generation, ..Default::default() };
    match send(request, &response) {
        Reply::Send(segments) => segments,
        _ => unreachable!("send sends"),
    }
}

#[tokio::test]
async fn answers_out_of_order_reach_those_who_wait_for_them() {
    let mut held = Vec::new();
    let broker = ScriptedBroker::new(1, move |request| {
        held.push(echo(&request));
        if held.len() < 3 {
            return Reply::Nothing;
        }
        held.reverse();
        Reply::Send(held.drain(..).flatten().collect())
    });
    let connection = open(&broker).await.expect("open");
    let responses: Vec<_> = (0..3)
        .map(|generation| connection.submit(&heartbeat(generation), 4).expect("queued"))
        .collect();
    for (generation, response) in responses.into_iter().enumerate() {
        let answer = response.wait().await.expect("answered");
        assert_eq!(answer.throttle_time_ms, generation as i32);
    }
}

#[tokio::test]
async fn a_broker_that_does_not_know_our_version_is_asked_again_in_one_it_knows() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let broker = ScriptedBroker::raw(move |request| {
        seen.lock().expect("no panic").push(request.version);
        let mut response = versions(|_| (0, 2));
        if request.version <= 2 {
            return send(&request, &response);
        }
        response.error_code = ErrorCode::UnsupportedVersion.code();
        let RequestFrame { key, correlation_id, .. } = request;
        Reply::Send(encode_response(key, correlation_id, &response, 0).expect("encodable"))
    });
    let connection = open(&broker).await.expect("open");
    let ours = <ApiVersionsRequest as Message>::VALID_VERSIONS.max;
    assert_eq!(*asked.lock().expect("no panic"), [ours, 2]);
    assert_eq!(connection.version_of::<HeartbeatRequest>(i16::MAX).expect("offered"), 2);
}

#[tokio::test]
async fn a_request_the_broker_does_not_offer_is_refused_by_name() {
    let broker = ScriptedBroker::raw(|request| {
        let mut response = all_versions();
        response.api_keys.retain(|api| api.api_key != ApiKey::Heartbeat.code());
        send(&request, &response)
    });
    let connection = open(&broker).await.expect("open");
    let error = connection.call(&heartbeat(0)).await.expect_err("not offered");
    assert!(matches!(error, Error::Unsupported { operation: "Heartbeat", .. }), "{error}");
}

#[tokio::test]
async fn a_lost_connection_says_what_may_have_been_sent() {
    let broker = ScriptedBroker::new(1, |_| Reply::HangUp);
    let connection = open(&broker).await.expect("open");
    let error = connection.call(&heartbeat(0)).await.expect_err("hung up");
    assert!(matches!(error, Error::Disconnected { maybe_sent: true, .. }), "{error}");
    assert!(connection.is_closed());
    let error = connection.call(&heartbeat(0)).await.expect_err("closed");
    assert!(matches!(error, Error::Disconnected { maybe_sent: false, .. }), "{error}");
}

#[tokio::test]
async fn an_answer_nobody_asked_for_ends_the_connection() {
    let broker = ScriptedBroker::new(1, |request| {
        let other = RequestFrame { correlation_id: 77, ..request };
        send(&other, &HeartbeatResponse::default())
    });
    let connection = open(&broker).await.expect("open");
    let error = connection.call(&heartbeat(0)).await.expect_err("not ours");
    assert!(error.to_string().contains("request 77, which was not sent"), "{error}");
}

#[tokio::test]
async fn an_unreadable_answer_is_an_error_of_that_request_alone() {
    let mut first = true;
    let broker = ScriptedBroker::new(1, move |request| {
        let mut frame = echo(&request).concat();
        if std::mem::take(&mut first) {
            // The frame ends before the response does.
            frame.truncate(10);
            frame[..4].copy_from_slice(&6i32.to_be_bytes());
        }
        Reply::Send(vec![frame.into()])
    });
    let connection = open(&broker).await.expect("open");
    let error = connection.call(&heartbeat(1)).await.expect_err("cut short");
    assert!(matches!(error, Error::Protocol { operation: "Heartbeat", .. }), "{error}");
    let answer = connection.call(&heartbeat(2)).await.expect("whole");
    assert_eq!(answer.throttle_time_ms, 2);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_an_answer_times_out_and_closes_the_connection() {
    let broker = ScriptedBroker::new(1, |_| Reply::Nothing);
    let connection = open(&broker).await.expect("open");
    let error = connection
        .call_within(&heartbeat(0), Duration::from_millis(50))
        .await
        .expect_err("no answer");
    assert!(matches!(error, Error::Timeout { operation: "Heartbeat", .. }), "{error}");
    assert!(connection.is_closed());
}
