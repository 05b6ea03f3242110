#!/usr/bin/env python3
"""The same command line through Apache's tools and through ours, against one broker: the same output.

    tests/foreign/tools.py [--broker fleuve|HOST:PORT] [--only WORD] [--long] [--keep]

Needs `scripts/setup.sh foreign` and a release build. Commands that change nothing run through both and are compared line by
line; commands that change something run through both on twins of the same making. One line per check.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness.broker import CACHE, KAFKA_LIBS, ROOT, Workspace, add_broker_argument  # noqa: E402

sys.path.insert(0, str(ROOT / "bench"))
import wire  # noqa: E402

LOGGING = ROOT / "tests" / "harness" / "log4j2.properties"
JAVA = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m", f"-Dlog4j2.configurationFile={LOGGING}", "-cp", f"{KAFKA_LIBS}/*"]
PACKAGE = "org.apache.kafka.tools."
CLASSES = {
    "kafka-topics": "TopicCommand",
    "kafka-consumer-groups": "consumer.group.ConsumerGroupCommand",
    "kafka-groups": "GroupsCommand",
    "kafka-get-offsets": "GetOffsetShell",
    "kafka-console-consumer": "consumer.ConsoleConsumer",
    "kafka-console-producer": "ConsoleProducer",
    "kafka-delete-records": "DeleteRecordsCommand",
    "kafka-dump-log": "DumpLogSegments",
    "kafka-transactions": "TransactionsCommand",
    "kafka-streams-application-reset": "StreamsResetter",
    "kafka-console-share-consumer": "consumer.ConsoleShareConsumer",
    "kafka-share-groups": "consumer.group.ShareGroupCommand",
    "kafka-verifiable-share-consumer": "VerifiableShareConsumer",
    "kafka-features": "FeatureCommand",
    "kafka-metadata-quorum": "MetadataQuorumCommand",
    "kafka-cluster": "ClusterTool",
    "kafka-reassign-partitions": "reassign.ReassignPartitionsCommand",
    "kafka-configs": "kafka.admin.ConfigCommand",
    "kafka-client-metrics": "ClientMetricsCommand",
}
FLEUVE = ""
AT_ONCE = 2


def run(command: list[str], stdin: str = "", deadline: int = 60) -> str:
    """Stdout and whether it succeeded, with what differs by nature cut out."""
    environment = {**os.environ, "FLEUVE": FLEUVE}
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=deadline, env=environment)
    return done.stdout


def ours(tool: str, *arguments: str, stdin: str = "") -> str:
    return run([str(ROOT / "bin" / f"{tool}.sh"), *arguments], stdin)


def apaches(tool: str, *arguments: str, stdin: str = "") -> str:
    name = CLASSES[tool]
    return run([*JAVA, name if name.startswith("kafka.") else PACKAGE + name, *arguments], stdin)


def plain(text: str) -> list[str]:
    """Lines without trailing blanks, blank lines and the order of partitions, which Java takes from a hash map."""
    lines = [line.rstrip() for line in text.splitlines()]
    return sorted(line for line in lines if line)


def columns(text: str) -> list[list[str]]:
    """Cells of a table whose widths may differ."""
    return [line.split() for line in plain(text)]


def lasting(text: str) -> list[list[str]]:
    """Cells of a table without those that grow while one looks."""
    rows = [line.split() for line in text.splitlines() if line.strip()]
    kept = [index for index, name in enumerate(rows[0]) if not re.search(r"Duration", name)] if rows else []
    return [rows[0], *sorted([row[index] for index in kept if index < len(row)] for row in rows[1:])] if rows else []


def still(text: str) -> list[str]:
    """Lines without those that grow while one looks."""
    return [line for line in plain(text) if not re.match(r"HighWatermark|MaxFollowerLag", line)]


class Report:
    def __init__(self):
        self.passed = 0
        self.failed = 0

    def check(self, fine: bool, text: str, theirs: object = "", mine: object = "") -> None:
        self.passed += bool(fine)
        self.failed += not fine
        print(f"{'ok' if fine else 'FAILED':6} {text}", flush=True)
        if not fine:
            print(f"       Apache: {theirs}\n       ours:   {mine}", flush=True)


def prepare(server: str) -> None:
    """Topics, groups and records that both tools look at, and a pair of twins for what changes something."""
    b = ["--bootstrap-server", server]
    for topic, partitions, config in [("words", 3, []), ("words2", 1, ["--config", "retention.ms=86400000"]), ("headed", 1, []), ("first-counts-changelog", 1, [])]:
        ours("kafka-topics", *b, "--create", "--topic", topic, "--partitions", str(partitions), *config)
    lines = "".join(f"k{number}:v{number}\n" for number in range(60))
    ours("kafka-console-producer", *b, "--topic", "words", "--reader-property", "parse.key=true", "--reader-property", "key.separator=:", stdin=lines)
    # The second is written by Apache's producer below, through the same bytes on stdin.
    for group in ("first", "twin-a", "twin-b"):
        ours("kafka-console-consumer", *b, "--topic", "words", "--group", group, "--from-beginning", "--max-messages", "30")
    # Which records came first is chance; the twins begin alike.
    for group in ("twin-a", "twin-b"):
        ours("kafka-consumer-groups", *b, "--reset-offsets", "--group", group, "--topic", "words", "--to-offset", "5", "--execute")


# Leaves one transaction open and ends another.
OPEN = """
import os, sys
from confluent_kafka import Producer
for name in ("paid", "shop"):
    producer = Producer({"bootstrap.servers": sys.argv[1], "transactional.id": name})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce("orders", name, partition=0)
    producer.flush(30)
    if name == "paid":
        producer.commit_transaction(30)
