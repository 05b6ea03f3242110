#!/usr/bin/env python3
"""Apache's DumpLogSegments must read our data directory without complaint, after a clean stop and after a recovery.

    tests/reliability/dump.py [--broker fleuve|kafka] [--data DIR] [--keep]

Without --data it writes a workload first: several codecs, idempotent producers, rolled segments, a consumer group.
With --data it only reads that directory, which no broker may be using. Needs `scripts/setup.sh python kafka`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness.broker import CACHE, KAFKA_LIBS, Workspace, add_broker_argument  # noqa: E402

JAVA = ["java", "-XX:+UseSerialGC", f"-Dlog4j2.configurationFile={Path(__file__).resolve().parents[1]}/harness/log4j2.properties"]
# What the tool prints, beside ordinary records, when something is wrong with a file.
COMPLAINTS = re.compile(
    r"Mismatches in|Non-consecutive|mismatch|out of order|invalid bytes|isvalid: false|Exception|[Cc]orrupt|does not exist|"
    r"[Ff]ailed|Error|Could not|Ignoring unknown|[Uu]nknown (record|file)|Unsupported"
)
WORKLOAD = """
import sys
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
bootstrap, round_number = sys.argv[1], int(sys.argv[2])
admin = AdminClient({"bootstrap.servers": bootstrap})
config = {"segment.bytes": "1048576", "index.interval.bytes": "1024"}
if round_number == 0:
    for future in admin.create_topics([NewTopic("dumped", 3, 1, config=config), NewTopic("brief", 1, 1)]).values():
        future.result(30)
for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
    for idempotent in (False, True):
        producer = Producer({"bootstrap.servers": bootstrap, "compression.type": codec, "enable.idempotence": idempotent,
                             "batch.num.messages": 200, "linger.ms": 2})
        for number in range(3000):
            producer.produce("dumped", key=str(number % 50), value=None if number % 40 == 7 else str(number) * 150,
                             partition=number % 3, headers=[("codec", codec), ("none", None)])
            if number % 500 == 0:
                producer.poll(0)
        assert producer.flush(60) == 0
consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": f"dump-{round_number}", "auto.offset.reset": "earliest"})
consumer.subscribe(["dumped"])
assert len(consumer.consume(1000, 30)) == 1000
consumer.commit(asynchronous=False)
transactional = Producer({"bootstrap.servers": bootstrap, "transactional.id": f"dumper-{round_number}"})
transactional.init_transactions(30)
for transaction in range(6):
    transactional.begin_transaction()
    for number in range(60):
        transactional.produce("dumped", key=str(number), value=str(transaction) * 50, partition=number % 3)
    transactional.send_offsets_to_transaction([TopicPartition("dumped", 0, transaction)], consumer.consumer_group_metadata(), 30)
    if transaction % 3 == 1:
        transactional.flush(30)
        transactional.abort_transaction(30)
    else:
        transactional.commit_transaction(30)
# Markers follow the answer; who takes over the transactional id waits for the last of them.
Producer({"bootstrap.servers": bootstrap, "transactional.id": f"dumper-{round_number}"}).init_transactions(30)
for partition in range(3):
    print(partition, *consumer.get_watermark_offsets(TopicPartition("dumped", partition), 30))
