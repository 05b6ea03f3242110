"""The checker itself: a good history passes, and each kind of bad one is caught under its name."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from history import UNKNOWN_OFFSET, Entry, PartitionHistory, violations  # noqa: E402


def good() -> PartitionHistory:
    """Two producers, six records; number 2 of producer 1 was stored but its acknowledgement never came."""
    log = [Entry(0, 0, 0), Entry(1, 1, 0), Entry(2, 1, 1), Entry(3, 0, 1), Entry(4, 1, 2), Entry(5, 0, 2)]
    return PartitionHistory(
        sent={0: 3, 1: 4},
        acknowledged={0: {0: 0, 1: 3, 2: UNKNOWN_OFFSET}, 1: {0: 1, 1: 2}},
        consumed=log[:3] + log[1:5],
        log=log,
    )


class CheckerTest(unittest.TestCase):
    def assert_caught(self, kind: str, history: PartitionHistory) -> None:
        found = violations(7, history)
        self.assertTrue(any(f" {kind}: " in line for line in found), f"{kind} not among {found}")
        self.assertTrue(all(line.startswith("partition 7: ") for line in found))

    def test_good_history_passes(self) -> None:
        self.assertEqual(violations(0, good()), [])

    def test_unacknowledged_record_may_be_missing(self) -> None:
        history = good()
        history.sent[0] = 50
        self.assertEqual(violations(0, history), [])

    def test_lost_tail(self) -> None:
        history = good()
        del history.log[5]
        self.assert_caught("lost", history)

    def test_lost_in_the_middle_with_offsets_closed_up(self) -> None:
        history = good()
        del history.log[3]
        history.log = [entry._replace(offset=offset) for offset, entry in enumerate(history.log)]
        self.assert_caught("lost", history)

    def test_empty_log_after_acknowledgements(self) -> None:
        history = good()
        history.log, history.consumed = [], []
        self.assert_caught("lost", history)

    def test_duplicate(self) -> None:
        history = good()
        history.log.append(Entry(6, 0, 2))
        self.assert_caught("duplicate", history)

    def test_duplicate_of_a_record_never_acknowledged(self) -> None:
        history = good()
        history.log.append(Entry(6, 1, 2))
        self.assert_caught("duplicate", history)

    def test_reordered_within_a_producer(self) -> None:
        history = good()
        history.log[1], history.log[2] = Entry(1, 1, 1), Entry(2, 1, 0)
        self.assert_caught("reordered", history)

    def test_order_between_producers_is_free(self) -> None:
        history = good()
        history.log[2], history.log[3] = Entry(2, 0, 1), Entry(3, 1, 1)
        history.acknowledged = {0: {0: 0, 1: 2}, 1: {0: 1, 1: 3}}
        history.consumed = []
        self.assertEqual(violations(0, history), [])

    def test_gap_in_offsets(self) -> None:
        history = good()
        history.log[5] = Entry(6, 0, 2)
        self.assert_caught("gap", history)

    def test_log_that_does_not_begin_at_zero(self) -> None:
        history = good()
        history.log = [entry._replace(offset=entry.offset + 1) for entry in history.log]
        self.assert_caught("gap", history)

    def test_acknowledged_at_another_offset(self) -> None:
        history = good()
        history.acknowledged[0][1] = 4
        self.assert_caught("moved", history)

    def test_record_nobody_sent(self) -> None:
        history = good()
        history.log.append(Entry(6, 1, 9))
        self.assert_caught("invented", history)

    def test_record_of_an_unknown_producer(self) -> None:
        history = good()
        history.log.append(Entry(6, 5, 0))
        self.assert_caught("invented", history)

    def test_consumed_record_that_the_log_no_longer_holds(self) -> None:
        history = good()
        history.consumed.append(Entry(6, 1, 3))
        self.assert_caught("vanished", history)

    def test_consumed_record_that_moved(self) -> None:
        history = good()
        history.consumed[0] = Entry(1, 0, 0)
        self.assert_caught("vanished", history)


if __name__ == "__main__":
    unittest.main()
