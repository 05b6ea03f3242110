#!/usr/bin/env python3
"""An application of Kafka Streams, unmodified, is stopped, and ours of the same names goes on where it was; and back.

    tests/streams/takeover.py [--broker fleuve|kafka] [--long] [--keep]

Either side finds the other's committed offsets, changelogs and repartition topics. Every count of every word, over all
time and by window, comes out exactly once and in order, whoever counts. `--long` goes back and forth more often, with
either guarantee on the broker's both group protocols.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from counting import Failed, Lines, compile_java, java, ours, use_environment  # noqa: E402
from harness.broker import BrokerFailed, Workspace, add_broker_argument  # noqa: E402

LINES = 400
# Kafka Streams stays a member after it was closed, until its session ends.
SESSION_MS = 2000
SETTINGS = {
    "group.initial.rebalance.delay.ms": "0", "group.min.session.timeout.ms": "1000", "offsets.topic.num.partitions": "4",
    "group.streams.initial.rebalance.delay.ms": "0", "group.streams.assignment.interval.ms": "0",
    "group.streams.min.heartbeat.interval.ms": "200", "group.streams.heartbeat.interval.ms": "200",
}  # fmt: skip
# Either side's settings by group protocol; with the broker's, sessions are the broker's matter, too.
PROTOCOLS = {
    "classic": ([f"session.timeout.ms={SESSION_MS}"], ["heartbeat.interval.ms=500"]),
    "streams": (["group.protocol=streams"], []),
}


def take_over(broker, folder: Path, classes: Path, guarantee: str, protocol: str, sides: list[str], note) -> None:
    lines = Lines(broker, seed=7)
    folder.mkdir()
    instance = None
    try:
        for number, side in enumerate(sides):
            lines.say(LINES)
            name, settings = f"{side}-{number}", [f"processing.guarantee={guarantee}", *PROTOCOLS[protocol][0]]
            began = time.monotonic()
            # The state directory is new each time: whoever takes over has only what the broker has.
            instance = java(name, broker, folder, classes, *settings, *PROTOCOLS[protocol][1]) if side == "java" else ours(name, broker, folder, *settings)
            lines.await_counted([instance])
            lines.say(LINES)
            lines.await_counted([instance])
            instance.leave()
            note(f"{guarantee}, {protocol}: {side} has counted {lines.said} lines, every change once ({time.monotonic() - began:.1f} s)")
    finally:
        if instance:
            instance.end()
        lines.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_broker_argument(parser)
    parser.add_argument("--long", action="store_true", help="six changes of side instead of two")
    options = parser.parse_args()
    use_environment()
    started = time.monotonic()
    sides = ["java", "fleuve"] * 3 + ["java"] if options.long else ["java", "fleuve", "java"]
    failed = 0
    with Workspace("takeover", options.keep) as workspace:
        classes = workspace.path / "classes"
        classes.mkdir()
        compile_java(classes)
        # Each of both at least once, and in long mode all combinations.
        runs = [("at_least_once", "streams"), ("exactly_once_v2", "classic")]
        runs += [("at_least_once", "classic"), ("exactly_once_v2", "streams")] if options.long else []
        for guarantee, protocol in runs:
            name = f"{guarantee}-{protocol}"
            broker = workspace.broker(options.broker, SETTINGS, data=f"data-{name}")
            try:
                broker.start()
                take_over(broker, workspace.path / name, classes, guarantee, protocol, sides, lambda text: print(f"ok     takeover      {text}", flush=True))
                broker.stop()
            except (Failed, BrokerFailed) as failure:
                failed = 1
                workspace.keep = True
                print(f"FAILED takeover      {failure}", flush=True)
    print(f"takeover: {'failed' if failed else 'passed'} ({time.monotonic() - started:.0f} s)")
    return failed


if __name__ == "__main__":
    sys.exit(main())
