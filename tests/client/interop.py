#!/usr/bin/env python3
"""Members of different clients in one group: the native client (as `fleuve consume`), librdkafka and Java.

    tests/client/interop.py --broker kafka|fleuve|HOST:PORT

For every way of dividing, members join one after the other, so that each client leads a group of strangers once. What
is produced meanwhile, by two clients with the same keys, must be read by exactly one member each and lie in the
partition that the key's hash names.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.broker import ROOT, Kafka, Workspace, add_broker_argument  # noqa: E402

Kafka.heap = "384M"
PARTITIONS = 6
KEYS = 60
PATIENCE_SECONDS = 90
BINARY = Path(os.environ.get("FLEUVE_BINARY", ROOT / "target" / "release" / "fleuve"))
JAVA_ASSIGNORS = {"range": "RangeAssignor", "roundrobin": "RoundRobinAssignor", "cooperative-sticky": "CooperativeStickyAssignor"}


class Member:
    """A consumer in a process of its own that prints one JSON object per record."""

    def __init__(self, command: list[str], log: Path):
        self.values: list[str] = []
        self.log = open(log, "ab")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            line = line.strip()
            if line.startswith("{"):
                line = str(json.loads(line).get("value"))
            self.values.append(line)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.log.close()


def native(servers: str, topic: str, group: str, assignor: str) -> list[str]:
    properties = ["-X", f"partition.assignment.strategy={assignor}", "-X", "session.timeout.ms=10000", "-X", "heartbeat.interval.ms=300"]
    return [str(BINARY), "consume", topic, "--bootstrap-server", servers, "--group", group, "--follow", "-q", "-o", "json", *properties]


def librdkafka(servers: str, topic: str, group: str, assignor: str) -> list[str]:
    program = (
        "import confluent_kafka, signal, sys\n"
        f"c = confluent_kafka.Consumer({{'bootstrap.servers': '{servers}', 'group.id': '{group}', 'auto.offset.reset': 'earliest',"
        f" 'partition.assignment.strategy': '{assignor}', 'session.timeout.ms': 10000, 'heartbeat.interval.ms': 300}})\n"
        "signal.signal(signal.SIGTERM, lambda *_: (c.close(), sys.exit(0)))\n"
        f"c.subscribe(['{topic}'])\n"
        "while True:\n"
        "    m = c.poll(0.2)\n"
        "    if m is not None and not m.error(): print(m.value().decode(), flush=True)\n"
    )
    return [sys.executable, "-c", program]


def java(servers: str, topic: str, group: str, assignor: str) -> list[str]:
    strategy = f"org.apache.kafka.clients.consumer.{JAVA_ASSIGNORS[assignor]}"
    properties = [f"partition.assignment.strategy={strategy}", "session.timeout.ms=10000", "heartbeat.interval.ms=300", "auto.offset.reset=earliest"]
    options = [part for each in properties for part in ("--command-property", each)]
    return [
        *Kafka.java("-Xmx128m", "org.apache.kafka.tools.consumer.ConsoleConsumer"),
        "--bootstrap-server", servers, "--topic", topic, "--group", group, *options,
    ]  # fmt: skip


def murmur2(data: bytes) -> int:
    """Kafka's hash, written down a second time."""
    mask, mix = 0xFFFFFFFF, 0x5BD1E995
    value = (0x9747B28C ^ len(data)) & mask
    for at in range(0, len(data) - len(data) % 4, 4):
        word = int.from_bytes(data[at : at + 4], "little") * mix & mask
        word = (word ^ word >> 24) * mix & mask
        value = (value * mix & mask) ^ word
    rest = data[len(data) - len(data) % 4 :]
    if rest:
        value = (value ^ int.from_bytes(rest, "little")) * mix & mask
    value = (value ^ value >> 13) * mix & mask
    return value ^ value >> 15


def produce(servers: str, topic: str, label: str) -> set[str]:
    """The same keys from the native client and from librdkafka."""
    import confluent_kafka

    names = [f"{label}-{index}" for index in range(KEYS)]
    lines = "".join(f"key{index}\tnative {name}\n" for index, name in enumerate(names))
    subprocess.run([str(BINARY), "produce", topic, "--bootstrap-server", servers, "-k", "\t", "-q"], input=lines, text=True, check=True)
    places = {}
    producer = confluent_kafka.Producer({"bootstrap.servers": servers, "partitioner": "murmur2_random", "enable.metrics.push": False})
    for index, name in enumerate(names):
        producer.produce(topic, f"librdkafka {name}", f"key{index}", on_delivery=lambda _, m: places.__setitem__(m.key(), m.partition()))
    producer.flush()
    for key, partition in places.items():
        expected = (murmur2(key) & 0x7FFFFFFF) % PARTITIONS
        assert partition == expected, f"librdkafka puts {key} into {partition}, not {expected}"
    return {f"{client} {name}" for client in ("native", "librdkafka") for name in names}


def check_native_partitions(servers: str, topic: str) -> None:
    command = [str(BINARY), "consume", topic, "--bootstrap-server", servers, "-o", "json", "-q"]
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        record = json.loads(line)
        expected = (murmur2(record["key"].encode()) & 0x7FFFFFFF) % PARTITIONS
        assert record["partition"] == expected, f"{record} belongs into {expected}"


def await_values(members: list[Member], expected: set[str], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        seen = [value for member in members for value in member.values]
        if expected <= set(seen):
            return
        time.sleep(0.1)
    missing = expected - {value for member in members for value in member.values}
    raise SystemExit(f"{what}: {len(missing)} of {len(expected)} were not read, for example {sorted(missing)[:3]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_broker_argument(parser)
    parser.add_argument("--without-java", action="store_true")
    arguments = parser.parse_args()
    with Workspace("interop", arguments.keep) as workspace:
        broker = workspace.broker(arguments.broker, {"group.initial.rebalance.delay.ms": "0"}).start()
        servers = broker.bootstrap
        clients = {"native": native, "librdkafka": librdkafka} | ({} if arguments.without_java else {"java": java})
        for assignor in JAVA_ASSIGNORS:
            for leader in clients:
                topic = f"interop-{assignor}-{leader}"
                create = [str(BINARY), "topic", "create", topic, "--partitions", str(PARTITIONS), "--bootstrap-server", servers]
                subprocess.run(create, check=True, capture_output=True)
                members: list[Member] = []
                for index, client in enumerate([leader, *(name for name in clients if name != leader)]):
                    command = clients[client](servers, topic, f"group-{topic}", assignor)
                    members.append(Member(command, workspace.path / f"{topic}-{client}.log"))
                    what = f"{assignor}, led by {leader}, with {index + 1} members"
                    await_values(members, produce(servers, topic, f"{index}"), what)
                # Everybody reads their share once the group has settled.
                deadline = time.monotonic() + PATIENCE_SECONDS
                round_number = len(members)
                while True:
                    for member in members:
                        member.values.clear()
                    expected = produce(servers, topic, f"{round_number}")
                    await_values(members, expected, f"{assignor}, led by {leader}, settled")
                    counts = [len(member.values) for member in members]
                    if all(counts) and sum(counts) == len(expected):
                        break
                    assert time.monotonic() < deadline, f"{assignor}, led by {leader}: {counts} of {len(expected)}"
                    round_number += 1
                check_native_partitions(servers, topic)
                for member in members:
                    member.stop()
                print(f"{assignor:20} led by {leader:12} shares {counts}", flush=True)
        broker.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
