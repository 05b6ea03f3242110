#!/usr/bin/env python3
"""Random transactions and plain records through librdkafka and Java while the broker is killed, stopped and its clock shifted.

    tests/reliability/checker/check.py [--broker fleuve|kafka] [--seeds 5 | --long | --seed N] [--seconds 6]
                                       [--plain] [--faults kill,stop,clock] [--keep]

Each seed has a broker and a topic of its own. At the end every partition is read whole, and `analysis.py` judges what
the clients saw. The seed decides operations and faults; threads and processes make each run of it a new interleaving.

As the oracle Apache Kafka takes `--faults stop`: killed under transactions, 4.3.1 on one node now and then comes back
with a transaction that its coordinator holds for aborted and whose marker was never written, so that no reader of
committed records gets past it.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import random
import signal
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]
from harness.broker import CACHE, Broker, BrokerFailed, Workspace, add_broker_argument  # noqa: E402

VENV_PYTHON = CACHE / "venv" / "bin" / "python"
if Path(sys.prefix) != VENV_PYTHON.parent.parent and VENV_PYTHON.exists():
    os.execv(VENV_PYTHON, [str(VENV_PYTHON), *sys.argv])
from analysis import INFO, OK, History, Operation, Poll, Record, Send, anomalies, summary  # noqa: E402
from clients import IMPATIENT, JavaClients, LibrdkafkaClient  # noqa: E402
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition  # noqa: E402
from confluent_kafka.admin import AdminClient, NewTopic  # noqa: E402

TOPIC = "checked"
PARTITIONS = 4
# Name, whether Java, whether transactional.
PROCESSES = [
    ("librdkafka-txn-1", False, True),
    ("librdkafka-txn-2", False, True),
    ("java-txn-1", True, True),
    ("java-txn-2", True, True),
    ("librdkafka-plain", False, False),
    ("java-plain", True, False),
]
FAULTS = ("kill", "stop", "clock")
TRANSACTION_TIMEOUT_MS = 6000
CLOCK_SECONDS_MAX = 2700
LONG_SEEDS = 100
SETTLE_SECONDS = 45
# Longer than all the waits of one operation together.
STUCK_SECONDS = 60
SETTINGS = {
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    "group.consumer.min.session.timeout.ms": "6000",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.heartbeat.interval.ms": "500",
    "group.consumer.heartbeat.interval.ms": "500",
}


class Clock:
    """The wall clock of the broker's process, shifted by libfaketime; the monotonic one stays."""

    def __init__(self, broker: Broker, place: Path):
        self.offset = place / "clock"
        self.shift(0)
        library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
        if library is None:
            raise SystemExit("libfaketime is missing: run scripts/setup.sh faketime, or leave clock out of --faults")
        broker.command_prefix = [
            "env",
            f"LD_PRELOAD={library}",
            f"FAKETIME_TIMESTAMP_FILE={self.offset}",
            "FAKETIME_CACHE_DURATION=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
        ]

    def shift(self, seconds: int) -> None:
        new = self.offset.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self.offset)