os._exit(0)
"""


def haunt(server: str, partition: int) -> None:
    """Writes the beginning of a transaction that no coordinator knows of, as it hung before KIP-890."""
    record = wire.batch(b"hangs")
    body = bytearray(record[21:])
    # attributes, then behind the two timestamps: producer id, epoch, sequence
    struct.pack_into(">h", body, 0, 0x10)
    struct.pack_into(">qhi", body, 22, 4711, 3, 0)
    records = record[:17] + struct.pack(">I", wire.crc32c(bytes(body))) + bytes(body)
    client = wire.Client(int(server.rsplit(":", 1)[1]))
    request = wire.text("ghost") + struct.pack(">hii", -1, 30000, 1) + wire.text("orders") + struct.pack(">iii", 1, partition, len(records)) + records
    reply = client.call(wire.PRODUCE, 7, request)
    reply.take("i"), reply.text(), reply.take("i")
    assert reply.take("ih")[1] == 0, "the broker took it"
    client.close()


def transact(server: str) -> None:
    """Transactions that are open, that have ended and that hang."""
    ours("kafka-topics", "--bootstrap-server", server, "--create", "--topic", "orders", "--partitions", "4")
    subprocess.run([str(CACHE / "venv" / "bin" / "python"), "-c", OPEN, server], check=True, timeout=60)
    for partition in (1, 2, 3):
        haunt(server, partition)


HEADED = "h1:v1,h2:v2\tk\tv\nh3:\tk2\tNUL\n"
READER = [*"--reader-property parse.key=true --reader-property parse.headers=true --reader-property null.marker=NUL".split()]
FORMATTER = [
    argument
    for name in ("timestamp=false", "key=true", "offset=true", "partition=true", "headers=true", "epoch=true")
    for argument in ("--formatter-property", f"print.{name}")
]
FORMATTER += ["--formatter-property", "null.literal=NIX", "--formatter-property", "key.separator=|", "--formatter-property", "headers.separator=;"]

# Name, tool, arguments, how the outputs are compared.
LOOKS = [
    ("list topics by a pattern", "kafka-topics", "--list --topic wor.*", plain),
    ("describe topics by a pattern", "kafka-topics", "--describe --topic words.*", plain),
    ("describe topics with overrides", "kafka-topics", "--describe --topics-with-overrides --exclude-internal", plain),
    ("describe partitions at min ISR", "kafka-topics", "--describe --at-min-isr-partitions --exclude-internal", plain),
    ("describe under-replicated partitions", "kafka-topics", "--describe --under-replicated-partitions", plain),
    ("describe a topic that is not there", "kafka-topics", "--describe --topic nothing", plain),
    ("create a topic that is there", "kafka-topics", "--create --topic words", plain),
    ("delete a topic that is not there", "kafka-topics", "--delete --topic nothing", plain),
    ("list groups", "kafka-consumer-groups", "--list", plain),
    ("list groups with states and types", "kafka-consumer-groups", "--list --state --type", columns),
    ("list stable groups", "kafka-consumer-groups", "--list --state stable", columns),
    ("describe offsets", "kafka-consumer-groups", "--describe --group first", columns),
    ("describe offsets at length", "kafka-consumer-groups", "--describe --group first --verbose", columns),
    ("describe the state", "kafka-consumer-groups", "--describe --group first --state", columns),
    ("describe all groups", "kafka-consumer-groups", "--describe --all-groups", columns),
    ("plan a reset to the start", "kafka-consumer-groups", "--reset-offsets --group first --all-topics --to-earliest --dry-run", columns),
    ("plan a reset of one partition", "kafka-consumer-groups", "--reset-offsets --group first --topic words:1 --to-offset 3 --dry-run", columns),
    ("plan a shift beyond the start", "kafka-consumer-groups", "--reset-offsets --group first --all-topics --shift-by -1000 --dry-run", columns),
    ("plan a reset by duration", "kafka-consumer-groups", "--reset-offsets --group first --topic words --by-duration PT1H --dry-run", "reset"),
    ("export a plan", "kafka-consumer-groups", "--reset-offsets --group first --all-topics --to-current --export --dry-run", plain),
    ("export plans of two groups", "kafka-consumer-groups", "--reset-offsets --group first --group twin-a --all-topics --to-latest --export --dry-run", plain),
    ("list groups of all kinds", "kafka-groups", "--list", columns),
    ("list groups of consumers", "kafka-groups", "--list --consumer", columns),
    ("offsets by a pattern", "kafka-get-offsets", "--topic wor.*", plain),
    ("offsets of partitions by range", "kafka-get-offsets", "--topic-partitions words:0-2,words2 --time -2", plain),
    ("offsets of some partitions", "kafka-get-offsets", "--topic words --partitions 0,2", plain),
    ("offsets of the newest records", "kafka-get-offsets", "--topic words2 --time max-timestamp", plain),
    ("list transactions", "kafka-transactions", "list", lasting),
    ("list transactions by a pattern", "kafka-transactions", "list --transactional-id-pattern sh.*", lasting),
    ("describe a transaction", "kafka-transactions", "describe --transactional-id shop", lasting),
    ("describe a transaction that has ended", "kafka-transactions", "describe --transactional-id paid", lasting),
    ("describe producers", "kafka-transactions", "describe-producers --topic orders --partition 0", lasting),
    ("find transactions that hang", "kafka-transactions", "find-hanging --topic orders --max-transaction-timeout 0", lasting),
    ("plan a reset of an application", "kafka-streams-application-reset", "--application-id first --input-topics words,words2 --dry-run", plain),
    ("plan a reset of an application beyond the end", "kafka-streams-application-reset", "--application-id first --input-topics words,gone --to-offset 1000 --dry-run", plain),
    ("describe features", "kafka-features", "describe", plain),
    ("upgrade all features", "kafka-features", "upgrade --release-version 4.3 --dry-run", plain),
    ("map a release to its features", "kafka-features", "version-mapping --release-version 4.1", plain),
    ("refuse to delete a quota of a misspelt name", "kafka-configs", "--alter --entity-type users --entity-name ann --delete-config producer_byte_rte", plain),
    ("refuse to delete a quota that is not set", "kafka-configs", "--alter --entity-type users --entity-name ann --delete-config producer_byte_rate", plain),
    ("refuse a password with a quota", "kafka-configs", "--alter --entity-type users --entity-name ann --add-config SCRAM-SHA-256=[password=a],producer_byte_rate=1", plain),
    ("set a password with a comma", "kafka-configs", "--alter --entity-type users --entity-name bob --add-config SCRAM-SHA-256=[iterations=-1,password=a,b]", plain),
    ("describe settings of all groups", "kafka-configs", "--describe --entity-type groups", plain),
    ("describe settings of a topic that is not there", "kafka-configs", "--describe --entity-type topics --entity-name nothing", plain),
    ("describe settings of a broker that is not there", "kafka-configs", "--describe --entity-type brokers --entity-name 9", plain),
    ("describe settings of loggers of a broker that is not there", "kafka-configs", "--describe --entity-type broker-loggers --entity-name 9", plain),
    ("describe settings of a group that is not there", "kafka-configs", "--describe --entity-type groups --entity-name nothing", plain),
    ("describe settings of client metrics that are not there", "kafka-configs", "--describe --entity-type client-metrics --entity-name nothing", plain),
    ("describe settings of a topic of a bad name", "kafka-configs", "--describe --entity-type topics --entity-name bad!name", plain),
    ("describe settings of a group without any", "kafka-configs", "--describe --entity-type groups --entity-name first", plain),
    ("describe settings of a broker that is no number", "kafka-configs", "--describe --entity-type brokers --entity-name one", plain),
    ("describe a subscription that is not there", "kafka-client-metrics", "--describe --name nothing", plain),
    ("set a subscription", "kafka-configs", "--alter --entity-type client-metrics --entity-name sub --add-config interval.ms=60000", plain),
    ("print a partition", "kafka-console-consumer", "--topic words --partition 1 --offset earliest --timeout-ms 4000 --formatter-property print.key=true", plain),
]


# The same of what the controller's listener is asked, whose address is {c}.
CONTROLLER_LOOKS = [
    ("the controller tells of the quorum", "kafka-metadata-quorum", "{c} describe --status", still),
    ("the controller tells who the controllers are", "kafka-cluster", "list-endpoints {c}", columns),
    ("the controller tells the cluster's id", "kafka-cluster", "cluster-id {c}", plain),
    ("the controller tells of features", "kafka-features", "{c} describe", plain),
    ("the controller tells settings of a broker", "kafka-configs", "{c} --describe --entity-type brokers --entity-name 1", plain),
    ("the controller changes settings", "kafka-configs", "{c} --alter --entity-type brokers --entity-default --add-config log.retention.ms=4711000", plain),
    ("the controller tells settings of the cluster", "kafka-configs", "{c} --describe --entity-type brokers --entity-default", plain),
    ("the controller tells of reassignments", "kafka-reassign-partitions", "{c} --list", plain),
]


# What is looked at without --long, to keep the run short: a JVM starts for each.
SHORT = {
    "describe topics by a pattern", "describe partitions at min ISR", "describe a topic that is not there",
    "list groups with states and types", "describe all groups", "describe the state", "plan a shift beyond the start",
    "export plans of two groups", "list groups of consumers", "offsets of partitions by range",
    "the controller tells of the quorum", "the controller tells who the controllers are",
    "describe a transaction", "plan a reset of an application", "describe producers", "find transactions that hang", "upgrade all features",
    "refuse to delete a quota of a misspelt name", "describe settings of a topic that is not there",
}


def reset_rows(text: str) -> list[list[str]]:
    """The table of a plan, without Apache's remarks on empty partitions."""
    return [row for row in columns(text) if row[0] in ("GROUP", "first")]


