#!/usr/bin/env python3
"""Many partitions and many connections with few file descriptors.

    tests/reliability/descriptors.py [--partitions N] [--limit N] [--long] [--keep]

The broker may have 256 files open (`prlimit`) and has 600 partitions, all of them written to before anything is flushed, rolled,
read, and found again after SIGKILL. Then more clients connect than there are descriptors: those that are in are served, the rest
waits and is served once others leave. Nothing is lost, no error is logged, and the limit is kept. --long: 10,000 partitions and a
limit of 1,024, Linux's usual one. Needs `scripts/setup.sh python`.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness.broker import CACHE, Broker, Workspace  # noqa: E402

SETTINGS = {
    "fleuve.metrics.listen": "", "group.initial.rebalance.delay.ms": "0", "offsets.topic.num.partitions": "3",
    # A flush of all that was written comes with the checkpoint, and nothing before it.
    "fleuve.flush.before.ack": "false", "log.flush.offset.checkpoint.interval.ms": "3000", "log.roll.ms": "1",
}
WORK = r"""
import sys, time
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
bootstrap, step, partitions = sys.argv[1], sys.argv[2], int(sys.argv[3])
common = {"bootstrap.servers": bootstrap, "log_level": 2}
if step == "create":
    admin = AdminClient(common)
    for future in admin.create_topics([NewTopic("many", partitions, 1)], operation_timeout=120, request_timeout=120).values():
        future.result(120)
elif step == "write":
    producer = Producer({**common, "linger.ms": 20, "delivery.timeout.ms": 120000, "queue.buffering.max.messages": 500000})
    problems = []
    for round_number in range(4):
        for partition in range(partitions):
            producer.produce("many", f"{partition}/{round_number}".ljust(700, "."), partition=partition,
                             on_delivery=lambda error, message: problems.append(error) if error else None)
        assert producer.flush(120) == 0 and not problems, problems[:3]
else:
    consumer = Consumer({**common, "group.id": "all", "enable.auto.commit": False, "fetch.wait.max.ms": 50,
                         "queued.max.messages.kbytes": 65536})
    consumer.assign([TopicPartition("many", partition, 0) for partition in range(partitions)])
    found = {}
    while len(found) < partitions * 4:
        message = consumer.poll(30)
        assert message is not None, f"only {len(found)} records are there"
        assert message.error() is None, message.error()
        assert message.value().decode().rstrip(".") == f"{message.partition()}/{message.offset()}"
        found[message.partition(), message.offset()] = True
    consumer.close()
"""


class Watch(threading.Thread):
    """How many descriptors the broker has at most."""

    def __init__(self, broker: Broker):
        super().__init__(daemon=True)
        self.broker, self.peak, self.ended = broker, 0, threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.02):
            process = self.broker.process
            if process is not None:
                try:
                    self.peak = max(self.peak, len(os.listdir(f"/proc/{process.pid}/fd")))
                except OSError:
                    pass


def work(broker: Broker, step: str, partitions: int) -> None:
    began = time.monotonic()
    command = [CACHE / "venv" / "bin" / "python", "-c", WORK, broker.bootstrap, step, str(partitions)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if ended.returncode:
        raise RuntimeError(f"{step}: {ended.stderr[-800:]}\n{broker.log_tail()}")
    print(f"       {step} in {time.monotonic() - began:.1f} s", flush=True)


def ask(connection: socket.socket) -> None:
    """An ApiVersions request; whoever gets no answer fails by the timeout."""
    connection.sendall(bytes.fromhex("0000000a 0012 0000 00000001 ffff".replace(" ", "")))
    if len(connection.recv(4)) != 4:
        raise RuntimeError("the broker closed a connection")


def flood(broker: Broker, limit: int) -> int:
    """Connects more clients than there are descriptors; returns how many were served at a time."""
    broker_address = ("127.0.0.1", broker.port)
    connections = [socket.create_connection(broker_address, 30) for _ in range(limit * 2)]
    served = []
    for connection in connections:
        connection.settimeout(1)
        try:
            ask(connection)
        except TimeoutError:
            break
        served.append(connection)
    if not limit // 4 <= len(served) < limit:
        raise RuntimeError(f"{len(served)} of {len(connections)} connections are served")
    # Logs have descriptors of their own, whatever the connections do.
    for connection in served:
        connection.settimeout(30)
        ask_and_drain(connection)
    # Who waited is served once others have left.
    for connection in served:
        connection.close()
    waiting = connections[len(served)]
    waiting.settimeout(30)
    if len(waiting.recv(4)) != 4:
        raise RuntimeError("who waited was turned away")
    for connection in connections[len(served):]:
        connection.close()
    return len(served)


def ask_and_drain(connection: socket.socket) -> None:
    connection.setblocking(False)
    try:
        while connection.recv(1 << 16):
            pass
    except BlockingIOError:
        pass
    connection.settimeout(30)
    ask(connection)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--partitions", type=int)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--long", action="store_true", help="10,000 partitions, 1,024 descriptors")
    parser.add_argument("--keep", action="store_true", help="keep data and logs of the run")
    options = parser.parse_args()
    partitions = options.partitions or (10_000 if options.long else 600)
    limit = options.limit or (1024 if options.long else 256)
    with Workspace("descriptors", options.keep) as workspace:
        broker = workspace.broker("fleuve", SETTINGS)
        # Soft below hard: the broker takes what it may have.
        broker.command_prefix = ["prlimit", f"--nofile={limit // 2}:{limit}"]
        broker.stop_seconds_max = 120
        watch = Watch(broker)
        watch.start()
        broker.start()
        work(broker, "create", partitions)
        work(broker, "write", partitions)
        work(broker, "read", partitions)
        broker.kill()
        broker.start()
        work(broker, "read again", partitions)
        served = flood(broker, limit)
        work(broker, "read after the flood", partitions)
        broker.stop()
        broker.start()
        work(broker, "read after a restart", partitions)
        broker.stop()
        watch.ended.set()
        complaints = [line for line in broker.log_path.read_text(errors="replace").splitlines() if "ERROR" in line or "Too many" in line]
        for line in complaints[:5]:
            print(f"FAILED descriptors: {line[:300]}")
        if watch.peak > limit:
            print(f"FAILED descriptors: {watch.peak} of {limit}")
        workspace.keep |= bool(complaints)
    if complaints or watch.peak > limit:
        return 1
    print(f"ok     {partitions} partitions with {limit} descriptors, {watch.peak} in use at most, {served} connections served at a time")
    return 0


if __name__ == "__main__":
    sys.exit(main())
