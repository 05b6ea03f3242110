#!/usr/bin/env python3
"""Clients that behave badly, and crowds of them, while another client works.

    tests/reliability/clients.py [--long] [--only NAME,...] [--keep]

Each fault has a broker of its own, and a bystander that produces and consumes numbered records all the while: none may
be lost, late beyond its timeout or out of order. One line per fault with its figures; the last line is the sum.
"""

from __future__ import annotations

import argparse
import os
import resource
import socket
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
from harness.broker import CACHE, ROOT, Workspace  # noqa: E402

PYTHON = CACHE / "venv" / "bin" / "python"
if os.environ.get("VIRTUAL_ENV_PYTHON") != "1" and PYTHON.exists() and Path(sys.executable) != PYTHON:
    os.execve(PYTHON, [str(PYTHON), *sys.argv], {**os.environ, "VIRTUAL_ENV_PYTHON": "1", "PYTHONDONTWRITEBYTECODE": "1"})

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, Producer  # noqa: E402
from confluent_kafka.admin import AdminClient, NewTopic  # noqa: E402
from fuzz import VICTIM, Bystander, status  # noqa: E402

SETTINGS = {"group.initial.rebalance.delay.ms": "0", "fleuve.receive.timeout.ms": "2000", "fleuve.send.timeout.ms": "2000"}
DEADLINE_SECONDS = 60
API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)


class Failed(Exception):
    """What should be true is not."""


def check(good: bool, text: str) -> None:
    if not good:
        raise Failed(text)


def wait_for(what: str, condition) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        check(time.monotonic() < deadline, f"not within {DEADLINE_SECONDS} s: {what}")
        time.sleep(0.05)


def connect(broker) -> socket.socket:
    return socket.create_connection(("127.0.0.1", broker.port), 10)


def is_closed(connection: socket.socket) -> bool:
    connection.settimeout(0.01)
    try:
        while data := connection.recv(1 << 16):
            del data
        return True
    except TimeoutError:
        return False
    except OSError:
        return True


def sockets(pid: int) -> int:
    count = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            count += os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:")
        except OSError:
            # Closed meanwhile.
            pass
    return count


def half_open(broker, scale: int) -> str:
    """Peers that begin a request and never end it, or say nothing and are gone without a word."""
    baseline = sockets(broker.pid)
    connections = [connect(broker) for _ in range(100 * scale)]
    for index, connection in enumerate(connections):
        connection.sendall(API_VERSIONS[: index % 14 or 1])
    wait_for("half requests are given up", lambda: all(is_closed(connection) for connection in connections))
    wait_for("sockets are given back", lambda: sockets(broker.pid) <= baseline + 4)
    return f"{len(connections)} half requests given up, sockets given back"


def slow_readers(broker, scale: int) -> str:
    """Peers that ask for much and take nothing of it."""
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic("large", 1, 1)])["large"].result()
    for _ in range(30):
        producer.produce("large", b"x" * 900_000)
        producer.flush(30)
    before = status(broker.pid, "VmRSS")
    name = b"large"
    fetch = struct.pack(">hhih", 1, 11, 1, -1) + struct.pack(">iiiibii", -1, 0, 1, 50 << 20, 0, 0, -1) + struct.pack(">ih", 1, len(name)) + name + struct.pack(">iiiqqi", 1, 0, -1, 0, -1, 50 << 20) + struct.pack(">ih", 0, 0)
    baseline = sockets(broker.pid)
    readers = []
    for _ in range(20 * scale):
        reader = socket.socket()
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(("127.0.0.1", broker.port))
        for _ in range(8):
            reader.sendall(struct.pack(">i", len(fetch)) + fetch)
        readers.append(reader)
    time.sleep(1)
    grown = (status(broker.pid, "VmRSS") - before) // 1024
    check(grown < 200 + 10 * scale, f"{grown} MB more for readers that take nothing")
    # Looked at from the broker's side: the end of the stream waits behind what they do not take.
    wait_for("readers that take nothing are let go", lambda: sockets(broker.pid) <= baseline + 4)
    return f"{len(readers)} readers that take nothing of 8 x 27 MB cost {grown} MB, and are let go"