class Worker(threading.Thread):
    """Drives one client through random operations and keeps their history."""

    def __init__(self, client, transactional: bool, chance: random.Random, bootstrap: str, protocol: str, until: threading.Event):
        super().__init__(name=client.name, daemon=True)
        self.client = client
        self.transactional = transactional
        self.chance = chance
        self.bootstrap = bootstrap
        self.protocol = protocol
        self.until = until
        self.operations: list[Operation] = []
        self.life = 0
        self.sent = 0
        self.achieved = 0
        self.subscribed = False
        self.failure: BaseException | None = None
        self.problems: list[str] = []

    def run(self) -> None:
        try:
            while not self.until.is_set():
                if self.revive():
                    self.live()
        except BaseException as error:  # noqa: BLE001: the main thread raises it again
            self.failure = error

    def revive(self) -> bool:
        """Opens the client anew, and lets it read either partitions of its own choice or as a member of its group."""
        self.life += 1
        command = {"do": "open", "topic": TOPIC, "bootstrap": self.bootstrap, "group": self.group, "group_protocol": self.protocol}
        if self.transactional:
            command |= {"transactional_id": self.client.name, "transaction_timeout_ms": TRANSACTION_TIMEOUT_MS}
        answer = self.client.do(command)
        if answer["outcome"] != OK:
            self.problems.append(f"open: {answer.get('error')}")
            return False
        return self.place()

    @property
    def group(self) -> str:
        return "transactions" if self.transactional else f"readers-{self.client.name}"

    def place(self) -> bool:
        self.subscribed = self.chance.random() < 0.5
        return self.client.do({"do": "subscribe"})["outcome"] == OK if self.subscribed else self.replace()

    def replace(self) -> bool:
        """Other partitions for a client that chooses them itself; a member of a group would have to leave for that."""
        if self.subscribed:
            return False
        partitions = self.chance.sample(range(PARTITIONS), self.chance.randint(1, PARTITIONS))
        return self.client.do({"do": "assign", "partitions": partitions})["outcome"] == OK

    def live(self) -> None:
        """Operates until the client is dead, crashes by choice, or time is up."""
        while not self.until.is_set():
            choice = self.chance.random()
            if choice < 0.02:
                return
            if choice < 0.05 and not self.replace():
                return
            steps = self.steps()
            started = time.monotonic_ns()
            answer = self.client.do({"do": "operate", "steps": steps})
            self.keep(steps, started, answer)
            self.achieved += answer["outcome"] == OK
            if answer.get("error"):
                self.problems.append(f"operate: {answer['outcome']}: {answer['error']}")
            if answer.get("dead"):
                return

    def steps(self) -> list[dict]:
        kinds = [self.chance.choice(["send", "poll"]) for _ in range(self.chance.randint(1, 4))]
        if self.transactional and "send" not in kinds:
            # What a transaction wrote tells later whether it was committed.
            kinds.append("send")
        steps: list[dict] = []
        for kind in kinds:
            if kind == "poll":
                steps.append({"poll_ms": self.chance.choice([5, 50, 100])})
            else:
                self.sent += 1
                steps.append({"partition": self.chance.randrange(PARTITIONS), "value": f"{self.client.name}:{self.life}.{self.sent}"})
        return steps

    def keep(self, steps: list[dict], started: int, answer: dict) -> None:
        done: list[Send | Poll] = []
        for step in answer.get("steps", []):
            if "value" in step:
                done.append(Send(step["partition"], step["value"], step.get("offset"), step.get("outcome", INFO)))
            elif "at" in step:
                done.append(Poll(step["at"], step["session"], step["from_start"], [Record(*record) for record in step["records"]]))
        # What the client did not get to tell of may have happened.
        told = {step.value for step in done if isinstance(step, Send)}
        done += [Send(step["partition"], step["value"]) for step in steps if "value" in step and step["value"] not in told]
        self.operations.append(
            Operation(
                process=f"{self.client.name}/{self.life}",
                transactional=self.transactional,
                started=started,
                ended=time.monotonic_ns(),
                outcome=answer["outcome"],
                steps=done,
                committing=answer.get("committing"),
                group=answer.get("group"),
                error=answer.get("error", ""),
            )
        )


def trouble(
    broker: Broker, clock: Clock | None, workers: list[Worker], faults: list[str], seconds: float, chance: random.Random
) -> dict[str, int]:
    """Does to the broker what a bad day does, for so many seconds under load; leaves it running."""
    counts = dict.fromkeys(faults, 0)
    await_progress(workers, all)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(chance.uniform(0.1, 1.2))
        fault = chance.choice(faults)
        counts[fault] += 1
        if fault == "kill":
            broker.kill()
            time.sleep(chance.choice([0, 0, chance.uniform(0, 1)]))
            broker.start()
        elif fault == "stop":
            os.kill(broker.pid, signal.SIGSTOP)
            time.sleep(chance.choice([chance.uniform(0.05, 1), chance.uniform(1, 4)]))
            os.kill(broker.pid, signal.SIGCONT)
        else:
            clock.shift(chance.randint(-CLOCK_SECONDS_MAX, CLOCK_SECONDS_MAX))
        await_progress(workers, any)
    if clock is not None:
        clock.shift(0)
    return counts


