#!/usr/bin/env python3
"""Metrics as monitors see them: the page parses, is documented, and fills the dashboards people already have.

    tests/foreign/observability.py [--keep]

Needs `scripts/setup.sh python` and a release build. One line per check; the last line is the sum.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness.broker import CACHE, ROOT, Workspace, add_broker_argument, free_port  # noqa: E402

PYTHON = CACHE / "venv" / "bin" / "python"
if os.environ.get("VIRTUAL_ENV_PYTHON") != "1" and PYTHON.exists() and Path(sys.executable) != PYTHON:
    os.execve(PYTHON, [str(PYTHON), *sys.argv], {**os.environ, "VIRTUAL_ENV_PYTHON": "1", "PYTHONDONTWRITEBYTECODE": "1"})

from confluent_kafka import Consumer, Producer, TopicPartition  # noqa: E402
from confluent_kafka.admin import AdminClient, NewTopic  # noqa: E402
from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

# Metric, with the labels that the panel selects or groups by. From the dashboards and alert rules that Strimzi ships for
# Kafka, KRaft and its exporter, and from kafka_exporter's own; without what only a JVM or Kubernetes has.
PANELS = {
    "strimzi-kafka": """
        kafka_server_replicamanager_leadercount kafka_server_replicamanager_partitioncount
        kafka_server_replicamanager_underreplicatedpartitions kafka_cluster_partition_atminisr
        kafka_cluster_partition_underminisr kafka_controller_kafkacontroller_activecontrollercount
        kafka_controller_kafkacontroller_offlinepartitionscount kafka_log_log_size{topic,partition}
        kafka_controller_controllerstats_uncleanleaderelections_total
        kafka_server_brokertopicmetrics_bytesin_total{topic} kafka_server_brokertopicmetrics_bytesout_total{topic}
        kafka_server_brokertopicmetrics_messagesin_total{topic}
        kafka_server_brokertopicmetrics_failedfetchrequests_total{topic}
        kafka_server_brokertopicmetrics_failedproducerequests_total{topic}
        kafka_server_brokertopicmetrics_totalfetchrequests_total{topic}
        kafka_server_brokertopicmetrics_totalproducerequests_total{topic}
        kafka_server_kafkaserver_linux_disk_read_bytes kafka_server_kafkaserver_linux_disk_write_bytes
        kafka_network_socketserver_networkprocessoravgidle_percent
        kafka_server_kafkarequesthandlerpool_requesthandleravgidle_percent
        kafka_server_socket_server_metrics_connection_count{listener} process_open_fds""",
    "strimzi-kraft": """
        kafka_server_raftmetrics_current_state{current_state} kafka_server_raftmetrics_current_leader
        kafka_server_raftmetrics_current_vote kafka_server_raftmetrics_current_epoch
        kafka_server_raftmetrics_high_watermark kafka_server_raftmetrics_log_end_offset
        kafka_server_raftmetrics_append_records_rate kafka_server_raftmetrics_fetch_records_rate
        kafka_server_raftmetrics_commit_latency_avg kafka_server_raftchannelmetrics_incoming_byte_total
        kafka_server_raftchannelmetrics_outgoing_byte_total kafka_server_raftchannelmetrics_request_total
        kafka_server_raftchannelmetrics_response_total""",
    "strimzi-exporter": """
        kafka_topic_partitions{topic} kafka_topic_partition_replicas{topic} kafka_topic_partition_in_sync_replica{topic}
        kafka_topic_partition_under_replicated_partition{topic} kafka_topic_partition_leader_is_preferred{topic}
        kafka_cluster_partition_atminisr{topic} kafka_cluster_partition_underminisr{topic}
        kafka_topic_partition_current_offset{topic,partition} kafka_topic_partition_oldest_offset{topic,partition}
        kafka_consumergroup_current_offset{consumergroup,topic,partition}
        kafka_consumergroup_lag{consumergroup,topic,partition}""",
    "strimzi-alerts": """
        kafka_server_replicamanager_underminisrpartitioncount kafka_log_logmanager_offlinelogdirectorycount
        kafka_controller_kafkacontroller_activecontrollercount""",
    "kafka_exporter": """
        kafka_brokers kafka_topic_partition_leader{topic,partition} kafka_consumergroup_lag_sum{consumergroup,topic}
        kafka_consumergroup_current_offset_sum{consumergroup,topic} kafka_consumergroup_members{consumergroup}
        kafka_broker_info{id,address}""",
    "request latency": """
        kafka_network_requestmetrics_totaltimems{request,quantile} kafka_network_requestmetrics_localtimems{request,quantile}
        kafka_network_requestmetrics_remotetimems{request,quantile}
        kafka_network_requestmetrics_requestqueuetimems{request,quantile}
        kafka_network_requestmetrics_responsequeuetimems{request,quantile}
        kafka_network_requestmetrics_responsesendtimems{request,quantile}
        kafka_network_requestmetrics_requests_total{request,version} kafka_network_requestmetrics_errors_total{request,error}""",
    "transactions": """
        kafka_coordinator_transaction_transactionmarkerchannelmanager_unknowndestinationqueuesize
        kafka_coordinator_transaction_transactionmarkerchannelmanager_logappendretryqueuesize
        kafka_server_addpartitionstotxnmanager_verificationtimems{quantile}
        kafka_server_addpartitionstotxnmanager_verificationfailurerate_count
        kafka_server_transaction_coordinator_metrics_partition_load_time_avg
        kafka_server_transaction_coordinator_metrics_partition_load_time_max fleuve_transactional_ids{state}""",
    "burrow": """
        burrow_kafka_consumer_lag_total{cluster,consumer_group} burrow_kafka_consumer_status{cluster,consumer_group}
        burrow_kafka_consumer_current_offset{cluster,consumer_group,topic,partition}
        burrow_kafka_consumer_partition_lag{cluster,consumer_group,topic,partition}
        burrow_kafka_topic_partition_status{cluster,consumer_group,topic,partition}
        burrow_kafka_topic_partition_offset{cluster,topic,partition}""",
}


class Report:
    def __init__(self):
        self.passed = 0
        self.failed = 0

    def check(self, fine: bool, text: str, problem: object = "") -> None:
        self.passed += bool(fine)
        self.failed += not fine
        print(f"{'ok' if fine else 'FAILED':6} {text}" + (f": {problem}" if problem and not fine else ""), flush=True)


def get(address: str, path: str) -> str:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=20) as answer:
        return answer.read().decode()


def workload(bootstrap: str) -> None:
    """Two topics, one of which is deleted again; a group that has read half of what there is."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics([NewTopic("seen", 2, 1), NewTopic("gone", 1, 1)]).values():
        future.result(30)
    producer = Producer({"bootstrap.servers": bootstrap})
    for number in range(200):
        producer.produce("seen", str(number), partition=number % 2)
        producer.produce("gone", str(number))
    assert producer.flush(60) == 0
    payer = Producer({"bootstrap.servers": bootstrap, "transactional.id": "payer"})
    payer.init_transactions(30)
    for pays in (True, False):
        payer.begin_transaction()
        payer.produce("paid", "1")
        payer.flush(30)
        payer.commit_transaction(30) if pays else payer.abort_transaction(30)
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "half", "auto.offset.reset": "earliest", "enable.auto.commit": False})
    consumer.subscribe(["seen"])
    assert len(consumer.consume(10, 30)) == 10
    half = [TopicPartition("seen", index, 50) for index in range(2)]
    consumer.commit(offsets=half, asynchronous=False)
    consumer.close()
    for future in admin.delete_topics(["gone"]).values():
        future.result(30)


