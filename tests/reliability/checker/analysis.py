"""Judges the history of a run: what clients sent, polled and were told, against what the log holds in the end.

The anomalies are those of Jepsen's analysis of Kafka-like systems, and two of consumer groups whose offsets are
committed within transactions. Values are unique, so that a read names its write. The order of a partition's records
in the end, as a `read_committed` reader sees it, is the version order that everything is compared with.

    lost-write            acknowledged, and not in the log
    duplicate             one value at several offsets
    inconsistent-offset   one offset with several values
    invented              read, and never written
    aborted-read          read, and its transaction was aborted
    precommitted-read     read before its transaction asked for the commit
    future-read           read before it was sent
    vanished-read         read, and not in the log
    torn                  some writes of a transaction in the log, others not
    nonmonotonic-poll     a consumer went back without having been moved; int-: within one operation
    poll-skip             a consumer passed over a record; int-: within one operation
    nonmonotonic-send     a producer's records in another order than it sent them; int-: within one operation
    G1c                   transactions that read each other's writes in a circle
    consumed-twice        two transactions of a group consumed the same record
    never-consumed        a group's committed offset passed over a record

Not judged, because Kafka does not promise it: write cycles (G0), and other producers' records between those of a
transaction (int-send-skip).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

OK, FAIL, INFO = "ok", "fail", "info"
SHOWN_PER_KIND = 5


class Record(NamedTuple):
    """A value where somebody met it."""

    partition: int
    offset: int
    value: str


@dataclass
class Send:
    """One record handed to a producer; `outcome` counts outside of transactions only."""

    partition: int
    value: str
    # The offset of the acknowledgement, where one came and carried it.
    offset: int | None = None
    outcome: str = INFO


@dataclass
class Poll:
    """One answered poll."""

    at: int
    # Changes whenever the consumer's position may have moved otherwise than by polling.
    session: int
    # The session began at the beginning of each partition.
    from_start: bool
    records: list[Record]


@dataclass
class Operation:
    """What one client did at a stroke: a transaction, or sends and polls that stand for themselves."""

    # One life of a client: after a crash it has another name.
    process: str
    transactional: bool
    started: int
    ended: int
    outcome: str
    steps: list[Send | Poll]
    # When the commit was asked for; none when it never was.
    committing: int | None = None
    # The consumer group whose offsets the transaction commits.
    group: str | None = None
    error: str = ""

    @property
    def sends(self) -> list[Send]:
        return [step for step in self.steps if isinstance(step, Send)]

    @property
    def polls(self) -> list[Poll]:
        return [step for step in self.steps if isinstance(step, Poll)]


@dataclass
class History:
    """Everything one run observed."""

    operations: list[Operation] = field(default_factory=list)
    # Each partition from its first record to its last, by a reader of committed records, after all came to rest.
    committed: dict[int, list[Record]] = field(default_factory=dict)
    # The same by a reader of everything.
    everything: dict[int, list[Record]] = field(default_factory=dict)
    # What each transactional group had left to consume in the end, read from its committed offsets.
    leftovers: dict[str, list[Record]] = field(default_factory=dict)


class Anomaly(NamedTuple):
    """One broken promise."""

    kind: str
    detail: str


def anomalies(history: History) -> list[Anomaly]:
    """Every broken promise in the history; empty when all were kept."""
    judge = Judge(history)
    judge.records()
    judge.writes()
    judge.reads()
    judge.polls()
    judge.order_of_sends()
    judge.cycles()
    judge.groups()
    return judge.found


def summary(found: Iterable[Anomaly]) -> list[str]:
    """A line for each kind, with its first cases."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for anomaly in found:
        kinds[anomaly.kind].append(anomaly.detail)
    return [f"{len(details)} {kind}: " + "; ".join(details[:SHOWN_PER_KIND]) for kind, details in kinds.items()]


