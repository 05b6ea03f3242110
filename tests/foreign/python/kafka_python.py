"""kafka-python, the pure Python client: the same checks as the others, by its own producer, consumer and admin."""

from __future__ import annotations

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.structs import OffsetAndMetadata

from report import CROSS_KEYS, CROSS_TOPIC, PARTITIONS, PATIENCE_SECONDS, arguments, check, cross_record, done, expect_equal, wait_until

BOOTSTRAP, PHASE = arguments()
TOPIC = "kafka-python-round-trip"
GROUP_TOPIC = "kafka-python-group"
KEPT_GROUP = "kafka-python-kept"
BASE_TIMESTAMP = 1_700_000_000_000
ADMIN = KafkaAdminClient(bootstrap_servers=BOOTSTRAP)


def producer(**settings) -> KafkaProducer:
    return KafkaProducer(bootstrap_servers=BOOTSTRAP, linger_ms=2, acks="all", **settings)


def consumer(group: str | None = None, **settings) -> KafkaConsumer:
    return KafkaConsumer(
        bootstrap_servers=BOOTSTRAP,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        heartbeat_interval_ms=300,
        session_timeout_ms=6000,
        **settings,
    )


def send(client: KafkaProducer, records: list[dict]) -> list:
    """Produces and returns each record's metadata."""
    futures = [client.send(**record) for record in records]
    client.flush(PATIENCE_SECONDS)
    reports = [future.get(PATIENCE_SECONDS) for future in futures]
    client.close()
    return reports


def take(client: KafkaConsumer, count: int) -> list:
    records: list = []

    def more() -> bool:
        for batch in client.poll(200, max_records=count - len(records)).values():
            records.extend(batch)
        return len(records) >= count

    wait_until(more, f"{count} records from a consumer")
    return records


def read_from(topic: str, partition: int, offset: int, count: int) -> list:
    client = consumer()
    try:
        client.assign([TopicPartition(topic, partition)])
        client.seek(TopicPartition(topic, partition), offset)
        return take(client, count)
    finally:
        client.close()


def partition_end() -> int:
    client = consumer()
    try:
        return client.end_offsets([TopicPartition(TOPIC, 0)])[TopicPartition(TOPIC, 0)]
    finally:
        client.close()


def partition_count(topic: str) -> int:
    return len(ADMIN.describe_topics([topic])[0]["partitions"])


def topics_by_admin() -> None:
    kept_forever = {"retention.ms": "-1"}  # the records are of 2023
    ADMIN.create_topics(
        {
            TOPIC: {"num_partitions": 1, "replication_factor": 1, "configs": kept_forever},
            GROUP_TOPIC: {"num_partitions": 2, "replication_factor": 1, "configs": kept_forever},
        },
        wait_for_metadata=True,
    )
    ADMIN.create_partitions({GROUP_TOPIC: PARTITIONS})
    wait_until(lambda: partition_count(GROUP_TOPIC) == PARTITIONS, "six partitions")

    def config(key: str) -> str | None:
        described = ADMIN.describe_configs([ConfigResource(ConfigResourceType.TOPIC, TOPIC)], config_filter="all")
        return described["topic"][TOPIC][key]["value"]

    expect_equal(config("retention.ms"), "-1", "retention.ms as created")
    ADMIN.alter_configs([ConfigResource(ConfigResourceType.TOPIC, TOPIC, {"max.message.bytes": "2000000"})])
    wait_until(lambda: config("max.message.bytes") == "2000000", "altered max.message.bytes")


def round_trip(codec: str | None) -> None:
    first = partition_end()
    records = [
        {
            "topic": TOPIC,
            "partition": 0,
            "key": None if number % 5 == 1 else f"{codec}-{number}".encode(),
            "value": None if number % 5 == 4 else (f"value {number} " * 20).encode(),
            "headers": [("n", str(number).encode()), ("n", b"again"), ("empty", b"")],
            "timestamp_ms": BASE_TIMESTAMP + number,
        }
        for number in range(60)
    ]
    reports = send(producer(compression_type=codec), records)
    expect_equal([report.offset for report in reports], list(range(first, first + 60)), "offsets")
    for record, got in zip(records, read_from(TOPIC, 0, first, 60)):
        actual = (got.key, got.value, list(got.headers), got.timestamp)
        expect_equal(actual, (record["key"], record["value"], record["headers"], record["timestamp_ms"]), "record")


def idempotent() -> None:
    first = partition_end()
    send(producer(enable_idempotence=True), [{"topic": TOPIC, "partition": 0, "value": b"%d" % n} for n in range(1000)])
    expect_equal([int(record.value) for record in read_from(TOPIC, 0, first, 1000)], list(range(1000)), "values, each once")


def seek_by_timestamp() -> None:
    partition = TopicPartition(GROUP_TOPIC, 0)
    records = [{"topic": GROUP_TOPIC, "partition": 0, "value": b"x", "timestamp_ms": BASE_TIMESTAMP + 10 * n} for n in range(50)]
    base = send(producer(), records)[0].offset
    client = consumer()
    try:
        found = client.offsets_for_times({partition: BASE_TIMESTAMP + 205})[partition]
        expect_equal((found.offset, found.timestamp), (base + 21, BASE_TIMESTAMP + 210), "first record at or after")
        expect_equal(client.offsets_for_times({partition: BASE_TIMESTAMP + 10_000})[partition], None, "after the last record")
        client.assign([partition])
        client.seek(partition, found.offset)
        expect_equal(take(client, 1)[0].timestamp, BASE_TIMESTAMP + 210, "timestamp of the record found")
    finally:
        client.close()


