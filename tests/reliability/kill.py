#!/usr/bin/env python3
"""SIGKILLs the broker at random moments under load, then has the whole history judged.

    tests/reliability/kill.py [--broker fleuve|kafka] [--kills 20 | --long] [--seed N] [--set key=value] [--keep]

Three idempotent librdkafka producers with acks=all and one consumer group live through all kills; a quarter of the
kills hit a broker that is still starting. The seed decides the moments and is printed first.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from harness.broker import CACHE, Broker, BrokerFailed, Workspace, add_broker_argument  # noqa: E402
from history import UNKNOWN_OFFSET, Entry, PartitionHistory, violations  # noqa: E402

VENV_PYTHON = CACHE / "venv" / "bin" / "python"
if Path(sys.prefix) != VENV_PYTHON.parent.parent and VENV_PYTHON.exists():
    os.execv(VENV_PYTHON, [str(VENV_PYTHON), *sys.argv])
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition  # noqa: E402
from confluent_kafka.admin import AdminClient, NewTopic  # noqa: E402

TOPIC = "killed"
PARTITIONS = 4
PRODUCERS = 3
LONG_KILLS = 1000
RATE_PER_PRODUCER = 2000
# From the first acknowledgement after a restart, so that every such kill hits a broker under load.
UP_SECONDS = (0.0, 0.6)
STARTING_SECONDS = (0.0, 0.05)
SETTLE_SECONDS = 60
# A client that waits long between attempts would see few of the kills.
IMPATIENT = {"reconnect.backoff.ms": 5, "reconnect.backoff.max.ms": 100, "retry.backoff.ms": 10, "topic.metadata.refresh.fast.interval.ms": 20}


class Load:
    """Producers and a consumer that keep going whatever happens to the broker, and note what they are told."""

    def __init__(self, bootstrap: str):
        self.bootstrap = bootstrap
        self.partitions = [PartitionHistory(sent=dict.fromkeys(range(PRODUCERS), 0)) for _ in range(PARTITIONS)]
        for history in self.partitions:
            history.acknowledged = {producer: {} for producer in range(PRODUCERS)}
        self.errors: list[str] = []
        self.stopping = threading.Event()
        self.consuming = threading.Event()
        self.consuming.set()
        self.producers = [threading.Thread(target=self.produce, args=(number,)) for number in range(PRODUCERS)]
        self.consumer = threading.Thread(target=self.consume)

    def start(self) -> None:
        for thread in [*self.producers, self.consumer]:
            thread.start()

    def acknowledged(self) -> int:
        return sum(len(numbers) for history in self.partitions for numbers in history.acknowledged.values())

    def await_progress(self) -> None:
        """Returns once something more has been acknowledged; the producers take a while to find the broker again."""
        before = self.acknowledged()
        deadline = time.monotonic() + SETTLE_SECONDS
        while self.acknowledged() == before:
            if time.monotonic() > deadline:
                raise BrokerFailed(f"nothing was acknowledged within {SETTLE_SECONDS} s of a restart")
            time.sleep(0.005)

    def produce(self, producer: int) -> None:
        client = Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "enable.idempotence": True,
                "acks": "all",
                "message.timeout.ms": 0,
                "linger.ms": 2,
                "batch.num.messages": 100,
                "error_cb": lambda error: self.errors.append(f"producer {producer}: {error}") if error.fatal() else None,
                "log_level": 0,
                **IMPATIENT,
            }
        )

        def delivered(error, message) -> None:
            partition, number = message.partition(), int(message.value().split(b":")[1])
            if error is not None:
                self.errors.append(f"producer {producer}: delivery of number {number} to partition {partition}: {error}")
                return
            offset = message.offset()
            told = self.partitions[partition].acknowledged[producer]
            told[number] = offset if offset is not None and offset >= 0 else UNKNOWN_OFFSET

        started = time.monotonic()
        count = 0
        while not self.stopping.is_set():
            due = int((time.monotonic() - started) * RATE_PER_PRODUCER)
            while count < due and not self.stopping.is_set():
                partition = count % PARTITIONS
                sent = self.partitions[partition].sent
                try:
                    client.produce(TOPIC, value=b"%d:%d:" % (producer, sent[producer]) + b"x" * (count % 200), partition=partition, on_delivery=delivered)
                except BufferError:
                    break
                sent[producer] += 1
                count += 1
            client.poll(0.002)
        left = client.flush(SETTLE_SECONDS)
        if left:
            self.errors.append(f"producer {producer}: {left} records still unacknowledged {SETTLE_SECONDS} s after the last restart")

    def consume(self) -> None:
        client = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": "killed-readers",
                "auto.offset.reset": "earliest",
                "auto.commit.interval.ms": 200,
                "heartbeat.interval.ms": 500,
                "session.timeout.ms": 10000,
                "log_level": 0,
                **IMPATIENT,
            }
        )
        client.subscribe([TOPIC])
        while self.consuming.is_set():
            for message in client.consume(500, 0.1):
                if message.error() is None:
                    self.partitions[message.partition()].consumed.append(entry(message))
                elif message.error().code() == KafkaError.OFFSET_OUT_OF_RANGE:
                    self.errors.append(f"consumer: {message.error()}")
        client.close()

    def stop_producers(self) -> None:
        self.stopping.set()
        for thread in self.producers:
            thread.join()

    def stop_consumer(self) -> None:
        self.consuming.clear()
        self.consumer.join()

    def read_log(self) -> None:
        """Reads every partition from its first offset to its end."""
        for number, history in enumerate(self.partitions):
            settings = {"bootstrap.servers": self.bootstrap, "group.id": "judge", "enable.auto.commit": False, "check.crcs": True}
            client = Consumer(settings)
            low, high = client.get_watermark_offsets(TopicPartition(TOPIC, number), 30)
            client.assign([TopicPartition(TOPIC, number, OFFSET_BEGINNING)])
            deadline = time.monotonic() + SETTLE_SECONDS
            while not history.log or history.log[-1].offset < high - 1:
                if low == high or time.monotonic() > deadline:
                    self.errors.append(f"partition {number}: read {len(history.log)} records, watermarks are {low} and {high}")
                    break
                history.log += [entry(message) for message in client.consume(5000, 0.5) if message.error() is None]
            client.close()


def entry(message) -> Entry:
    producer, number, _ = message.value().split(b":", 2)
    return Entry(message.offset(), int(producer), int(number))


def run_kills(broker: Broker, load: Load, kills: int, moments: random.Random) -> int:
    """Kills and restarts the broker; returns how many of the kills hit it while starting."""
    while_starting = 0
    for number in range(kills):
        if moments.random() < 0.25:
            # Died during its recovery: started again at once, killed before it can be ready.
            broker.kill()
            broker.spawn()
            time.sleep(moments.uniform(*STARTING_SECONDS))
            while_starting += 1
        else:
            load.await_progress()
            time.sleep(moments.uniform(*UP_SECONDS))
        broker.kill()
        broker.start()
        if (number + 1) % 20 == 0:
            print(f"       {number + 1} kills, {load.acknowledged()} records acknowledged", flush=True)
    return while_starting


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_broker_argument(parser)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--long", action="store_true", help=f"{LONG_KILLS} kills")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="broker setting")
    options = parser.parse_args()
    kills = LONG_KILLS if options.long else options.kills
    print(f"kill test: {kills} kills, seed {options.seed}", flush=True)
    settings = {"group.initial.rebalance.delay.ms": "0", **dict(each.split("=", 1) for each in options.set)}
    with Workspace("kill", options.keep) as workspace:
        broker = workspace.broker(options.broker, settings)
        broker.start()
        admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
        for future in admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)]).values():
            future.result(30)
        load = Load(broker.bootstrap)
        load.start()
        try:
            while_starting = run_kills(broker, load, kills, random.Random(options.seed))
            time.sleep(1)
        except BrokerFailed as error:
            while_starting = 0
            load.errors.append(str(error))
            broker.process = None
        load.stop_producers()
        load.stop_consumer()
        if not load.errors:
            load.read_log()
        problems = load.errors[:20]
        if not load.errors:
            for number, history in enumerate(load.partitions):
                problems += violations(number, history)
            if not all(history.consumed for history in load.partitions):
                problems.append("the consumer saw no records of some partition")
        for problem in problems:
            print(f"FAILED kill test: {problem}")
        if problems:
            print(f"FAILED kill test: replay with --seed {options.seed} --kills {kills}")
            workspace.keep = True
            return 1
        stored = sum(len(history.log) for history in load.partitions)
        print(
            f"ok     kill test: {kills} kills ({while_starting} more while starting), {load.acknowledged()} records acknowledged, "
            f"{stored} stored, {sum(len(history.consumed) for history in load.partitions)} consumed; none lost, none twice, offsets contiguous"
        )
        broker.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
