#!/usr/bin/env python3
"""An application of Kafka Streams, unmodified, is stopped, and ours of the same names goes on where it was; and back.

    tests/streams/takeover.py [--broker fleuve|kafka] [--long] [--keep]

Either side finds the other's committed offsets, changelogs and repartition topics. Every count of every word, over all
time and by window, comes out exactly once and in order, whoever counts. With the classic protocol the lines come from all
topics that match a pattern, and topics come and go meanwhile. `--long` goes back and forth more often, with either
guarantee on the broker's both group protocols.
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
# Brokers refuse patterns in the streams protocol. New topics are found soon.
PATTERN = ["source.pattern=lines(-[0-9]+)?", "metadata.max.age.ms=500"]


def take_over(broker, folder: Path, classes: Path, guarantee: str, protocol: str, sides: list[str], pattern: bool, note) -> None:
    lines = Lines(broker, seed=7)
    folder.mkdir()
    instance = None
    try:
        for number, side in enumerate(sides):
            lines.say(LINES)
            name, settings = f"{side}-{number}", [f"processing.guarantee={guarantee}", *PROTOCOLS[protocol][0], *(PATTERN if pattern else [])]
            began = time.monotonic()
            # The state directory is new each time: whoever takes over has only what the broker has.
            instance = java(name, broker, folder, classes, *settings, *PROTOCOLS[protocol][1]) if side == "java" else ours(name, broker, folder, *settings)
            lines.await_counted([instance])
            if pattern:
                # What is counted is committed with exactly once only, and otherwise would be done again.
                if side == "fleuve" and guarantee == "exactly_once_v2" and len(lines.topics) > 1:
                    lines.remove_topic()
                lines.add_topic()
            lines.say(LINES)
            lines.await_counted([instance])
            instance.leave()
            note(f"{guarantee}, {protocol}{', by pattern' if pattern else ''}: {side} has counted {lines.said} lines, every change once ({time.monotonic() - began:.1f} s)")
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
        runs = [("at_least_once", "streams", False), ("exactly_once_v2", "classic", True)]
        if options.long:
            runs += [("at_least_once", "classic", True), ("exactly_once_v2", "streams", False), ("exactly_once_v2", "classic", False)]
        for number, (guarantee, protocol, pattern) in enumerate(runs):
            name = f"{number}-{guarantee}-{protocol}"
            broker = workspace.broker(options.broker, SETTINGS, data=f"data-{name}")
            try:
                broker.start()
                take_over(broker, workspace.path / name, classes, guarantee, protocol, sides, pattern, lambda text: print(f"ok     takeover      {text}", flush=True))
                broker.stop()
            except (Failed, BrokerFailed) as failure:
                failed = 1
                workspace.keep = True
                print(f"FAILED takeover      {failure}", flush=True)
    print(f"takeover: {'failed' if failed else 'passed'} ({time.monotonic() - started:.0f} s)")
    return failed


if __name__ == "__main__":
    sys.exit(main())