def group_of_two() -> None:
    # One after the other: this client's members wait for each other when both exist before the first has polled.
    members = [consumer("kafka-python-group")]
    try:

        def sizes() -> list[int]:
            for member in members:
                member.poll(50)
            return [len(member.assignment()) for member in members]

        members[0].subscribe([GROUP_TOPIC])
        wait_until(lambda: sizes() == [PARTITIONS], "the first member owns all partitions")
        members.append(consumer("kafka-python-group"))
        members[1].subscribe([GROUP_TOPIC])
        wait_until(lambda: sizes() == [3, 3], "two members share the partitions")
        members.pop(0).close()
        wait_until(lambda: sizes() == [PARTITIONS], "the member that stays owns all partitions")
    finally:
        for member in members:
            member.close()


def committed_offsets() -> None:
    send(producer(), [{"topic": GROUP_TOPIC, "partition": 1, "value": b"%d" % n} for n in range(20)])
    client = consumer(KEPT_GROUP)
    client.subscribe([GROUP_TOPIC])
    take(client, 20)
    client.commit({TopicPartition(GROUP_TOPIC, 1): OffsetAndMetadata(12, "noted", -1)})
    client.close()
    committed_offset_is_kept()


def committed_offset_is_kept() -> None:
    client = consumer(KEPT_GROUP)
    try:
        stored = client.committed(TopicPartition(GROUP_TOPIC, 1), metadata=True)
        expect_equal((stored.offset, stored.metadata), (12, "noted"), "committed offset")
        expect_equal(client.committed(TopicPartition(GROUP_TOPIC, 2)), None, "offset never committed")
    finally:
        client.close()
    expect_equal(read_from(GROUP_TOPIC, 1, stored.offset, 1)[0].value, b"12", "record at the committed offset")


def groups_by_admin() -> None:
    group = "kafka-python-admin"
    member = consumer(group)
    member.subscribe([GROUP_TOPIC])

    def assigned() -> bool:
        member.poll(50)
        return len(member.assignment()) == PARTITIONS

    wait_until(assigned, "the only member owns all partitions")
    listed = {entry["group_id"] for entry in ADMIN.list_groups()}
    expect_equal(group in listed, True, "the group is listed")
    described = ADMIN.describe_groups([group])[group]
    expect_equal((described["group_state"], len(described["members"])), ("Stable", 1), "state and members")
    member.commit({TopicPartition(GROUP_TOPIC, 0): OffsetAndMetadata(5, "", -1)})
    member.close()
    offsets = ADMIN.list_group_offsets({group: None})[group]
    expect_equal({key.partition: value.offset for key, value in offsets.items()}, {0: 5}, "listed offsets")
    ADMIN.delete_groups([group])
    expect_equal(group in {entry["group_id"] for entry in ADMIN.list_groups()}, False, "the deleted group is listed")


def delete_by_admin() -> None:
    name = "kafka-python-short-lived"
    ADMIN.create_topics({name: {"num_partitions": 1, "replication_factor": 1}}, wait_for_metadata=True)
    send(producer(), [{"topic": name, "partition": 0, "value": b"%d" % n} for n in range(10)])
    ADMIN.delete_records({TopicPartition(name, 0): 4})
    client = consumer()
    expect_equal(client.beginning_offsets([TopicPartition(name, 0)])[TopicPartition(name, 0)], 4, "first offset left")
    client.close()
    ADMIN.delete_topics([name])
    wait_until(lambda: name not in ADMIN.list_topics(), "the topic is gone")


def write_cross() -> None:
    send(producer(), [{"topic": CROSS_TOPIC, "key": key.encode(), "value": f"kafka-python:{key}".encode()} for key in CROSS_KEYS])


def read_cross() -> None:
    client = consumer()
    partitions = [TopicPartition(CROSS_TOPIC, number) for number in range(PARTITIONS)]
    client.assign(partitions)
    client.seek_to_beginning(*partitions)
    for record in take(client, sum(client.end_offsets(partitions).values())):
        cross_record(record.partition, record.key.decode(), record.value.decode())
    client.close()


if PHASE == "first":
    with check("create, grow, describe and alter topics"):
        topics_by_admin()
    for codec in (None, "gzip", "snappy", "lz4", "zstd"):
        with check(f"round trip {codec or 'none'}"):
            round_trip(codec)
    with check("idempotent producer"):
        idempotent()
    with check("seek by timestamp"):
        seek_by_timestamp()
    with check("group of two"):
        group_of_two()
    with check("committed offsets survive the consumer"):
        committed_offsets()
    with check("list, describe and delete groups"):
        groups_by_admin()
    with check("delete records and topics"):
        delete_by_admin()
    with check("write cross"):
        write_cross()
else:
    with check("committed offsets survive the broker"):
        committed_offset_is_kept()
    with check("read cross"):
        read_cross()
done()
