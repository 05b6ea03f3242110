"""The checker itself: random good histories pass, and every anomaly planted into them is found under its name."""

from __future__ import annotations

import random
import sys
import unittest
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from analysis import FAIL, INFO, OK, History, Operation, Poll, Record, Send, anomalies, circles, summary  # noqa: E402

SEEDS = range(25)
PARTITIONS = 3
GROUP = "group"


def good(seed: int) -> History:
    """A history without anomalies: five processes by turns, two of them consuming as a group within transactions."""
    chance = random.Random(seed)
    history = History(committed={p: [] for p in range(PARTITIONS)}, everything={p: [] for p in range(PARTITIONS)})
    ends = [0] * PARTITIONS
    cursors: dict[str, list[int]] = {}
    now = 0
    for number in range(120):
        process = chance.choice(["plain-1", "plain-2", "txn-1", "member-1", "member-2"])
        transactional, group = process[0] != "p", GROUP if process[0] == "m" else None
        fate = chance.choice([OK, OK, OK, OK, FAIL, INFO, INFO]) if transactional else OK
        visible = not transactional or fate == OK or (fate == INFO and chance.random() < 0.5)
        operation = Operation(process, transactional, now, now + 50, fate, [], now + 40, group)
        cursor = cursors.setdefault(group or process, [0] * PARTITIONS)
        start = list(cursor)
        for _ in range(chance.randint(1, 4)):
            now += 10
            if chance.random() < 0.5:
                records = [record for p in range(PARTITIONS) for record in history.committed[p][cursor[p] : cursor[p] + 3]]
                for record in records:
                    cursor[record.partition] += 1
                # A member of a group, and whoever was put back by an abort, starts anywhere.
                operation.steps.append(Poll(now, number if transactional else 0, not transactional, records))
        for step in range(chance.randint(1, 3)):
            send = Send(chance.randrange(PARTITIONS), f"{process}:{number}.{step}", outcome=OK if not transactional else INFO)
            record = Record(send.partition, ends[send.partition], send.value)
            ends[send.partition] += 1
            send.offset = record.offset if chance.random() < 0.8 else None
            history.everything[send.partition].append(record)
            if visible:
                history.committed[send.partition].append(record)
            operation.steps.append(send)
        if transactional:
            for p in {send.partition for send in operation.sends}:
                ends[p] += 1
        if not visible:
            cursor[:] = start
        now += 60
        operation.ended = now
        operation.committing = now - 20 if transactional else None
        history.operations.append(operation)
    rest = cursors.get(GROUP, [0] * PARTITIONS)
    history.leftovers[GROUP] = [record for p in range(PARTITIONS) for record in history.committed[p][rest[p] :]]
    return history


def some_write(history: History, chance: random.Random, wanted: Callable[[Operation], bool]) -> tuple[Operation, Send]:
    present = {record.value for records in history.committed.values() for record in records}
    return chance.choice([(o, s) for o in history.operations if wanted(o) for s in o.sends if s.value in present])


def drop(history: History, value: str) -> None:
    """Takes a record out of the log, and out of everybody's sight."""
    keep = lambda records: [record for record in records if record.value != value]  # noqa: E731
    for log in (history.committed, history.everything, history.leftovers):
        for key in log:
            log[key] = keep(log[key])
    for operation in history.operations:
        for poll in operation.polls:
            poll.records = keep(poll.records)


def reader(history: History, chance: random.Random, least: int = 2) -> tuple[Operation, Poll, list[int]]:
    """A poll of a process nobody moves, and the places in it of at least so many records of one partition."""
    found = []
    for operation in history.operations:
        for poll in operation.polls if not operation.transactional else []:
            for p in range(PARTITIONS):
                places = [place for place, record in enumerate(poll.records) if record.partition == p]
                if len(places) >= least:
                    found.append((operation, poll, places))
    return chance.choice(found)


def lost_plain(history, chance):
    drop(history, some_write(history, chance, lambda o: not o.transactional)[1].value)


def lost_committed(history, chance):
    drop(history, some_write(history, chance, lambda o: o.transactional and o.outcome == OK)[1].value)


def stored_twice(history, chance):
    _, send = some_write(history, chance, lambda o: True)
    for log in (history.committed, history.everything):
        log[send.partition].append(Record(send.partition, 100_000, send.value))