def look(case: tuple, server: str, controller: str) -> tuple[str, object, object]:
    name, tool, arguments, compare = case
    if "{c}" in arguments:
        arguments = arguments.replace("{c}", f"--bootstrap-controller {controller}").split()
    else:
        arguments = ["--bootstrap-server", server, *arguments.split()]
    compare = reset_rows if compare == "reset" else compare
    return name, compare(apaches(tool, *arguments)), compare(ours(tool, *arguments))


def change(server: str, report: Report, long: bool) -> None:
    """What one tool did to a twin, the other did to its own: afterwards the twins are alike."""
    b = ["--bootstrap-server", server]

    def offsets(group: str) -> list[list[str]]:
        rows = columns(ours("kafka-consumer-groups", *b, "--describe", "--group", group))
        return [row[1:4] for row in rows if row[0] == group]

    changes = ["--reset-offsets --topic words --shift-by 2 --execute", "--delete-offsets --topic words:0", "--reset-offsets --topic words:1,2 --to-earliest --execute"]
    for text in changes if long else changes[:1]:
        theirs = columns(apaches("kafka-consumer-groups", *b, "--group", "twin-a", *text.split()))
        mine = columns(ours("kafka-consumer-groups", *b, "--group", "twin-b", *text.split()))
        alike = [[cell.replace("twin-a", "twin-b") for cell in row] for row in theirs]
        report.check(alike == mine, f"says the same of {text.split()[0]}", alike, mine)
        report.check(offsets("twin-a") == offsets("twin-b"), "and has done the same", offsets("twin-a"), offsets("twin-b"))
    if long:
        theirs = plain(apaches("kafka-consumer-groups", *b, "--delete", "--group", "twin-a"))
        mine = plain(ours("kafka-consumer-groups", *b, "--delete", "--group", "twin-b"))
        report.check([line.replace("twin-a", "twin-b") for line in theirs] == mine, "deletes a group", theirs, mine)

    # A transaction that hangs is aborted in one partition by the one, in another by the other.
    for partition, tool in [(1, apaches), (2, ours)]:
        tool("kafka-transactions", *b, "abort", "--topic", "orders", "--partition", str(partition), "--start-offset", "0")
    left = lasting(ours("kafka-transactions", *b, "find-hanging", "--topic", "orders", "--max-transaction-timeout", "0"))
    report.check([row[:3] for row in left[1:]] == [["orders", "3", "4711"]], "both abort a transaction that hangs", "", left)
    tool = apaches if long else ours
    tool("kafka-transactions", *b, "forceTerminateTransaction", "--transactionalId", "shop")
    state = lasting(ours("kafka-transactions", *b, "list", "--transactional-id-pattern", "shop"))
    report.check(len(state) == 2 and state[1][-1] != "Ongoing", "shuts a producer out", "", state)

    apaches("kafka-console-producer", *b, "--topic", "headed", *READER, stdin=HEADED)
    ours("kafka-console-producer", *b, "--topic", "headed", *READER, stdin=HEADED)
    arguments = [*b, "--topic", "headed", "--from-beginning", "--max-messages", "4", *FORMATTER]
    theirs, mine = plain(apaches("kafka-console-consumer", *arguments)), plain(ours("kafka-console-consumer", *arguments))
    report.check(len(theirs) == 4 and theirs == mine, "prints headers, nulls and offsets alike", theirs, mine)
    without = [re.sub(r"Offset:\d+", "", line) for line in mine]
    report.check(sorted(without[:2]) == sorted(set(without)) or without.count(without[0]) == 2, "both producers have written the same", mine, mine)


