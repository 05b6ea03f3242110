"""The clients of the checker: librdkafka's in this process, Java's in one JVM, both behind the same commands.

    open       topic, bootstrap, group, group_protocol, and transactional_id where it shall be transactional
    assign     partitions; from their beginning
    subscribe
    operate    steps: {"partition": 1, "value": "..."} sends, {"poll_ms": 50} polls. One transaction, or each for itself
    close      as a crash does it: nothing is committed or aborted

An answer says `outcome` ok, fail (certainly without effect) or info (unknown), `dead` when the client must be opened
again, and for `operate` its steps: sends with their `offset` and, outside of transactions, `outcome`; polls with `at`
(monotonic nanoseconds), `session`, `from_start` and `records`. A transaction says when it asked for its commit
(`committing`), and whose offsets it commits (`group`). After an abort the consumer stands where the transaction began.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import threading
import time
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from harness.broker import KAFKA_LIBS

PATIENCE_SECONDS = 8
OPEN_SECONDS = 5
ANSWER_SECONDS = 90
RECORDS_PER_POLL = 40
# A client that waits long between attempts would see few of the faults.
IMPATIENT = {"reconnect.backoff.ms": 5, "reconnect.backoff.max.ms": 200, "retry.backoff.ms": 20, "socket.timeout.ms": 3000, "log_level": 0}


class Rebalanced(Exception):
    """Partitions moved after the transaction had read from them: it must not commit their offsets."""


class LibrdkafkaClient:
    """One producer and one consumer of librdkafka, used by one thread."""

    def __init__(self, name: str):
        self.name = name
        self.producer: Producer | None = None
        self.consumer: Consumer | None = None
        self.session = 0
        self.from_start = False
        self.moved = False
        self.subscribed = False
        self.transactional = False
        self.topic = self.group = ""

    def do(self, command: dict) -> dict:
        """Obeys one command; never raises."""
        answer: dict = {"outcome": "ok"}
        try:
            match command["do"]:
                case "open":
                    self.open(command)
                case "assign":
                    self.assign(command["partitions"])
                case "subscribe":
                    self.subscribed = True
                    self.consumer.subscribe([self.topic], on_assign=self.rebalanced, on_revoke=self.rebalanced, on_lost=self.rebalanced)
                    self.move(from_start=False)
                case "operate" if self.transactional:
                    self.transact(command["steps"], answer)
                case "operate":
                    self.steps(command["steps"], answer.setdefault("steps", []), {})
                case "close":
                    self.close()
        except (KafkaException, Rebalanced, RuntimeError) as error:
            answer |= {"outcome": "info", "dead": True, "error": str(error)}
        return answer

    def open(self, command: dict) -> None:
        self.close()
        self.topic, self.group = command["topic"], command["group"]
        self.transactional = bool(command.get("transactional_id"))
        common = {"bootstrap.servers": command["bootstrap"], **IMPATIENT}
        producing = {**common, "enable.idempotence": True, "linger.ms": 0, "message.timeout.ms": 6000}
        if self.transactional:
            producing |= {"transactional.id": command["transactional_id"], "transaction.timeout.ms": command["transaction_timeout_ms"]}
        self.producer = Producer(producing)
        consuming = {
            **common,
            "group.id": self.group,
            "group.protocol": command["group_protocol"],
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 50,
        }
        if command["group_protocol"] == "classic":
            consuming |= {"session.timeout.ms": 6000, "heartbeat.interval.ms": 300}
        self.consumer = Consumer(consuming)
        self.subscribed = False
        if self.transactional:
            self.producer.init_transactions(OPEN_SECONDS)

    def close(self) -> None:
        if self.producer is not None:
            self.producer.purge(in_queue=True, in_flight=True, blocking=False)
            self.producer = None
        consumer, self.consumer = self.consumer, None
        if consumer is not None:
            consumer.close()

    def assign(self, partitions: list[int]) -> None:
        self.consumer.unsubscribe()
        self.subscribed = False
        self.consumer.assign([TopicPartition(self.topic, partition, OFFSET_BEGINNING) for partition in partitions])
        self.move(from_start=True)

    def move(self, from_start: bool) -> None:
        self.session += 1
        self.from_start = from_start
        self.moved = True

    def rebalanced(self, consumer, partitions) -> None:
        self.move(from_start=False)

    def transact(self, wanted: list[dict], answer: dict) -> None:
        consumed: dict[int, list[int]] = {}
        done = answer.setdefault("steps", [])
        try:
            self.moved = False
            self.producer.begin_transaction()
            self.steps(wanted, done, consumed)
            if self.subscribed:
                if self.moved and consumed:
                    raise Rebalanced
                offsets = [TopicPartition(self.topic, partition, last + 1) for partition, (_, last) in consumed.items()]
                if offsets:
                    self.send_offsets(offsets)
                answer["group"] = self.group
            if self.producer.flush(PATIENCE_SECONDS):
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "flush"))
            answer["committing"] = time.monotonic_ns()
            self.commit()
        except (KafkaException, Rebalanced) as error:
            answer["error"] = repr(error)
            aborted = False
            reason = error.args[0] if isinstance(error, KafkaException) else None
            if not (reason is not None and (reason.fatal() or (reason.retriable() and "committing" in answer))):
                try:
                    self.producer.abort_transaction(PATIENCE_SECONDS)
                    aborted = True
                except KafkaException as second:
                    answer["error"] += f", then {second!r}"
            # Whoever never asked for the commit cannot have got it.
            answer["outcome"] = "fail" if aborted or "committing" not in answer else "info"
            answer["dead"] = not aborted
            if aborted:
                self.rewind(consumed)

    def send_offsets(self, offsets: list[TopicPartition]) -> None:
        """Gives up where librdkafka does not: it may look for the group's coordinator without end (its issue 5456)."""
        producer, group = self.producer, self.consumer.consumer_group_metadata()
        failures: list[KafkaException] = []

        def send() -> None:
            try:
                producer.send_offsets_to_transaction(offsets, group, PATIENCE_SECONDS)
            except KafkaException as error:
                failures.append(error)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        sender.join(PATIENCE_SECONDS + 2)
        if sender.is_alive():
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "send_offsets_to_transaction goes on after its timeout"))
        if failures:
            raise failures[0]

    def commit(self) -> None:
        """A commit that timed out may be asked for again."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                self.producer.commit_transaction(PATIENCE_SECONDS)
                return
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() > deadline:
                    raise

    def rewind(self, consumed: dict[int, list[int]]) -> None:
        """Back to where the aborted transaction began to read."""
        self.move(from_start=False)
        assigned = {partition.partition for partition in self.consumer.assignment()}
        for partition, (first, _) in consumed.items():
            if partition in assigned:
                self.consumer.seek(TopicPartition(self.topic, partition, first))

    def steps(self, wanted: list[dict], done: list[dict], consumed: dict[int, list[int]]) -> None:
        """Sends and polls in their order; outside of transactions each send waits for its own acknowledgement."""
        for step in wanted:
            if "value" in step:
                self.send(step, done)
            else:
                self.poll(step["poll_ms"], done, consumed)

    def send(self, step: dict, done: list[dict]) -> None:
        result = {"partition": step["partition"], "value": step["value"]}
        done.append(result)

        def delivered(error, message) -> None:
            if error is None:
                result["outcome"] = "ok"
                if message.offset() is not None and message.offset() >= 0:
                    result["offset"] = message.offset()
            else:
                result["outcome"] = "info"

        self.producer.produce(self.topic, step["value"].encode(), partition=step["partition"], on_delivery=delivered)
        if not self.transactional:
            self.producer.flush(PATIENCE_SECONDS)

    def poll(self, wait_ms: int, done: list[dict], consumed: dict[int, list[int]]) -> None:
        result: dict | None = None
        wait = wait_ms / 1000
        for _ in range(RECORDS_PER_POLL):
            if not consumed:
                # A rebalance before the first record is none that the transaction must mind.
                self.moved = False
            message = self.consumer.poll(wait)
            if not consumed:
                self.moved = False
            if message is None:
                break
            if message.error() is not None:
                continue
            wait = 0
            if result is None or result["session"] != self.session:
                result = {"session": self.session, "from_start": self.from_start, "records": []}
                done.append(result)
            # The time of the last record; for a poll it is the time of the answer.
            result["at"] = time.monotonic_ns()
            result["records"].append([message.partition(), message.offset(), message.value().decode()])
            consumed.setdefault(message.partition(), [message.offset(), 0])[1] = message.offset()


class JavaClients:
    """A JVM with any number of Java clients."""

    def __init__(self, log: Path):
        self.log = open(log, "ab")
        source = Path(__file__).with_name("CheckerClient.java")
        logging = f"-Dlog4j2.configurationFile={Path(__file__).resolve().parents[2] / 'harness' / 'log4j2.properties'}"
        command = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m", logging, "-cp", f"{KAFKA_LIBS}/*", str(source)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, bufsize=1)
        self.numbers = itertools.count(1)
        self.lock = threading.Lock()
        self.waiting: dict[int, tuple[threading.Event, dict]] = {}
        ready = threading.Event()
        self.waiting[0] = (ready, {})
        threading.Thread(target=self.read, daemon=True).start()
        # Compiling the program takes a while, which no seed should lose.
        self.await_answer(ready, "to start")

    def read(self) -> None:
        for line in self.process.stdout:
            answer = json.loads(line)
            event, place = self.waiting.pop(answer.pop("id"))
            place.update(answer)
            event.set()

    def client(self, name: str) -> "JavaClient":
        return JavaClient(self, name)

    def ask(self, name: str, command: dict) -> dict:
        number = next(self.numbers)
        event, answer = threading.Event(), {}
        self.waiting[number] = (event, answer)
        with self.lock:
            self.process.stdin.write(json.dumps({"id": number, "client": name, **command}) + "\n")
        self.await_answer(event, f"{name} {command['do']}")
        return answer

    def await_answer(self, event: threading.Event, what: str) -> None:
        deadline = time.monotonic() + ANSWER_SECONDS
        while not event.wait(1):
            if self.process.poll() is not None:
                raise RuntimeError(f"the JVM ended with {self.process.returncode}, see {self.log.name}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"no answer of the JVM to {what} within {ANSWER_SECONDS} s")

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(30)
        self.log.close()


class JavaClient:
    """One of the JVM's clients, with the face of LibrdkafkaClient."""

    def __init__(self, host: JavaClients, name: str):
        self.host = host
        self.name = name

    def do(self, command: dict) -> dict:
        """Obeys one command."""
        return self.host.ask(self.name, command)
