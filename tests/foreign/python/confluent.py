"""confluent-kafka, that is librdkafka: round trips, groups, timestamps and admin against the broker under test."""

from __future__ import annotations

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from report import CROSS_KEYS, CROSS_TOPIC, PARTITIONS, PATIENCE_SECONDS, arguments, check, cross_record, done, expect_equal, wait_until

BOOTSTRAP, PHASE = arguments()
TOPIC = "confluent-round-trip"
GROUP_TOPIC = "confluent-group"
GROUP = "confluent-group"
KEPT_GROUP = "confluent-kept"
BASE_TIMESTAMP = 1_700_000_000_000
ADMIN = AdminClient({"bootstrap.servers": BOOTSTRAP})


def result_of(futures: dict):
    """Waits for every future of an admin call; the first error is raised."""
    return {key: future.result(PATIENCE_SECONDS) for key, future in futures.items()}


def producer(**settings) -> Producer:
    return Producer({"bootstrap.servers": BOOTSTRAP, "partitioner": "murmur2_random", "linger.ms": 2, **settings})


def consumer(group: str = "confluent-reader", **settings) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": BOOTSTRAP,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "heartbeat.interval.ms": 300,
            "session.timeout.ms": 6000,
            **settings,
        }
    )


def send(client: Producer, records: list[dict]) -> list:
    """Produces and returns the delivery reports in order of the records."""
    reports: list = [None] * len(records)

    def delivered(index):
        def report(error, message):
            reports[index] = (error, message)

        return report

    for index, record in enumerate(records):
        client.produce(**record, on_delivery=delivered(index))
    if client.flush(PATIENCE_SECONDS):
        raise AssertionError("records were still queued after the flush")
    for error, _ in reports:
        if error is not None:
            raise AssertionError(f"delivery failed: {error}")
    return [message for _, message in reports]


def take(client: Consumer, count: int) -> list:
    """Consumes until `count` records have come."""
    messages: list = []

    def more() -> bool:
        for message in client.consume(count - len(messages), 0.2):
            if message.error():
                raise AssertionError(f"consumer: {message.error()}")
            messages.append(message)
        return len(messages) >= count

    wait_until(more, f"{count} records from a consumer, {len(messages)} so far")
    return messages


def read_from(topic: str, partition: int, offset: int, count: int) -> list:
    client = consumer()
    client.assign([TopicPartition(topic, partition, offset)])
    try:
        return take(client, count)
    finally:
        client.close()


def topics_by_admin() -> None:
    kept_forever = {"retention.ms": "-1"}  # the records are of 2023
    result_of(ADMIN.create_topics([NewTopic(TOPIC, 1, 1, config=kept_forever), NewTopic(GROUP_TOPIC, 2, 1, config=kept_forever)]))
    result_of(ADMIN.create_partitions([NewPartitions(GROUP_TOPIC, PARTITIONS)]))
    wait_until(lambda: len(ADMIN.list_topics(GROUP_TOPIC, 5).topics[GROUP_TOPIC].partitions) == PARTITIONS, "six partitions")
    resource = ConfigResource(ResourceType.TOPIC, TOPIC)
    described = result_of(ADMIN.describe_configs([resource]))[resource]
    expect_equal(described["retention.ms"].value, "-1", "retention.ms as created")
    resource.add_incremental_config(ConfigEntry("max.message.bytes", "2000000", incremental_operation=AlterConfigOpType.SET))
    result_of(ADMIN.incremental_alter_configs([resource]))
    wait_until(
        lambda: result_of(ADMIN.describe_configs([resource]))[resource]["max.message.bytes"].value == "2000000",
        "altered max.message.bytes",
    )


