"""A Kafka client of a few requests, small enough that its own start and waits do not show in what is measured.

It speaks Metadata 4, CreateTopics 4, DeleteTopics 3, Produce 7 and Fetch 4 over a blocking socket: versions before the flexible
encoding, which every Kafka from 2.1 to 4.3 serves.
"""

from __future__ import annotations

import socket
import struct
import time

METADATA, PRODUCE, FETCH, CREATE_TOPICS, DELETE_TOPICS, INCREMENTAL_ALTER_CONFIGS = 3, 0, 1, 19, 20, 44
TOPIC_RESOURCE = 2
RETRY_SECONDS = 0.001
ALL_REPLICAS = -1


def _crc32c_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


CRC32C = _crc32c_table()


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC32C[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def text(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()


def batch(value: bytes) -> bytes:
    """A record batch v2 with one record; its lengths must each fit one varint byte."""
    assert len(value) < 48
    # attributes, timestamp delta, offset delta, no key (-1), value, no headers; varints are zigzag.
    record = bytes([0, 0, 0, 1, len(value) * 2]) + value + b"\0"
    record = bytes([len(record) * 2]) + record
    stamp = int(time.time() * 1000)
    body = struct.pack(">hiqqqhii", 0, 0, stamp, stamp, -1, -1, -1, 1) + record
    return struct.pack(">qiibI", 0, len(body) + 9, -1, 2, crc32c(body)) + body


class Refused(Exception):
    """The broker is not there yet, or not yet able to do what was asked."""


class Reader:
    """Takes fields off a response."""

    def __init__(self, data: bytes):
        self.data = data
        self.at = 0

    def take(self, layout: str):
        values = struct.unpack_from(">" + layout, self.data, self.at)
        self.at += struct.calcsize(">" + layout)
        return values[0] if len(values) == 1 else values

    def skip(self, count: int) -> None:
        self.at += count

    def text(self) -> str | None:
        length = self.take("h")
        if length < 0:
            return None
        self.at += length
        return self.data[self.at - length : self.at].decode()


class Client:
    """One connection; made anew until the broker takes it."""

    def __init__(self, port: int):
        self.socket = socket.create_connection(("127.0.0.1", port), 1)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(30)

    def close(self) -> None:
        self.socket.close()

    def call(self, key: int, version: int, body: bytes) -> Reader:
        request = struct.pack(">hhi", key, version, 1) + text("bench") + body
        self.socket.sendall(struct.pack(">i", len(request)) + request)
        length = struct.unpack(">i", self._exactly(4))[0]
        return Reader(self._exactly(length)[4:])

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise Refused("the broker closed the connection")
            data += more
        return data

    def leaders(self, topic: str) -> int:
        """How many partitions have a leader; asks for the topic to be created."""
        reply = self.call(METADATA, 4, struct.pack(">i", 1) + text(topic) + b"\1")
        reply.take("i")
        for _ in range(reply.take("i")):
            reply.take("i"), reply.text(), reply.take("i"), reply.text()
        reply.text(), reply.take("i"), reply.take("i")
        if reply.take("h"):
            raise Refused("the topic is not there yet")
        reply.text(), reply.take("b")
        ready = 0
        for _ in range(reply.take("i")):
            error, _, leader = reply.take("hii")
            for _ in range(2):
                reply.skip(4 * reply.take("i"))
            ready += not error and leader >= 0
        return ready

    def create_topic(self, topic: str, partitions: int, configs: dict[str, str] | None = None) -> None:
        body = struct.pack(">i", 1) + text(topic) + struct.pack(">ihi", partitions, 1, 0)
        body += struct.pack(">i", len(configs or {})) + b"".join(text(key) + text(value) for key, value in (configs or {}).items())
        reply = self.call(CREATE_TOPICS, 4, body + struct.pack(">ib", 60000, 0))
        reply.take("ii"), reply.text()
        if error := reply.take("h"):
            raise Refused(f"creating {topic}: error {error}")

    def delete_topic(self, topic: str) -> None:
        reply = self.call(DELETE_TOPICS, 3, struct.pack(">i", 1) + text(topic) + struct.pack(">i", 60000))
        reply.take("ii"), reply.text()
        if error := reply.take("h"):
            raise Refused(f"deleting {topic}: error {error}")

    def alter_topic(self, topic: str, configs: dict[str, str]) -> None:
        entries = b"".join(text(key) + b"\0" + text(value) for key, value in configs.items())
        body = struct.pack(">ib", 1, TOPIC_RESOURCE) + text(topic) + struct.pack(">i", len(configs)) + entries + b"\0"
        reply = self.call(INCREMENTAL_ALTER_CONFIGS, 0, body)
        reply.take("ii")
        if error := reply.take("h"):
            raise Refused(f"altering {topic}: error {error}")

    def produce(self, topic: str, partition: int = 0, acks: int = ALL_REPLICAS) -> None:
        records = batch(b"measured by bench/wire.py")
        body = struct.pack(">hhii", -1, acks, 30000, 1) + text(topic) + struct.pack(">iii", 1, partition, len(records)) + records
        reply = self.call(PRODUCE, 7, body)
        reply.take("i"), reply.text(), reply.take("i")
        _, error = reply.take("ih")
        if error:
            raise Refused(f"produce: error {error}")

    def fetch(self, topic: str, partition: int = 0) -> None:
        """Fetches from offset 0 and insists on records."""
        body = struct.pack(">iiiibi", -1, 500, 1, 1 << 20, 0, 1) + text(topic) + struct.pack(">iiqi", 1, partition, 0, 1 << 20)
        reply = self.call(FETCH, 4, body)
        reply.take("ii"), reply.text(), reply.take("i")
        _, error, _, _ = reply.take("ihqq")
        aborted = reply.take("i")
        reply.skip(16 * max(aborted, 0))
        if error or reply.take("i") <= 0:
            raise Refused(f"fetch: error {error}")


def until_done(port: int, deadline_seconds: float, job) -> float:
    """Repeats `job(client)` every millisecond until it is not refused; returns the moment (monotonic) it was done."""
    deadline = time.monotonic() + deadline_seconds
    client = None
    while True:
        try:
            client = client or Client(port)
            job(client)
            return time.monotonic()
        except OSError:
            client = None
        except Refused:
            # The connection may be half spent; a new one costs little.
            client.close()
            client = None
        if time.monotonic() > deadline:
            raise TimeoutError(f"not done within {deadline_seconds} s")
        time.sleep(RETRY_SECONDS)


def first_ack(client: Client, topic: str) -> None:
    """One record produced to partition 0 and acknowledged by all replicas; the topic is created on the way."""
    if not client.leaders(topic):
        raise Refused("no leader yet")
    client.produce(topic)
