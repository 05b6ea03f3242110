#!/usr/bin/env python3
"""A data directory that Apache Kafka wrote is served by Fleuve, and the other way round.

    tests/reliability/interop.py [--writer kafka|fleuve] [--long] [--keep]

Each of the two writes a workload: all codecs, headers, times of its own, rolled segments, a compacted topic, committed and aborted
transactions, one that is left open, committed offsets, several leader epochs. It ends by SIGKILL (--long: also in good order). The
other one opens a copy of the whole directory and must serve the same records at the same offsets with the same times, headers and
epochs, hide the aborted ones, know producers and their sequences, topic ids, settings and committed offsets, end the open
transaction, and take more records behind what is there, with nothing to say about damage. Then the first one takes the directory
back and must find all of that. Needs `scripts/setup.sh python kafka`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness.broker import CACHE, ROOT, Broker, Kafka, Workspace  # noqa: E402

SETTINGS = {
    "group.initial.rebalance.delay.ms": "0", "log.cleaner.backoff.ms": "200", "offsets.topic.num.partitions": "3",
    "transaction.state.log.num.partitions": "3", "log.initial.task.delay.ms": "500",
}
# What either of them logs when it finds a directory in disorder, or throws something away.
COMPLAINTS = re.compile(
    r"corrupt|damage|invalid|truncat|rebuil|malformed|cannot be understood|doing without|discard|unreadable|stray|ERROR|Exception",
    re.IGNORECASE,
)
# Said of sockets and of the start itself; nothing of the data.
HARMLESS = re.compile(r"QuorumState|NetworkClient|metrics are not served|EventPerformanceMonitor")
# Kafka's indexes end in megabytes of zeros until they are closed.
HARMLESS_AFTER_SIGKILL = re.compile(f"{HARMLESS.pattern}|unfinished writes were cut off|rebuilding missing or damaged indexes")
WRITE = r"""
import sys, time
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
bootstrap, part = sys.argv[1], sys.argv[2]
common = {"bootstrap.servers": bootstrap, "log_level": 2}
def producer(**more):
    return Producer({**common, "linger.ms": 5, "batch.num.messages": 100, **more})
if part == "first":
    small = {"segment.bytes": "1048576", "index.interval.bytes": "1024"}
    compacted = {**small, "cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01"}
    topics = [NewTopic("codecs", 2, 1, config=small), NewTopic("latest", 1, 1, config=compacted), NewTopic("committed", 1, 1)]
    admin = AdminClient(common)
    for future in admin.create_topics(topics).values():
        future.result(30)
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        for idempotent in (False, True):
            writing = producer(**{"compression.type": codec, "enable.idempotence": idempotent})
            for number in range(600):
                writing.produce("codecs", key=str(number % 50), value=None if number % 40 == 7 else (str(number) + codec) * 80,
                                partition=number % 2, headers=[("codec", codec), ("none", None)], timestamp=int(sys.argv[3]) + number * 7)
            assert writing.flush(60) == 0
    writing = producer()
    for number in range(12000):
        writing.produce("latest", key=str(number % 20), value=str(number) * 60)
        if number % 500 == 0:
            writing.flush(60)
    assert writing.flush(60) == 0
    # What is compacted begins with a later record than the first.
    deadline = time.monotonic() + 60
    first = None
    while first is None or first.offset() == 0:
        assert time.monotonic() < deadline, "nothing was compacted"
        reading = Consumer({**common, "group.id": "none", "enable.auto.commit": False})
        reading.assign([TopicPartition("latest", 0, 0)])
        first = reading.poll(10)
        reading.close()
else:
    consumer = Consumer({**common, "group.id": "interop"})
    writing = producer(**{"transactional.id": "interop"})
    writing.init_transactions(30)
    for number in range(10):
        writing.begin_transaction()
        for index in range(20):
            writing.produce("committed", value=f"{number}/{index}")
        if number % 3 == 1:
            writing.flush(30)
            writing.abort_transaction(30)
        else:
            if number == 9:
                writing.send_offsets_to_transaction([TopicPartition("codecs", 1, 23)], consumer.consumer_group_metadata(), 30)
            writing.commit_transaction(30)
    consumer.commit(offsets=[TopicPartition("codecs", 0, 17, "a note")], asynchronous=False)
    consumer.close()
    # The markers of the last one are there when the next can begin.
    producer(**{"transactional.id": "interop"}).init_transactions(30)
    hanging = producer(**{"transactional.id": "hanging", "transaction.timeout.ms": 600000})
    hanging.init_transactions(30)
    hanging.begin_transaction()
    hanging.produce("committed", value="never to be seen")
    hanging.flush(30)
    import os
    os._exit(0)
