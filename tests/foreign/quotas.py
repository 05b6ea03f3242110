#!/usr/bin/env python3
"""Quotas with foreign clients: who is over one is told so, slowed down to it, or refused.

    tests/foreign/quotas.py [--broker fleuve|kafka] [--keep]

Apache's tools set the quotas; librdkafka and Apache's Java producer feel them. One line per check, with the figures; the
last line is the sum. Rates are only bounded from above, as a busy machine makes everybody slower.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from harness.broker import CACHE, KAFKA_LIBS, Broker, Workspace, add_broker_argument  # noqa: E402

PYTHON = CACHE / "venv" / "bin" / "python"
if os.environ.get("VIRTUAL_ENV_PYTHON") != "1" and PYTHON.exists() and Path(sys.executable) != PYTHON:
    os.execve(PYTHON, [str(PYTHON), *sys.argv], {**os.environ, "VIRTUAL_ENV_PYTHON": "1", "PYTHONDONTWRITEBYTECODE": "1"})

from confluent_kafka import Consumer, Producer  # noqa: E402
from confluent_kafka.admin import AdminClient, NewTopic  # noqa: E402

LOGGING = HERE.parent / "harness" / "log4j2.properties"
JAVA = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx128m", f"-Dlog4j2.configurationFile={LOGGING}", "-cp", f"{KAFKA_LIBS}/*"]
TOPIC = "quotas"
RATE = 500_000
# Three samples of a second: two seconds' worth may be used at once.
WINDOW_SECONDS = 2
SETTINGS = {"quota.window.num": "3", "quota.window.size.seconds": "1", "controller.quota.window.num": "3"}
BYTES = 4 * RATE
VALUE = os.urandom(10_000)
# Connections a second of an address: enough for Apache's tools.
IP_RATE = 5
# ApiVersions, version 0, without a client id.
API_VERSIONS = b"\0\0\0\x0a\0\x12\0\0\0\0\0\1\xff\xff"

passed = failed = 0


def note(good: bool, text: str) -> None:
    global passed, failed
    passed += good
    failed += not good
    print(f"{'ok' if good else 'FAILED':6} {text}", flush=True)


def java(*arguments: str) -> str:
    done = subprocess.run([*JAVA, *arguments], capture_output=True, text=True, timeout=120)
    return done.stdout + done.stderr


def set_quota(broker: Broker, entity: list[str], values: str) -> str:
    return java("kafka.admin.ConfigCommand", "--bootstrap-server", broker.bootstrap, "--alter", "--add-config", values, *entity)


def produce(broker: Broker, client: str, count: int) -> tuple[float, list[float]]:
    """Seconds until `count` records were acknowledged, and the waits that the broker asked for."""
    waits: list[float] = []
    producer = Producer({"bootstrap.servers": broker.bootstrap, "client.id": client, "linger.ms": 5, "batch.size": 100_000, "throttle_cb": lambda event: waits.append(event.throttle_time)})
    begun = time.monotonic()
    for _ in range(count):
        producer.produce(TOPIC, VALUE)
        producer.poll(0)
    left = producer.flush(120)
    assert left == 0, f"{left} records were not acknowledged"
    return time.monotonic() - begun, waits


def consume(broker: Broker, client: str, count: int) -> tuple[float, list[float]]:
    waits: list[float] = []
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "client.id": client, "group.id": client, "auto.offset.reset": "earliest", "fetch.message.max.bytes": 100_000, "throttle_cb": lambda event: waits.append(event.throttle_time)})
    consumer.subscribe([TOPIC])
    begun = None
    got = 0
    deadline = time.monotonic() + 120
    while got < count and time.monotonic() < deadline:
        message = consumer.poll(1)
        if message is not None and not message.error():
            begun = begun or time.monotonic()
            got += 1
    took = time.monotonic() - (begun or 0)
    consumer.close()
    assert got == count, f"only {got} records came"
    return took, waits


def check_rate(what: str, took: float, waits: list[float]) -> None:
    # What is above a window's worth has to be waited for.
    least = (BYTES - WINDOW_SECONDS * RATE) / RATE * 0.9
    note(took >= least and any(wait > 0 for wait in waits), f"{what}: {BYTES} bytes took {took:.1f} s (at least {least:.1f} at {RATE} B/s), {len(waits)} throttles, longest {max(waits, default=0):.2f} s")


def connect_for(broker: Broker, seconds: float) -> tuple[int, int]:
    """Connects as fast as it goes, and returns how many connections stayed open and how many were ended."""
    host, port = broker.bootstrap.split(":")
    kept, ended = [], 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        connection = socket.create_connection((host, int(port)), 10)
        # Whoever comes too fast is kept waiting, and then its connection ends.
        connection.settimeout(1.5)
        try:
            connection.sendall(API_VERSIONS)
            if connection.recv(4):
                kept.append(connection)
                continue
        except OSError:
            pass
        ended += 1
        connection.close()
    for connection in kept:
        connection.close()
    return len(kept), ended


def check_addresses(broker: Broker) -> None:
    """Connections of an address: Apache's tool sets how many a second."""
    begun = time.monotonic()
    kept, ended = connect_for(broker, 1)
    note(ended == 0 and kept > 20, f"without a quota {kept} connections a second, none ended")
    said = set_quota(broker, ["--entity-type", "ips", "--entity-name", "127.0.0.1"], f"connection_creation_rate={IP_RATE}")
    note("Completed updating" in said, "Apache's tool sets a rate of connections of an address")
    # Those before count for the window that has begun.
    time.sleep(max(0.0, WINDOW_SECONDS + 2 - (time.monotonic() - begun)))
    seconds = 4
    kept, ended = connect_for(broker, seconds)
    most = IP_RATE * (seconds + WINDOW_SECONDS + 1)
    note(0 < kept <= most and ended > 0, f"with {IP_RATE} a second {kept} connections in {seconds} s stayed (at most {most}), {ended} were ended")
    described = java("kafka.admin.ConfigCommand", "--bootstrap-server", broker.bootstrap, "--describe", "--entity-type", "ips")
    note(f"connection_creation_rate={float(IP_RATE)}" in described, "Apache's tool describes it")
    java("kafka.admin.ConfigCommand", "--bootstrap-server", broker.bootstrap, "--alter", "--delete-config", "connection_creation_rate", "--entity-type", "ips", "--entity-name", "127.0.0.1")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_broker_argument(parser)
    arguments = parser.parse_args()
    with Workspace("quotas", arguments.keep) as workspace:
        broker = workspace.broker(arguments.broker, SETTINGS).start()
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        admin.create_topics([NewTopic(TOPIC, 1, 1)])[TOPIC].result()
        said = set_quota(broker, ["--entity-type", "clients", "--entity-name", "slow"], f"producer_byte_rate={RATE},consumer_byte_rate={RATE}")
        note("Completed updating" in said, "Apache's tool sets byte rates of a client-id")
        count = BYTES // len(VALUE)
        took, waits = produce(broker, "quick", count)
        note(not any(waits), f"librdkafka, a client without a quota: {BYTES} bytes took {took:.1f} s, no throttles")
        check_rate("librdkafka produces over its quota", *produce(broker, "slow", count))
        check_rate("librdkafka consumes over its quota", *consume(broker, "slow", count))

        said = java("org.apache.kafka.tools.ProducerPerformance", "--bootstrap-server", broker.bootstrap, "--topic", TOPIC, "--num-records", str(count), "--record-size", str(len(VALUE)), "--throughput", "-1", "--command-property", "client.id=slow", "--print-metrics")
        throttle = re.search(r"producer-metrics:produce-throttle-time-avg:\{[^}]*\}\s*:\s*([\d.]+)", said)
        note(throttle is not None and float(throttle[1]) > 0, f"Apache's producer reports produce-throttle-time-avg {throttle[1] if throttle else said[-300:]}")

        check_addresses(broker)
        set_quota(broker, ["--entity-type", "users", "--entity-default"], "controller_mutation_rate=1")
        tool = ["org.apache.kafka.tools.TopicCommand", "--bootstrap-server", broker.bootstrap, "--create"]
        first = java(*tool, "--topic", "many", "--partitions", "60")
        second = java(*tool, "--topic", "more", "--partitions", "1")
        note("Created topic" in first, "a topic of 60 partitions overdraws a quota of 1 per second")
        note("quota has been exceeded" in second, f"the next one is refused: {second.strip().splitlines()[-1][:120] if second.strip() else second!r}")
        broker.stop()
    print(f"{passed} checks passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
