"""The measurements: each takes a running broker (or starts one) and returns named figures.

Both brokers get the same generator, the same arguments, a new data directory and the same warm-up.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import harmonic_mean, median

import groups
import saturate
import transactions
import wire
from dialogue import Failed  # noqa: F401  (what the loads fail with)
from harness.broker import CACHE, ROOT, Broker, free_port
from machine import Stopwatch, memory_mib

PYTHON = str(CACHE / "venv" / "bin" / "python")
ENCRYPTED = str(Path(__file__).with_name("encrypted.py"))
PERFORMANCE = str(CACHE / "librdkafka" / "examples" / "rdkafka_performance")
LATENCY = str(CACHE / "bin" / "latency")
FLOOR = str(CACHE / "bin" / "floor")
# Encoded batches of records of so many bytes, and what the figures of them are called by.
SATURATION_LABELS = {1024: "", 100: "_100"}
PARTITIONS = 4
SIZES = (100, 1024)
LATENCY_BYTES = 1024
# Topics are deleted after each load, so that all loads of a run write into the same pages.
LOAD_BYTES_MAX = 2 << 30
SATURATION_BYTES = 2 << 30
SATURATION_ROUNDS = 3
MANY_PARTITIONS = 1000
VERY_MANY_PARTITIONS = 10_000
RESTART_SECONDS_MAX = 600.0
READY_SECONDS_MAX = 120.0
IDLE_SECONDS = 5
COMPACTION_RECORD_BYTES = 1024
COMPACTION_SECONDS_MAX = 300.0
# Both look for something to compact all the time, with one thread and no limit, as the latter are by default.
COMPACTION_SETTINGS = {"log.cleaner.backoff.ms": "100", "log.initial.task.delay.ms": "100"}
GROWTH_PARTITIONS = 5_000


@dataclass
class Plan:
    """How long everything takes."""

    warmup_seconds: int = 60
    load_seconds: int = 12
    latency_seconds: int = 20
    latency_warmup_seconds: int = 5
    transaction_warmup_seconds: int = 10
    group_joins: int = 5
    many_partitions: int = MANY_PARTITIONS
    very_many_partitions: int = VERY_MANY_PARTITIONS
    compaction_bytes: int = 1 << 30
    split_cores: bool = False


@dataclass
class Figures:
    """Values by name, and the largest share of the machine that others took while they were measured."""

    values: dict[str, float] = field(default_factory=dict)
    foreign_share: float = 0.0
    notes: list[str] = field(default_factory=list)


class GeneratorFailed(Exception):
    """A load generator ended badly or printed no result."""


def generate(plan: Plan, command: list[str], timeout: float = 600, judge_exit: bool = True) -> str:
    """Runs a generator to its end; on core 1 when the cores are split."""
    if plan.split_cores:
        command = ["taskset", "-c", "1", *command]
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout)
    if ended.returncode and judge_exit:
        raise GeneratorFailed(f"{' '.join(command)} ended with {ended.returncode}: {ended.stdout[-200:]}")
    return ended.stdout


def produce(broker: Broker, plan: Plan, topic: str, size: int, count: int) -> float:
    """Records a second that rdkafka_performance gets acknowledged by all replicas.

    Counted between the first interval with deliveries and the first with 97 % of them: before that librdkafka looks
    for leaders, after it the last batches wait up to a second for its timers, whoever the broker is.
    """
    command = [PERFORMANCE, "-P", "-b", broker.bootstrap, "-t", topic, "-s", str(size), "-c", str(count), "-a", "-1", "-i", "50"]
    # librdkafka's defaults but for the queue, whose limit of 100,000 records starves it of small ones.
    # It sometimes ends with 1 although everything was delivered; what counts is read from its output.
    output = generate(plan, [*command, "-X", "queue.buffering.max.messages=200000"], judge_exit=False)
    found = re.findall(r"\d+ messages produced \(\d+ bytes\), (\d+) delivered \([^)]*\) in (\d+)ms", output)
    steps = [(int(records), int(milliseconds)) for records, milliseconds in found if int(records) > 0]
    if not steps or steps[-1][0] != count:
        raise GeneratorFailed(f"not all of {count} records were delivered: {output[-400:]}")
    first, began = steps[0]
    last, ended = next(step for step in steps if step[0] >= count * 0.97)
    if ended - began < 100:
        raise GeneratorFailed(f"{count} records were delivered too quickly to be timed")
    return (last - first) * 1000 / (ended - began)


def consume(broker: Broker, plan: Plan, topic: str, count: int) -> float:
    """Records a second that rdkafka_performance reads from the beginning of all partitions."""
    partitions = [part for number in range(PARTITIONS) for part in ("-p", str(number))]
    output = generate(plan, [PERFORMANCE, "-C", "-b", broker.bootstrap, "-t", topic, *partitions, "-o", "beginning", "-c", str(count)])
    found = re.findall(r"(\d+) messages \(\d+ bytes\) consumed in (\d+)ms", output)
    if not found or int(found[-1][0]) < count:
        raise GeneratorFailed(f"not all of {count} records were consumed: {output[-400:]}")
    return int(found[-1][0]) * 1000 / max(int(found[-1][1]), 1)


def create_topic(broker: Broker, topic: str, partitions: int) -> None:
    """Creates a topic and waits until every partition takes records."""
    client = wire.Client(broker.port)
    # One change of Kafka's metadata holds 10,000 records, and that of the topic is among them.
    client.create_topic(topic, min(partitions, GROWTH_PARTITIONS))
    client.close()
    for count in range(2 * GROWTH_PARTITIONS, partitions + GROWTH_PARTITIONS, GROWTH_PARTITIONS):
        grow = [str(ROOT / "target" / "release" / "fleuve"), "topic", "alter", topic, "-p", str(min(count, partitions))]
        subprocess.run([*grow, "--bootstrap-server", broker.bootstrap], check=True, stdout=subprocess.DEVNULL, timeout=120)

    def all_lead(attempt: wire.Client) -> None:
        if attempt.leaders(topic) < partitions:
            raise wire.Refused("not all partitions have leaders")
        attempt.produce(topic, partitions - 1)

    wire.until_done(broker.port, READY_SECONDS_MAX, all_lead)


def drop_topic(broker: Broker, topic: str) -> None:
    """Deletes a topic and waits until its files are gone."""
    client = wire.Client(broker.port)
    client.delete_topic(topic)
    client.close()
    deadline = time.monotonic() + READY_SECONDS_MAX
    while any(broker.data.glob(f"{topic}-*")) or any(broker.data.glob(f"{topic}.*-delete")):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the files of {topic} are still there after {READY_SECONDS_MAX} s")
        time.sleep(0.1)


def warm_up(broker: Broker, plan: Plan) -> None:
    """Produces and consumes both sizes until the time is over: a JVM compiles its hot paths meanwhile."""
    until = time.monotonic() + plan.warmup_seconds
    round_number = 0
    while time.monotonic() < until:
        for size in SIZES:
            topic = f"warm-up-{size}-{round_number}"
            create_topic(broker, topic, PARTITIONS)
            produce(broker, plan, topic, size, 500_000)
            consume(broker, plan, topic, 500_000)
            drop_topic(broker, topic)
        round_number += 1


def measure_start(broker: Broker, plan: Plan) -> Figures:
    """Process start to the first acknowledged record, then memory at rest. Leaves the broker running."""
    figures = Figures()
    broker.port = free_port()
    broker.prepare()
    broker.prepared = True
    began = time.monotonic()
    broker.spawn()
    acknowledged = wire.until_done(broker.port, READY_SECONDS_MAX, lambda client: wire.first_ack(client, "first"))
    figures.values["start_ms"] = (acknowledged - began) * 1000
    broker.await_ready()
    time.sleep(IDLE_SECONDS)
    figures.values["rss_idle_mib"] = memory_mib(broker.pid, "VmRSS")
    return figures


def measure_throughput(broker: Broker, plan: Plan, rows: set[str]) -> Figures:
    """Produce and consume at both record sizes, with the broker's CPU for each gigabyte."""
    figures = Figures()
    for size in SIZES:
        topic = f"load-{size}"
        create_topic(broker, topic, PARTITIONS)
        create_topic(broker, f"probe-{size}", PARTITIONS)
        probe = produce(broker, plan, f"probe-{size}", size, 1_000_000)
        drop_topic(broker, f"probe-{size}")
        count = int(min(probe * plan.load_seconds, LOAD_BYTES_MAX / size))
        gigabytes = count * size / 1e9
        if "produce" in rows:
            watch = Stopwatch(broker.pid)
            figures.values[f"produce_{size}"] = produce(broker, plan, topic, size, count)
            usage = watch.stop()
            figures.values[f"produce_mb_{size}"] = figures.values[f"produce_{size}"] * size / 1e6
            figures.values[f"produce_cpu_{size}"] = usage.broker_seconds / gigabytes
            figures.foreign_share = max(figures.foreign_share, usage.foreign_share)
        elif "consume" in rows:
            produce(broker, plan, topic, size, count)
        if "consume" in rows:
            # Read again and again: once takes a second, in which a single flush or checkpoint weighs too much.
            watch, rates = Stopwatch(broker.pid), []
            while not rates or time.monotonic() < watch.began[0] + plan.load_seconds:
                rates.append(consume(broker, plan, topic, count))
            usage = watch.stop()
            figures.values[f"consume_{size}"] = harmonic_mean(rates)
            figures.values[f"consume_mb_{size}"] = figures.values[f"consume_{size}"] * size / 1e6
            figures.values[f"consume_cpu_{size}"] = usage.broker_seconds / (gigabytes * len(rates))
            figures.foreign_share = max(figures.foreign_share, usage.foreign_share)
        drop_topic(broker, topic)
    return figures


