"""What the Python drivers share: the line protocol towards run.py, and the records every client sends.

A driver is started as `driver BOOTSTRAP first|second` and prints, one a line:

    ok CHECK                      a check that held
    not ok CHECK: REASON          one that did not
    record PARTITION KEY VALUE    a record of the topic `cross`, which run.py compares between clients
    done                          the driver came to its end

The broker is restarted between `first` and `second`.
"""

from __future__ import annotations

import sys
import time
import traceback
from contextlib import contextmanager
from typing import Callable, Iterator

CROSS_TOPIC = "cross"
CROSS_KEYS = [f"key-{number}" for number in range(24)]
PARTITIONS = 6
PATIENCE_SECONDS = 30


@contextmanager
def check(name: str) -> Iterator[None]:
    """Runs one check and prints its line; a failure does not stop the ones after it."""
    try:
        yield
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = " ".join(f"{type(error).__name__}: {error} (line {where.lineno}: {where.line})".split())
        print(f"not ok {name}: {reason}", flush=True)
    else:
        print(f"ok {name}", flush=True)


def expect_equal(actual, expected, what: str) -> None:
    if actual != expected:
        raise AssertionError(f"{what}: expected {expected!r}, got {actual!r}")


def wait_until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Calls the condition, which does the polling itself, until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s")


def cross_record(partition: int, key: str, value: str) -> None:
    print(f"record {partition} {key} {value}", flush=True)


def arguments() -> tuple[str, str]:
    """Bootstrap address and phase."""
    return sys.argv[1], sys.argv[2]


def done() -> None:
    print("done", flush=True)
