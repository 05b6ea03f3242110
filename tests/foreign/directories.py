#!/usr/bin/env python3
"""Partitions move between data directories by kafka-reassign-partitions and kafka-log-dirs, as they do with Apache Kafka.

    tests/foreign/directories.py [--keep]

One story, told three times: Apache's tools against Apache Kafka, Apache's tools against Fleuve, and Fleuve's drop-ins against
Fleuve. Whatever they print must be the same but for paths and sizes, and the records must all be there afterwards. Needs
`scripts/setup.sh kafka` and a release build.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness.broker import KAFKA_LIBS, ROOT, Broker, Kafka, Workspace  # noqa: E402

LOGGING = ROOT / "tests" / "harness" / "log4j2.properties"
JAVA = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m", f"-Dlog4j2.configurationFile={LOGGING}", "-cp", f"{KAFKA_LIBS}/*"]
CLASSES = {
    "kafka-topics": "TopicCommand", "kafka-log-dirs": "LogDirsCommand", "kafka-get-offsets": "GetOffsetShell",
    "kafka-reassign-partitions": "reassign.ReassignPartitionsCommand", "kafka-producer-perf-test": "ProducerPerformance",
    "kafka-configs": None,
}
FLEUVE = os.environ.get("FLEUVE_BINARY", str(ROOT / "target" / "release" / "fleuve"))
PATIENCE_SECONDS = 60
Tool = Callable[..., str]


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS * 2, env={**os.environ, "FLEUVE": FLEUVE})
    # Some of what is said goes to stderr in both; what the JVM itself says there is none of it.
    return done.stdout


def ours(tool: str, *arguments: str) -> str:
    return run([str(ROOT / "bin" / f"{tool}.sh"), *arguments])


def apaches(tool: str, *arguments: str) -> str:
    return run([*JAVA, f"org.apache.kafka.tools.{CLASSES[tool]}", *arguments])


class Story:
    """What happens to one broker, and what the tools say of it."""

    def __init__(self, workspace: Workspace, label: str, which: str, tool: Tool):
        self.label, self.tool = label, tool
        self.first, self.second = (workspace.path / f"{label}-{place}" for place in ("first", "second"))
        self.broker: Broker = workspace.broker(which, {
            "log.dirs": f"{self.first},{self.second}", "group.initial.rebalance.delay.ms": "0", "log.initial.task.delay.ms": "500",
        }, f"{label}-first")
        self.plans = workspace.path / f"{label}-plan.json"
        self.told: list[tuple[str, list[str]]] = []

    def ask(self, tool: str, *arguments: str) -> str:
        return self.tool(tool, "--bootstrap-server", self.broker.bootstrap, *arguments)

    def plain(self, text: str) -> list[str]:
        """What was said, without what differs by nature: where directories are, how large, and in which order Java's maps are."""
        text = text.replace(str(self.first), "FIRST").replace(str(self.second), "SECOND")
        return sorted(line.rstrip() for line in text.splitlines() if line.strip())

    def tell(self, what: str, text: str) -> None:
        self.told.append((what, self.plain(text)))

    def places(self) -> dict[int, list[str]]:
        """Where the partitions are, with copies under way."""
        text = self.ask("kafka-log-dirs", "--describe", "--topic-list", "moved")
        described = json.loads(next(line for line in text.splitlines() if line.startswith("{")))
        places: dict[int, list[str]] = {}
        for broker in described["brokers"]:
            for directory in broker["logDirs"]:
                for partition in directory["partitions"]:
                    number = int(partition["partition"].rsplit("-", 1)[1])
                    kind = " (copy)" if partition["isFuture"] else ""
                    places.setdefault(number, []).append(Path(directory["logDir"]).name.rsplit("-", 1)[1] + kind)
        return {number: sorted(found) for number, found in sorted(places.items())}

    def reassign(self, directories: dict[int, str], *arguments: str) -> str:
        partitions = [
            {"topic": "moved", "partition": number, "replicas": [1], "log_dirs": [directory]} for number, directory in directories.items()
        ]
        self.plans.write_text(json.dumps({"version": 1, "partitions": partitions}))
        return self.ask("kafka-reassign-partitions", "--reassignment-json-file", str(self.plans), *arguments)

    def await_move(self, directories: dict[int, str], *arguments: str) -> str:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            text = self.reassign(directories, "--verify", *arguments)
            if "in progress" not in text and "still" not in text:
                return text
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.label}: the move does not end\n{text}")

    def happen(self) -> None:
        self.broker.start()
        self.ask("kafka-topics", "--create", "--topic", "moved", "--partitions", "3")
        self.tool(
            "kafka-producer-perf-test", "--bootstrap-server", self.broker.bootstrap, "--topic", "moved", "--num-records", "30000", "--record-size", "1000",
            "--throughput", "-1",
        )
        before = self.ask("kafka-get-offsets", "--topic", "moved")
        text = self.ask("kafka-log-dirs", "--describe", "--topic-list", "moved")
        shape = re.sub(r'"size":\d+', '"size":N', text)
        self.tell("log-dirs prints the same lines", re.sub(r"^\{.*$", "{}", shape, flags=re.M))
        described = json.loads(next(line for line in text.splitlines() if line.startswith("{")))
        directories = described["brokers"][0]["logDirs"]
        self.tell("log-dirs has the same fields", "\n".join(sorted(
            [*described, *described["brokers"][0], *directories[0], *next(entry for entry in directories if entry["partitions"])["partitions"][0]]
        )))
        everything_second = {number: str(self.second) for number in range(3)}
        # Wherever they came into being, from here on all are in one place.
        self.reassign(everything_second, "--execute")
        self.await_move(everything_second)
        self.tell("all are in one directory", str(self.places()))

        back = {0: str(self.first), 1: "any"}
        self.tell("execute", self.reassign(back, "--execute"))
        self.tell("verify", self.await_move(back))
        self.tell("one has moved, any means stay", str(self.places()))

        # So slowly that it is under way while we look.
        slow = {2: str(self.first)}
        self.tell("execute with a throttle", self.reassign(slow, "--execute", "--replica-alter-log-dirs-throttle", "100000"))
        self.tell("verify while it is under way", self.reassign(slow, "--verify", "--preserve-throttles"))
        self.tell("a copy grows", str(self.places()))
        self.tell("cancel", self.reassign(slow, "--cancel", "--preserve-throttles"))
        stay = {2: str(self.second)}
        self.tell("ask for the old place", self.reassign(stay, "--execute", "--additional"))
        self.tell("verify that it stays", self.await_move(stay))
        self.tell("no copy is left", str(self.places()))

        nowhere = {0: str(self.first) + "-nowhere"}
        self.tell("verify a place that is none", self.reassign(nowhere, "--verify"))
        self.tell("list", self.ask("kafka-reassign-partitions", "--list"))
        after = self.ask("kafka-get-offsets", "--topic", "moved")
        if before != after or "moved" not in after:
            raise RuntimeError(f"{self.label}: offsets were {before} and are {after}")
        self.broker.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="keep data and logs of the run")
    options = parser.parse_args()
    Kafka.heap = "256m"
    began = time.monotonic()
    failed = 0
    with Workspace("directories", options.keep) as workspace:
        stories = [
            Story(workspace, "kafka", "kafka", apaches), Story(workspace, "fleuve", "fleuve", apaches), Story(workspace, "dropins", "fleuve", ours),
        ]
        with ThreadPoolExecutor(2) as pool:
            for outcome in [pool.submit(story.happen) for story in stories]:
                outcome.result()
        reference = stories[0]
        for story in stories[1:]:
            for (what, expected), (_, found) in zip(reference.told, story.told, strict=True):
                failed += expected != found
                print(f"{'ok' if expected == found else 'FAILED':6} {story.label}: {what}")
                if expected != found:
                    print(f"       with Apache Kafka: {expected}\n       here:              {found}")
        workspace.keep |= failed > 0
    print(f"{failed} failed in {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
