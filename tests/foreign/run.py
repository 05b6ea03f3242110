#!/usr/bin/env python3
"""Foreign clients against the broker under test: every client's own checks, a restart, then each reads what all wrote.

    tests/foreign/run.py [--broker fleuve|kafka|HOST:PORT] [--only NAME,...] [--keep]

Needs `scripts/setup.sh foreign` and a release build of Fleuve. One line per check; the last line is the sum.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from harness.broker import CACHE, KAFKA_LIBS, Broker, BrokerFailed, Workspace, add_broker_argument  # noqa: E402

PYTHON = str(CACHE / "venv" / "bin" / "python")
LOGGING = HERE.parent / "harness" / "log4j2.properties"
JAVA = ["java", "-XX:TieredStopAtLevel=1", f"-Dlog4j2.configurationFile={LOGGING}", "-cp", f"{KAFKA_LIBS}/*"]
CLIENTS = {
    "apache-tools": [PYTHON, str(HERE / "python" / "apache_tools.py")],
    "admin-tools": [PYTHON, str(HERE / "python" / "admin_tools.py")],
    "java": [*JAVA, str(HERE / "java" / "JavaClient.java")],
    "migration": [*JAVA, str(HERE / "java" / "Migration.java")],
    "confluent": [PYTHON, str(HERE / "python" / "confluent.py")],
    "kafka-python": [PYTHON, str(HERE / "python" / "kafka_python.py")],
    "kcat": [PYTHON, str(HERE / "python" / "kcat.py")],
    "franz-go": [str(CACHE / "bin" / "franz-client")],
    "kafkajs": ["node", str(HERE / "node" / "client.js")],
}
# These write no records for the others to read.
ADMINISTRATORS = {"admin-tools", "migration"}
# Short waits make rebalances quick; auto-created topics get the partitions that `cross` and the groups count on.
# A short delay instead of none: kafka-python's leader may assign before it has heard of the topic's partitions, and
# then never notices. Kafka's default of 3 s hides that race.
SETTINGS = {
    "group.initial.rebalance.delay.ms": "300",
    "group.consumer.min.heartbeat.interval.ms": "300",
    "group.consumer.heartbeat.interval.ms": "300",
    "num.partitions": "6",
    # Some clients write records of 2023. Retention looks at once and often, so that a topic that forgot to keep them
    # fails always, not only where the tests take longer than half a minute.
    "log.initial.task.delay.ms": "500",
    "log.retention.check.interval.ms": "500",
}
AT_ONCE = 3
DEADLINE_SECONDS = 300
KEYS = 24


class Report:
    """Prints checks as they come, one line each, and counts them."""

    def __init__(self):
        self.passed = 0
        self.failed = 0
        self.lock = threading.Lock()

    def note(self, client: str, passed: bool, text: str) -> None:
        with self.lock:
            self.passed += passed
            self.failed += not passed
            print(f"{'ok' if passed else 'FAILED':6} {client:13} {text}", flush=True)


def run_client(name: str, broker: Broker, phase: str, report: Report, logs: Path) -> list[tuple[int, str, str]]:
    """Runs one phase of a client within its deadline and returns the records of `cross` it saw."""
    records: list[tuple[int, str, str]] = []
    complete = False
    environment = {**os.environ, "NODE_PATH": str(CACHE / "node" / "node_modules"), "PYTHONDONTWRITEBYTECODE": "1"}
    log = open(logs / f"{name}-{phase}.stderr", "wb")
    process = subprocess.Popen([*CLIENTS[name], broker.bootstrap, phase], stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
    late = threading.Event()

    def expire() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(DEADLINE_SECONDS, expire)
    timer.start()
    for line in process.stdout:
        line = line.rstrip("\n")
        if line.startswith("ok "):
            report.note(name, True, line[3:])
        elif line.startswith("not ok "):
            report.note(name, False, line[7:])
        elif line.startswith("record "):
            _, partition, key, value = line.split(" ")
            records.append((int(partition), key, value))
        elif line == "done":
            complete = True
    process.wait()
    timer.cancel()
    log.close()
    if late.is_set():
        report.note(name, False, f"phase {phase} was not over within {DEADLINE_SECONDS} s")
    elif not complete:
        tail = (logs / f"{name}-{phase}.stderr").read_text(errors="replace").strip().splitlines()[-3:]
        report.note(name, False, f"phase {phase} ended early with {process.returncode}: {' / '.join(tail)}")
    return records


def run_phase(names: list[str], broker: Broker, phase: str, report: Report, logs: Path) -> dict[str, list]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        jobs = {name: pool.submit(run_client, name, broker, phase, report, logs) for name in names}
        return {name: job.result() for name, job in jobs.items()}


def create_cross(broker: Broker) -> None:
    """The topic every client writes; made first so that it has its partitions before any of them comes."""
    script = (
        "import sys; from confluent_kafka.admin import AdminClient, NewTopic\n"
        "admin = AdminClient({'bootstrap.servers': sys.argv[1]})\n"
        "[future.result(30) for future in admin.create_topics([NewTopic('cross', 6, 1)]).values()]\n"
    )
    subprocess.run([PYTHON, "-c", script, broker.bootstrap], check=True, timeout=60)


def compare_cross(writers: list[str], seen: dict[str, list[tuple[int, str, str]]], report: Report) -> None:
    """Each reader saw each writer's records once, and a key sits in one partition whoever wrote it."""
    keys = [f"key-{number}" for number in range(KEYS)]
    expected = sorted(f"{writer}:{key}" for writer in writers for key in keys)
    for reader, records in seen.items():
        values = sorted(value for _, _, value in records)
        missing, extra = set(expected) - set(values), set(values) - set(expected)
        twice = len(values) - len(set(values))
        fine = values == expected and all(value.endswith(":" + key) for _, key, value in records)
        report.note(reader, fine, "reads what all wrote" if fine else f"reads what all wrote: {len(missing)} missing, {len(extra)} unknown, {twice} twice")
        homes = {key: {partition for partition, each, _ in records if each == key} for key in keys}
        scattered = sorted(key for key, partitions in homes.items() if len(partitions) > 1)
        report.note(reader, not scattered, "same partition for the same key" + (f": {scattered[:3]} are in several" if scattered else ""))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_broker_argument(parser)
    parser.add_argument("--only", default=",".join(CLIENTS), help="clients to run, separated by commas")
    options = parser.parse_args()
    names = options.only.split(",")
    unknown = [name for name in names if name not in CLIENTS]
    if unknown:
        parser.error(f"unknown client {unknown[0]}: known are {', '.join(CLIENTS)}")
    report = Report()
    started = time.monotonic()
    with Workspace("foreign", options.keep) as workspace:
        broker = workspace.broker(options.broker, SETTINGS)
        try:
            broker.start()
            create_cross(broker)
            run_phase(names, broker, "first", report, workspace.path)
            # Offsets and records must outlast a clean stop and an unclean one.
            if broker.name != "external":
                broker.stop()
                broker.start()
                broker.kill()
                broker.start()
            seen = run_phase(names, broker, "second", report, workspace.path)
            writers = [name for name in names if name not in ADMINISTRATORS]
            compare_cross(writers, {name: seen[name] for name in writers}, report)
            broker.stop()
        except BrokerFailed as error:
            report.note(broker.name, False, str(error))
        if report.failed:
            workspace.keep = True
    print(f"foreign clients: {report.passed} passed, {report.failed} failed ({time.monotonic() - started:.0f} s)")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
