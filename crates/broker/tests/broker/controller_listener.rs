//! A listener of the controller: who asks there is told of controllers, and may administrate (KIP-919).

use fleuve_protocol::messages::alter_configs_request::AlterConfigsRequest;
use fleuve_protocol::messages::api_versions_request::ApiVersionsRequest;
use fleuve_protocol::messages::describe_cluster_request::DescribeClusterRequest;
use fleuve_protocol::messages::describe_cluster_response::DescribeClusterResponse;
use fleuve_protocol::messages::describe_quorum_request::{
    DescribeQuorumRequest, PartitionData, TopicData,
};
use fleuve_protocol::messages::describe_quorum_response::DescribeQuorumResponse;
use fleuve_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use fleuve_protocol::messages::metadata_request::MetadataRequest;
use fleuve_protocol::{ApiKey, ErrorCode, Request, Str};

use crate::support::{TestBroker, TestClient};

const BOTH: (&str, &str) = ("listeners", "PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0");
const NAMES: (&str, &str) = ("controller.listener.names", "CONTROLLER");
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

async fn describe(client: &mut TestClient, endpoint_type: i8) -> DescribeClusterResponse {
    let request = DescribeClusterRequest { endpoint_type, ..Default::default() };
    client.call(&request, 2).await
}

async fn quorum(client: &mut TestClient) -> DescribeQuorumResponse {
    let topic_name = Str::from("__cluster_metadata");
    let partitions = vec![PartitionData::default()];
    let topics = vec![TopicData { topic_name, partitions }];
    client.call(&DescribeQuorumRequest { topics }, 2).await
}

async fn apis(client: &mut TestClient) -> Vec<i16> {
    let named = |text| Str::from(text);
    let request = ApiVersionsRequest {
        client_software_name: named("test"),
        client_software_version: named("1"),
    };
    client.call(&request, 3).await.api_keys.into_iter().map(|api| api.api_key).collect()
}

#[tokio::test]
async fn each_listener_tells_of_its_own_kind_and_refuses_the_other() {
    let broker = TestBroker::start(&[BOTH, NAMES]).await;
    let [of_broker, of_controller] = broker.broker.listeners() else { panic!("two listeners") };
    assert!(!of_broker.is_controllers && of_controller.is_controllers);
    for (index, listener) in broker.broker.listeners().iter().enumerate() {
        let mut client = broker.connect_to(index).await;
        let (own, other) = match listener.is_controllers {
            true => (CONTROLLERS, BROKERS),
            false => (BROKERS, CONTROLLERS),
        };
        let told = describe(&mut client, own).await;
        assert_eq!((told.error_code, told.endpoint_type), (0, own));
        assert_eq!((told.controller_id, told.brokers.len()), (1, 1));
        assert_eq!(told.brokers[0].port, i32::from(listener.address.port()));
        let told = describe(&mut client, other).await;
        assert_eq!(told.error_code, ErrorCode::MismatchedEndpointType.code());
        let told = describe(&mut client, 3).await;
        assert_eq!(told.error_code, ErrorCode::UnsupportedEndpointType.code());
        // Wherever one asks, the quorum is where the controller listens.
        let told = quorum(&mut client).await;
        let listeners: Vec<_> = told.nodes[0].listeners.iter().collect();
        assert_eq!((listeners.len(), listeners[0].name.as_str()), (1, "CONTROLLER"));
        assert_eq!(listeners[0].port, of_controller.address.port());
    }
}

#[tokio::test]
async fn it_serves_what_controllers_serve_and_nothing_else() {
    let broker = TestBroker::start(&[BOTH, NAMES]).await;
    let mut client = broker.connect_to(1).await;
    let served = apis(&mut client).await;
    for key in [ApiKey::DescribeQuorum, ApiKey::CreateTopics, ApiKey::DescribeAcls] {
        assert!(served.contains(&key.code()), "{key}");
    }
    for key in [ApiKey::Metadata, ApiKey::Produce, ApiKey::Fetch, ApiKey::ListGroups] {
        assert!(!served.contains(&key.code()), "{key}");
    }
    assert!(apis(&mut broker.connect().await).await.contains(&ApiKey::Metadata.code()));
    // What it decides, the broker has.
    client.create_topic("made", 1).await;
    assert_eq!(broker.connect().await.produce("made", 0, &["one"]).await.error_code, 0);
    client.send(&MetadataRequest::default(), 12).await;
    assert!(client.receive::<MetadataRequest>(12).await.is_none(), "it ends the connection");
    assert!(!served.contains(&ApiKey::AlterReplicaLogDirs.code()));
    assert!(served.contains(&AlterConfigsRequest::KEY.code()));
}

#[tokio::test]
async fn a_change_of_the_listeners_leaves_it_open() {
    let broker = TestBroker::start(&[BOTH, NAMES]).await;
    let mut client = broker.connect_to(1).await;
    let port = broker.broker.listeners()[0].address.port();
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: 4,
            resource_name: Str::from("1"),
            configs: vec![
                setting("listeners", "PLAINTEXT://127.0.0.1:0,MORE://127.0.0.1:0"),
                setting(
                    "listener.security.protocol.map",
                    "PLAINTEXT:PLAINTEXT,MORE:PLAINTEXT,CONTROLLER:PLAINTEXT",
                ),
            ],
        }],
        ..Default::default()
    };
    let response = client.call(&request, 1).await;
    assert_eq!(response.responses[0].error_code, 0, "{response:?}");
    assert_eq!(describe(&mut client, CONTROLLERS).await.error_code, 0);
    let mut fresh = broker.connect_to(1).await;
    assert_eq!(describe(&mut fresh, CONTROLLERS).await.error_code, 0);
    let told = describe(&mut broker.connect().await, BROKERS).await;
    assert_eq!(told.brokers[0].port, i32::from(port));
}

fn setting(name: &'static str, value: &'static str) -> AlterableConfig {
    let value = Some(Str::from(value));
    AlterableConfig { name: Str::from(name), config_operation: 0, value }
}

#[tokio::test]
async fn without_a_name_for_it_there_is_none() {
    let broker = TestBroker::start(&[]).await;
    assert_eq!(broker.broker.listeners().len(), 1);
    let mut client = broker.connect().await;
    let told = describe(&mut client, CONTROLLERS).await;
    assert_eq!(told.error_code, ErrorCode::MismatchedEndpointType.code());
    let told = quorum(&mut client).await;
    assert_eq!(told.nodes[0].listeners[0].name.as_str(), "PLAINTEXT");
}

#[tokio::test]
async fn who_may_not_alter_the_cluster_is_not_told_of_its_controllers() {
    let authorizer = "org.apache.kafka.metadata.authorizer.StandardAuthorizer";
    let broker = TestBroker::start(&[BOTH, NAMES, ("authorizer.class.name", authorizer)]).await;
    let told = describe(&mut broker.connect_to(1).await, CONTROLLERS).await;
    assert_eq!(told.error_code, ErrorCode::ClusterAuthorizationFailed.code());
    assert!(told.brokers.is_empty());
    // Brokers tell everybody where they are.
    assert_eq!(describe(&mut broker.connect().await, BROKERS).await.error_code, 0);
}
