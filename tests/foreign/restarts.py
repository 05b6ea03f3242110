#!/usr/bin/env python3
"""Apache's VerifiableProducer and VerifiableConsumers, by both group protocols, while the broker is restarted.

    tests/foreign/restarts.py [--broker fleuve|kafka] [--restarts 4] [--keep]

One producer with acks=all and one group of two consumers for each protocol live through clean stops and kills. In the
end each group has consumed every acknowledged value, and every partition in order. Two lines of result.
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
from harness.broker import KAFKA_LIBS, BrokerFailed, Workspace, add_broker_argument  # noqa: E402

LOGGING = HERE.parent / "harness" / "log4j2.properties"
JAVA = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx96m", f"-Dlog4j2.configurationFile={LOGGING}", "-cp", f"{KAFKA_LIBS}/*"]
TOPIC = "restarts"
PROTOCOLS = ("classic", "consumer")
MEMBERS = 2
UP_SECONDS = 1.0
SETTLE_SECONDS = 60
# Short, so that a member the broker forgot, or the other way round, is noticed within the run.
SETTINGS = {
    "num.partitions": "3",
    "group.initial.rebalance.delay.ms": "0",
    "group.consumer.min.session.timeout.ms": "6000",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.heartbeat.interval.ms": "500",
    "group.consumer.heartbeat.interval.ms": "500",
}


class Tool:
    """A verifiable tool, whose events (one JSON object a line) are collected as they come."""

    def __init__(self, name: str, *options: str):
        command = [*JAVA, f"org.apache.kafka.tools.{name}", "--topic", TOPIC, *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.events: list[dict] = []
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self) -> None:
        for line in self.process.stdout:
            if line.startswith("{"):
                self.events.append(json.loads(line))

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.reader.join()

    def count(self, event: str) -> int:
        return sum(each["name"] == event for each in list(self.events))


def wait_until(condition, what: str) -> None:
    deadline = time.monotonic() + SETTLE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise BrokerFailed(f"{what}: not within {SETTLE_SECONDS} s")
        time.sleep(0.05)


def values(tool: Tool) -> set[int]:
    return {int(event["value"]) for event in list(tool.events) if event["name"] == "record_data"}


def disorder(members: list[Tool]) -> list[str]:
    """Records that a member met out of order, apart from starting again at what the group had committed."""
    found = []
    for member in members:
        last: dict[int, int] = {}
        for event in member.events:
            if event["name"] == "partitions_assigned":
                last.clear()
            elif event["name"] == "record_data":
                partition, offset = event["partition"], event["offset"]
                if partition in last and offset != last[partition] + 1:
                    found.append(f"offset {offset} after {last[partition]} in partition {partition}")
                last[partition] = offset
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_broker_argument(parser)
    parser.add_argument("--restarts", type=int, default=4)
    options = parser.parse_args()
    failures = 0
    with Workspace("restarts", options.keep) as workspace:
        broker = workspace.broker(options.broker, SETTINGS)
        tools: list[Tool] = []
        try:
            broker.start()
            where = ("--bootstrap-server", broker.bootstrap)
            producer = Tool("VerifiableProducer", *where, "--throughput", "1000", "--acks", "-1", "--max-messages", "-1")
            tools.append(producer)
            wait_until(lambda: producer.count("producer_send_success"), "the first acknowledgement")
            groups = {
                protocol: [
                    Tool("VerifiableConsumer", *where, "--group-id", f"restarts-{protocol}", "--group-protocol", protocol, "--verbose")
                    for _ in range(MEMBERS)
                ]
                for protocol in PROTOCOLS
            }
            tools += [member for members in groups.values() for member in members]
            for protocol, members in groups.items():
                wait_until(lambda: any(member.count("record_data") for member in members), f"the first record of group {protocol}")
            for number in range(options.restarts):
                before = producer.count("producer_send_success")
                if number % 2:
                    broker.kill()
                else:
                    broker.stop()
                broker.start()
                wait_until(lambda: producer.count("producer_send_success") > before, f"an acknowledgement after restart {number + 1}")
                time.sleep(UP_SECONDS)
            producer.stop()
            acknowledged = {int(event["value"]) for event in producer.events if event["name"] == "producer_send_success"}
            refused = producer.count("producer_send_error")
            for protocol, members in groups.items():
                wait_until(
                    lambda: acknowledged <= set().union(*(values(member) for member in members)),
                    f"group {protocol} consuming all {len(acknowledged)} acknowledged values",
                )
                for member in members:
                    member.stop()
                problems = disorder(members)
                commits = sum(not event["success"] for member in members for event in member.events if event["name"] == "offsets_committed")
                failures += bool(problems)
                print(
                    f"{'FAILED' if problems else 'ok    '} restarts: group {protocol}: {len(acknowledged)} acknowledged ({refused} refused) over "
                    f"{options.restarts} restarts, all consumed; {commits} commits had to wait; {'; '.join(problems[:3]) or 'in order'}",
                    flush=True,
                )
            broker.stop()
        except BrokerFailed as error:
            print(f"FAILED restarts: {error}")
            failures += 1
        finally:
            for tool in tools:
                tool.stop()
        workspace.keep |= bool(failures)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