def check_syntax(page: str, report: Report) -> dict[str, str]:
    """The rules of the text format that parsers forgive and Prometheus does not; returns families with their types."""
    kinds: dict[str, str] = {}
    helped: set[str] = set()
    seen: set[str] = set()
    problems = []
    current = ""
    for line in page.splitlines():
        if line.startswith("# HELP "):
            current = line.split()[2]
            if current in helped:
                problems.append(f"{current} begins twice")
            helped.add(current)
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            kinds[name] = kind
            if name != current:
                problems.append(f"TYPE of {name} stands under {current}")
        else:
            series, value = line.rsplit(" ", 1)
            name = re.match(r"[a-zA-Z_:][a-zA-Z0-9_:]*", series).group()
            suffixes = ("", "_sum", "_count") if kinds.get(current) == "summary" else ("",)
            if name not in [current + suffix for suffix in suffixes]:
                problems.append(f"{name} stands under {current}")
            if series in seen:
                problems.append(f"{series} stands there twice")
            seen.add(series)
            float(value)
    report.check(not problems, "the page keeps the rules of the format", problems[:3])
    report.check(helped == set(kinds), "every family has a type and a text", helped ^ set(kinds))
    return kinds


def check_panels(page: str, report: Report) -> None:
    families = list(text_string_to_metric_families(page))
    report.check(sum(len(family.samples) for family in families) > 500, "prometheus_client reads the page")
    series: dict[str, list[set[str]]] = {}
    for line in page.splitlines():
        if not line.startswith("#"):
            name, _, labels = line.rsplit(" ", 1)[0].partition("{")
            series.setdefault(name, []).append(set(re.findall(r'(\w+)="', labels)))
    for dashboard, panels in PANELS.items():
        missing = []
        for panel in panels.split():
            name, _, labels = panel.rstrip("}").partition("{")
            wanted = set(labels.split(",")) if labels else set()
            if not any(wanted <= labels for labels in series.get(name, [])):
                missing.append(panel)
        report.check(not missing, f"every series of {dashboard} is there", missing)
    ours = json.loads((ROOT / "docs" / "grafana" / "fleuve.json").read_text())
    expressions = [target["expr"] for panel in ours["panels"] for target in panel.get("targets", [])]
    names = {name for expression in expressions for name in re.findall(r"\b(?:kafka|burrow|fleuve|process)_\w+", expression)}
    missing = sorted(name for name in names if name not in series)
    report.check(len(names) > 20 and not missing, "every series of our own dashboard is there", missing)