def stored_twice_and_then_aborted(history, chance):
    _, send = some_write(history, chance, lambda o: True)
    history.everything[send.partition].append(Record(send.partition, 100_000, send.value))


def acknowledged_elsewhere(history, chance):
    operation, send = some_write(history, chance, lambda o: True)
    send.offset = history.everything[send.partition][-1].offset + 1000


def offset_with_two_values(history, chance):
    _, poll, places = reader(history, chance, 1)
    record = poll.records[places[0]]
    _, other = some_write(history, chance, lambda o: True)
    while other.value == record.value:
        _, other = some_write(history, chance, lambda o: True)
    poll.records[places[0]] = record._replace(value=other.value)


def invented(history, chance):
    history.everything[0].append(Record(0, 100_000, "nobody:0.0"))


def aborted_in_log(history, chance):
    operation, _ = some_write(history, chance, lambda o: o.transactional and o.outcome == OK)
    operation.outcome = FAIL


def aborted_in_poll(history, chance):
    send = chance.choice([o for o in history.operations if o.outcome == FAIL]).sends[0]
    history.operations[-1].steps.append(Poll(10**9, 10**6, False, [Record(send.partition, 99_999, send.value)]))


def too_early(history, chance):
    _, poll, places = reader(history, chance, 1)
    writers = {send.value: o for o in history.operations for send in o.sends}
    place = next((place for place in places if writers[poll.records[place].value].transactional), None)
    if place is None:
        return too_early(history, chance)
    writers[poll.records[place].value].committing = poll.at + 1


def never_asked_to_commit(history, chance):
    operation, _ = next((o, s) for o in history.operations if o.transactional and o.outcome == OK for s in o.sends if read_by_somebody(history, s.value))
    operation.outcome, operation.committing = INFO, None


def read_by_somebody(history: History, value: str) -> bool:
    return any(record.value == value for o in history.operations for poll in o.polls for record in poll.records)


def from_the_future(history, chance):
    operation, poll, places = reader(history, chance, 1)
    writers = {send.value: o for o in history.operations for send in o.sends}
    writers[poll.records[places[0]].value].started = poll.at + 1


def gone_after_reading(history, chance):
    _, poll, places = reader(history, chance, 1)
    value = poll.records[places[0]].value
    for log in (history.committed, history.everything, history.leftovers):
        for key in log:
            log[key] = [record for record in log[key] if record.value != value]


def torn(history, chance):
    operation, send = some_write(history, chance, lambda o: o.transactional and o.outcome == OK and len(o.sends) > 1)
    operation.outcome = INFO
    drop(history, send.value)


def swapped_within_poll(history, chance):
    _, poll, (first, second, *_) = reader(history, chance)
    poll.records[first], poll.records[second] = poll.records[second], poll.records[first]


def left_out_within_poll(history, chance):
    _, poll, places = reader(history, chance, 3)
    del poll.records[places[1]]


def left_out_at_the_start(history, chance):
    first: dict[str, Poll] = {}
    for operation in history.operations:
        for poll in operation.polls:
            if not operation.transactional and poll.records:
                first.setdefault(operation.process, poll)
    process = chance.choice(sorted(first))
    later = [poll for o in history.operations if o.process == process for poll in o.polls][1:]
    gone = first[process].records[0]
    first[process].records = [record for record in first[process].records if record.partition != gone.partition]
    if not any(record.partition == gone.partition for poll in later for record in poll.records):
        raise unittest.SkipTest("the process read nothing more of that partition")


def went_back(history, chance):
    operation, poll, places = reader(history, chance, 1)
    history.operations.append(
        Operation(operation.process, False, 10**9, 10**9 + 9, OK, [Poll(10**9 + 5, poll.session, True, [poll.records[places[0]]])])
    )


def sent_in_another_order(history, chance, within=False):
    pairs = []
    for position, operation in enumerate(history.operations):
        if operation.transactional:
            continue
        rest = history.operations[position : position + 1] if within else history.operations[position + 1 :]
        for send in operation.sends:
            for other in (other for o in rest if o.process == operation.process for other in o.sends):
                if other.partition == send.partition and (not within or other.value > send.value):
                    pairs.append((send, other))
    first, second = chance.choice(pairs)
    first.value, second.value = second.value, first.value
    first.offset, second.offset = second.offset, first.offset


