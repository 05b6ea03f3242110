#!/usr/bin/env python3
"""Share groups (KIP-932) with Apache's clients and tools: every acknowledgement, administration, and a SIGKILL between.

    tests/foreign/share.py [--broker fleuve|kafka] [--keep]

KafkaShareConsumer, VerifiableShareConsumer, kafka-console-share-consumer, kafka-share-groups, and DumpLogSegments over
`__share_group_state`. One line per check; the last line is the sum.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from harness.broker import KAFKA_LIBS, Broker, BrokerFailed, Workspace, add_broker_argument  # noqa: E402

LOGGING = HERE.parent / "harness" / "log4j2.properties"
JAVA = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx128m", f"-Dlog4j2.configurationFile={LOGGING}", "-cp", f"{KAFKA_LIBS}/*"]
# Short locks, so that one can end within the run.
SETTINGS = {"group.share.min.record.lock.duration.ms": "1000", "num.partitions": "3"}
KAFKA_SETTINGS = {
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
}
VERIFIED_TOPIC = "share-verified"
VERIFIED_GROUP = "share-verified-group"
VERIFIED = 2_000
DEADLINE_SECONDS = 300


class Report:
    """Prints checks as they come and counts them."""

    def __init__(self):
        self.passed = 0
        self.failed = 0

    def note(self, passed: bool, text: str) -> None:
        self.passed += passed
        self.failed += not passed
        print(f"{'ok' if passed else 'FAILED':6} {text}", flush=True)


class Verifiable:
    """A verifiable tool, whose events (one JSON object a line) are collected as they come."""

    def __init__(self, broker: Broker, name: str, *options: str):
        command = [*JAVA, f"org.apache.kafka.tools.{name}", "--bootstrap-server", broker.bootstrap, "--topic", VERIFIED_TOPIC, *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.events: list[dict] = []
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self) -> None:
        for line in self.process.stdout:
            if line.startswith("{"):
                self.events.append(json.loads(line))

    def acknowledged(self) -> int:
        return sum(event["count"] for event in list(self.events) if event["name"] == "offsets_acknowledged")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.reader.join()


def run_client(broker: Broker, phase: str, report: Report) -> None:
    """Runs a phase of ShareClient.java, which reports its own checks."""
    command = [*JAVA, str(HERE / "java" / "ShareClient.java"), broker.bootstrap, phase, broker.name]
    client = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_SECONDS)
    lines = client.stdout.splitlines()
    for line in lines:
        if line.startswith("ok "):
            report.note(True, line[3:])
        elif line.startswith("not ok "):
            report.note(False, line[7:])
    if "done" not in lines:
        report.note(False, f"ShareClient {phase} ended with {client.returncode}: {client.stderr[-400:]}")


def run_tools(broker: Broker, lines: list[list[str]]) -> list[str]:
    """Runs tools one after the other in one JVM and returns what each printed."""
    tools = subprocess.run(
        [*JAVA, str(HERE / "java" / "Tools.java")],
        input="".join("\t".join(words) + "\n" for words in lines),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
    )
    # Each output ends with a mark, the exit code and the end of the line.
    first, *others = tools.stdout.split("\x01")
    return [first, *(output.partition("\n")[2] for output in others)]


def check_tools(broker: Broker, report: Report) -> None:
    """What kafka-share-groups, kafka-console-share-consumer and DumpLogSegments make of it all."""
    connect = ["--bootstrap-server", broker.bootstrap]
    groups = "org.apache.kafka.tools.consumer.group.ShareGroupCommand"
    console = "org.apache.kafka.tools.consumer.ConsoleShareConsumer"
    logs = sorted(broker.data.glob("**/__share_group_state-*/*.log"), key=lambda path: path.stat().st_size)
    outputs = run_tools(
        broker,
        [
            [groups, *connect, "--list"],
            [groups, *connect, "--describe", "--group", VERIFIED_GROUP],
            [groups, *connect, "--reset-offsets", "--group", VERIFIED_GROUP, "--topic", VERIFIED_TOPIC, "--to-earliest", "--execute"],
            [console, *connect, "--topic", VERIFIED_TOPIC, "--group", VERIFIED_GROUP, "--max-messages", "100", "--timeout-ms", "15000"],
            [groups, *connect, "--delete-offsets", "--group", VERIFIED_GROUP, "--topic", VERIFIED_TOPIC],
            [groups, *connect, "--delete", "--group", VERIFIED_GROUP],
            [groups, *connect, "--list"],
            ["org.apache.kafka.tools.DumpLogSegments", "--files", str(logs[-1]), "--share-group-state-decoder"],
        ],
    )
    listed, described, reset, consumed, forgotten, deleted, left, dumped = outputs[:8]
    report.note(VERIFIED_GROUP in listed, "kafka-share-groups lists the group")
    rows = [line.split() for line in described.splitlines() if line.startswith(VERIFIED_GROUP)]
    # GROUP TOPIC PARTITION START-OFFSET LAG
    # Kafka does not know where partitions begin whose records nobody had.
    lags = {row[-1] for row in rows} - ({"-"} if broker.name == "kafka" else set())
    report.note(len(rows) == 3 and lags == {"0"}, f"kafka-share-groups describes it without lag: {rows}")
    resets = [line.split() for line in reset.splitlines() if line.startswith(VERIFIED_GROUP)]
    report.note(len(resets) == 3 and {row[-1] for row in resets} == {"0"}, f"kafka-share-groups resets it: {reset.strip()[-200:]}")
    values = [line for line in consumed.splitlines() if line.isdigit()]
    report.note(len(values) == 100, f"kafka-console-share-consumer reads from there on: {len(values)} records")
    report.note("uccess" in forgotten, f"kafka-share-groups deletes offsets: {forgotten.strip()[-200:]}")
    report.note("uccess" in deleted and VERIFIED_GROUP not in left, f"kafka-share-groups deletes the group: {deleted.strip()[-200:]}")
    snapshots = dumped.count('"type":"0"')
    updates = dumped.count('"type":"1"')
    report.note(snapshots > 0 and updates > 0, f"DumpLogSegments decodes {snapshots} snapshots and {updates} updates: {dumped[-300:] if not updates else ''}")


def verify(broker: Broker, report: Report) -> None:
    """Apache's verifiable producer and two verifiable share consumers."""
    setting = [*JAVA, "kafka.admin.ConfigCommand", "--bootstrap-server", broker.bootstrap, "--alter", "--entity-type", "groups"]
    subprocess.run([*setting, "--entity-name", VERIFIED_GROUP, "--add-config", "share.auto.offset.reset=earliest"], check=True, capture_output=True)
    producer = Verifiable(broker, "VerifiableProducer", "--max-messages", str(VERIFIED), "--acks", "-1")
    consumers = [Verifiable(broker, "VerifiableShareConsumer", "--group-id", VERIFIED_GROUP, "--acknowledgement-mode", mode) for mode in ("auto", "sync")]
    try:
        deadline = time.monotonic() + 60
        while sum(consumer.acknowledged() for consumer in consumers) < VERIFIED and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        for tool in [*consumers, producer]:
            tool.stop()
    count = sum(consumer.acknowledged() for consumer in consumers)
    report.note(count == VERIFIED, f"VerifiableShareConsumers acknowledge every record once: {count} of {VERIFIED}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_broker_argument(parser)
    options = parser.parse_args()
    settings = SETTINGS | (KAFKA_SETTINGS if options.broker == "kafka" else {})
    report = Report()
    started = time.monotonic()
    with Workspace("share", options.keep) as workspace:
        broker = workspace.broker(options.broker, settings)
        try:
            broker.start()
            verified = threading.Thread(target=verify, args=(broker, report))
            verified.start()
            run_client(broker, "first", report)
            verified.join()
            broker.kill()
            broker.start()
            tools = threading.Thread(target=check_tools, args=(broker, report))
            tools.start()
            run_client(broker, "second", report)
            tools.join()
            broker.stop()
        except BrokerFailed as error:
            report.note(False, str(error))
        if report.failed:
            workspace.keep = True
    print(f"share groups: {report.passed} passed, {report.failed} failed ({time.monotonic() - started:.0f} s)")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