def check_documented(kinds: dict[str, str], report: Report) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", (ROOT / "docs" / "metrics.md").read_text(), re.M)
    documented = dict(rows)
    missing = sorted(f"{name} ({kind})" for name, kind in kinds.items() if documented.get(name) != kind)
    report.check(not missing, "docs/metrics.md names every family with its type", missing)
    stale = sorted(set(documented) - set(kinds))
    report.check(not stale, "docs/metrics.md names nothing else", stale)


def check_burrow(address: str, report: Report) -> None:
    clusters = json.loads(get(address, "/v3/kafka"))["clusters"]
    lag = json.loads(get(address, f"/v3/kafka/{clusters[0]}/consumer/half/lag"))["status"]
    # One commit spans no time, so a group that is gone and lags has stopped.
    fine = lag["status"] == "ERR" and lag["maxlag"]["status"] == "STOP" and lag["totallag"] == 100
    report.check(fine, "Burrow's pages judge the group", lag)


def check_promtool(page: str, report: Report) -> None:
    """Prometheus' own parser, where it is installed; its lint about names is for Kafka to answer."""
    try:
        checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        return
    report.check("error while linting" not in checked.stderr, "promtool reads the page", checked.stderr[:200])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_broker_argument(parser)
    options = parser.parse_args()
    if options.broker != "fleuve":
        parser.error("only Fleuve serves these pages: use --broker fleuve")
    report = Report()
    started = time.monotonic()
    with Workspace("observability", options.keep) as workspace:
        address = f"127.0.0.1:{free_port()}"
        broker = workspace.broker("fleuve", {"fleuve.metrics.listen": address, "group.initial.rebalance.delay.ms": "0"})
        broker.start()
        workload(broker.bootstrap)
        page = get(address, "/metrics")
        kinds = check_syntax(page, report)
        check_panels(page, report)
        check_documented(kinds, report)
        check_promtool(page, report)
        report.check('topic="gone"' not in page, "a deleted topic is gone from the page")
        counted = dict(re.findall(r"^fleuve_transactions_(\w+)_total (\d+)", page, re.M))
        report.check(counted == {"begun": "2", "committed": "1", "aborted": "1", "timed_out": "0"}, "transactions are counted", counted)
        check_burrow(address, report)
        broker.stop()
    print(f"{report.passed} passed, {report.failed} failed in {time.monotonic() - started:.0f} s")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
