"""How long a group of 100 members takes to come together, and to take one more in, by both protocols.

Members send heartbeats every 50 ms and do at once what the answers ask for, so that what is measured is the coordinator
and not the patience of a client library. A rebalance is over when everybody has its share of the partitions.
"""

from __future__ import annotations

import struct
import time

import wire
from dialogue import Dialogue, Failed, Request
from transactions import PASSING, find_coordinator

JOIN, HEARTBEAT, SYNC, CONSUMER_HEARTBEAT = 11, 12, 14, 68
REBALANCE_IN_PROGRESS = 27
MEMBERS = 100
PARTITIONS = 400
HEARTBEAT_SECONDS = 0.05
SESSION_MS, REBALANCE_MS = 30_000, 60_000
SETTLED_SECONDS_MAX = 120.0
# Kafka and Fleuve make target assignments a second apart at least, by default.
REST_SECONDS = 1.5


class Classic:
    """A group of the classic protocol; its leader gives everybody something."""

    def __init__(self, name: str):
        self.name = name
        self.members: list[int] = []

    def is_settled(self, count: int) -> bool:
        generations = set(self.members)
        return len(self.members) == count and len(generations) == 1 and generations != {0}

    def member(self):
        yield from find_coordinator(self.name, "group")
        index = len(self.members)
        self.members.append(0)
        group, member_id, metadata = wire.text(self.name), "", b"\0\0\0\0\0\0\xff\xff\xff\xff"
        while True:
            join = group + struct.pack(">ii", SESSION_MS, REBALANCE_MS) + wire.text(member_id) + wire.text("consumer")
            join += struct.pack(">i", 1) + wire.text("range") + struct.pack(">i", len(metadata)) + metadata
            answer = yield Request(JOIN, 3, join)
            answer.take("i")
            error, generation = answer.take("hi")
            answer.text()
            leader, member_id = answer.text(), answer.text()
            if error in PASSING or error == REBALANCE_IN_PROGRESS:
                yield 0.01
                continue
            if error:
                raise Failed(f"JoinGroup: error {error}")
            shares = b""
            if leader == member_id:
                for _ in range(answer.take("i")):
                    shares += wire.text(answer.text()) + struct.pack(">i", 5) + b"share"
                    answer.skip(answer.take("i"))
            count = shares.count(b"\0\0\0\5share")
            me = group + struct.pack(">i", generation) + wire.text(member_id)
            answer = yield Request(SYNC, 2, me + struct.pack(">i", count) + shares)
            answer.take("i")
            error = answer.take("h")
            if error == REBALANCE_IN_PROGRESS:
                continue
            if error or answer.take("i") != 5:
                raise Failed(f"SyncGroup: error {error}")
            self.members[index] = generation
            while not error:
                yield HEARTBEAT_SECONDS
                answer = yield Request(HEARTBEAT, 2, me)
                answer.take("i")
                error = answer.take("h")
            if error != REBALANCE_IN_PROGRESS:
                raise Failed(f"Heartbeat: error {error}")


def compact(value: str) -> bytes:
    return bytes([len(value) + 1]) + value.encode()


def unsigned(reader: wire.Reader) -> int:
    value = shift = 0
    while True:
        byte = reader.take("B")
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
        shift += 7


class Consumer:
    """A group of the consumer protocol (KIP-848)."""

    def __init__(self, name: str, topic: str):
        self.name = name
        self.topic = topic
        # Epoch and partitions of each member.
        self.members: list[tuple[int, int]] = []

    def is_settled(self, count: int) -> bool:
        if len(self.members) != count or len({epoch for epoch, _ in self.members}) != 1:
            return False
        return all(has for _, has in self.members) and sum(has for _, has in self.members) == PARTITIONS

    def member(self):
        yield from find_coordinator(self.name, "group")
        index = len(self.members)
        self.members.append((0, 0))
        member_id, epoch, has, tells = "", 0, None, True
        while True:
            body = compact(self.name) + compact(member_id) + struct.pack(">i", epoch) + b"\0\0"
            if epoch == 0:
                body += struct.pack(">i", REBALANCE_MS) + b"\2" + compact(self.topic) + b"\0" + b"\1\0"
            else:
                # As before, but for what it has.
                body += struct.pack(">i", -1) + b"\0\0" + (has if tells else b"\0") + b"\0"
            answer = yield Request(CONSUMER_HEARTBEAT, 0, body, flexible=True)
            answer.take("i")
            error = answer.take("h")
            answer.skip(max(unsigned(answer) - 1, 0))
            if error in PASSING:
                yield 0.01
                continue
            if error:
                raise Failed(f"ConsumerGroupHeartbeat: error {error}")
            length = unsigned(answer) - 1
            if length > 0:
                member_id = answer.data[answer.at : answer.at + length].decode()
                answer.skip(length)
            epoch = answer.take("ii")[0]
            tells = False
            if answer.take("b") >= 0:
                begin = answer.at
                partitions = 0
                for _ in range(unsigned(answer) - 1):
                    answer.skip(16)
                    count = unsigned(answer) - 1
                    answer.skip(4 * count + 1)
                    partitions += count
                has, tells = answer.data[begin : answer.at], True
                self.members[index] = (epoch, partitions)
            else:
                self.members[index] = (epoch, self.members[index][1])
            if not tells:
                yield HEARTBEAT_SECONDS


def run(port: int, group: Classic | Consumer, joins: int) -> tuple[float, list[float]]:
    """Milliseconds until the group was there, and until each of some more members was taken in."""
    dialogue = Dialogue(port)
    try:
        # The coordinator's topic is made by the first who asks.
        probe = iter(find_coordinator(group.name, "group"))
        dialogue.start([probe])
        dialogue.run(lambda: probe.gi_frame is None, SETTLED_SECONDS_MAX)
        began = time.monotonic()
        dialogue.start(group.member() for _ in range(MEMBERS))
        dialogue.run(lambda: group.is_settled(MEMBERS), SETTLED_SECONDS_MAX)
        formed = (time.monotonic() - began) * 1000
        taken = []
        for number in range(joins):
            dialogue.rest(REST_SECONDS)
            began = time.monotonic()
            dialogue.start([group.member()])
            dialogue.run(lambda: group.is_settled(MEMBERS + number + 1), SETTLED_SECONDS_MAX)
            taken.append((time.monotonic() - began) * 1000)
        return formed, taken
    finally:
        dialogue.close()