def measure_encrypted(broker: Broker, plan: Plan) -> Figures:
    """Produce and consume over TLS at 1 KiB, with the broker's CPU for each gigabyte."""
    figures = Figures()
    size, generator = 1024, [PYTHON, ENCRYPTED]
    broker.start()

    def rate(work: str, topic: str, count: int) -> float:
        said = generate(plan, [*generator, work, broker.bootstrap, topic, str(size), str(count)])
        return float(said.split()[-1])

    rate("produce", "warm-up", 300_000)
    rate("consume", "warm-up", 300_000)
    probe = rate("produce", "probe", 200_000)
    count = int(min(probe * plan.load_seconds, LOAD_BYTES_MAX / size))
    for work in ("produce", "consume"):
        watch = Stopwatch(broker.pid)
        figures.values[f"tls_{work}_mb"] = rate(work, "load", count) * size / 1e6
        usage = watch.stop()
        figures.values[f"tls_{work}_cpu"] = usage.broker_seconds / (count * size / 1e9)
        figures.foreign_share = max(figures.foreign_share, usage.foreign_share)
    broker.stop()
    return figures


def measure_saturation(broker: Broker, plan: Plan) -> Figures:
    """What the broker takes and gives when the generator costs next to nothing."""
    figures = Figures()
    # The record that create_topic writes into the last partition would shift its offsets.
    lanes = PARTITIONS - 1
    given = Tally()
    for record_bytes, label in SATURATION_LABELS.items():
        taken = Tally()
        for round_number in range(1 + SATURATION_ROUNDS):
            topic = f"saturate{label}-{round_number}"
            create_topic(broker, topic, PARTITIONS)
            watch = Stopwatch(broker.pid)
            sizes, seconds = saturate.produce(broker.port, topic, lanes, SATURATION_BYTES, record_bytes)
            produced = watch.stop().broker_seconds
            # The first round is warm-up.
            if round_number:
                taken.add(sum(sizes), seconds, produced)
            # What is given is bytes, of whatever size their records are.
            if not label:
                watch = Stopwatch(broker.pid)
                _, seconds = saturate.drain(broker.port, topic, sizes, record_bytes)
                drained = watch.stop().broker_seconds
                if round_number:
                    given.add(sum(sizes), seconds, drained)
            drop_topic(broker, topic)
        figures.values[f"saturated_produce{label}_mb"], figures.values[f"saturated_produce{label}_cpu"] = taken.rates()
    figures.values["saturated_consume_mb"], figures.values["saturated_consume_cpu"] = given.rates()
    # The generator's threads are no strangers, but no children that could be told from them either.
    return figures