"""
READ = r"""
import hashlib, json, sys
from confluent_kafka import Consumer, KafkaError, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
common = {"bootstrap.servers": sys.argv[1], "log_level": 2}
found = {}
def read(isolation):
    consumer = Consumer({**common, "group.id": "interop", "enable.auto.commit": False, "isolation.level": isolation,
                         "enable.partition.eof": True, "fetch.wait.max.ms": 10})
    places = [TopicPartition(topic, partition) for topic, partition in (("codecs", 0), ("codecs", 1), ("latest", 0), ("committed", 0))]
    bounds = [consumer.get_watermark_offsets(place, 30) for place in places]
    consumer.assign([TopicPartition(place.topic, place.partition, start) for place, (start, _) in zip(places, bounds)])
    digests = {(place.topic, place.partition): [hashlib.sha256(), 0, set()] for place in places}
    ends = 0
    while ends < len(places):
        message = consumer.poll(20)
        assert message is not None, f"no end in sight after {digests}"
        if message.error():
            assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
            ends += 1
            continue
        entry = digests[message.topic(), message.partition()]
        entry[0].update(repr((message.offset(), message.timestamp(), message.key(), message.value(), message.headers(),
                              message.leader_epoch())).encode())
        entry[1] += 1
        entry[2].add(message.leader_epoch())
    for place, bound in zip(places, bounds):
        digest, count, epochs = digests[place.topic, place.partition]
        found[f"{place.topic}-{place.partition} {isolation}"] = [*bound, count, digest.hexdigest()[:16], sorted(epochs)]
    return consumer
read("read_committed").close()
consumer = read("read_uncommitted")
for place in consumer.committed([TopicPartition("codecs", 0), TopicPartition("codecs", 1)], 30):
    found[f"committed for {place.partition}"] = [place.offset, place.metadata]
for milliseconds in (1000, 4000):
    place = consumer.offsets_for_times([TopicPartition("codecs", 1, int(sys.argv[2]) + milliseconds)], 30)[0]
    found[f"offset {milliseconds} ms later"] = place.offset
consumer.close()
admin = AdminClient(common)
for name, topic in sorted(admin.describe_topics(TopicCollection(["codecs", "latest", "committed"])).items()):
    found[f"id of {name}"] = str(topic.result(30).topic_id)
for resource, future in admin.describe_configs([ConfigResource(ResourceType.TOPIC, "latest")]).items():
    found["settings"] = {name: entry.value for name, entry in sorted(future.result(30).items()) if entry.source == 1}