def connection_flood(broker, scale: int) -> str:
    """Connections opened and dropped as fast as they can be."""
    begun = time.monotonic()
    count = 10_000 * scale
    for index in range(count):
        connection = connect(broker)
        if index % 3 == 0:
            connection.sendall(API_VERSIONS)
        if index % 2 == 0:
            # A reset instead of an end.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    rate = count / (time.monotonic() - begun)
    return f"{count} connections at {rate:.0f} a second"


def limited_address(broker, scale: int) -> str:
    """More connections from one address than it may have; those inside the limit work on."""
    kept = [connect(broker) for _ in range(64)]
    for connection in kept:
        connection.sendall(API_VERSIONS)
    refused = 0
    for _ in range(500 * scale):
        with connect(broker) as connection:
            connection.settimeout(5)
            try:
                connection.sendall(API_VERSIONS)
                refused += connection.recv(4) == b""
            except OSError:
                refused += 1
    check(refused > 400 * scale, f"only {refused} of {500 * scale} were refused")
    return f"{refused} connections above the limit of their address refused"


def oversized(broker, scale: int) -> str:
    """Requests that declare more than is allowed, in either direction of the number line."""
    before = status(broker.pid, "VmRSS")
    for _ in range(100 * scale):
        for length in [0x7FFFFFFF, 104857601, -1, -0x80000000]:
            with connect(broker) as connection:
                connection.sendall(struct.pack(">i", length) + b"\0" * 100)
                wait_for("it is closed", lambda: is_closed(connection))
    grown = (status(broker.pid, "VmRSS") - before) // 1024
    check(grown < 100, f"{grown} MB more")
    return f"{400 * scale} connections closed for the length they declared, {grown} MB"


def partition_churn(broker, scale: int) -> str:
    """Topics made and deleted again, over and over."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    baseline = None
    for turn in range(5 * scale):
        names = [f"churn-{turn}-{index}" for index in range(20)]
        for future in admin.create_topics([NewTopic(name, 10, 1) for name in names], operation_timeout=60).values():
            future.result()
        for future in admin.delete_topics(names, operation_timeout=60).values():
            future.result()
        if turn == 1:
            baseline = status(broker.pid, "VmRSS")
    grown = (status(broker.pid, "VmRSS") - baseline) // 1024
    check(grown < 100, f"{grown} MB more after the second turn")
    check(not any(name.startswith("churn-") for name in admin.list_topics(timeout=30).topics), "deleted topics are still there")
    return f"{1000 * scale} partitions made and deleted, {grown} MB more than after the second turn"


def storm(broker, protocol: str, scale: int) -> str:
    """Members of one group that come and go all the time, while those that stay consume and commit."""
    staying, guests_at_once, partitions, records = 4, 3, 12, 1_000 * scale
    topic = group = f"storm-{protocol}"
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result()
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for index in range(records):
        producer.produce(topic, b"x", partition=index % partitions)
        producer.poll(0)
    producer.flush(60)
    config = {"bootstrap.servers": broker.bootstrap, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False, "group.protocol": protocol, "enable.metrics.push": False}
    if protocol == "classic":
        config |= {"session.timeout.ms": 6_000}
    committed: dict[int, int] = {}

    def join(_: int) -> Consumer:
        member = Consumer(config)
        member.subscribe([topic])
        return member

    def work(member: Consumer) -> None:
        message = member.poll(0.02)
        if message is not None and not message.error():
            try:
                member.commit(message, asynchronous=False)
            except KafkaException:
                # The partition is somebody else's by now.
                pass

    def look() -> None:
        """What was committed once is never taken back."""
        found = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result()
        for entry in found.topic_partitions:
            before = committed.get(entry.partition, 0)
            check(entry.offset >= before, f"{protocol}: {entry.offset} is committed for partition {entry.partition}, and {before} was")
            committed[entry.partition] = entry.offset

    def settled() -> bool:
        list(pool.map(work, stay))
        assigned = [partition.partition for member in stay for partition in member.assignment()]
        return sorted(assigned) == list(range(partitions))

    with ThreadPoolExecutor(16) as pool:
        stay = list(pool.map(join, range(staying)))
        flapped = 0
        until = time.monotonic() + 5 * scale
        while time.monotonic() < until:
            guests = list(pool.map(join, range(guests_at_once)))
            list(pool.map(work, stay + guests))
            look()
            list(pool.map(Consumer.close, guests))
            flapped += len(guests)
        ended = time.monotonic()
        wait_for("the members that stay share all partitions", settled)
        took = time.monotonic() - ended
        look()
        list(pool.map(Consumer.close, stay))
    check(bool(committed), f"{protocol}: nothing was ever committed")
    return f"{protocol}: {flapped} came and went, up to {staying + guests_at_once} at once, then {staying} share {partitions} partitions after {took:.1f} s, no commit undone"


def rebalance_storm(broker, scale: int) -> str:
    """Members that come and go all the time, by either protocol; then those that stay share everything."""
    return "; ".join(storm(broker, protocol, scale) for protocol in ["classic", "consumer"])


def rebalance_crowd(broker, scale: int) -> str:
    """500 members with a connection each join at once, and half of them leave and come back ten times, by either protocol."""
    subprocess.run(["cargo", "build", "-q", "-p", "fleuve-client", "--example", "storm"], cwd=ROOT, check=True)
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic("storm", 1_000, 1)])["storm"].result()
    members, rounds = (500, 10) if scale > 1 else (50, 2)
    said = []
    for protocol in ["classic", "consumer"]:
        before = usage(broker.pid)
        done = subprocess.run([ROOT / "target" / "debug" / "examples" / "storm", broker.bootstrap, protocol, str(members), str(rounds)], capture_output=True, text=True, timeout=900)
        check(done.returncode == 0, f"{protocol}: {done.stdout}{done.stderr}")
        seconds, megabytes = usage(broker.pid)
        said.append(f"{protocol}: {'; '.join(done.stdout.splitlines())}; {seconds - before[0]:.1f} s of the broker's processor, {before[1]} to {megabytes} MB")
    return ". ".join(said)


def usage(pid: int) -> tuple[float, int]:
    """Seconds of processor time and megabytes of memory."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), status(pid, "VmRSS") // 1024


