"""What the tests of running applications share: instances of the counting program, ours and Kafka Streams', the lines
they count, and the check of every single record that comes out."""

from __future__ import annotations

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
from harness.broker import CACHE, KAFKA_LIBS, ROOT, Broker  # noqa: E402

STREAMS_JARS = KAFKA_LIBS.parent / "streams"
LOGGING = HERE.parent / "harness" / "log4j2.properties"
PROGRAM = os.environ.get("FLEUVE_COUNTING", str(ROOT / "target" / "debug" / "examples" / "counting"))
PARTITIONS = 4
WORDS = ["river", "water", "stone", "bank", "fish", "boat", "rain", "reed", "mill", "ford", "eel", "weir", "otter"]
WINDOW_MS = 10_000
# Of today, or the topics' retention would end the records before they are checked.
FIRST_TIME_MS = int(time.time() - 3600) * 1000
# Without caches every change is a record, so that the records of a key can be checked one by one.
SETTINGS = ["statestore.cache.max.bytes=0", "commit.interval.ms=100"]
# What only Kafka Streams has to be told.
JAVA_SETTINGS = ["auto.offset.reset=earliest"]
# Only a deadline.
PATIENCE_SECONDS = 240


class Failed(Exception):
    """A check that did not hold."""


def use_environment() -> None:
    """Goes on in the Python environment with the clients."""
    python = CACHE / "venv" / "bin" / "python"
    if Path(sys.prefix).resolve() != (CACHE / "venv").resolve():
        sys.exit(subprocess.call([str(python), *sys.argv]))


def compile_java(folder: Path) -> Path:
    classpath = f"{KAFKA_LIBS}/*:{STREAMS_JARS}/*"
    subprocess.run(["javac", "-nowarn", "-cp", classpath, "-d", str(folder), str(HERE / "Counting.java")], check=True)
    return folder


class Instance:
    """One process of the application."""

    def __init__(self, name: str, command: list[str], folder: Path):
        self.name = name
        self.log_path = folder / f"{name}.log"
        self.log = open(self.log_path, "ab")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=self.log, stderr=self.log, env={**os.environ, "RUST_BACKTRACE": "1"})

    def check_alive(self) -> None:
        if self.process.poll() is not None:
            raise Failed(f"{self.name} ended by itself with {self.process.returncode}: {self.log_tail()}")

    def leave(self) -> None:
        self.check_alive()
        self.process.stdin.close()
        if self.process.wait(PATIENCE_SECONDS):
            raise Failed(f"{self.name} did not close: {self.log_tail()}")
        self.log.close()

    def kill(self) -> None:
        self.check_alive()
        self.end()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def log_tail(self) -> str:
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-8:])


def ours(name: str, broker: Broker, folder: Path, *settings: str) -> Instance:
    return Instance(name, [PROGRAM, broker.bootstrap, *SETTINGS, *settings], folder)


def java(name: str, broker: Broker, folder: Path, classes: Path, *settings: str) -> Instance:
    command = [
        "java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m", f"-Dlog4j2.configurationFile={LOGGING}",
        "-cp", f"{classes}:{KAFKA_LIBS}/*:{STREAMS_JARS}/*", "Counting", broker.bootstrap, str(folder / f"state-{name}"),
    ]  # fmt: skip
    return Instance(name, [*command, *SETTINGS, *JAVA_SETTINGS, *settings], folder)


class Lines:
    """The lines said so far, and what has been counted of them."""

    def __init__(self, broker: Broker, seed: int, replication: int = 1, isolation: str = "read_committed"):
        from confluent_kafka import Consumer, Producer, TopicPartition
        from confluent_kafka.admin import AdminClient, NewTopic

        self.broker, self.random = broker, random.Random(seed)
        self.said = 0
        # Lines go to any of them.
        self.topics, self.made = ["lines"], 0
        # By topic and key: how many changes there have to be, and how many have come.
        self.expected: Counter[tuple[str, str]] = Counter()
        self.seen: Counter[tuple[str, str]] = Counter()
        self.places: dict[tuple[str, str], int] = {}
        self.lock = threading.Lock()
        self.admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        self.new_topic = lambda name: NewTopic(name, PARTITIONS, replication)
        self.create("lines", "counts", "windows")
        self.producer = Producer({"bootstrap.servers": broker.bootstrap, "enable.idempotence": True, "linger.ms": 5, "enable.metrics.push": False, "delivery.timeout.ms": 240_000, "log_level": 2})
        self.consumer = Consumer({
            "bootstrap.servers": broker.bootstrap, "group.id": "counting-check", "auto.offset.reset": "earliest", "enable.auto.commit": False,
            "isolation.level": isolation, "enable.metrics.push": False, "log_level": 2,
        })  # fmt: skip
        # By hand: the check has no part in what groups do.
        self.consumer.assign([TopicPartition(topic, number, 0) for topic in ("counts", "windows") for number in range(PARTITIONS)])

    def create(self, *names: str) -> None:
        for future in self.admin.create_topics([self.new_topic(name) for name in names]).values():
            future.result(60)

    def add_topic(self) -> None:
        self.made += 1
        name = f"lines-{self.made}"
        self.create(name)
        self.topics.append(name)

    def remove_topic(self) -> None:
        """The newest; everything in it has been counted."""
        for future in self.admin.delete_topics([self.topics.pop()]).values():
            future.result(60)

    def say(self, count: int) -> None:
        for _ in range(count):
            words = self.random.choices(WORDS, k=5)
            timestamp = FIRST_TIME_MS + self.said * 37
            start = timestamp // WINDOW_MS * WINDOW_MS
            with self.lock:
                for word in words:
                    self.expected["counts", word] += 1
                    self.expected["windows", f"{word}@{start}"] += 1
            self.producer.produce(self.random.choice(self.topics), " ".join(words), key=str(self.said), timestamp=timestamp)
            self.producer.poll(0)
            self.said += 1

    def flush(self) -> None:
        if self.producer.flush(PATIENCE_SECONDS):
            raise Failed("lines were not produced")

    def read(self, seconds: float = 0.2) -> None:
        """Reads what has come out, and holds every record against the one before it."""
        for message in self.consumer.consume(1000, seconds):
            if message.error():
                continue
            key = (message.topic(), message.key().decode())
            self.seen[key] += 1
            if self.places.setdefault(key, message.partition()) != message.partition():
                raise Failed(f"{key} is in partitions {self.places[key]} and {message.partition()}")
            if int(message.value()) != self.seen[key]:
                place = f"{message.topic()}-{message.partition()} at {message.offset()}"
                raise Failed(f"{key[1]} is {int(message.value())} where {self.seen[key]} comes next ({place})")

    def await_counted(self, instances: list[Instance], look_seconds: float = 0.5) -> None:
        """Waits until everything said is counted, and looks for a while whether there is anything beyond it.

        A record too many fails whenever it is read, so whoever goes on reading need not look at once.
        """
        self.flush()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.seen != self.expected:
            self.read()
            for instance in instances:
                instance.check_alive()
            if time.monotonic() > deadline:
                raise Failed(f"not counted within {PATIENCE_SECONDS} s: {self.expected - self.seen}")
        self.read(look_seconds)
        if self.seen != self.expected:
            raise Failed(f"counted too often: {self.seen - self.expected}")

    def close(self) -> None:
        self.consumer.close()
