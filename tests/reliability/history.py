"""Judges what a crash test observed: nothing acknowledged lost, nothing twice, no gaps, each producer's order kept.

A record is known by its producer and its number within the partition. The checker sees only observations: what was
handed to the producers, what they were told was stored, what a consumer met on the way, what the log holds at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

UNKNOWN_OFFSET = -1
SHOWN_PER_KIND = 5


class Entry(NamedTuple):
    """One record as read from a partition."""

    offset: int
    producer: int
    number: int


@dataclass
class PartitionHistory:
    """Everything observed about one partition."""

    # How many records each producer handed over; their numbers are 0..count.
    sent: dict[int, int] = field(default_factory=dict)
    # The offset each producer was told, by number; UNKNOWN_OFFSET when the acknowledgement carried none.
    acknowledged: dict[int, dict[int, int]] = field(default_factory=dict)
    # What the consumer met while the broker was being killed, in the order it came; re-reading is allowed.
    consumed: list[Entry] = field(default_factory=list)
    # The log at the end, from its first offset to its last.
    log: list[Entry] = field(default_factory=list)


def violations(partition: int, history: PartitionHistory) -> list[str]:
    """Every way in which the partition's history breaks a promise; empty when all were kept."""
    problems: dict[str, list[str]] = {}

    def problem(kind: str, detail: str) -> None:
        problems.setdefault(kind, []).append(detail)

    for expected, entry in enumerate(history.log):
        if entry.offset != expected:
            problem("gap", f"offset {entry.offset} stands where {expected} should")
            break

    stored: dict[tuple[int, int], int] = {}
    newest: dict[int, int] = {}
    for entry in history.log:
        identity = (entry.producer, entry.number)
        if not 0 <= entry.number < history.sent.get(entry.producer, 0):
            problem("invented", f"producer {entry.producer} never sent number {entry.number} (offset {entry.offset})")
        if identity in stored:
            problem("duplicate", f"producer {entry.producer} number {entry.number} at offsets {stored[identity]} and {entry.offset}")
            continue
        stored[identity] = entry.offset
        if entry.number < newest.get(entry.producer, -1):
            problem("reordered", f"producer {entry.producer} number {entry.number} after {newest[entry.producer]} (offset {entry.offset})")
        newest[entry.producer] = max(newest.get(entry.producer, -1), entry.number)

    for producer, numbers in history.acknowledged.items():
        for number, offset in numbers.items():
            found = stored.get((producer, number))
            if found is None:
                problem("lost", f"producer {producer} number {number}, acknowledged at offset {offset}")
            elif offset not in (UNKNOWN_OFFSET, found):
                problem("moved", f"producer {producer} number {number} acknowledged at offset {offset}, stored at {found}")

    for entry in history.consumed:
        if stored.get((entry.producer, entry.number)) != entry.offset:
            problem("vanished", f"producer {entry.producer} number {entry.number} was consumed at offset {entry.offset}")

    return [
        f"partition {partition}: {len(details)} {kind}: " + "; ".join(details[:SHOWN_PER_KIND])
        for kind, details in problems.items()
    ]