# Who left while it was about to join is noticed by its silence.
STORM_SETTINGS = {f"group.consumer.{least}{key}": value for key, value in [("heartbeat.interval.ms", "1000"), ("session.timeout.ms", "10000")] for least in ["", "min."]}
FAULTS = {
    "half-open": (half_open, {}),
    "slow-readers": (slow_readers, {}),
    "connection-flood": (connection_flood, {}),
    "limited-address": (limited_address, {"max.connections.per.ip": "64"}),
    "oversized": (oversized, {}),
    "partition-churn": (partition_churn, {"log.segment.delete.delay.ms": "100"}),
    "rebalance-storm": (rebalance_storm, STORM_SETTINGS),
    "rebalance-crowd": (rebalance_crowd, {}),
}
# Those that build something of their own, and take a while.
LONG_ONLY = {"rebalance-crowd"}


def run(name: str, scale: int, keep: bool) -> None:
    fault, settings = FAULTS[name]
    with Workspace(f"clients-{name}", keep) as workspace:
        broker = workspace.broker("fleuve", {**SETTINGS, **settings}).start()
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        admin.create_topics([NewTopic(VICTIM, 1, 1)])[VICTIM].result()
        del admin
        bystander = Bystander(broker.bootstrap)
        bystander.start()
        wait_for("the bystander works", lambda: bystander.consumed > 0)
        said = fault(broker, scale)
        bystander.stopping.set()
        bystander.join(120)
        check(not bystander.problems, "; ".join(bystander.problems[:3]))
        check(bystander.consumed == bystander.produced, f"the bystander got {bystander.consumed} of {bystander.produced} records")
        broker.stop()
        log = broker.log_path.read_text(errors="replace")
        bad = [line for line in log.splitlines() if "panicked" in line or " ERROR " in line]
        check(not bad, "; ".join(bad[:3]))
        print(f"ok     {name:17} {said}; bystander {bystander.produced} records", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--long", action="store_true", help="ten times as much of each")
    parser.add_argument("--only", help="some of the faults")
    parser.add_argument("--keep", action="store_true", help="keep data and logs of the run")
    arguments = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    failed = 0
    names = arguments.only.split(",") if arguments.only else [name for name in FAULTS if arguments.long or name not in LONG_ONLY]
    for name in names:
        try:
            run(name, 10 if arguments.long else 1, arguments.keep)
        except Failed as failure:
            failed += 1
            print(f"FAILED {name:17} {failure}", flush=True)
    print(f"{len(names) - failed} faults survived, {failed} not")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