def measure_floor(folder: Path, mode: str) -> Figures:
    """CPU seconds a GB of `floor.c`, which only receives and writes what `measure_saturation` produces."""
    figures = Figures()
    floor = subprocess.Popen([FLOOR, str(folder), mode], stdout=subprocess.PIPE, text=True)
    try:
        line = floor.stdout.readline()
        if not line:
            raise GeneratorFailed("bench/floor.c ended before it listened")
        port = int(line)
        for record_bytes, label in SATURATION_LABELS.items():
            taken = Tally()
            for round_number in range(1 + SATURATION_ROUNDS):
                watch = Stopwatch(floor.pid)
                sizes, seconds = saturate.produce(port, "floor", PARTITIONS - 1, SATURATION_BYTES, record_bytes)
                spent = watch.stop().broker_seconds
                if round_number:
                    taken.add(sum(sizes), seconds, spent)
                for path in folder.glob("floor-*"):
                    path.unlink()
            _, figures.values[f"floor{label}_cpu"] = taken.rates()
    finally:
        floor.kill()
        floor.wait()
    return figures


@dataclass
class Tally:
    """Loads of several rounds."""

    bytes: int = 0
    seconds: float = 0.0
    broker_seconds: float = 0.0

    def add(self, size: int, seconds: float, broker_seconds: float) -> None:
        self.bytes += size
        self.seconds += seconds
        self.broker_seconds += broker_seconds

    def rates(self) -> tuple[float, float]:
        """Megabytes a second, and the broker's CPU seconds for each gigabyte."""
        return self.bytes / 1e6 / self.seconds, self.broker_seconds / (self.bytes / 1e9)