def await_progress(workers: list[Worker], which) -> None:
    """Returns once all (or any) of the clients did something that succeeded: faults shall hit a broker at work."""
    before = [worker.achieved for worker in workers]
    deadline = time.monotonic() + SETTLE_SECONDS
    while not which(worker.achieved > achieved or worker.failure for worker, achieved in zip(workers, before)):
        if time.monotonic() > deadline:
            raise BrokerFailed(f"the clients achieved nothing for {SETTLE_SECONDS} s: {[worker.problems[-1:] for worker in workers]}")
        time.sleep(0.01)


def read_all(bootstrap: str, isolation: str, starts: dict[int, int], ends: dict[int, str], group: str = "judge") -> dict[int, list[Record]]:
    """Each partition from its start to the record that ends it, which is left out."""
    settings = {"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False, "isolation.level": isolation, **IMPATIENT}
    client = Consumer({**settings, "auto.offset.reset": "earliest", "check.crcs": True})
    try:
        found: dict[int, list[Record]] = {partition: [] for partition in starts}
        client.assign([TopicPartition(TOPIC, partition, offset) for partition, offset in starts.items()])
        missing = set(starts)
        deadline = time.monotonic() + SETTLE_SECONDS
        while missing:
            if time.monotonic() > deadline:
                raise BrokerFailed(f"a {isolation} reader did not get to the end of partitions {sorted(missing)} within {SETTLE_SECONDS} s: does a transaction hang?")
            for message in client.consume(1000, 0.2):
                if message.error() is None:
                    partition, value = message.partition(), message.value().decode()
                    if value == ends[partition]:
                        missing.discard(partition)
                    else:
                        found[partition].append(Record(partition, message.offset(), value))
        return found
    finally:
        client.close()


def committed_offsets(bootstrap: str, group: str) -> dict[int, int]:
    """Where a group goes on, once no transaction can change it any more."""
    client = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "isolation.level": "read_committed", **IMPATIENT})
    try:
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            try:
                offsets = client.committed([TopicPartition(TOPIC, partition) for partition in range(PARTITIONS)], 5)
                if not any(offset.error for offset in offsets):
                    return {offset.partition: offset.offset if offset.offset >= 0 else OFFSET_BEGINNING for offset in offsets}
            except KafkaException as error:
                if time.monotonic() > deadline:
                    raise BrokerFailed(f"no committed offsets of {group} within {SETTLE_SECONDS} s: {error}") from error
    finally:
        client.close()


def observe_end(bootstrap: str, history: History, transactional: bool) -> None:
    """Marks the ends of the partitions, and reads what stands before them."""
    closer = LibrdkafkaClient("closer")
    command = {"do": "open", "topic": TOPIC, "bootstrap": bootstrap, "group": "closer", "group_protocol": "classic"}
    closer.do(command)
    ends = {partition: f"end-{partition}" for partition in range(PARTITIONS)}
    answer = closer.do({"do": "operate", "steps": [{"partition": partition, "value": value} for partition, value in ends.items()]})
    if any(step.get("outcome") != OK for step in answer.get("steps", [])) or len(answer.get("steps", [])) != PARTITIONS:
        raise BrokerFailed(f"the last records were not acknowledged: {answer}")
    closer.do({"do": "close"})
    beginnings = dict.fromkeys(range(PARTITIONS), OFFSET_BEGINNING)
    history.committed = read_all(bootstrap, "read_committed", beginnings, ends)
    history.everything = read_all(bootstrap, "read_uncommitted", beginnings, ends)
    if transactional:
        left = read_all(bootstrap, "read_committed", committed_offsets(bootstrap, "transactions"), ends)
        history.leftovers["transactions"] = [record for records in left.values() for record in records]


