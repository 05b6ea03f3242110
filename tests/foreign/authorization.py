#!/usr/bin/env python3
"""The table of rights against Apache Kafka: both brokers get each request without each right that it needs.

    tests/foreign/authorization.py [--keep] [--show]

Run by hand, as it takes Kafka minutes on a busy machine. The table is in crates/broker/tests/authorization; Fleuve's own test checks what it expects, and this one that Kafka
expects the same. A row differs if the set of error codes does, or if what is left of the answers does once addresses,
ids, times and messages are taken out. Exceptions are listed below with their reasons. The last line is the sum.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from harness.broker import ROOT, Fleuve, Kafka, Workspace, free_port  # noqa: E402

AUTHORIZER = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
USERS = 'user_admin="admin" user_ada="ada"'

# Rows that differ for a reason that is no right's: by the beginning of their title.
EXCEPTIONS = {
    "ShareFetch without Read Topic, of nothing": "Kafka fails on an id that it does not know (UNKNOWN_SERVER_ERROR)",
    "ShareAcknowledge without Read Topic, of nothing": "the same",
}


def common(port: int) -> dict[str, str]:
    return {
        "authorizer.class.name": AUTHORIZER,
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": f'{PLAIN} username="admin" password="admin" {USERS};',
        "offsets.topic.num.partitions": "1",
        "transaction.state.log.num.partitions": "1",
        "share.coordinator.state.topic.num.partitions": "1",
        "group.initial.rebalance.delay.ms": "0",
    }


def fleuve_settings(port: int) -> dict[str, str]:
    return common(port) | {"listeners": f"SASL_PLAINTEXT://127.0.0.1:{port}", "super.users": "User:admin"}


def kafka_settings(port: int) -> dict[str, str]:
    controller = free_port(port + 1)
    return common(port) | {
        "listeners": f"SASL_PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
        "listener.security.protocol.map": "SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "SASL_PLAINTEXT",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        # The broker comes to its controller without a name.
        "super.users": "User:admin;User:ANONYMOUS",
    }


def normal(text: str) -> str:
    """What two brokers must have in common of an answer."""
    text = re.sub(r"(error_message|acknowledge_error_message|message): (None|Some\(\"(?:[^\"\\]|\\.)*\"\))", "", text)
    text = re.sub(r"[A-Za-z0-9_-]{22}\b", "ID", text)
    return re.sub(r"(port|leader_epoch|producer_id|producer_epoch|high_watermark|offset|timestamp\w*|log_start_offset|partition_size|total_bytes|usable_bytes|throttle_time_ms): -?\d+", r"\1", text)


def run(binary: Path, broker) -> dict[str, tuple[str, str]]:
    output = subprocess.run([str(binary), broker.bootstrap], capture_output=True, text=True, timeout=1800)
    assert output.returncode == 0, output.stderr
    rows = (line.split("\t", 2) for line in output.stdout.splitlines())
    return {title: (codes, text) for title, codes, text in rows}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="keep data and logs")
    parser.add_argument("--show", action="store_true", help="print answers that differ")
    arguments = parser.parse_args()
    subprocess.run(["cargo", "build", "-q", "-p", "fleuve-broker", "--example", "authorization"], cwd=ROOT, check=True)
    binary = ROOT / "target" / "debug" / "examples" / "authorization"
    found = {}
    with Workspace("authorization", arguments.keep) as workspace:
        for kind, settings in [("kafka", kafka_settings), ("fleuve", fleuve_settings)]:
            port = free_port()
            broker = workspace.broker(kind, settings(port))
            assert isinstance(broker, (Fleuve, Kafka))
            broker.heap = "512M"
            broker.port = port
            broker.start()
            found[kind] = run(binary, broker)
            broker.stop()
    same = different = 0
    for title, (codes, text) in found["fleuve"].items():
        theirs, their_text = found["kafka"][title]
        # With all rights it is not about rights any more, unless one of the two refuses.
        open_row = title.endswith("with all it needs")
        alike = codes == theirs and normal(text) == normal(their_text)
        if open_row:
            alike = ("AUTHORIZATION" in codes) == ("AUTHORIZATION" in theirs)
        if not alike and any(title.startswith(known) for known in EXCEPTIONS):
            continue
        same += alike
        different += not alike
        if not alike:
            print(f"FAILED {title}: {codes or 'no error'}, and Kafka {theirs or 'no error'}")
            if arguments.show:
                print(f"   ours   {normal(text)}\n   theirs {normal(their_text)}")
    print(f"{same} answers alike, {different} different")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
