"""Apache Kafka's administrative tools, in one JVM, and ours of the same names: what they print is what Apache Kafka's
own broker makes them print, which stands in `admin_tools.golden`.

`FLEUVE_WRITE_GOLDEN=1 tests/foreign/run.py --broker kafka --only admin-tools` writes that file anew.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from harness.broker import KAFKA_LIBS, ROOT  # noqa: E402

from report import arguments, check, done, expect_equal

BOOTSTRAP, PHASE = arguments()
HERE = Path(__file__).resolve().parent
GOLDEN = HERE / "admin_tools.golden"
LOGGING = ROOT / "tests" / "harness" / "log4j2.properties"
TOPIC = "admin-tools"
PLAN = Path(tempfile.mkdtemp(prefix="admin-tools-")) / "plan.json"
PLAN.write_text(json.dumps({"version": 1, "partitions": [{"topic": TOPIC, "partition": index, "replicas": [1]} for index in (0, 1)]}))

# Class of the tool and name of the script, without package and extension.
TOOLS = {
    "kafka-topics": "org.apache.kafka.tools.TopicCommand",
    "kafka-configs": "kafka.admin.ConfigCommand",
    "kafka-features": "org.apache.kafka.tools.FeatureCommand",
    "kafka-metadata-quorum": "org.apache.kafka.tools.MetadataQuorumCommand",
    "kafka-leader-election": "org.apache.kafka.tools.LeaderElectionCommand",
    "kafka-reassign-partitions": "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
    "kafka-acls": "org.apache.kafka.tools.AclCommand",
    "kafka-client-metrics": "org.apache.kafka.tools.ClientMetricsCommand",
    "kafka-delegation-tokens": "org.apache.kafka.tools.DelegationTokenCommand",
    "kafka-cluster": "org.apache.kafka.tools.ClusterTool",
    "kafka-log-dirs": "org.apache.kafka.tools.LogDirsCommand",
    "kafka-broker-api-versions": "org.apache.kafka.tools.BrokerApiVersionsCommand",
}
# One command a line. `=` before it: our tool prints the same, line for line. The state of the broker goes from one to
# the next.
COMMANDS = f"""
= kafka-topics --create --topic {TOPIC} --partitions 2
= kafka-features upgrade --feature group.version=1 --dry-run
= kafka-features downgrade --feature group.version=0 --dry-run
  kafka-features downgrade --feature metadata.version=29
  kafka-features downgrade --feature metadata.version=29 --unsafe
  kafka-features upgrade --feature metadata.version=31
  kafka-features upgrade --feature nosuch=1
  kafka-features downgrade --feature kraft.version=0
= kafka-features describe
= kafka-metadata-quorum describe --status
= kafka-metadata-quorum describe --replication
  kafka-metadata-quorum remove-controller --controller-id 7 --controller-directory-id AAAAAAAAQACAAAAAAAAAAQ
= kafka-leader-election --election-type preferred --all-topic-partitions
= kafka-leader-election --election-type preferred --topic {TOPIC} --partition 0
= kafka-leader-election --election-type unclean --topic {TOPIC} --partition 0
  kafka-leader-election --election-type unclean --topic nosuch --partition 0
= kafka-reassign-partitions --list
  kafka-reassign-partitions --execute --reassignment-json-file {PLAN}
  kafka-reassign-partitions --verify --reassignment-json-file {PLAN}
  kafka-acls --list
  kafka-acls --add --allow-principal User:a --operation Read --topic t
  kafka-acls --remove --allow-principal User:a --operation Read --topic t --force
  kafka-delegation-tokens --create --max-life-time-period -1 --command-config /dev/null
  kafka-delegation-tokens --describe --command-config /dev/null
