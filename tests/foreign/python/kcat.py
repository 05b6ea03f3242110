"""kcat (librdkafka 2.0 on Debian 12): the command a Kafka user types first."""

from __future__ import annotations

import json
import subprocess
import time

from report import CROSS_KEYS, CROSS_TOPIC, PARTITIONS, PATIENCE_SECONDS, arguments, check, cross_record, done, expect_equal, wait_until

BOOTSTRAP, PHASE = arguments()
TOPIC = "kcat-round-trip"
KEPT_TOPIC = "kcat-kept"
KEPT_GROUP = "kcat-kept"
GROUP_SETTINGS = ["-X", "auto.offset.reset=earliest", "-X", "heartbeat.interval.ms=300", "-X", "session.timeout.ms=6000"]


def kcat(*options: str, lines: list[str] | None = None) -> str:
    """Runs kcat to its end and returns what it printed."""
    text = "".join(line + "\n" for line in lines or [])
    ended = subprocess.run(
        ["kcat", "-b", BOOTSTRAP, "-m", "20", *options], input=text, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    if ended.returncode:
        raise AssertionError(f"kcat {' '.join(options)} ended with {ended.returncode}: {ended.stderr[-300:]}")
    return ended.stdout


def consume(topic: str, offset: int | str, *options: str) -> list[dict]:
    """Records of partition 0 from an offset to the end."""
    return [json.loads(line) for line in kcat("-C", "-t", topic, "-p", "0", "-o", str(offset), "-e", "-q", "-J", *options).splitlines()]


def partition_end() -> int:
    return int(kcat("-Q", "-t", f"{TOPIC}:0:-1").split()[-1])


def metadata() -> None:
    kcat("-P", "-t", TOPIC, "-p", "0", lines=["the topic exists from now on"])
    found = json.loads(kcat("-L", "-J", "-t", TOPIC))
    expect_equal([topic["topic"] for topic in found["topics"]], [TOPIC], "topics")
    expect_equal(len(found["brokers"]), 1, "brokers")


def round_trip(codec: str) -> None:
    first = partition_end()
    lines = [f"{codec}-{n}|" + ("" if n % 5 == 4 else f"value {n} " * 20) for n in range(60)]
    before = int(time.time() * 1000) - 1
    kcat("-P", "-t", TOPIC, "-p", "0", "-K", "|", "-Z", "-z", codec, "-H", "a=1", "-H", "b=two", lines=lines)
    records = consume(TOPIC, first)
    expect_equal([record["offset"] for record in records], list(range(first, first + 60)), "offsets")
    for line, record in zip(lines, records):
        key, value = line.split("|")
        expect_equal((record["key"], record["payload"], record["headers"]), (key, value or None, ["a", "1", "b", "two"]), "record")
        expect_equal(before <= record["ts"] <= time.time() * 1000 + 1, True, f"timestamp {record['ts']} is now")


def idempotent() -> None:
    first = partition_end()
    values = [str(n) for n in range(2000)]
    kcat("-P", "-t", TOPIC, "-p", "0", "-X", "enable.idempotence=true", "-X", "batch.num.messages=50", lines=values)
    expect_equal([record["payload"] for record in consume(TOPIC, first)], values, "values, each once")


def seek_by_timestamp() -> None:
    first = partition_end()
    for value in ("before", "at", "after"):
        kcat("-P", "-t", TOPIC, "-p", "0", lines=[value])
    records = consume(TOPIC, first)
    stamp = records[1]["ts"]
    expect_equal(kcat("-Q", "-t", f"{TOPIC}:0:{stamp}").split()[-1], str(records[1]["offset"]), "offset for the timestamp")
    expect_equal([record["payload"] for record in consume(TOPIC, f"s@{stamp}")], ["at", "after"], "records from the timestamp on")


class Member:
    """A kcat in a consumer group; what it owns is read from its rebalance messages."""

    def __init__(self, group: str, topic: str):
        command = ["kcat", "-b", BOOTSTRAP, "-G", group, *GROUP_SETTINGS, topic]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def await_partitions(self, count: int) -> None:
        """Reads messages until one says that this member owns `count` partitions."""

        def assigned() -> bool:
            line = self.process.stderr.readline()
            if not line:
                raise AssertionError(f"kcat ended before it owned {count} partitions")
            return "assigned:" in line and line.split("assigned:")[1].count("[") == count

        wait_until(assigned, f"a member with {count} partitions")

    def leave(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=PATIENCE_SECONDS)


def group_of_two() -> None:
    kcat("-P", "-t", CROSS_TOPIC + "-kcat", lines=["x"])
    found = json.loads(kcat("-L", "-J", "-t", CROSS_TOPIC + "-kcat"))
    total = len(found["topics"][0]["partitions"])
    first = Member("kcat-group", CROSS_TOPIC + "-kcat")
    try:
        first.await_partitions(total)
        second = Member("kcat-group", CROSS_TOPIC + "-kcat")
        try:
            first.await_partitions(total // 2)
            second.await_partitions(total // 2)
            first.leave()
            second.await_partitions(total)
        finally:
            second.leave()
    finally:
        first.leave()


def committed_offsets() -> None:
    kcat("-P", "-t", KEPT_TOPIC, "-p", "0", lines=[str(n) for n in range(20)])
    options = ["-G", KEPT_GROUP, *GROUP_SETTINGS, "-q"]
    expect_equal(kcat(*options, "-c", "12", KEPT_TOPIC).split(), [str(n) for n in range(12)], "first records")
    expect_equal(kcat(*options, "-c", "2", KEPT_TOPIC).split(), ["12", "13"], "records after the committed offset")


def committed_offset_is_kept() -> None:
    values = kcat("-G", KEPT_GROUP, *GROUP_SETTINGS, "-q", "-c", "6", KEPT_TOPIC).split()
    expect_equal(values, [str(n) for n in range(14, 20)], "records after the offset committed before the restart")


def write_cross() -> None:
    lines = [f"{key}|kcat:{key}" for key in CROSS_KEYS]
    kcat("-P", "-t", CROSS_TOPIC, "-K", "|", "-X", "topic.partitioner=murmur2_random", lines=lines)


def read_cross() -> None:
    printed = kcat("-C", "-t", CROSS_TOPIC, "-o", "beginning", "-e", "-q", "-f", "%p %k %s\n")
    for line in printed.splitlines():
        partition, key, value = line.split(" ")
        cross_record(int(partition), key, value)


if PHASE == "first":
    with check("metadata"):
        metadata()
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        with check(f"round trip {codec}"):
            round_trip(codec)
    with check("idempotent producer"):
        idempotent()
    with check("seek by timestamp"):
        seek_by_timestamp()
    with check("group of two"):
        group_of_two()
    with check("committed offsets survive the consumer"):
        committed_offsets()
    with check("write cross"):
        write_cross()
else:
    with check("committed offsets survive the broker"):
        committed_offset_is_kept()
    with check("read cross"):
        read_cross()
done()