print(json.dumps(found))
"""
TAKE_OVER = r"""
import sys
from confluent_kafka import Producer
common = {"bootstrap.servers": sys.argv[1], "log_level": 2}
ends = []
producer = Producer({**common, "transactional.id": "hanging"})
producer.init_transactions(60)
producer.begin_transaction()
producer.produce("committed", value="taken over", on_delivery=lambda error, message: ends.append((error, message.offset())))
producer.produce("codecs", value="more", partition=0, on_delivery=lambda error, message: ends.append((error, message.offset())))
producer.commit_transaction(60)
Producer({**common, "transactional.id": "hanging"}).init_transactions(60)
assert [error for error, _ in ends] == [None, None], ends
"""


def python(code: str, *arguments: str) -> str:
    ended = subprocess.run([CACHE / "venv" / "bin" / "python", "-c", code, *arguments], capture_output=True, text=True, timeout=180)
    if ended.returncode:
        raise RuntimeError(f"ended with {ended.returncode}: {ended.stderr[-800:]}")
    return ended.stdout


def producers(broker: Broker, fleuve: str) -> list[list[str]]:
    """Producers, epochs, last sequences and times of two partitions, and where transactions are open."""
    rows = []
    for topic in ("codecs", "committed"):
        tool = [str(ROOT / "bin" / "kafka-transactions.sh"), "--bootstrap-server", broker.bootstrap, "describe-producers", "--topic", topic, "--partition", "0"]
        shown = subprocess.run(tool, capture_output=True, text=True, env={**os.environ, "FLEUVE": fleuve}, timeout=60)
        if shown.returncode:
            raise RuntimeError(shown.stderr)
        rows += sorted([topic, *line.split()] for line in shown.stdout.splitlines()[1:])
    return rows


class Exchange:
    """One directory that goes from writer to reader and back."""

    def __init__(self, workspace: Workspace, writer: str, reader: str, how: str):
        self.workspace, self.writer, self.reader = workspace, writer, reader
        self.how = how
        self.label = f"{writer} {how} to {reader}"
        self.problems: list[str] = []
        # Records say that they are an hour old.
        self.begun_ms = str(int(time.time() - 3600) * 1000)
        self.fleuve = os.environ.get("FLEUVE_BINARY", str(ROOT / "target" / "release" / "fleuve"))

    def broker(self, which: str, data: str, source: Path | None = None) -> Broker:
        broker = self.workspace.broker(which, SETTINGS, f"{self.writer}-{self.how}-{data}")
        if source is not None:
            shutil.copytree(source, broker.data)
            (broker.data / ".lock").unlink(missing_ok=True)
        if isinstance(broker, Kafka) and source is not None:
            broker.prepare()
            broker.prepared = True
        return broker

    def compare(self, expected: dict, found: dict, when: str) -> None:
        for name, wanted in expected.items():
            if found.get(name) != wanted:
                self.problems.append(f"{when}, {name}: {str(found.get(name))[:150]} instead of {str(wanted)[:150]}")

    def listen(self, broker: Broker) -> None:
        lines = broker.log_path.read_text(errors="replace").splitlines()
        harmless = HARMLESS_AFTER_SIGKILL if self.how == "killed" else HARMLESS
        self.problems += [line for line in lines if COMPLAINTS.search(line) and not harmless.search(line)]

    def read(self, broker: Broker) -> dict:
        return {**json.loads(python(READ, broker.bootstrap, self.begun_ms)), "producers": producers(broker, self.fleuve)}

    def end(self, broker: Broker) -> None:
        broker.stop() if self.how == "stopped" else broker.kill()

    def run(self) -> bool:
        first = self.broker(self.writer, "wrote")
        first.start()
        python(WRITE, first.bootstrap, "first", self.begun_ms)
        # Another start, another leader epoch.
        first.stop()
        first.start()
        python(WRITE, first.bootstrap, "second", self.begun_ms)
        written = self.read(first)
        self.end(first)

        second = self.broker(self.reader, "took", first.data)
        second.start()
        self.compare(written, self.read(second), "taken over")
        python(TAKE_OVER, second.bootstrap)
        found = self.read(second)
        for name in ("codecs-1 read_committed", "latest-0 read_committed", "settings", "committed for 0"):
            self.compare({name: written[name]}, found, "with more records")
        counts = {name: found[f"{name} read_committed"][2] - written[f"{name} read_committed"][2] for name in ("codecs-0", "committed-0")}
        if counts != {"codecs-0": 1, "committed-0": 1}:
            self.problems.append(f"records that have become visible: {counts}")
        self.end(second)
        self.listen(second)

        third = self.broker(self.writer, "took-back", second.data)
        third.start()
        self.compare(found, self.read(third), "taken back")
        third.stop()
        self.listen(third)
        for problem in self.problems[:12]:
            print(f"FAILED interop {self.label}: {problem[:400]}", flush=True)
        return not self.problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writer", choices=["kafka", "fleuve"], help="only what this one writes")
    parser.add_argument("--long", action="store_true", help="with clean ends, too")
    parser.add_argument("--keep", action="store_true", help="keep data and logs of the run")
    options = parser.parse_args()
    Kafka.heap = "256m"
    fine = True
    with Workspace("interop", options.keep) as workspace:
        for how in ("killed", "stopped") if options.long else ("killed",):
            for writer, reader in (("kafka", "fleuve"), ("fleuve", "kafka")):
                if options.writer in (None, writer):
                    began = time.monotonic()
                    exchange = Exchange(workspace, writer, reader, how)
                    if exchange.run():
                        print(f"ok     interop {exchange.label} in {time.monotonic() - began:.0f} s", flush=True)
                    else:
                        fine = False
        workspace.keep |= not fine
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
