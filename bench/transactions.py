"""Transactions as fast as they go: producers that each begin, write one record and commit, over and over.

They speak the first version of the protocol, as librdkafka does: AddPartitionsToTxn, Produce, EndTxn. Nobody's client
library is in the way, so what is measured is the coordinator, its log and the markers.
"""

from __future__ import annotations

import struct
import time

import wire
from dialogue import Dialogue, Failed, Request

PRODUCE, FIND_COORDINATOR, INIT_PRODUCER_ID, ADD_PARTITIONS, END = 0, 10, 22, 24, 26
TRANSACTIONAL = 0x10
COORDINATOR_KINDS = {"group": 0, "transaction": 1}
# The coordinator is not there yet, is loading, has moved; markers of the last transaction are on their way.
PASSING = {14, 15, 16, 51}
# What librdkafka and the Java client wait before they try again to begin a transaction.
RETRY_SECONDS = 0.02
PRODUCERS = 64
VALUE = b"paid"


def find_coordinator(name: str, kind: str):
    """Waits until the topic of the coordinators is there."""
    while True:
        answer = yield Request(FIND_COORDINATOR, 1, wire.text(name) + bytes([COORDINATOR_KINDS[kind]]))
        answer.take("i")
        error = answer.take("h")
        if not error:
            return
        if error not in PASSING:
            raise Failed(f"FindCoordinator: error {error}")
        yield 0.1


def batch(producer_id: int, epoch: int, sequence: int) -> bytes:
    plain = wire.batch(VALUE)
    body = bytearray(plain[21:])
    # attributes; then behind last offset delta and two timestamps: producer id, epoch, sequence
    struct.pack_into(">h", body, 0, TRANSACTIONAL)
    struct.pack_into(">qhi", body, 22, producer_id, epoch, sequence)
    return plain[:17] + struct.pack(">I", wire.crc32c(bytes(body))) + bytes(body)


class Count:
    """Transactions that were committed."""

    def __init__(self):
        self.committed = 0


def produce(name: str, topic: str, partition: int, count: Count):
    """One transactional producer; ends with its connection."""
    yield from find_coordinator(name, "transaction")
    transactional_id = wire.text(name)
    while True:
        answer = yield Request(INIT_PRODUCER_ID, 1, transactional_id + struct.pack(">i", 60000))
        answer.take("i")
        error, producer_id, epoch = answer.take("hqh")
        if not error:
            break
        if error not in PASSING:
            raise Failed(f"InitProducerId: error {error}")
        yield RETRY_SECONDS
    who = transactional_id + struct.pack(">qh", producer_id, epoch)
    place = wire.text(topic)
    add = Request(ADD_PARTITIONS, 0, who + struct.pack(">i", 1) + place + struct.pack(">ii", 1, partition))
    commit = Request(END, 0, who + b"\1")
    sequence = 0
    while True:
        while True:
            answer = yield add
            answer.take("ii"), answer.text(), answer.take("i")
            error = answer.take("ih")[1]
            if not error:
                break
            if error not in PASSING:
                raise Failed(f"AddPartitionsToTxn: error {error}")
            yield RETRY_SECONDS
        records = batch(producer_id, epoch, sequence)
        sequence += 1
        body = transactional_id + struct.pack(">hii", wire.ALL_REPLICAS, 30000, 1) + place
        answer = yield Request(PRODUCE, 7, body + struct.pack(">iii", 1, partition, len(records)) + records)
        answer.take("i"), answer.text(), answer.take("i")
        error = answer.take("ih")[1]
        if error:
            raise Failed(f"Produce: error {error}")
        answer = yield commit
        answer.take("i")
        error = answer.take("h")
        if error:
            raise Failed(f"EndTxn: error {error}")
        count.committed += 1


def run(port: int, topic: str, partitions: int, warmup_seconds: float, seconds: float, began) -> tuple[int, float]:
    """Transactions committed, and the seconds that they took; `began` is called between warm-up and measurement."""
    count = Count()
    dialogue = Dialogue(port)
    dialogue.start(produce(f"payer-{number}", topic, number % partitions, count) for number in range(PRODUCERS))
    try:
        dialogue.run(lambda: count.committed > 0, 60)
        dialogue.rest(warmup_seconds)
        began()
        before, since = count.committed, time.monotonic()
        dialogue.rest(seconds)
        return count.committed - before, time.monotonic() - since
    finally:
        dialogue.close()