def share(server: str, report: Report) -> None:
    """Share consumers: what the consoles print, and what the verifiable ones tell."""
    b = ["--bootstrap-server", server]
    for group in ("share-a", "share-b"):
        ours("kafka-configs", *b, "--alter", "--entity-type", "groups", "--entity-name", group, "--add-config", "share.auto.offset.reset=earliest")
    arguments = [*b, "--topic", "headed", "--timeout-ms", "8000", *FORMATTER, "--formatter-property", "print.delivery=true", "--max-messages"]
    theirs = apaches("kafka-console-share-consumer", *arguments, "4", "--group", "share-a", "--release").splitlines()
    mine = ours("kafka-console-share-consumer", *arguments, "4", "--group", "share-b", "--release").splitlines()
    report.check(len(theirs) == 4 and theirs == mine, "share consumers print alike", theirs, mine)
    again = ours("kafka-console-share-consumer", *arguments, "4", "--group", "share-b", "--reject").splitlines()
    report.check(again == [line.replace("Delivery:1", "Delivery:2") for line in mine], "what was released is delivered again", mine, again)
    last = ours("kafka-console-share-consumer", *[*arguments[:4], "1500", *arguments[5:]], "1", "--group", "share-b")
    report.check(last == "", "and what was rejected is not", "", last)

    # Both groups are at rest and have begun everywhere; how far the last locks are is the same to both tools.
    groups = ["--list --state", "--describe --group share-a --verbose", "--describe --group share-a --state --verbose"]
    groups += ["--reset-offsets --group share-a --topic headed --to-earliest --dry-run", "--delete --group nobody --group share-b"]
    for text in groups:
        options = text.split()
        theirs, mine = (columns(tool("kafka-share-groups", *b, *options)) for tool in (apaches, ours))
        if "--delete" in options:
            # The first of the tools deletes it, and to the other it is not there.
            theirs, mine = ([row for row in rows if "nobody" in " ".join(row)] for rows in (theirs, mine))
            theirs = [[cell for cell in row if not cell.startswith("java.lang.")] for row in theirs]
        report.check(theirs == mine and theirs != [], f"tells the same of share groups with {text}", theirs, mine)

    def told(tool, group: str) -> list:
        """The events without their times and numbers of parts, which are as the polls happened to be."""
        arguments = [*b, "--topic", "words", "--group-id", group, "--max-messages", "60", "--offset-reset-strategy", "earliest", "--acknowledgement-mode", "sync"]
        events = [json.loads(line) for line in tool("kafka-verifiable-share-consumer", *arguments).splitlines()]
        parts = {(event["name"], part["topic"], part["partition"], offset) for event in events for part in event.get("partitions", []) for offset in part["offsets"]}
        fields = {(event["name"], *sorted(event)) for event in events}
        return [sorted(parts), sorted(fields), [events[0]["name"], events[-1]["name"]]]

    theirs, mine = told(apaches, "verified-a"), told(ours, "verified-b")
    report.check(len(theirs[0]) == 120 and theirs == mine, "verifiable share consumers tell alike", theirs, mine)


