"""Apache Kafka's own command-line tools, each as its users run it: one process, one job."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from harness.broker import KAFKA_LIBS  # noqa: E402

from report import CROSS_KEYS, CROSS_TOPIC, PARTITIONS, PATIENCE_SECONDS, arguments, check, cross_record, done, expect_equal, wait_until

BOOTSTRAP, PHASE = arguments()
TOPIC = "tools-round-trip"
GROUP_TOPIC = "tools-group"
KEPT_GROUP = "tools-kept"
TOOLS = "org.apache.kafka.tools."
LOGGING = Path(__file__).resolve().parents[2] / "harness" / "log4j2.properties"
# Short-lived JVMs: no optimising compiler, no parallel collector.
JAVA = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", f"-Dlog4j2.configurationFile={LOGGING}", "-cp", f"{KAFKA_LIBS}/*"]


def tool(name: str, *options: str, lines: list[str] | None = None) -> str:
    """Runs a tool to its end and returns what it printed."""
    ended = subprocess.run(
        [*JAVA, name if name.startswith("kafka.") else TOOLS + name, "--bootstrap-server", BOOTSTRAP, *options],
        input="".join(line + "\n" for line in lines or []),
        capture_output=True,
        text=True,
        timeout=60,
    )
    if ended.returncode:
        raise AssertionError(f"{name} {' '.join(options)} ended with {ended.returncode}: {(ended.stderr or ended.stdout)[-400:]}")
    return ended.stdout


def fields(text: str) -> dict[str, str]:
    """`Name: value` pairs of a line such as TopicCommand's, which tabs separate."""
    return {part.split(":", 1)[0].strip(): part.split(":", 1)[1].strip() for part in text.split("\t") if ":" in part}


def topics() -> None:
    tool("TopicCommand", "--create", "--topic", TOPIC, "--partitions", "1", "--config", "retention.ms=3600000")
    tool("TopicCommand", "--create", "--topic", GROUP_TOPIC, "--partitions", "2")
    tool("TopicCommand", "--alter", "--topic", GROUP_TOPIC, "--partitions", str(PARTITIONS))
    described = tool("TopicCommand", "--describe", "--topic", GROUP_TOPIC).splitlines()
    expect_equal(fields(described[0])["PartitionCount"], str(PARTITIONS), "described partition count")
    expect_equal(len(described), PARTITIONS + 1, "described lines")
    expect_equal({TOPIC, GROUP_TOPIC} <= set(tool("TopicCommand", "--list").split()), True, "both topics are listed")


def configs() -> None:
    entity = ["--entity-type", "topics", "--entity-name", TOPIC]
    tool("kafka.admin.ConfigCommand", *entity, "--alter", "--add-config", "max.message.bytes=2000000")
    printed = tool("kafka.admin.ConfigCommand", *entity, "--describe")
    expect_equal("max.message.bytes=2000000" in printed and "retention.ms=3600000" in printed, True, f"configs in {printed!r}")
    tool("kafka.admin.ConfigCommand", *entity, "--alter", "--delete-config", "max.message.bytes")
    expect_equal("max.message.bytes" in tool("kafka.admin.ConfigCommand", *entity, "--describe"), False, "the config is still set")


def console(codec: str, total: int) -> None:
    """Console producer and consumer: keys, headers, null values, and a codec; the topic then holds `total` records."""
    records = [(f"n:{n},codec:{codec}", f"{codec}-{n}", "NULL" if n % 5 == 4 else f"value {n}") for n in range(30)]
    properties = ["parse.key=true", "parse.headers=true", "key.separator=|", "headers.delimiter=|", "null.marker=NULL"]
    options = [part for each in properties for part in ("--reader-property", each)]
    tool("ConsoleProducer", "--topic", TOPIC, "--compression-codec", codec, *options, lines=["|".join(record) for record in records])
    shown = ["print.key=true", "print.headers=true", "print.timestamp=true", "key.separator=|", "headers.separator=,", "null.literal=NULL"]
    options = [part for each in shown for part in ("--formatter-property", each)]
    group = ["--group", f"tools-console-{codec}"]
    printed = tool("consumer.ConsoleConsumer", "--topic", TOPIC, *group, "--from-beginning", "--max-messages", str(total), *options)
    got = [tuple(line.split("|")[1:]) for line in printed.splitlines() if f"codec:{codec}" in line]
    expect_equal(got, records, "records")


def verifiable() -> None:
    """VerifiableProducer (acks=all) and VerifiableConsumer: every record acknowledged is consumed, in order."""
    load = ["--max-messages", "5000", "--throughput", "-1", "--acks", "-1", "--repeating-keys", "24"]
    printed = tool("VerifiableProducer", "--topic", GROUP_TOPIC, *load)
    events = [json.loads(line) for line in printed.splitlines()]
    sent = sorted(int(event["value"]) for event in events if event["name"] == "producer_send_success")
    expect_equal(sent, list(range(5000)), "acknowledged values")
    printed = tool("VerifiableConsumer", "--topic", GROUP_TOPIC, "--group-id", "tools-verifiable", "--max-messages", "5000", "--verbose")
    events = [json.loads(line) for line in printed.splitlines()]
    got = sorted(int(event["value"]) for event in events if event["name"] == "record_data")
    expect_equal(got, sent, "consumed values")
    failed = [event for event in events if event["name"] == "offsets_committed" and not event["success"]]
    expect_equal(failed, [], "failed commits")