def run_seed(seed: int, java: JavaClients, options: argparse.Namespace) -> bool:
    """One broker, one history, one verdict."""
    chance = random.Random(seed)
    faults = options.faults
    with Workspace(f"checker-{seed}", options.keep) as workspace:
        broker = workspace.broker(options.broker, SETTINGS)
        clock = Clock(broker, workspace.path) if "clock" in faults else None
        protocol = chance.choice(["classic", "consumer"])
        history = History()
        try:
            broker.start()
            admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
            for future in admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)]).values():
                future.result(30)
            until = threading.Event()
            workers = [
                Worker(
                    java.client(f"{name}-{seed}") if is_java else LibrdkafkaClient(f"{name}-{seed}"),
                    transactional and not options.plain,
                    random.Random(f"{seed} {name}"),
                    broker.bootstrap,
                    protocol,
                    until,
                )
                for name, is_java, transactional in PROCESSES
            ]
            for worker in workers:
                worker.start()
            try:
                counts = trouble(broker, clock, workers, faults, options.seconds, chance)
            finally:
                until.set()
                for worker in workers:
                    worker.join(STUCK_SECONDS)
            for worker in workers:
                if worker.is_alive():
                    faulthandler.dump_traceback()
                    raise BrokerFailed(f"{worker.name} hangs; so far it met {worker.problems[-3:]}")
                if worker.failure is not None:
                    raise worker.failure
                worker.client.do({"do": "close"})
                history.operations += worker.operations
            observe_end(broker.bootstrap, history, not options.plain)
            broker.stop()
        except BrokerFailed as error:
            print(f"FAILED checker: seed {seed}: {error}", flush=True)
            workspace.keep = True
            return False
        finally:
            (workspace.path / "history.json").write_text(json.dumps(asdict(history)))
        if options.verbose:
            for worker in workers:
                for problem in worker.problems:
                    print(f"       {worker.client.name}: {problem}")
        found = summary(anomalies(history))
        outcomes = [operation.outcome for operation in history.operations if operation.transactional]
        what = (
            f"seed {seed} ({protocol}): {len(history.operations)} operations, {len(outcomes)} transactions "
            f"({outcomes.count(OK)} committed, {outcomes.count('fail')} aborted, {outcomes.count(INFO)} unknown), "
            f"{sum(map(len, history.committed.values()))} records committed of {sum(map(len, history.everything.values()))}, "
            f"{sum(len(poll.records) for operation in history.operations for poll in operation.polls)} polled; "
            + ", ".join(f"{count} {fault}" for fault, count in counts.items())
        )
        print(f"{'FAILED' if found else 'ok    '} checker: {what}", flush=True)
        for line in found:
            print(f"       {line}", flush=True)
        workspace.keep |= bool(found)
        return not found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_broker_argument(parser)
    parser.add_argument("--seeds", type=int, default=5, help="how many, beginning with a random one")
    parser.add_argument("--long", action="store_true", help=f"{LONG_SEEDS} seeds")
    parser.add_argument("--seed", type=int, help="this one only")
    parser.add_argument("--seconds", type=float, default=5, help="of trouble for each seed")
    parser.add_argument("--plain", action="store_true", help="no transactions")
    parser.add_argument("--faults", type=lambda text: text.split(","), default=list(FAULTS), help=f"of {','.join(FAULTS)}")
    parser.add_argument("--verbose", action="store_true", help="what went wrong for the clients on the way")
    options = parser.parse_args()
    if unknown := set(options.faults) - set(FAULTS):
        parser.error(f"unknown fault {unknown.pop()}: known are {', '.join(FAULTS)}")
    first = random.SystemRandom().randrange(1 << 20)
    seeds = [options.seed] if options.seed is not None else range(first, first + (LONG_SEEDS if options.long else options.seeds))
    logs = CACHE / "scratch"
    logs.mkdir(parents=True, exist_ok=True)
    java = JavaClients(logs / "checker-java.log")
    try:
        verdicts = [run_seed(seed, java, options) for seed in seeds]
    finally:
        java.close()
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
