#!/usr/bin/env python3
"""The names of Kafka Streams' metrics, asked of Kafka Streams itself, against the list that our tests go by.

    tests/streams/metrics.py [--broker fleuve|kafka] [--record]

`crates/streams/tests/endpoint.rs` holds the list against the page of a running application and against
`docs/metrics.md`: every metric is exported, or the documentation says why not.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from counting import HERE, KAFKA_LIBS, LOGGING, STREAMS_JARS, use_environment  # noqa: E402
from harness.broker import ROOT, BrokerFailed, Workspace, add_broker_argument  # noqa: E402

LIST = ROOT / "crates/streams/tests/metrics.txt"
SETTINGS = {"group.initial.rebalance.delay.ms": "0", "offsets.topic.num.partitions": "1"}


def names(broker, folder: Path) -> str:
    classpath = f"{folder}:{KAFKA_LIBS}/*:{STREAMS_JARS}/*"
    subprocess.run(["javac", "-nowarn", "-cp", classpath, "-d", str(folder), str(HERE / "Metrics.java")], check=True)
    command = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m", f"-Dlog4j2.configurationFile={LOGGING}", "-cp", classpath]
    asked = subprocess.run([*command, "Metrics", broker.bootstrap, str(folder)], capture_output=True, text=True, timeout=240)
    if asked.returncode:
        sys.exit(f"Kafka Streams failed:\n{asked.stderr[-4000:]}")
    return asked.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_broker_argument(parser)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    use_environment()
    with Workspace("streams-metrics", options.keep) as workspace:
        folder = workspace.path / "work"
        folder.mkdir()
        try:
            broker = workspace.broker(options.broker, SETTINGS).start()
            found = names(broker, folder)
            broker.stop()
        except BrokerFailed as failure:
            workspace.keep = True
            sys.exit(str(failure))
    if options.record:
        LIST.write_text(found)
    known, now = set(LIST.read_text().splitlines()), set(found.splitlines())
    for line in sorted(known - now):
        print(f"gone: {line}")
    for line in sorted(now - known):
        print(f"new: {line}")
    print(f"{len(now)} metrics of Kafka Streams")
    return 1 if known != now else 0


if __name__ == "__main__":
    sys.exit(main())
