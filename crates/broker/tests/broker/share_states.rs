//! The states of share-partitions, as brokers ask each other for them (KIP-932).

use fleuve_protocol::messages::delete_share_group_state_request as delete;
use fleuve_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use fleuve_protocol::messages::initialize_share_group_state_request as initialize;
use fleuve_protocol::messages::read_share_group_state_request as read;
use fleuve_protocol::messages::read_share_group_state_response as was_read;
use fleuve_protocol::messages::read_share_group_state_summary_request as summary;
use fleuve_protocol::messages::read_share_group_state_summary_response as summarized;
use fleuve_protocol::messages::write_share_group_state_request as write;
use fleuve_protocol::{ErrorCode, Str};
use fleuve_types::Uuid;

use crate::support::{TestBroker, TestClient};

const GROUP: Str = Str::from_static("sharers");
const SHARE: i8 = 2;
const AVAILABLE: i8 = 0;
const ACQUIRED: i8 = 1;
const ACKNOWLEDGED: i8 = 2;

/// A client of one share-partition's state.
struct States {
    client: TestClient,
    topic_id: Uuid,
    partition: i32,
}

impl States {
    async fn initialize(&mut self, state_epoch: i32, start_offset: i64) -> i16 {
        let partition =
            initialize::PartitionData { partition: self.partition, state_epoch, start_offset };
        let topic = initialize::InitializeStateData {
            topic_id: self.topic_id,
            partitions: vec![partition],
        };
        let request =
            initialize::InitializeShareGroupStateRequest { group_id: GROUP, topics: vec![topic] };
        let response = self.client.call(&request, 0).await;
        response.results[0].partitions[0].error_code
    }

    async fn write(&mut self, leader_epoch: i32, start: i64, batches: &[(i64, i64, i8)]) -> i16 {
        let batches = batches.iter().map(|(first, last, state)| write::StateBatch {
            first_offset: *first,
            last_offset: *last,
            delivery_state: *state,
            delivery_count: 1,
        });
        let partition = write::PartitionData {
            partition: self.partition,
            state_epoch: 1,
            leader_epoch,
            start_offset: start,
            delivery_complete_count: 2,
            state_batches: batches.collect(),
        };
        let topic = write::WriteStateData { topic_id: self.topic_id, partitions: vec![partition] };
        let request = write::WriteShareGroupStateRequest { group_id: GROUP, topics: vec![topic] };
        let response = self.client.call(&request, 1).await;
        response.results[0].partitions[0].error_code
    }

    async fn read(&mut self, leader_epoch: i32) -> was_read::PartitionResult {
        let partition = read::PartitionData { partition: self.partition, leader_epoch };
        let topic = read::ReadStateData { topic_id: self.topic_id, partitions: vec![partition] };
        let request = read::ReadShareGroupStateRequest { group_id: GROUP, topics: vec![topic] };
        self.client.call(&request, 0).await.results.remove(0).partitions.remove(0)
    }

    async fn summary(&mut self) -> summarized::PartitionResult {
        let partition = summary::PartitionData { partition: self.partition, leader_epoch: 0 };
        let topic =
            summary::ReadStateSummaryData { topic_id: self.topic_id, partitions: vec![partition] };
        let request =
            summary::ReadShareGroupStateSummaryRequest { group_id: GROUP, topics: vec![topic] };
        self.client.call(&request, 1).await.results.remove(0).partitions.remove(0)
    }

    async fn delete(&mut self) -> i16 {
        let partition = delete::PartitionData { partition: self.partition };
        let topic =
            delete::DeleteStateData { topic_id: self.topic_id, partitions: vec![partition] };
        let request = delete::DeleteShareGroupStateRequest { group_id: GROUP, topics: vec![topic] };
        let response = self.client.call(&request, 0).await;
        response.results[0].partitions[0].error_code
    }
}

#[tokio::test]
async fn states_are_begun_written_read_and_deleted_over_the_wire() {
    let broker = TestBroker::start(&[("share.coordinator.state.topic.num.partitions", "4")]).await;
    let mut client = broker.connect().await;
    let topic_id = client.create_topic("words", 1).await;
    let key = Str::from(format!("{GROUP}:{topic_id}:0"));
    let find = FindCoordinatorRequest {
        key_type: SHARE,
        coordinator_keys: vec![key],
        ..Default::default()
    };
    while client.call(&find, 6).await.coordinators[0].error_code != 0 {}
    let mut states = States { client, topic_id, partition: 0 };

    // Before it has begun.
    let nothing = states.summary().await;
    assert_eq!((nothing.error_code, nothing.start_offset), (0, -1));
    assert_eq!(states.read(0).await.error_code, ErrorCode::InvalidRequest.code());
    assert_eq!(states.write(0, 0, &[]).await, ErrorCode::InvalidRequest.code());
    assert_eq!(states.delete().await, 0);

    assert_eq!(states.initialize(1, 5).await, 0);
    assert_eq!(states.initialize(0, 9).await, ErrorCode::FencedStateEpoch.code());
    let batches = [(5, 6, ACKNOWLEDGED), (7, 9, AVAILABLE)];
    assert_eq!(states.write(2, -1, &batches).await, 0);
    let found = states.read(3).await;
    assert_eq!((found.error_code, found.state_epoch, found.start_offset), (0, 1, 5));
    let told = found.state_batches.iter();
    let told: Vec<_> =
        told.map(|batch| (batch.first_offset, batch.last_offset, batch.delivery_state)).collect();
    assert_eq!(told, batches);
    // Whoever led before has nothing to say any more.
    assert_eq!(states.write(2, 7, &[]).await, ErrorCode::FencedLeaderEpoch.code());
    assert_eq!(states.read(2).await.error_code, ErrorCode::FencedLeaderEpoch.code());
    assert_eq!(states.write(3, 7, &[]).await, 0);
    let told = states.summary().await;
    assert_eq!((told.start_offset, told.state_epoch, told.leader_epoch), (7, 1, 3));
    assert_eq!(told.delivery_complete_count, 2);

    for nonsense in [(9, 8, AVAILABLE), (-1, 8, AVAILABLE), (7, 8, ACQUIRED), (7, 8, 3)] {
        assert_eq!(states.write(3, -1, &[nonsense]).await, ErrorCode::InvalidRequest.code());
    }
    assert_eq!(states.write(3, -2, &[]).await, ErrorCode::InvalidRequest.code());
    assert_eq!(states.delete().await, 0);
    assert_eq!(states.summary().await.start_offset, -1);

    states.partition = 1;
    assert_eq!(states.initialize(1, 0).await, ErrorCode::UnknownTopicOrPartition.code());
    states.partition = -1;
    assert_eq!(states.initialize(1, 0).await, ErrorCode::InvalidRequest.code());
    broker.stop().await;
}