def measure_transactions(broker: Broker, plan: Plan) -> Figures:
    """Transactions of one record, by producers that do nothing else."""
    figures = Figures()
    create_topic(broker, "transactions", PARTITIONS)
    watches = []
    begin = lambda: watches.append(Stopwatch(broker.pid))  # noqa: E731
    committed, seconds = transactions.run(broker.port, "transactions", PARTITIONS, plan.transaction_warmup_seconds, plan.load_seconds, begin)
    usage = watches[0].stop()
    figures.values["transactions"] = committed / seconds
    figures.values["transactions_cpu"] = usage.broker_seconds * 1000 / max(committed, 1)
    return figures


def measure_groups(broker: Broker, plan: Plan) -> Figures:
    """A group of a hundred members, by both protocols."""
    figures = Figures()
    create_topic(broker, "grouped", groups.PARTITIONS)
    for label, group in (("classic", groups.Classic("classic")), ("consumer", groups.Consumer("consumer", "grouped"))):
        watch = Stopwatch(broker.pid)
        formed, taken = groups.run(broker.port, group, plan.group_joins)
        usage = watch.stop()
        figures.values[f"group_{label}_form_ms"] = formed
        figures.values[f"group_{label}_join_ms"] = median(taken)
        figures.values[f"group_{label}_cores"] = usage.broker_seconds / usage.seconds
    return figures


def latency(broker: Broker, plan: Plan, topic: str, rate: int) -> dict:
    arguments = [broker.bootstrap, topic, str(PARTITIONS), str(LATENCY_BYTES), str(rate)]
    arguments += [str(plan.latency_seconds), str(plan.latency_warmup_seconds), "all"]
    return json.loads(generate(plan, [LATENCY, *arguments]).strip().splitlines()[-1])


def peak_rate(broker: Broker, plan: Plan) -> int:
    """Records a second that pass through the broker, produced and consumed at once, as fast as they go."""
    create_topic(broker, "latency-peak", PARTITIONS)
    rate = int(latency(broker, plan, "latency-peak", 0)["rate"])
    drop_topic(broker, "latency-peak")
    return rate


