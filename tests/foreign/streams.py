#!/usr/bin/env python3
"""Kafka Streams, unmodified, against the broker under test: on the streams group protocol (KIP-1071), and exactly-once.

    tests/foreign/streams.py [--broker fleuve|kafka] [--keep]

Two instances of a word count: one begins, the other joins, the broker is killed and comes back, the first leaves.
Afterwards every word has been counted, and Apache's kafka-streams-groups.sh sees what went on. A second application
of the same kind counts exactly once on the classic group protocol, whatever is killed.
Needs `scripts/setup.sh streams python`, a JDK and a release build of Fleuve.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from harness.broker import CACHE, KAFKA_LIBS, ROOT, Broker, BrokerFailed, Workspace, add_broker_argument  # noqa: E402

STREAMS_JARS = KAFKA_LIBS.parent / "streams"
LOGGING = HERE.parent / "harness" / "log4j2.properties"
JAVA = [
    "java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m", f"-Dlog4j2.configurationFile={LOGGING}",
    "-cp", f"{KAFKA_LIBS}/*:{STREAMS_JARS}/*",
]  # fmt: skip
FLEUVE = os.environ.get("FLEUVE_BINARY", str(ROOT / "target" / "release" / "fleuve"))
TOOL = "org.apache.kafka.tools.streams.StreamsGroupCommand"
SETTINGS = {
    "group.streams.initial.rebalance.delay.ms": "200",
    "group.streams.min.heartbeat.interval.ms": "200",
    "group.streams.heartbeat.interval.ms": "200",
    "group.streams.assignment.interval.ms": "200",
    "offsets.topic.num.partitions": "4",
}
PARTITIONS = 4
# Of each of two subtopologies.
TASKS = 2 * PARTITIONS
LINES = 300
WORDS = ["river", "water", "stone", "bank", "fish", "boat", "rain", "reed", "mill", "ford"]
# Only a deadline: on an idle machine nothing here takes five seconds.
PATIENCE_SECONDS = 300


class Failed(Exception):
    """A check that did not hold."""


def wait_until(condition, what: str):
    """Calls the condition until what it returns is true, and returns that."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise Failed(f"not within {PATIENCE_SECONDS} s: {what}")
        time.sleep(0.05)


class Instance:
    """One process of the application."""

    def __init__(self, name: str, broker: Broker, folder: Path, *settings: str):
        self.name = name
        self.tasks = 0
        self.states: list[str] = []
        self.trouble: list[str] = []
        command = [*JAVA, str(HERE / "java" / "WordCount.java"), broker.bootstrap, str(folder / f"state-{name}"), *settings]
        self.log = open(folder / f"{name}.stderr", "wb")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self) -> None:
        for line in self.process.stdout:
            word, _, rest = line.strip().partition(" ")
            if word == "tasks":
                self.tasks = int(rest)
            elif word == "state":
                self.states.append(rest)
            elif word == "error" or line.strip() == "not closed":
                self.trouble.append(line.strip())

    def has(self, tasks: int) -> bool:
        if self.process.poll() is not None:
            raise Failed(f"instance {self.name} ended with {self.process.returncode}: {self.trouble}")
        return self.tasks == tasks and self.states[-1:] == ["RUNNING"]

    def leave(self) -> None:
        self.process.stdin.close()
        if self.process.wait(PATIENCE_SECONDS):
            raise Failed(f"instance {self.name} did not close: {self.trouble}")

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()