consumer.close()
"""


@dataclass
class Findings:
    """What a run of the tool had to say about a set of files."""

    complaints: list[str]
    records: dict[str, int]


def without_first_gaps(lines: list[str]) -> list[str]:
    """Drops what the tool says of every file that does not begin at offset 0, Kafka's own files included.

    It starts counting at -1 whatever the file's name, so the first batch always seems to leave a gap. A gap anywhere
    else in the same file stays a complaint, under its heading.
    """
    kept: list[str] = []
    heading, first_gap = "", ""
    for line in lines:
        if line.startswith("Non-consecutive offsets in "):
            heading, first_gap = line, f"-1 is followed by {int(Path(line.split()[-1]).stem)}"
        elif heading and line.strip() == first_gap:
            continue
        else:
            if heading:
                kept.append(heading)
                heading = ""
            kept.append(line)
    return kept


def dump(files: list[Path], *options: str) -> Findings:
    """Runs the tool over files; an unclean exit or anything on stderr is a complaint too."""
    command = [*JAVA, "-cp", f"{KAFKA_LIBS}/*", "org.apache.kafka.tools.DumpLogSegments"]
    ended = subprocess.run([*command, "--files", ",".join(map(str, files)), *options], capture_output=True, text=True)
    complaints = without_first_gaps([line for line in ended.stderr.splitlines() if line.strip()])
    if ended.returncode:
        complaints.append(f"exit code {ended.returncode}")
    records: dict[str, int] = {}
    current = ""
    for line in ended.stdout.splitlines():
        if line.startswith("Dumping "):
            current = line.removeprefix("Dumping ")
        elif line.startswith("| "):
            records[current] = records.get(current, 0) + 1
        elif COMPLAINTS.search(line):
            complaints.append(f"{current}: {line}")
    return Findings(complaints, records)


def examine(data: Path) -> tuple[list[str], dict[str, int], int]:
    """Dumps every file of a data directory; returns complaints, records by partition folder, and the count of files."""
    by_suffix = {suffix: sorted(data.glob(f"*/*{suffix}")) for suffix in (".log", ".index", ".timeindex", ".txnindex", ".snapshot")}
    internal = {
        "__consumer_offsets": "--offsets-decoder",
        "__transaction_state": "--transaction-log-decoder",
        "__cluster_metadata": "--cluster-metadata-decoder",
    }
    complaints: list[str] = []
    records: dict[str, int] = {}

    def run(files: list[Path], *options: str) -> None:
        # An empty log is dumped as nothing at all; passing it would only lengthen the command line.
        files = [file for file in files if file.stat().st_size > 0]
        if files:
            found = dump(files, *options)
            complaints.extend(found.complaints)
            for file, count in found.records.items():
                folder = Path(file).parent.name
                records[folder] = records.get(folder, 0) + count

    plain = [file for file in by_suffix[".log"] if not file.parent.name.startswith(tuple(internal))]
    run(plain, "--deep-iteration", "--print-data-log")
    for prefix, decoder in internal.items():
        run([file for file in by_suffix[".log"] if file.parent.name.startswith(prefix)], "--deep-iteration", decoder)
    indexes = by_suffix[".index"] + by_suffix[".timeindex"]
    run(indexes, "--index-sanity-check")
    run(indexes, "--verify-index-only")
    run(by_suffix[".txnindex"])
    # The snapshots of the metadata log end in .checkpoint; .snapshot is the producer state alone.
    run(by_suffix[".snapshot"])
    return complaints, records, sum(map(len, by_suffix.values()))


def report(label: str, data: Path, ends: dict[str, int]) -> bool:
    complaints, records, files = examine(data)
    short = {folder: (records.get(folder, 0), end) for folder, end in ends.items() if records.get(folder, 0) != end}
    for folder, (found, end) in short.items():
        complaints.append(f"{folder}: {found} records dumped, the broker had {end}")
    for complaint in complaints[:20]:
        print(f"FAILED dump: {complaint}")
    if not files:
        complaints.append("no files")
        print(f"FAILED dump: no log files in {data}")
    if not complaints:
        print(f"ok     dump {label}: {files} files, {sum(records.values())} records, no complaint")
    return not complaints


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_broker_argument(parser)
    parser.add_argument("--data", type=Path, help="examine this directory instead of writing one")
    options = parser.parse_args()
    if options.data:
        return 0 if report(str(options.data), options.data, {}) else 1
    fine = True
    with Workspace("dump", options.keep) as workspace:
        broker = workspace.broker(options.broker, {"group.initial.rebalance.delay.ms": "0"})
        for round_number, label in enumerate(("after a clean stop", "after SIGKILL and recovery")):
            broker.start()
            printed = subprocess.run(
                [CACHE / "venv" / "bin" / "python", "-c", WORKLOAD, broker.bootstrap, str(round_number)],
                capture_output=True, text=True, timeout=180,
            )
            if printed.returncode:
                print(f"FAILED dump: the workload ended with {printed.returncode}: {printed.stderr[-600:]}")
                workspace.keep = True
                return 1
            if round_number == 1:
                broker.kill()
                broker.start()
            broker.stop()
            ends = {f"dumped-{line.split()[0]}": int(line.split()[2]) for line in printed.stdout.splitlines()}
            fine &= report(label, broker.data, ends)
        workspace.keep |= not fine
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
