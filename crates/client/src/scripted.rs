//! A broker for tests: answers requests over in-memory pipes as a script says.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fleuve_protocol::frame::{RequestFrame, decode_request_header, encode_response};
use fleuve_protocol::messages::api_versions_request::ApiVersionsRequest;
use fleuve_protocol::messages::api_versions_response::{ApiVersion, ApiVersionsResponse};
use fleuve_protocol::messages::metadata_response::{
    MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use fleuve_protocol::{ApiKey, ErrorCode, Message, Request};
use fleuve_types::Uuid;

use crate::BoxFuture;
use crate::client::Client;
use crate::config::ClientConfig;
use crate::transport::{Link, Transport, stream_link};

/// What the broker does about a request.
pub(crate) enum Reply {
    /// Sends these bytes, which are a whole frame or not.
    Send(Vec<Bytes>),
    /// Sends these bytes after a while; answers behind it wait.
    After(Duration, Vec<Bytes>),
    /// Keeps silent.
    Nothing,
    /// Closes the connection.
    HangUp,
}

type Script = Box<dyn FnMut(u64, RequestFrame) -> Reply + Send>;

/// A transport to a broker that follows a script.
#[derive(Clone)]
pub(crate) struct ScriptedBroker {
    script: Arc<Mutex<Script>>,
    /// What the next connection attempts meet, before all others succeed.
    refusals: Arc<Mutex<VecDeque<io::ErrorKind>>>,
    /// How many connections there have been.
    connections: Arc<AtomicU64>,
}

impl ScriptedBroker {
    /// Makes a broker of a script that sees every request.
    pub(crate) fn raw(mut script: impl FnMut(RequestFrame) -> Reply + Send + 'static) -> Self {
        Self::per_connection(move |_, request| script(request))
    }

    /// Makes a broker of a script that sees every request with the number of its connection.
    pub(crate) fn per_connection(
        script: impl FnMut(u64, RequestFrame) -> Reply + Send + 'static,
    ) -> Self {
        Self {
            script: Arc::new(Mutex::new(Box::new(script))),
            refusals: Arc::default(),
            connections: Arc::default(),
        }
    }

    /// Makes a broker that answers ApiVersions with all we know and Metadata with topic `t`, and
    /// leaves the rest to the script.
    pub(crate) fn new(
        partitions: i32,
        mut script: impl FnMut(RequestFrame) -> Reply + Send + 'static,
    ) -> Self {
        Self::raw(move |request| match request.key {
            ApiKey::ApiVersions => answer::<ApiVersionsRequest>(&request, &all_versions()),
            ApiKey::Metadata => send(&request, &metadata(partitions)),
            _ => script(request),
        })
    }

    /// Lets the next connection attempts fail.
    pub(crate) fn refuse(&self, kinds: &[io::ErrorKind]) {
        self.refusals.lock().expect("no panic").extend(kinds);
    }

    /// Makes a client of this broker.
    pub(crate) fn client(&self) -> Client {
        let mut config = ClientConfig::new("broker:9092").expect("valid");
        // Scripts count requests.
        config.metrics_push = false;
        Client::with_transport(config, Arc::new(self.clone()))
    }

    /// Opens a link to this broker.
    pub(crate) fn link(&self) -> Link {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let script = self.script.clone();
        let connection = self.connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let (reader, writer) = tokio::io::split(theirs);
            let mut link = stream_link(reader, writer, 1 << 26);
            while let Ok(frame) = link.receiver.receive().await {
                let request = decode_request_header(frame).expect("our client's header");
                let reply = script.lock().expect("no panic")(connection, request);
                match reply {
                    Reply::Send(mut segments) => {
                        if link.sender.send(&mut segments).await.is_err() {
                            return;
                        }
                    }
                    Reply::After(pause, mut segments) => {
                        tokio::time::sleep(pause).await;
                        if link.sender.send(&mut segments).await.is_err() {
                            return;
                        }
                    }
                    Reply::Nothing => {}
                    Reply::HangUp => return,
                }
            }
        });
        let (reader, writer) = tokio::io::split(ours);
        stream_link(reader, writer, 1 << 26)
    }
}

impl Transport for ScriptedBroker {
    fn connect<'a>(&'a self, _: &'a str, _: u16, _: usize) -> BoxFuture<'a, io::Result<Link>> {
        let refused = self.refusals.lock().expect("no panic").pop_front();
        let result = match refused {
            Some(kind) => Err(kind.into()),
            None => Ok(self.link()),
        };
        Box::pin(std::future::ready(result))
    }
}

/// Answers `request` in its own version.
pub(crate) fn answer<R: Request>(request: &RequestFrame, response: &R::Response) -> Reply {
    send(request, response)
}

/// Sends `response` to `request` in its own version.
pub(crate) fn send<M: Message>(request: &RequestFrame, response: &M) -> Reply {
    let RequestFrame { key, version, correlation_id, .. } = request;
    Reply::Send(encode_response(*key, *correlation_id, response, *version).expect("encodable"))
}

/// Decodes the body of `request`.
pub(crate) fn body<R: Request>(request: &RequestFrame) -> R {
    R::decode(&mut request.body.clone(), request.version).expect("our client's request")
}

/// Offers every version that we know.
pub(crate) fn all_versions() -> ApiVersionsResponse {
    versions(|_| (0, i16::MAX))
}

/// Offers these version ranges.
pub(crate) fn versions(range: impl Fn(ApiKey) -> (i16, i16)) -> ApiVersionsResponse {
    let offered = ApiKey::ALL.iter().map(|&key| {
        let (min_version, max_version) = range(key);
        ApiVersion { api_key: key.code(), min_version, max_version }
    });
    ApiVersionsResponse { api_keys: offered.collect(), ..ApiVersionsResponse::default() }
}

/// The id of topic `t`.
pub(crate) const TOPIC_ID: Uuid = Uuid([7; 16]);

/// Describes broker 1 and topic `t`.
pub(crate) fn metadata(partitions: i32) -> MetadataResponse {
    let partition = |index| MetadataResponsePartition {
        partition_index: index,
        leader_id: 1,
        leader_epoch: 0,
        replica_nodes: vec![1],
        isr_nodes: vec![1],
        ..MetadataResponsePartition::default()
    };
    let broker = MetadataResponseBroker {
        node_id: 1,
        host: "broker".into(),
        port: 9092,
        ..MetadataResponseBroker::default()
    };
    let topic = MetadataResponseTopic {
        name: Some("t".into()),
        topic_id: TOPIC_ID,
        partitions: (0..partitions).map(partition).collect(),
        ..MetadataResponseTopic::default()
    };
    MetadataResponse {
        brokers: vec![broker],
        controller_id: 1,
        topics: vec![topic],
        error_code: ErrorCode::None.code(),
        ..MetadataResponse::default()
    }
}