class Run:
    """The application and what has been said to it so far."""

    def __init__(self, broker: Broker, isolation: str = "read_uncommitted"):
        from confluent_kafka import Consumer, Producer
        from confluent_kafka.admin import AdminClient, NewTopic

        self.broker = broker
        self.random = random.Random(7)
        self.expected: Counter[str] = Counter()
        self.counted: dict[str, int] = {}
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        topics = [NewTopic("lines", PARTITIONS, 1), NewTopic("counts", 2, 1)]
        for future in admin.create_topics(topics).values():
            future.result(30)
        self.producer = Producer({"bootstrap.servers": broker.bootstrap, "enable.idempotence": True, "linger.ms": 5})
        self.consumer = Consumer({
            "bootstrap.servers": broker.bootstrap, "group.id": "word-count-check", "auto.offset.reset": "earliest", "enable.auto.commit": False,
            "isolation.level": isolation,
        })  # fmt: skip
        self.consumer.subscribe(["counts"])

    def say(self) -> None:
        for number in range(LINES):
            words = self.random.choices(WORDS, k=5)
            self.expected.update(words)
            self.producer.produce("lines", " ".join(words), key=str(number))
        if self.producer.flush(PATIENCE_SECONDS):
            raise Failed("lines were not produced")

    def poll(self) -> None:
        for message in self.consumer.consume(500, 0.2):
            if not message.error():
                self.counted[message.key().decode()] = int(message.value())

    def is_counted(self, exactly: bool) -> bool:
        self.poll()
        if exactly:
            return self.counted == dict(self.expected)
        return all(self.counted.get(word, 0) >= count for word, count in self.expected.items())

    def check_counted(self, exactly: bool) -> None:
        try:
            wait_until(lambda: self.is_counted(exactly), "every word is counted")
        except Failed as failure:
            raise Failed(f"{failure}: expected {dict(self.expected)}, got {self.counted}") from None

    def tool(self, *options: str) -> str:
        command = [*JAVA, TOOL, "--bootstrap-server", self.broker.bootstrap, *options]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if ended.returncode:
            raise Failed(f"kafka-streams-groups {' '.join(options)} ended with {ended.returncode}: {(ended.stderr or ended.stdout)[-400:]}")
        return ended.stdout

    def ours(self, *options: str) -> str:
        """The same by our own tool."""
        command = [str(ROOT / "bin" / "kafka-streams-groups.sh"), "--bootstrap-server", self.broker.bootstrap, *options]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "FLEUVE": FLEUVE})
        if ended.returncode:
            raise Failed(f"our kafka-streams-groups {' '.join(options)} ended with {ended.returncode}: {ended.stderr[-400:]}")
        return ended.stdout

    def alike(self, *options: str) -> None:
        """Both tools print the same rows, whatever their widths and their order."""
        theirs, mine = (sorted(line.split() for line in tool(*options).splitlines() if line.strip()) for tool in (self.tool, self.ours))
        if theirs != mine:
            raise Failed(f"kafka-streams-groups {' '.join(options)} says {theirs}, and ours {mine}")

    def identical(self, *options: str) -> None:
        """Both tools print the same lines, whatever their order; asked again while something changes in between."""
        seen: list[list[str]] = []

        def same() -> bool:
            seen[:] = [sorted(line.rstrip() for line in tool(*options).splitlines() if line.strip()) for tool in (self.tool, self.ours)]
            return seen[0] == seen[1]

        try:
            wait_until(same, "the tools agree")
        except Failed:
            raise Failed(f"kafka-streams-groups {' '.join(options)} says {seen[0]}, and ours {seen[1]}") from None

    def expect(self, wanted: list[str], *options: str) -> None:
        printed = self.tool(*options)
        missing = [word for word in wanted if word not in printed]
        if missing:
            raise Failed(f"kafka-streams-groups {' '.join(options)} does not tell {missing}: {printed}")