= kafka-client-metrics --alter --name sub --metrics org.apache.kafka.consumer. --interval 5000 --match client_id=a
  kafka-client-metrics --alter --name other --interval 50
  kafka-client-metrics --alter --name other --match nosuch=a
  kafka-client-metrics --alter --name other --match client_id=[
= kafka-client-metrics --list
= kafka-client-metrics --describe --name sub
= kafka-client-metrics --delete --name sub
= kafka-client-metrics --list
= kafka-configs --alter --entity-type users --entity-name ann --add-config producer_byte_rate=1024
= kafka-configs --alter --entity-type users --entity-default --add-config consumer_byte_rate=9999999
= kafka-configs --alter --entity-type clients --entity-name c1 --add-config request_percentage=12.5
= kafka-configs --alter --entity-type users --entity-name ann --entity-type clients --entity-default --add-config controller_mutation_rate=3
= kafka-configs --alter --entity-type ips --entity-name 127.0.0.1 --add-config connection_creation_rate=100
  kafka-configs --alter --entity-type ips --entity-name 127.0.0.1 --add-config connection_creation_rate=1.5
  kafka-configs --alter --entity-type users --entity-name ann --add-config producer_byte_rate=0
= kafka-configs --describe --entity-type users
= kafka-configs --describe --entity-type users --entity-name ann
= kafka-configs --describe --entity-type users --entity-name ann --entity-type clients --entity-default
= kafka-configs --describe --entity-type clients
= kafka-configs --describe --entity-type ips
= kafka-configs --alter --entity-type users --entity-name bob --add-config SCRAM-SHA-256=[iterations=8192,password=secret]
= kafka-configs --describe --entity-type users --entity-name bob
  kafka-configs --alter --entity-type users --entity-name bob --add-config SCRAM-SHA-512=[iterations=20000,password=secret]
  kafka-configs --alter --entity-type users --entity-name ann --delete-config SCRAM-SHA-512
= kafka-configs --alter --entity-type users --entity-name bob --delete-config SCRAM-SHA-256
= kafka-configs --alter --entity-type users --entity-name ann --delete-config producer_byte_rate
= kafka-configs --alter --entity-type brokers --entity-default --add-config log.retention.ms=1000000
= kafka-configs --alter --entity-type brokers --entity-name 1 --add-config log.retention.ms=2000000
= kafka-configs --describe --entity-type brokers --entity-name 1
  kafka-configs --alter --entity-type brokers --entity-name 1 --add-config node.id=5
  kafka-configs --alter --entity-type brokers --entity-default --add-config listeners=PLAINTEXT://:9
  kafka-configs --alter --entity-type brokers --entity-name 1 --add-config max.connections=-4
= kafka-configs --alter --entity-type brokers --entity-name 1 --delete-config log.retention.ms
= kafka-configs --alter --entity-type brokers --entity-default --delete-config log.retention.ms
= kafka-configs --alter --entity-type groups --entity-name g --add-config consumer.session.timeout.ms=50000
= kafka-configs --describe --entity-type groups --entity-name g
= kafka-cluster cluster-id
  kafka-cluster list-endpoints
  kafka-cluster unregister --id 9
  kafka-log-dirs --describe --topic-list {TOPIC}
"""


def commands() -> list[tuple[bool, list[str]]]:
    return [(line[0] == "=", line[1:].split()) for line in COMMANDS.strip("\n").splitlines()]


def with_address(words: list[str]) -> list[str]:
    # kafka-cluster wants its action first.
    at = 2 if words[0] == "kafka-cluster" else 1
    return [*words[:at], "--bootstrap-server", BOOTSTRAP, *words[at:]]


def normal(text: str) -> list[str]:
    """What is the same on every run and every broker: no addresses, ids, times, traces or features to come."""
    lines = []
    for line in text.splitlines():
        if re.match(r"\s+at |\s*Caused by|\s*Suppressed|\d{4}-\d\d-\d\d |error: ", line) or not line.strip():
            continue
        if line.startswith("Feature:") and not re.match(r"Feature: (group|metadata|kraft)\.version", line):
            continue
        line = re.sub(r"(?<![\w.-])[\w-]{22}(?![\w.(-])", "ID", line)
        line = line.replace(str(PLAN), "PLAN")
        line = re.sub(r"\w+://127\.0\.0\.1:\d+", "ENDPOINT", line).replace(BOOTSTRAP, "ADDRESS")
        line = re.sub(r"127\.0\.0\.1 +\d+", "127.0.0.1 PORT", line)
        line = re.sub(r"(Epoch: |HighWatermark: +|LeaderEpoch: +)\d+", r"\1N", line)
        line = re.sub(r'"logDir":"[^"]*"|"log_dirs":\["/[^]]*\]', "DIRECTORY", line)
        line = re.sub(r"[Ii]nvalid value .*", "INVALID VALUE", line)
        line = re.sub(r"\t\d+ +\t0  \t\d{13} +\t\d{13} +\t", "\tN\t0\tT\tT\t", line)
        lines.append(line.rstrip())
    # Lines about quotas, and rows of a JSON list, come in the order of hash tables.
    return sorted(lines)


def apaches() -> list[tuple[int, list[str]]]:
    lines = "".join("\t".join([TOOLS[words[0]], *with_address(words)[1:]]) + "\n" for _, words in commands())
    ended = subprocess.run(
        ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", f"-Dlog4j2.configurationFile={LOGGING}", "-cp", f"{KAFKA_LIBS}/*", str(HERE.parent / "java" / "Tools.java")],
        input=lines,
        capture_output=True,
        text=True,
        timeout=100,
    )
    if ended.returncode:
        raise AssertionError(f"the tools ended with {ended.returncode}: {ended.stderr[-400:]}")
    printed = []
    for part in re.findall(r"(.*?)\x01(\d+)\n", ended.stdout, re.DOTALL):
        printed.append((int(part[1]), normal(part[0])))
    return printed


def ours(words: list[str]) -> tuple[int, list[str]]:
    script = ROOT / "bin" / f"{words[0]}.sh"
    environment = {**os.environ}
    if "FLEUVE_BINARY" in environment:
        environment["FLEUVE"] = environment["FLEUVE_BINARY"]
    ended = subprocess.run([str(script), *with_address(words)[1:]], capture_output=True, text=True, timeout=30, env=environment)
    return ended.returncode, normal(ended.stdout + ended.stderr)


def compare_with_golden() -> None:
    printed = apaches()
    expect_equal(len(printed), len(commands()), "commands that ended")
    text = ""
    for (_, words), (code, lines) in zip(commands(), printed):
        command = " ".join(words).replace(str(PLAN), "PLAN")
        text += f"$ {command}\n{code}\n" + "".join(line + "\n" for line in lines) + "\n"
    if os.environ.get("FLEUVE_WRITE_GOLDEN"):
        GOLDEN.write_text(text)
    golden = GOLDEN.read_text().split("\n\n")
    pairs = zip(golden, text.split("\n\n"), strict=True)
    expect_equal([got for expected, got in pairs if got != expected], [], "other outputs")


def compare_ours_with_golden() -> None:
    golden = GOLDEN.read_text().split("\n\n")
    others = []
    for (is_same, words), expected in zip(commands(), golden):
        if is_same:
            code, lines = ours(words)
            others += [] if [str(code), *lines] == expected.splitlines()[1:] else [(" ".join(words), code, lines)]
    expect_equal(others, [], "other outputs")


def forget() -> None:
    """Takes away what the commands leave, so that they find the same again."""
    for line in (
        f"kafka-topics --delete --topic {TOPIC}",
        "kafka-configs --alter --entity-type users --entity-default --delete-config consumer_byte_rate",
        "kafka-configs --alter --entity-type clients --entity-name c1 --delete-config request_percentage",
        "kafka-configs --alter --entity-type users --entity-name ann --entity-type clients --entity-default --delete-config controller_mutation_rate",
        "kafka-configs --alter --entity-type ips --entity-name 127.0.0.1 --delete-config connection_creation_rate",
        "kafka-configs --alter --entity-type groups --entity-name g --delete-config consumer.session.timeout.ms",
    ):
        code, lines = ours(line.split())
        expect_equal(code, 0, f"{line}: {lines}")


if PHASE == "first":
    with check("Apache's administrative tools print what Apache Kafka makes them print"):
        compare_with_golden()
    with check("ours print the same"):
        forget()
        compare_ours_with_golden()
else:
    with check("quotas survive the broker"):
        expect_equal(ours(["kafka-configs", "--describe", "--entity-type", "clients"])[1], ["Quota configs for client-id 'c1' are request_percentage=12.5"], "quotas")
done()