def dump(workspace_data: Path, report: Report) -> None:
    """The decoders, on files of a stopped broker."""
    logs = sorted(workspace_data.glob("__consumer_offsets-*/*.log"), key=lambda path: -path.stat().st_size)
    metadata = workspace_data / "__cluster_metadata-0" / "00000000000000000000.log"
    for name, path, flag in [("offsets", logs[0], "--offsets-decoder"), ("metadata", metadata, "--cluster-metadata-decoder")]:
        theirs = apaches("kafka-dump-log", "--files", str(path), flag).splitlines()
        mine = ours("kafka-dump-log", "--files", str(path), flag).splitlines()
        # Apache's tool writes numbers of types as text, and takes subscriptions apart; the rest is the same.
        normal = [re.sub(r'"(type|version)":"(\d+)"', r'"\1":\2', line) for line in theirs]
        opaque = re.compile(r'"(subscription|assignment)":(\{[^{}]*(\{[^{}]*\}[^{}]*)*\}|"[^"]*"|null)')
        normal, shown = ([opaque.sub(r'"\1":_', line) for line in lines] for lines in (normal, mine))
        differing = [(a, b) for a, b in zip(normal, shown) if a != b]
        report.check(len(normal) == len(shown) > 5 and not differing, f"dumps {name} alike", differing[:1], (len(normal), len(shown)))