def sent_in_another_order_within(history, chance):
    sent_in_another_order(history, chance, within=True)


def circular(history, chance):
    one, send_one = some_write(history, chance, lambda o: o.transactional and o.outcome == OK)
    two, send_two = some_write(history, chance, lambda o: o.transactional and o.outcome == OK)
    while two is one:
        two, send_two = some_write(history, chance, lambda o: o.transactional and o.outcome == OK)
    place = {record.value: record for records in history.committed.values() for record in records}
    one.steps.append(Poll(10**9, 10**6, False, [place[send_two.value]]))
    two.steps.append(Poll(10**9, 10**6, False, [place[send_one.value]]))


def consumed_again(history, chance):
    taken = [record for o in history.operations if o.group and o.outcome == OK for poll in o.polls for record in poll.records]
    history.leftovers[GROUP].append(chance.choice(taken))


def consumed_by_two(history, chance):
    members = [o for o in history.operations if o.group and o.outcome == OK and any(poll.records for poll in o.polls)]
    record = next(record for poll in chance.choice(members).polls for record in poll.records)
    other = chance.choice([o for o in history.operations if o.group and o.outcome == OK and all(record not in poll.records for poll in o.polls)])
    other.steps.append(Poll(10**9, 10**6, False, [record]))


def passed_over(history, chance):
    if not history.leftovers[GROUP]:
        raise unittest.SkipTest("nothing is left over")
    del history.leftovers[GROUP][chance.randrange(len(history.leftovers[GROUP]))]


PLANTED = [
    (lost_plain, "lost-write"),
    (lost_committed, "lost-write"),
    (stored_twice, "duplicate"),
    (stored_twice_and_then_aborted, "duplicate"),
    (acknowledged_elsewhere, "duplicate"),
    (offset_with_two_values, "inconsistent-offset"),
    (invented, "invented"),
    (aborted_in_log, "aborted-read"),
    (aborted_in_poll, "aborted-read"),
    (too_early, "precommitted-read"),
    (never_asked_to_commit, "precommitted-read"),
    (from_the_future, "future-read"),
    (gone_after_reading, "vanished-read"),
    (torn, "torn"),
    (swapped_within_poll, "int-nonmonotonic-poll"),
    (left_out_within_poll, "int-poll-skip"),
    (left_out_at_the_start, "poll-skip"),
    (went_back, "nonmonotonic-poll"),
    (sent_in_another_order, "nonmonotonic-send"),
    (sent_in_another_order_within, "int-nonmonotonic-send"),
    (circular, "G1c"),
    (consumed_again, "consumed-twice"),
    (consumed_by_two, "consumed-twice"),
    (passed_over, "never-consumed"),
]


class CheckerTest(unittest.TestCase):
    def test_good_histories_pass(self) -> None:
        for seed in SEEDS:
            self.assertEqual(summary(anomalies(good(seed))), [], f"seed {seed}")

    def test_each_planted_anomaly_is_found(self) -> None:
        for plant, kind in PLANTED:
            planted = 0
            for seed in SEEDS:
                history = good(seed)
                try:
                    plant(history, random.Random(seed))
                except unittest.SkipTest:
                    continue
                planted += 1
                found = anomalies(history)
                self.assertIn(kind, {anomaly.kind for anomaly in found}, f"{plant.__name__}, seed {seed}: {summary(found)}")
            self.assertGreater(planted, len(SEEDS) // 2, plant.__name__)

    def test_every_kind_the_checker_knows_is_planted(self) -> None:
        source = (Path(__file__).resolve().parent / "analysis.py").read_text()
        described = {line.split()[0] for line in source.split('"""')[1].splitlines() if line.startswith("    ") and line.split()}
        self.assertEqual(described - {kind.removeprefix("int-") for _, kind in PLANTED}, set())

    def test_circles(self) -> None:
        self.assertEqual(circles([{1}, {2}, set()]), [])
        self.assertEqual(circles([{1}, {2}, {0}, {0}]), [[0, 1, 2, 0]])
        self.assertEqual(circles([{0}, set()]), [[0, 0]])
        self.assertEqual(len(circles([{1}, {0}, {3}, {2}])), 2)


if __name__ == "__main__":
    unittest.main()