def word_count(broker: Broker, folder: Path, note) -> None:
    run = Run(broker)
    first = Instance("first", broker, folder, "group.protocol=streams")
    second = None
    try:
        run.say()
        wait_until(lambda: first.has(TASKS), "the first instance has all tasks")
        run.check_counted(exactly=True)
        note("one instance counts; its internal topics were made by the broker")

        second = Instance("second", broker, folder, "group.protocol=streams")
        wait_until(lambda: first.has(TASKS // 2) and second.has(TASKS // 2), "two instances share the tasks")
        run.say()
        run.check_counted(exactly=True)
        note("a second instance takes half of the tasks, with their state")
        run.expect(["word-count"], "--list")
        run.expect(["word-count", "Stable"], "--describe", "--group", "word-count", "--state")
        members = run.tool("--describe", "--group", "word-count", "--members", "--verbose")
        if members.count("ACTIVE") < 2:
            raise Failed(f"two members are described: {members}")
        run.expect(["word-count-counts-repartition", "lines"], "--describe", "--group", "word-count", "--offsets")
        note("kafka-streams-groups.sh lists and describes the group")
        group = ["--describe", "--group", "word-count"]
        for options in (["--list"], ["--list", "--state"]):
            run.alike(*options)
        for options in (["--state"], ["--members"], ["--offsets"]):
            run.identical(*group, *options)
            run.identical(*group, *options, "--verbose")
        described = subprocess.run(
            [FLEUVE, "group", "describe", "word-count", "--members", "-o", "json", "--bootstrap-server", broker.bootstrap],
            capture_output=True, text=True, timeout=60, check=True,
        )
        tasks = [task for member in json.loads(described.stdout) for task in member["tasks"]["active"]]
        if len(tasks) != TASKS or len(set(tasks)) != TASKS:
            raise Failed(f"our description has every task once: {tasks}")
        note("our own tools say the same")

        # With at-least-once what was processed but not committed is counted again.
        broker.kill()
        broker.start()
        run.say()
        run.check_counted(exactly=False)
        note("the broker is killed and comes back, and no word is lost")

        first.leave()
        wait_until(lambda: second.has(TASKS), "the second instance has all tasks")
        run.say()
        run.check_counted(exactly=False)
        note("the first instance leaves, and the second goes on")
        second.leave()

        wait_until(lambda: "Empty" in run.tool("--describe", "--group", "word-count", "--state"), "the group is empty")
        for scope in (["--input-topic", "lines"], ["--all-input-topics"]):
            for to in (["--to-latest"], ["--shift-by", "-3"]):
                run.alike("--reset-offsets", "--group", "word-count", *scope, *to, "--dry-run")
        forgotten = run.ours("--delete-offsets", "--group", "word-count", "--input-topic", "lines:0")
        if "Successful" not in forgotten:
            raise Failed(f"our kafka-streams-groups deletes offsets: {forgotten}")
        run.ours("--reset-offsets", "--group", "word-count", "--all-input-topics", "--to-earliest", "--execute")
        reset = ["--reset-offsets", "--group", "word-count", "--input-topic", "lines:1", "--to-earliest", "--execute"]
        run.expect(["lines"], *reset)
        run.tool("--delete", "--group", "word-count", "--delete-all-internal-topics")
        if "word-count" in run.tool("--list").split():
            raise Failed("the deleted group is still listed")
        note("kafka-streams-groups.sh resets offsets and deletes the group")
    finally:
        for instance in (first, second):
            if instance:
                instance.end()
        run.consumer.close()


def exactly_once(broker: Broker, folder: Path, note) -> None:
    run = Run(broker, "read_committed")
    settings = ["group.protocol=classic", "processing.guarantee=exactly_once_v2", "session.timeout.ms=6000"]
    instances = [Instance("once-0", broker, folder, *settings)]
    try:
        run.say()
        wait_until(lambda: instances[-1].has(TASKS), "the first instance has all tasks")
        run.check_counted(exactly=True)
        note("an instance with exactly_once_v2 on the classic protocol counts")

        broker.kill()
        broker.start()
        run.say()
        run.check_counted(exactly=True)
        note("the broker is killed and comes back, and every word is counted once")

        run.say()
        instances[-1].end()
        instances.append(Instance("once-1", broker, folder, *settings))
        run.say()
        run.check_counted(exactly=True)
        note("the instance is killed at work, and its successor counts every word once")
        instances[-1].leave()
    finally:
        for instance in instances:
            instance.end()
        run.consumer.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_broker_argument(parser)
    parser.add_argument("--only", choices=["word_count", "exactly_once"])
    options = parser.parse_args()
    python = CACHE / "venv" / "bin" / "python"
    if Path(sys.prefix).resolve() != (CACHE / "venv").resolve():
        return subprocess.call([str(python), __file__, *sys.argv[1:]])
    started = time.monotonic()
    failed = 0
    with Workspace("streams", options.keep) as workspace:
        for work in (word_count, exactly_once):
            if options.only not in (None, work.__name__):
                continue
            broker = workspace.broker(options.broker, SETTINGS, data=f"data-{work.__name__}")
            try:
                broker.start()
                work(broker, workspace.path, lambda text: print(f"ok     streams       {text}", flush=True))
                broker.stop()
            except (Failed, BrokerFailed, subprocess.TimeoutExpired) as failure:
                failed = 1
                workspace.keep = True
                print(f"FAILED streams       {failure}", flush=True)
    print(f"Kafka Streams: {'failed' if failed else 'passed'} ({time.monotonic() - started:.0f} s)")
    return failed


if __name__ == "__main__":
    sys.exit(main())