def round_trip(codec: str) -> None:
    first = partition_end()
    records = [
        {
            "topic": TOPIC,
            "partition": 0,
            "key": None if number % 7 == 3 else f"{codec}-{number}".encode(),
            "value": None if number % 5 == 4 else (f"value {number} " * 20).encode(),
            "headers": [("n", str(number).encode()), ("n", b"again"), ("empty", b""), ("null", None)],
            "timestamp": BASE_TIMESTAMP + number,
        }
        for number in range(60)
    ]
    reports = send(producer(**{"compression.type": codec}), records)
    expect_equal([report.offset() for report in reports], list(range(first, first + 60)), "offsets")
    for record, message in zip(records, read_from(TOPIC, 0, first, 60)):
        got = (message.key(), message.value(), message.headers(), message.timestamp()[1])
        expect_equal(got, (record["key"], record["value"], record["headers"], record["timestamp"]), "record")


def partition_end() -> int:
    client = consumer()
    try:
        return client.get_watermark_offsets(TopicPartition(TOPIC, 0), 10)[1]
    finally:
        client.close()


def idempotent() -> None:
    first = partition_end()
    records = [{"topic": TOPIC, "partition": 0, "value": str(number).encode()} for number in range(2000)]
    send(producer(**{"enable.idempotence": True, "batch.num.messages": 50}), records)
    values = [int(message.value()) for message in read_from(TOPIC, 0, first, 2000)]
    expect_equal(values, list(range(2000)), "values in order, each once")


def seek_by_timestamp() -> None:
    client = consumer()
    try:
        first = send(producer(), [{"topic": GROUP_TOPIC, "partition": 0, "value": b"x", "timestamp": BASE_TIMESTAMP + 10 * n} for n in range(50)])
        base = first[0].offset()
        found = client.offsets_for_times([TopicPartition(GROUP_TOPIC, 0, BASE_TIMESTAMP + 205)], 10)[0]
        expect_equal(found.offset, base + 21, "first offset at or after the timestamp")
        client.assign([found])
        expect_equal(take(client, 1)[0].timestamp()[1], BASE_TIMESTAMP + 210, "timestamp of the record found")
        late = client.offsets_for_times([TopicPartition(GROUP_TOPIC, 0, BASE_TIMESTAMP + 10_000)], 10)[0]
        expect_equal(late.offset, -1, "offset for a timestamp after the last record")
    finally:
        client.close()
    partition = TopicPartition(GROUP_TOPIC, 0)
    newest = result_of(ADMIN.list_offsets({partition: OffsetSpec.max_timestamp()}))[partition]
    expect_equal(newest.offset, base + 49, "offset of the largest timestamp")


def group_of_two(strategy: str) -> None:
    settings = {"partition.assignment.strategy": strategy}
    group = f"{GROUP}-{strategy}"
    members = [consumer(group, **settings), consumer(group, **settings)]
    try:

        def sizes() -> list[int]:
            for member in members:
                member.poll(0.05)
            return [len(member.assignment()) for member in members]

        members[0].subscribe([GROUP_TOPIC])
        wait_until(lambda: sizes()[0] == PARTITIONS, "the first member owns all partitions")
        members[1].subscribe([GROUP_TOPIC])
        wait_until(lambda: sizes() == [3, 3], "two members share the partitions")
        members.pop(0).close()
        wait_until(lambda: sizes() == [PARTITIONS], "the member that stays owns all partitions")
    finally:
        for member in members:
            member.close()


def committed_offsets() -> None:
    send(producer(), [{"topic": GROUP_TOPIC, "partition": 1, "value": str(n).encode()} for n in range(20)])
    client = consumer(KEPT_GROUP)
    client.subscribe([GROUP_TOPIC])
    take(client, 20)
    client.commit(offsets=[TopicPartition(GROUP_TOPIC, 1, 12, metadata="noted")], asynchronous=False)
    client.close()
    committed_offset_is_kept()


def committed_offset_is_kept() -> None:
    client = consumer(KEPT_GROUP)
    try:
        stored = []

        def fetched() -> bool:
            # Just after its start a broker may still be loading the group; this call leaves retrying to its user.
            try:
                stored[:] = client.committed([TopicPartition(GROUP_TOPIC, 1), TopicPartition(GROUP_TOPIC, 2)], 20)
            except KafkaException as error:
                if not error.args[0].retriable() and error.args[0].code() != KafkaError.NOT_COORDINATOR:
                    raise
            return bool(stored)

        wait_until(fetched, "committed offsets")
        expect_equal([(stored[0].offset, stored[0].metadata), stored[1].offset], [(12, "noted"), -1001], "committed offsets")
        client.assign([stored[0]])
        expect_equal(take(client, 1)[0].value(), b"12", "record at the committed offset")
    finally:
        client.close()