def main() -> int:
    global FLEUVE
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_broker_argument(parser)
    parser.add_argument("--only", default="", metavar="WORD", help="only looks whose name holds this")
    parser.add_argument("--long", action="store_true", help="everything there is to compare")
    options = parser.parse_args()
    FLEUVE = os.environ.get("FLEUVE_BINARY", str(ROOT / "target" / "release" / "fleuve"))
    report = Report()
    started = time.monotonic()
    with Workspace("tools", options.keep) as workspace:
        settings = {
            "group.initial.rebalance.delay.ms": "0",
            "fleuve.metrics.listen": "",
            "offsets.topic.num.partitions": "3",
            "transaction.state.log.num.partitions": "3",
            # Or no transaction would hang.
            "transaction.partition.verification.enable": "false",
        }
        if options.broker == "fleuve":
            # Apache's has it in any case.
            settings["listeners"] = "PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:0"
            settings["controller.listener.names"] = "CONTROLLER"
        broker = workspace.broker(options.broker, settings)
        broker.start()
        prepare(broker.bootstrap)
        transact(broker.bootstrap)
        cases = [case for case in [*LOOKS, *CONTROLLER_LOOKS] if options.only in case[0] and (options.long or options.only or case[0] in SHORT)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            controller = f"127.0.0.1:{broker.controller}"
            for name, theirs, mine in pool.map(lambda case: look(case, broker.bootstrap, controller), cases):
                report.check(theirs == mine, name, theirs, mine)
        if not options.only:
            change(broker.bootstrap, report, options.long)
            share(broker.bootstrap, report)
            if broker.name == "fleuve":
                broker.stop()
                dump(broker.data, report)
    print(f"{report.passed} passed, {report.failed} failed in {time.monotonic() - started:.0f} s")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