class Judge:
    """The history with its indexes, and what was found so far."""

    def __init__(self, history: History):
        self.history = history
        self.found: list[Anomaly] = []
        self.writers = {send.value: (operation, send) for operation in history.operations for send in operation.sends}
        # Where each value stands in the version order of its partition.
        self.position = {
            record.value: (record.partition, index) for records in history.committed.values() for index, record in enumerate(records)
        }
        # A transaction of unknown outcome was committed if anybody can see what it wrote.
        self.committed = [
            operation
            for operation in history.operations
            if operation.transactional
            and (operation.outcome == OK or (operation.outcome == INFO and any(send.value in self.position for send in operation.sends)))
        ]

    def note(self, kind: str, detail: str) -> None:
        self.found.append(Anomaly(kind, detail))

    def observations(self) -> Iterable[tuple[str, Record]]:
        """Every record that anybody met, and who."""
        for operation in self.history.operations:
            for poll in operation.polls:
                yield from ((operation.process, record) for record in poll.records)
            for send in operation.sends:
                if send.offset is not None:
                    yield operation.process, Record(send.partition, send.offset, send.value)
        for name, log in (("the committed log", self.history.committed), ("the whole log", self.history.everything)):
            yield from ((name, record) for records in log.values() for record in records)
        for group, records in self.history.leftovers.items():
            yield from ((f"the last of {group}", record) for record in records)

    def records(self) -> None:
        """One value has one place, one place has one value, and every value has a writer."""
        places: dict[str, set[tuple[int, int]]] = defaultdict(set)
        values: dict[tuple[int, int], set[str]] = defaultdict(set)
        for who, (partition, offset, value) in self.observations():
            places[value].add((partition, offset))
            values[partition, offset].add(value)
            if value not in self.writers:
                self.note("invented", f"{value} at {partition}:{offset}, met by {who}")
        for value, found in places.items():
            if len(found) > 1:
                self.note("duplicate", f"{value} at " + ", ".join(f"{partition}:{offset}" for partition, offset in sorted(found)))
        for (partition, offset), found in values.items():
            if len(found) > 1:
                self.note("inconsistent-offset", f"{partition}:{offset} holds {', '.join(sorted(found))}")

    def writes(self) -> None:
        """What was acknowledged is there, what was aborted is not, and transactions are whole."""
        for operation in self.history.operations:
            present = [send for send in operation.sends if send.value in self.position]
            missing = [send for send in operation.sends if send.value not in self.position]
            if not operation.transactional:
                for send in missing:
                    if send.outcome == OK:
                        self.note("lost-write", f"{send.value} to {send.partition}, acknowledged at offset {send.offset} to {operation.process}")
            elif operation.outcome == OK:
                for send in missing:
                    self.note("lost-write", f"{send.value} to {send.partition}, committed by {operation.process}")
            elif operation.outcome == INFO and present and missing:
                names = ", ".join(send.value for send in missing)
                self.note("torn", f"{operation.process}: {present[0].value} is there, and of the same transaction not {names}")

    def reads(self) -> None:
        """Nobody read what was aborted, not yet committed, or later gone."""
        for operation in self.history.operations:
            for poll in operation.polls:
                for record in poll.records:
                    if record.value in self.writers:
                        self.read(operation.process, poll.at, record)
        for records in self.history.committed.values():
            for record in records:
                if record.value in self.writers and self.aborted(record.value):
                    self.note("aborted-read", f"{record.value} stands in the committed log at {record.partition}:{record.offset}")

    def aborted(self, value: str) -> bool:
        writer, send = self.writers[value]
        return (writer.outcome if writer.transactional else send.outcome) == FAIL

    def read(self, reader: str, at: int, record: Record) -> None:
        writer, _ = self.writers[record.value]
        what = f"{record.value} at {record.partition}:{record.offset} by {reader}, written by {writer.process}"
        if self.aborted(record.value):
            self.note("aborted-read", what)
        elif record.value not in self.position:
            self.note("vanished-read", what)
        if at < writer.started:
            self.note("future-read", what)
        elif writer.transactional and (writer.committing is None or at < writer.committing):
            self.note("precommitted-read", what)

    def polls(self) -> None:
        """A consumer that nobody moved meets the records in order and leaves none out."""
        last: dict[tuple[str, int, int], tuple[int, Operation | None]] = {}
        for operation in self.history.operations:
            for poll in operation.polls:
                for record in poll.records:
                    partition, index = self.position.get(record.value, (None, 0))
                    if partition != record.partition:
                        continue
                    cursor = (operation.process, poll.session, partition)
                    before, where = last.get(cursor, (-1 if poll.from_start else None, None))
                    scope = "int-" if where is operation else ""
                    if before is not None and index <= before:
                        self.note(f"{scope}nonmonotonic-poll", f"{operation.process} met {record.value} ({partition}:{record.offset}) again or too late")
                    elif before is not None and index > before + 1:
                        skipped = self.history.committed[partition][before + 1]
                        self.note(f"{scope}poll-skip", f"{operation.process} came to {partition}:{record.offset} and left out {skipped.offset} ({skipped.value})")
                    last[cursor] = (index, operation)

    def order_of_sends(self) -> None:
        """Each producer's records stand in the order in which it sent them."""
        last: dict[tuple[str, int], tuple[int, Send, Operation]] = {}
        for operation in self.history.operations:
            for send in operation.sends:
                partition, index = self.position.get(send.value, (None, 0))
                if partition != send.partition:
                    continue
                before = last.get((operation.process, partition))
                if before is not None and index < before[0]:
                    scope = "int-" if before[2] is operation else ""
                    self.note(f"{scope}nonmonotonic-send", f"{operation.process} sent {send.value} after {before[1].value}, it stands before it in {partition}")
                else:
                    last[operation.process, partition] = (index, send, operation)

    def cycles(self) -> None:
        """No circle of transactions each of which read from the one before."""
        numbers = {id(operation): number for number, operation in enumerate(self.committed)}
        readers: list[set[int]] = [set() for _ in self.committed]
        for number, operation in enumerate(self.committed):
            for poll in operation.polls:
                for record in poll.records:
                    writer = numbers.get(id(self.writers[record.value][0])) if record.value in self.writers else None
                    if writer is not None:
                        readers[writer].add(number)
        for circle in circles(readers):
            self.note("G1c", " -> ".join(f"{self.committed[number].process}@{self.committed[number].started}" for number in circle))

    def groups(self) -> None:
        """Every record was consumed by exactly one transaction of each group, or is left for it."""
        for group, left in self.history.leftovers.items():
            consumers: dict[str, list[str]] = defaultdict(list)
            for operation in self.committed:
                if operation.group == group:
                    for poll in operation.polls:
                        for record in poll.records:
                            consumers[record.value].append(operation.process)
            for record in left:
                consumers[record.value].append("(left over)")
            for value, names in consumers.items():
                if len(names) > 1:
                    self.note("consumed-twice", f"{value} in {group} by {' and '.join(names)}")
            for records in self.history.committed.values():
                for record in records:
                    if record.value not in consumers:
                        self.note("never-consumed", f"{record.value} at {record.partition}:{record.offset} in {group}")


def circles(edges: list[set[int]]) -> list[list[int]]:
    """One circle of each strongly connected component that has any."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    found: list[list[int]] = []
    for root in range(len(edges)):
        if root in index:
            continue
        work = [(root, iter(edges[root]))]
        index[root] = low[root] = len(index)
        stack.append(root)
        while work:
            node, rest = work[-1]
            following = next(rest, None)
            if following is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    component = set()
                    while node not in component:
                        component.add(stack.pop())
                    if len(component) > 1 or node in edges[node]:
                        found.append(circle_within(edges, component))
            elif following not in index:
                index[following] = low[following] = len(index)
                stack.append(following)
                work.append((following, iter(edges[following])))
            elif following in stack:
                low[node] = min(low[node], index[following])
    return found


def circle_within(edges: list[set[int]], component: set[int]) -> list[int]:
    """A shortest way from some node of a strongly connected component back to itself."""
    start = min(component)
    paths = {start: [start]}
    queue = [start]
    for node in queue:
        for following in sorted(edges[node] & component):
            if following == start:
                return [*paths[node], start]
            if following not in paths:
                paths[following] = [*paths[node], following]
                queue.append(following)
    return [start]