def groups_by_admin() -> None:
    group = f"{GROUP}-admin"
    member = consumer(group)
    member.subscribe([GROUP_TOPIC])

    def assigned() -> bool:
        member.poll(0.05)
        return len(member.assignment()) == PARTITIONS

    wait_until(assigned, "the only member owns all partitions")
    listed = {entry.group_id for entry in ADMIN.list_consumer_groups().result(PATIENCE_SECONDS).valid}
    if group not in listed:
        raise AssertionError(f"{group} is not among the listed groups {sorted(listed)}")
    description = result_of(ADMIN.describe_consumer_groups([group]))[group]
    expect_equal((description.state.name, len(description.members)), ("STABLE", 1), "state and members")
    expect_equal(len(description.members[0].assignment.topic_partitions), PARTITIONS, "assigned partitions")
    member.commit(offsets=[TopicPartition(GROUP_TOPIC, 0, 5)], asynchronous=False)
    member.close()
    listed_offsets = result_of(ADMIN.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]))[group]
    expect_equal([part.offset for part in listed_offsets.topic_partitions if part.offset >= 0], [5], "listed offsets")
    moved = ConsumerGroupTopicPartitions(group, [TopicPartition(GROUP_TOPIC, 0, 2)])
    result_of(ADMIN.alter_consumer_group_offsets([moved]))
    result_of(ADMIN.delete_consumer_groups([group]))
    after = {entry.group_id for entry in ADMIN.list_consumer_groups().result(PATIENCE_SECONDS).valid}
    expect_equal(group in after, False, "the deleted group is still listed")


def delete_by_admin() -> None:
    name = "confluent-short-lived"
    result_of(ADMIN.create_topics([NewTopic(name, 1, 1)]))
    send(producer(), [{"topic": name, "partition": 0, "value": str(n).encode()} for n in range(10)])
    partition = TopicPartition(name, 0, 4)
    deleted = result_of(ADMIN.delete_records([partition]))
    expect_equal(list(deleted.values())[0].low_watermark, 4, "low watermark after deleting records")
    expect_equal(read_from(name, 0, OFFSET_BEGINNING, 6)[0].offset(), 4, "first offset left")
    result_of(ADMIN.delete_topics([name]))
    wait_until(lambda: name not in ADMIN.list_topics(timeout=10).topics, "the topic is gone")
    cluster = ADMIN.describe_cluster().result(PATIENCE_SECONDS)
    expect_equal(len(cluster.nodes), 1, "nodes of the cluster")


def write_cross() -> None:
    send(producer(), [{"topic": CROSS_TOPIC, "key": key, "value": f"confluent:{key}"} for key in CROSS_KEYS])


def read_cross() -> None:
    client = consumer()
    partitions = [TopicPartition(CROSS_TOPIC, number, OFFSET_BEGINNING) for number in range(PARTITIONS)]
    total = sum(client.get_watermark_offsets(partition, 10)[1] for partition in partitions)
    client.assign(partitions)
    for message in take(client, total):
        cross_record(message.partition(), message.key().decode(), message.value().decode())
    client.close()


if PHASE == "first":
    with check("create, grow, describe and alter topics"):
        topics_by_admin()
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        with check(f"round trip {codec}"):
            round_trip(codec)
    with check("idempotent producer"):
        idempotent()
    with check("seek by timestamp"):
        seek_by_timestamp()
    with check("group of two, range"):
        group_of_two("range")
    with check("group of two, cooperative"):
        group_of_two("cooperative-sticky")
    with check("committed offsets survive the consumer"):
        committed_offsets()
    with check("list, describe, alter and delete groups"):
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
