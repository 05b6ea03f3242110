#!/usr/bin/env python3
"""Produce and consume over TLS: a generator of its own, because the other one is built without OpenSSL.

    bench/encrypted.py produce|consume BOOTSTRAP TOPIC SIZE COUNT

librdkafka inside Python, with certificates that nobody checks, as costs are the same. Prints records a second, counted
from the first record to the last acknowledgement. Python sets the pace of small records, and so only 1 KiB is measured.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

COMMON = {"security.protocol": "ssl", "enable.ssl.certificate.verification": False}
PARTITIONS = 4
PATIENCE_SECONDS = 300


def make_certificate(directory: Path) -> dict[str, str]:
    """A key with a certificate of its own signing, and the settings by which both brokers present it on their only listener."""
    store, trust = directory / "server.pem", directory / "server.crt"
    key = directory / "server.key"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run(["openssl", "req", "-x509", *curve, "-keyout", key, "-out", trust, "-days", "2", "-subj", "/CN=bench", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"], check=True, capture_output=True)
    store.write_text(key.read_text() + trust.read_text())
    return {
        "listener.security.protocol.map": "PLAINTEXT:SSL,CONTROLLER:PLAINTEXT",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(store),
        # Kafka checks its own certificate by it, for what brokers say among themselves.
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(trust),
    }


def produce(bootstrap: str, topic: str, size: int, count: int) -> float:
    from confluent_kafka import Producer
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({**COMMON, "bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result()
    producer = Producer({**COMMON, "bootstrap.servers": bootstrap, "acks": "all", "queue.buffering.max.messages": 200_000})
    value = os.urandom(size)
    began = time.monotonic()
    for number in range(count):
        while True:
            try:
                producer.produce(topic, value, partition=number % PARTITIONS)
                break
            except BufferError:
                producer.poll(0.01)
    if producer.flush(PATIENCE_SECONDS):
        raise SystemExit("not all records were acknowledged")
    return count / (time.monotonic() - began)


def consume(bootstrap: str, topic: str, size: int, count: int) -> float:
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({**COMMON, "bootstrap.servers": bootstrap, "group.id": "bench", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    got, began = 0, 0.0
    deadline = time.monotonic() + PATIENCE_SECONDS
    while got < count:
        messages = consumer.consume(10_000, 1)
        if messages and not began:
            began = time.monotonic()
        got += sum(1 for message in messages if not message.error())
        if time.monotonic() > deadline:
            raise SystemExit(f"only {got} of {count} records came")
    return got / (time.monotonic() - began)


if __name__ == "__main__":
    work = {"produce": produce, "consume": consume}[sys.argv[1]]
    print(work(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])))
