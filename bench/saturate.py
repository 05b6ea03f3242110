"""Loads that cost the generator next to nothing: the same encoded batch again and again, and fetches whose records nobody parses.

A client library spends more CPU on a record than a broker does, so on a small machine it is the library that sets the pace.
Here one request after the other is written from one buffer, and answers are read into another, so that what is left is the
broker's own limit and the kernel's. It speaks Produce 7 and Fetch 4, like `wire`.
"""

from __future__ import annotations

import functools
import socket
import struct
import threading
import time

import wire

BATCH_BYTES = 512 << 10
FETCH_BYTES = 4 << 20
IN_FLIGHT = 4
READY_SECONDS_MAX = 10
NOT_LEADER = 6


def varint(value: int) -> bytes:
    value = value << 1 ^ value >> 63
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


@functools.cache
def encoded_batch(record_bytes: int) -> tuple[bytes, int]:
    """A batch of records without keys, uncompressed, and how many they are."""
    count = BATCH_BYTES // record_bytes
    records = bytearray()
    for index in range(count):
        value = bytes((index + position) & 0xFF for position in range(record_bytes))
        record = b"\0\0" + varint(index) + varint(-1) + varint(len(value)) + value + b"\0"
        records += varint(len(record)) + record
    stamp = int(time.time() * 1000)
    body = struct.pack(">hiqqqhii", 0, count - 1, stamp, stamp, -1, -1, -1, count) + bytes(records)
    return struct.pack(">qiibI", 0, len(body) + 9, -1, 2, wire.crc32c(body)) + body, count


def request(key: int, version: int, body: bytes) -> bytes:
    content = struct.pack(">hhi", key, version, 1) + wire.text("saturate") + body
    return struct.pack(">i", len(content)) + content


class Lane:
    """One connection that keeps one partition busy."""

    def __init__(self, port: int, topic: str, partition: int):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Linux paces what a generator with BBR sends by timers, and charges them to whichever process they interrupt.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
        self.socket.settimeout(60)
        self.socket.connect(("127.0.0.1", port))
        self.topic = topic
        self.partition = partition
        self.buffer = memoryview(bytearray(FETCH_BYTES + (1 << 20)))
        self.bytes = 0
        self.failure: str | None = None

    def answer(self) -> memoryview:
        self.fill(0, 4)
        length = struct.unpack_from(">i", self.buffer)[0]
        self.fill(0, length)
        return self.buffer[4:length]

    def fill(self, begin: int, count: int) -> None:
        while begin < count:
            received = self.socket.recv_into(self.buffer[begin:count])
            if not received:
                raise OSError("the broker closed the connection")
            begin += received

    def produce(self, batch: bytes, end_bytes: int) -> None:
        head = struct.pack(">hhii", -1, wire.ALL_REPLICAS, 30000, 1) + wire.text(self.topic)
        frame = request(wire.PRODUCE, 7, head + struct.pack(">iii", 1, self.partition, len(batch)) + batch)
        sent = 0
        ready_by = time.monotonic() + READY_SECONDS_MAX
        while self.bytes < end_bytes:
            if sent < end_bytes and sent - self.bytes < IN_FLIGHT * len(batch):
                self.socket.sendall(frame)
                sent += len(batch)
                continue
            error = struct.unpack_from(">h", self.answer(), 4 + 2 + len(self.topic) + 4 + 4)[0]
            # A new topic's partitions become ready one after the other.
            if error == NOT_LEADER and time.monotonic() < ready_by:
                sent -= len(batch)
                continue
            if error:
                raise OSError(f"produce: error {error}")
            self.bytes += len(batch)

    def drain(self, batch_bytes: int, records: int, end_bytes: int) -> None:
        """Reads `end_bytes` from the beginning. All batches are alike, so their number tells the next offset."""
        offset = 0
        while self.bytes < end_bytes:
            body = struct.pack(">iiiibi", -1, 500, 1, FETCH_BYTES, 0, 1) + wire.text(self.topic)
            self.socket.sendall(request(wire.FETCH, 4, body + struct.pack(">iiqi", 1, self.partition, offset, FETCH_BYTES)))
            answer = self.answer()
            position = 4 + 4 + 2 + len(self.topic) + 4 + 4
            error = struct.unpack_from(">h", answer, position)[0]
            aborted, length = struct.unpack_from(">ii", answer, position + 18)
            if error or aborted > 0 or length < batch_bytes:
                raise OSError(f"fetch at {offset}: error {error}, {length} bytes")
            whole = length // batch_bytes
            offset += whole * records
            self.bytes += whole * batch_bytes

    def run(self, work, *arguments) -> None:
        try:
            work(self, *arguments)
        except (OSError, struct.error) as error:
            self.failure = str(error)
        finally:
            self.socket.close()


def run(port: int, topic: str, work, arguments_of) -> tuple[list[int], float]:
    """Does `work` on one lane for each partition; returns the bytes of each and the seconds it took."""
    lanes = [Lane(port, topic, partition) for partition in range(len(arguments_of))]
    threads = [threading.Thread(target=lane.run, args=(work, *arguments)) for lane, arguments in zip(lanes, arguments_of)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failures = [lane.failure for lane in lanes if lane.failure]
    if failures:
        raise OSError("; ".join(failures))
    return [lane.bytes for lane in lanes], time.monotonic() - began


def produce(port: int, topic: str, partitions: int, end_bytes: int, record_bytes: int) -> tuple[list[int], float]:
    batch, _ = encoded_batch(record_bytes)
    return run(port, topic, Lane.produce, [(batch, end_bytes // partitions)] * partitions)


def drain(port: int, topic: str, sizes: list[int], record_bytes: int) -> tuple[list[int], float]:
    batch, records = encoded_batch(record_bytes)
    return run(port, topic, Lane.drain, [(len(batch), records, size) for size in sizes])