def measure_latency(broker: Broker, plan: Plan, rate: int) -> Figures:
    """End-to-end latency at a given rate, counted from when each record should have been sent."""
    figures = Figures()
    create_topic(broker, "latency", PARTITIONS)
    watch = Stopwatch(broker.pid)
    result = latency(broker, plan, "latency", rate)
    usage = watch.stop()
    for name in ("p50", "p99", "p999"):
        figures.values[f"latency_{name}_ms"] = result[f"{name}_us"] / 1000
    figures.values["latency_cores"] = usage.broker_seconds / usage.seconds
    drop_topic(broker, "latency")
    figures.foreign_share = usage.foreign_share
    if abs(result["rate"] - rate) > rate * 0.05:
        figures.notes.append(f"{broker.name} passed {result['rate']:.0f} of {rate} records a second in the latency run")
    return figures


def measure_restart(broker: Broker, partitions: int, label: str, records_each: int) -> Figures:
    """With many partitions: clean stop, then SIGKILL; each time from process start to a record read and one acknowledged."""
    figures = Figures()
    # Kafka takes minutes to close ten thousand partitions.
    broker.stop_seconds_max = RESTART_SECONDS_MAX
    broker.start()
    create_topic(broker, "many", partitions)
    command = [PERFORMANCE, "-P", "-b", broker.bootstrap, "-t", "many", "-s", "1024", "-a", "-1", "-c", str(partitions * records_each)]
    generate(Plan(), command)
    client = wire.Client(broker.port)
    client.produce("many", 0)
    client.close()

    def serves(attempt: wire.Client) -> None:
        attempt.fetch("many", 0)
        attempt.produce("many", 0)
        attempt.produce("many", partitions - 1)

    for name, end in ((f"{label}_clean_ms", broker.stop), (f"{label}_kill_ms", broker.kill)):
        if end == broker.kill:
            # Something unflushed and unfinished, as a crash under load would leave it.
            generate(Plan(), command)
        end()
        began = time.monotonic()
        broker.spawn()
        figures.values[name] = (wire.until_done(broker.port, RESTART_SECONDS_MAX, serves) - began) * 1000
        broker.await_ready()
    figures.values[f"{label}_rss_mib"] = memory_mib(broker.pid, "VmRSS")
    broker.stop()
    return figures


def compacted_to(broker: Broker, topic: str) -> int:
    """Up to where the first partition has been compacted, as both brokers write it down."""
    try:
        lines = (broker.data / "cleaner-offset-checkpoint").read_text().splitlines()
    except OSError:
        return -1
    return max((int(line.split()[2]) for line in lines if line.startswith(f"{topic} 0 ")), default=-1)


def measure_compaction(broker: Broker, plan: Plan) -> Figures:
    """From the moment a full topic's policy becomes compact until all but its active segment has been compacted."""
    figures = Figures()
    broker.start()
    client = wire.Client(broker.port)
    segment = max(plan.compaction_bytes // 8, 1 << 20)
    client.create_topic("compacted", 1, {"segment.bytes": str(segment), "min.cleanable.dirty.ratio": "0.01"})
    records = plan.compaction_bytes // COMPACTION_RECORD_BYTES
    keyed = [str(CACHE / "venv" / "bin" / "python"), str(Path(__file__).with_name("keyed.py"))]
    generate(plan, [*keyed, broker.bootstrap, "compacted", str(records), str(records // 4), str(COMPACTION_RECORD_BYTES)])
    logs = sorted((broker.data / "compacted-0").glob("*.log"))
    active = int(logs[-1].stem)
    dirty_bytes = sum(log.stat().st_size for log in logs[:-1])
    watch = Stopwatch(broker.pid)
    began = time.monotonic()
    client.alter_topic("compacted", {"cleanup.policy": "compact"})
    while compacted_to(broker, "compacted") < active:
        if time.monotonic() - began > COMPACTION_SECONDS_MAX:
            raise GeneratorFailed(f"{broker.name} did not compact its log within {COMPACTION_SECONDS_MAX:.0f} s")
        time.sleep(0.005)
    seconds = time.monotonic() - began
    usage = watch.stop()
    figures.values["compaction_mb"] = dirty_bytes / 1e6 / seconds
    figures.values["compaction_cpu"] = usage.broker_seconds / (dirty_bytes / 1e9)
    figures.foreign_share = usage.foreign_share
    client.close()
    broker.stop()
    return figures


def peak_memory(broker: Broker) -> float:
    return memory_mib(broker.pid, "VmHWM")