class Member:
    """A VerifiableConsumer; it prints one JSON line per event."""

    def __init__(self, group: str):
        options = ["--topic", GROUP_TOPIC, "--group-id", group, "--session-timeout", "6000"]
        options += ["--assignment-strategy", "org.apache.kafka.clients.consumer.RangeAssignor"]
        command = [*JAVA, TOOLS + "VerifiableConsumer", "--bootstrap-server", BOOTSTRAP, *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def await_partitions(self, count: int) -> None:
        def assigned() -> bool:
            line = self.process.stdout.readline()
            if not line:
                raise AssertionError(f"the consumer ended before it owned {count} partitions")
            event = json.loads(line)
            return event["name"] == "partitions_assigned" and len(event["partitions"]) == count

        wait_until(assigned, f"a member with {count} partitions")

    def leave(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=PATIENCE_SECONDS)


def group_of_two() -> None:
    first = Member("tools-group")
    try:
        first.await_partitions(PARTITIONS)
        second = Member("tools-group")
        try:
            first.await_partitions(3)
            second.await_partitions(3)
            first.leave()
            second.await_partitions(PARTITIONS)
        finally:
            second.leave()
    finally:
        first.leave()


def group_row(group: str, partition: int) -> list[str]:
    """CURRENT-OFFSET, LOG-END-OFFSET and LAG of one partition, as ConsumerGroupCommand prints them."""
    for line in tool("consumer.group.ConsumerGroupCommand", "--describe", "--group", group, "--offsets").splitlines():
        columns = line.split()
        if columns[:3] == [group, GROUP_TOPIC, str(partition)]:
            # Kafka 4.2 and later print a LEADER-EPOCH column after the partition.
            return [column for column in columns[3:] if column.lstrip("-").isdigit()][-3:]
    raise AssertionError(f"{group} has no row for partition {partition}")


def end_offset(partition: int) -> int:
    printed = tool("GetOffsetShell", "--topic-partitions", f"{GROUP_TOPIC}:{partition}", "--time", "latest")
    return int(printed.strip().rsplit(":", 1)[1])


def groups() -> None:
    reset = ["--reset-offsets", "--group", KEPT_GROUP, "--topic", f"{GROUP_TOPIC}:1", "--to-offset", "12", "--execute"]
    tool("consumer.group.ConsumerGroupCommand", *reset)
    committed_offset_is_kept()
    expect_equal(KEPT_GROUP in tool("consumer.group.ConsumerGroupCommand", "--list").split(), True, "the group is listed")
    state = tool("consumer.group.ConsumerGroupCommand", "--describe", "--group", "tools-verifiable", "--state")
    expect_equal("Empty" in state, True, f"state in {state!r}")
    tool("consumer.group.ConsumerGroupCommand", "--delete", "--group", "tools-verifiable")
    expect_equal("tools-verifiable" in tool("GroupsCommand", "--list"), False, "the deleted group is listed")


def committed_offset_is_kept() -> None:
    end = end_offset(1)
    expect_equal(group_row(KEPT_GROUP, 1), ["12", str(end), str(end - 12)], "committed offset, end and lag")


def deletion() -> None:
    name = "tools-short-lived"
    tool("TopicCommand", "--create", "--topic", name)
    tool("TopicCommand", "--delete", "--topic", name)
    expect_equal(name in tool("TopicCommand", "--list").split(), False, "the deleted topic is listed")


def api_versions() -> None:
    printed = tool("BrokerApiVersionsCommand")
    expect_equal("Produce(0): 0 to 13" in printed, True, "advertised Produce versions")


def compatibility() -> None:
    """Apache's own test of what a client may expect of a broker of today."""
    expected = {f"--{name}-supported": "true" for name in ("offsets-for-times", "cluster-id", "create-topics", "describe-acls", "describe-configs", "idempotent-producer")}
    expected |= {"--expect-record-too-large-exception": "false", "--num-cluster-nodes": "1", "--topic": "tools-compatibility"}
    printed = tool("ClientCompatibilityTest", *(part for option in expected.items() for part in option))
    expect_equal(printed.strip().splitlines()[-1], "SUCCESS.", "last line")


def write_cross() -> None:
    options = ["--reader-property", "parse.key=true", "--reader-property", "key.separator=|"]
    tool("ConsoleProducer", "--topic", CROSS_TOPIC, *options, lines=[f"{key}|apache-tools:{key}" for key in CROSS_KEYS])


def read_cross() -> None:
    shown = ["print.key=true", "print.partition=true", "key.separator= "]
    options = [part for each in shown for part in ("--formatter-property", each)]
    ends = tool("GetOffsetShell", "--topic", CROSS_TOPIC, "--time", "latest").split()
    total = sum(int(end.rsplit(":", 1)[1]) for end in ends)
    printed = tool("consumer.ConsoleConsumer", "--topic", CROSS_TOPIC, "--from-beginning", "--max-messages", str(total), *options)
    for line in printed.splitlines():
        partition, key, value = line.split(" ")
        cross_record(int(partition.split(":")[1]), key, value)


if PHASE == "first":
    with check("topics: create, alter, describe, list"):
        topics()
    with check("configs: alter, describe, delete"):
        configs()
    for number, codec in enumerate(("none", "gzip", "snappy", "lz4", "zstd"), start=1):
        with check(f"console round trip {codec}"):
            console(codec, 30 * number)
    with check("verifiable producer and consumer"):
        verifiable()
    with check("group of two"):
        group_of_two()
    with check("groups: reset, describe, list, delete"):
        groups()
    with check("delete topics"):
        deletion()
    with check("api versions"):
        api_versions()
    with check("client compatibility test"):
        compatibility()
    with check("write cross"):
        write_cross()
else:
    with check("committed offsets survive the broker"):
        committed_offset_is_kept()
    with check("read cross"):
        read_cross()
done()
