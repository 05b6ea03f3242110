#!/usr/bin/env python3
"""The native client's suite against a broker of its own: Apache Kafka as the oracle, Fleuve's binary, or one that runs.

    tests/client/run.py --broker kafka [-- TEST...]      arguments after -- go to the test program

Without this script `cargo test -p fleuve --test client` runs the same suite against an embedded broker, in process
and over TCP.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.broker import ROOT, Kafka, Workspace, add_broker_argument  # noqa: E402

Kafka.heap = "384M"
SETTINGS = {"group.initial.rebalance.delay.ms": "0", "group.consumer.min.heartbeat.interval.ms": "500", "group.consumer.heartbeat.interval.ms": "500"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_broker_argument(parser)
    parser.add_argument("tests", nargs="*", help="names of tests, and options of the test program")
    arguments = parser.parse_args()
    with Workspace("client", arguments.keep) as workspace:
        broker = workspace.broker(arguments.broker, SETTINGS).start()
        environment = {**os.environ, "FLEUVE_TEST_BROKER": broker.bootstrap}
        command = ["cargo", "test", "-q", "-p", "fleuve", "--test", "client", "--", *arguments.tests]
        result = subprocess.run(command, cwd=ROOT, env=environment).returncode
        broker.stop()
    return result


if __name__ == "__main__":
    sys.exit(main())
