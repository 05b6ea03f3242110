//! Decoding takes a small multiple of the input, whatever the input claims.

mod counting;

use bytes::Bytes;
use counting::{Counting, usage_of};
use fleuve_protocol::messages::produce_request::{
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use fleuve_protocol::messages::{FetchResponse, fetch_response};
use fleuve_protocol::testing::{Sampler, messages};
use fleuve_protocol::{ApiKey, Message, Reader, Writer, frame};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Beside the arrays: the reference count of the frame, one for each reader of it.
const BOOKKEEPING_BYTES: usize = 1024;

fn bound(input: usize) -> usize {
    Reader::MEMORY_PER_BYTE * input + Reader::MEMORY_ALWAYS + BOOKKEEPING_BYTES
}

/// Lengths and counts that claim more than any message has, in both notations.
const BOMBS: [&[u8]; 5] = [
    &[0x7f, 0xff, 0xff, 0xff],
    &[0x00, 0x00, 0x60, 0x00],
    &[0xff, 0xff, 0xff, 0xff, 0x07],
    &[0x81, 0x80, 0x02],
    &[0xff, 0xff, 0x01],
];

#[test]
fn no_count_makes_decoding_take_more_than_the_bound() {
    // 1 is an empty string, array or bytes in compact notation: the most that a byte can mean.
    let filler = [1u8; 32 * 1024];
    for specimen in messages() {
        for version in [specimen.versions.min, specimen.versions.max] {
            let valid = (specimen.round_trip)(&mut Sampler::short(7), version);
            for position in (0..valid.len()).take(64) {
                for bomb in BOMBS {
                    let input = Bytes::from([&valid[..position], bomb, &filler].concat());
                    let length = input.len();
                    let (_, usage) = usage_of(|| (specimen.decode)(input, version));
                    assert!(
                        usage.peak <= bound(length),
                        "{} {version}: {} bytes of memory for {length} of input, bomb at {position}",
                        specimen.name,
                        usage.peak,
                    );
                }
            }
        }
    }
}

#[test]
fn honest_messages_stay_far_below_the_bound() {
    for specimen in messages() {
        for version in specimen.versions.iter() {
            let valid = (specimen.round_trip)(&mut Sampler::new(11), version);
            let (length, (result, usage)) =
                (valid.len(), usage_of(|| (specimen.decode)(valid, version)));
            result.expect("a valid message is read");
            // Half the fields of a sample are empty, so real messages stay below this too.
            let honest = Reader::MEMORY_PER_BYTE / 2 * length + 4 * BOOKKEEPING_BYTES;
            assert!(usage.peak <= honest, "{} {version}: {usage:?}", specimen.name);
        }
    }
}

fn produce_of(records: Bytes) -> ProduceRequest {
    let partition = PartitionProduceData { index: 3, records: Some(records) };
    let topic = TopicProduceData {
        name: "clicks".into(),
        partition_data: vec![partition],
        ..Default::default()
    };
    ProduceRequest { acks: -1, timeout_ms: 1500, topic_data: vec![topic], ..Default::default() }
}

#[test]
fn records_of_a_produce_are_neither_copied_in_nor_out() {
    let records = Bytes::from(vec![9; 1 << 20]);
    let request = produce_of(records.clone());

    let (segments, usage) =
        usage_of(|| frame::encode_request(5, None, &request, 9).expect("valid in version 9"));
    assert!(usage.peak < 4096, "writing copies: {usage:?}");
    assert!(segments.iter().any(|segment| segment.as_ptr() == records.as_ptr()));

    let frame = Bytes::from(segments[..].concat()).slice(frame::LENGTH_BYTES..);
    let range = frame.as_ptr_range();
    let (decoded, usage) = usage_of(|| {
        let mut request = frame::decode_request_header(frame).expect("a valid header");
        ProduceRequest::decode(&mut request.body, request.version).expect("a valid request")
    });
    // The array of topics and the array of partitions; everything else points into the frame.
    assert!(usage.allocations <= 3 && usage.peak < 1024, "reading copies: {usage:?}");
    let read = decoded.topic_data[0].partition_data[0].records.as_ref().expect("there are records");
    assert!(range.contains(&read.as_ptr()));
    assert_eq!(read, &records);
}

#[test]
fn records_of_a_fetch_are_not_copied_out() {
    let records = Bytes::from(vec![9; 1 << 20]);
    let partition =
        fetch_response::PartitionData { records: Some(records.clone()), ..Default::default() };
    let topic = fetch_response::FetchableTopicResponse {
        partitions: vec![partition; 8],
        ..Default::default()
    };
    let response = FetchResponse { responses: vec![topic], ..Default::default() };
    let (segments, usage) = usage_of(|| {
        frame::encode_response(ApiKey::Fetch, 5, &response, 17).expect("valid in version 17")
    });
    assert!(usage.peak < 8192, "writing copies: {usage:?}");
    assert_eq!(segments.len(), 17, "8 times records, and something before, between and behind");
    let mut plain = Writer::new();
    response.encode(&mut plain, 17).expect("valid in version 17");
    // Length, correlation id and the tagged fields of the header come before the response.
    assert_eq!(segments.concat()[9..], plain.into_bytes()[..]);
}
