#!/usr/bin/env python3
"""SIGKILLs Apache's TransactionalMessageCopier and the broker at random moments; the output must be exactly once.

    tests/reliability/copier.py [--broker fleuve|kafka] [--kills 6 | --long] [--seed N] [--records N] [--keep]

One copier for each partition of the input copies it to the output in transactions, some of which it aborts, and commits
its offsets in them. Whoever is killed is started again. In the end every record of the input must stand in the output
once, in order, for a consumer of committed records, and no transaction may be left open.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from harness.broker import CACHE, KAFKA_LIBS, Broker, BrokerFailed, Workspace, add_broker_argument  # noqa: E402

VENV_PYTHON = CACHE / "venv" / "bin" / "python"
if Path(sys.prefix) != VENV_PYTHON.parent.parent and VENV_PYTHON.exists():
    os.execv(VENV_PYTHON, [str(VENV_PYTHON), *sys.argv])
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition  # noqa: E402
from confluent_kafka.admin import AdminClient, NewTopic  # noqa: E402

INPUT, OUTPUT = "copied-from", "copied-to"
PARTITIONS = 2
LONG_KILLS = 60
TRANSACTION_SIZE = 50
# Transactions of a copier that was killed end when it comes back; those of the last one need not wait for that.
TRANSACTION_TIMEOUT_MS = 10_000
PAUSE_SECONDS = (0.2, 2.5)
FINISH_SECONDS = 180
LOG4J = HERE.parent / "harness" / "log4j2.properties"


class Copier:
    """The copier of one partition, started again until it says that nothing remains."""

    def __init__(self, bootstrap: str, partition: int, log: Path):
        self.partition = partition
        self.log = log
        self.command = [
            "java", "-Xmx128m", f"-Dlog4j2.configurationFile={LOG4J}", "-cp", f"{KAFKA_LIBS}/*",
            "org.apache.kafka.tools.TransactionalMessageCopier",
            "--broker-list", bootstrap, "--input-topic", INPUT, "--input-partition", str(partition),
            "--output-topic", OUTPUT, "--consumer-group", f"copier-{partition}", "--transactional-id", f"copier-{partition}",
            "--transaction-size", str(TRANSACTION_SIZE), "--transaction-timeout", str(TRANSACTION_TIMEOUT_MS),
            "--enable-random-aborts",
        ]  # fmt: skip
        self.process: subprocess.Popen | None = None
        self.starts = 0

    def keep_running(self) -> bool:
        """Starts it unless it runs; says whether it has finished."""
        if self.process is not None:
            code = self.process.poll()
            if code is None:
                return False
            if code == 0:
                return True
        self.starts += 1
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        return False

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def fill(bootstrap: str, records: int) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 5, "log_level": 0, "queue.buffering.max.messages": 0})
    for number in range(records):
        for partition in range(PARTITIONS):
            producer.produce(INPUT, value=b"%d:%d" % (partition, number), key=b"%d" % partition, partition=partition)
        if number % 1000 == 0:
            producer.poll(0)
    if producer.flush(60):
        raise BrokerFailed("the input was not written")


def read_output(bootstrap: str) -> list[list[int]]:
    """What a consumer of committed records finds, by the partition of the input that it came from."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap, "group.id": "judge", "isolation.level": "read_committed", "auto.offset.reset": "earliest",
            "enable.partition.eof": True, "enable.auto.commit": False, "log_level": 0,
        }
    )  # fmt: skip
    ends = {}
    for partition in range(PARTITIONS):
        ends[partition] = consumer.get_watermark_offsets(TopicPartition(OUTPUT, partition), 10)[1]
    consumer.assign([TopicPartition(OUTPUT, partition, 0) for partition in range(PARTITIONS)])
    found: list[list[int]] = [[] for _ in range(PARTITIONS)]
    at_end: set[int] = set()
    deadline = time.monotonic() + 60
    while len(at_end) < PARTITIONS:
        if time.monotonic() > deadline:
            raise BrokerFailed("the output cannot be read to its end: a transaction is left open")
        message = consumer.poll(1)
        if message is None:
            continue
        if message.error():
            # An end before that of the log is the last stable offset: it has to move on by itself.
            if message.error().code() == KafkaError._PARTITION_EOF and message.offset() >= ends[message.partition()]:
                at_end.add(message.partition())
            continue
        source, number = map(int, message.value().split(b":"))
        found[source].append(number)
    consumer.close()
    return found


def run(broker: Broker, copiers: list[Copier], kills: int, moments: random.Random) -> dict[str, int]:
    counts = {"broker": 0, "copier": 0}
    victims: list[str] = ["copier", "broker"] * (kills // 2) + ["copier"] * (kills % 2)
    moments.shuffle(victims)
    for victim in victims:
        if all([copier.keep_running() for copier in copiers]):
            break
        time.sleep(moments.uniform(*PAUSE_SECONDS))
        if victim == "broker":
            broker.kill()
            broker.start()
        else:
            moments.choice(copiers).kill()
        counts[victim] += 1
    deadline = time.monotonic() + FINISH_SECONDS
    while not all([copier.keep_running() for copier in copiers]):
        if time.monotonic() > deadline:
            raise BrokerFailed(f"the copiers were not done {FINISH_SECONDS} s after the last kill")
        time.sleep(0.1)
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_broker_argument(parser)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--long", action="store_true", help=f"{LONG_KILLS} kills")
    parser.add_argument("--records", type=int, default=0, help="records in each partition of the input")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    kills = LONG_KILLS if options.long else options.kills
    records = options.records or kills * 1000
    print(f"copier test: {kills} kills, {records} records in each of {PARTITIONS} partitions, seed {options.seed}", flush=True)
    with Workspace("copier", options.keep) as workspace:
        broker = workspace.broker(options.broker, {"group.initial.rebalance.delay.ms": "0"})
        broker.start()
        admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
        for future in admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in (INPUT, OUTPUT)]).values():
            future.result(30)
        copiers = [Copier(broker.bootstrap, number, workspace.path / f"copier-{number}.log") for number in range(PARTITIONS)]
        problems = []
        counts = {}
        try:
            fill(broker.bootstrap, records)
            counts = run(broker, copiers, kills, random.Random(options.seed))
            for partition, found in enumerate(read_output(broker.bootstrap)):
                expected = list(range(records))
                if found != expected:
                    missing, twice = len(set(expected) - set(found)), len(found) - len(set(found))
                    problems.append(f"input partition {partition}: {missing} records missing, {twice} there twice, in order: {found == sorted(found)}")
        except BrokerFailed as error:
            problems.append(str(error))
        finally:
            for copier in copiers:
                copier.kill()
        for problem in problems:
            print(f"FAILED copier test: {problem}")
        if problems:
            print(f"FAILED copier test: replay with --seed {options.seed} --kills {kills}")
            workspace.keep = True
            return 1
        starts = sum(copier.starts for copier in copiers)
        print(
            f"ok     copier test: {counts['copier']} kills of copiers and {counts['broker']} of the broker, {starts} starts of copiers; "
            f"{records * PARTITIONS} records copied exactly once, in order"
        )
        broker.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
