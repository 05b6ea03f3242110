#!/usr/bin/env python3
"""Fleuve beside Apache Kafka on this machine: same generators, same flush settings, in turn.

    bench/run.py [--short|--quick] [--pairs N] [--modes page-cache,flush] [--partitions N] [--write]
                 [--rows start,memory,produce,consume,saturate,latency,transactions,groups,compaction,tls,restart,restart10k]

Needs `scripts/setup.sh bench` and a release build. Prints a Markdown table of ratios; --write also puts it into
docs/benchmarks.md. The raw figures stay in .cache/bench/. Nothing else should run meanwhile: the report says what did.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]
import encrypted  # noqa: E402
import machine  # noqa: E402
import measure  # noqa: E402
import report  # noqa: E402
from harness.broker import CACHE, KAFKA_VERSION, ROOT, Broker, BrokerFailed, Workspace  # noqa: E402

SIDES = ("kafka", "fleuve")
MODES = {
    "page-cache": (
        "Acknowledged from the page cache: Kafka as it comes, Fleuve with `fleuve.flush.before.ack=false`",
        {"kafka": {}, "fleuve": {"fleuve.flush.before.ack": "false"}},
    ),
    "flush": (
        "Flushed before acknowledged: Kafka with `log.flush.interval.messages=1`, Fleuve as it comes",
        {"kafka": {"log.flush.interval.messages": "1"}, "fleuve": {}},
    ),
}
ROW_GROUPS = ("start", "memory", "produce", "consume", "saturate", "latency", "transactions", "groups", "compaction", "tls", "restart", "restart10k")
NOISE_SHARE_MAX = 0.10
# Files of deleted topics give their pages to the next load.
COMMON = {"group.initial.rebalance.delay.ms": "0", "log.segment.delete.delay.ms": "100"}
PAGES_TOUCHED_BYTES = 6 << 30


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Run:
    """One whole comparison."""

    def __init__(self, options: argparse.Namespace, plan: measure.Plan):
        self.options = options
        self.plan = plan
        self.rows = set(options.rows.split(","))
        self.noise: list[float] = []
        self.notes: list[str] = []
        # Set by Kafka's first visit in a mode, then used for both sides.
        self.latency_rates: dict[str, int] = {}

    def broker(self, workspace: Workspace, side: str, mode: str) -> Broker:
        broker = workspace.broker(side, {**COMMON, **MODES[mode][1][side]})
        if self.plan.split_cores:
            broker.command_prefix = ["taskset", "-c", "0"]
        return broker

    def visit(self, side: str, mode: str) -> dict[str, float]:
        """One broker from its start to its end, through all the loads asked for."""
        values: dict[str, float] = {}
        with Workspace(f"bench-{side}") as workspace:
            machine.touch_page_cache(workspace.path, PAGES_TOUCHED_BYTES)
            broker = self.broker(workspace, side, mode)
            self.take(values, measure.measure_start(broker, self.plan))
            if self.rows & {"memory", "produce", "consume", "saturate", "latency", "transactions", "groups"}:
                measure.warm_up(broker, self.plan)
                if self.rows & {"produce", "consume"}:
                    self.take(values, measure.measure_throughput(broker, self.plan, self.rows))
                if "saturate" in self.rows:
                    self.take(values, measure.measure_saturation(broker, self.plan))
                    if side == "kafka":
                        values |= {f"floor{label}_cpu": values[f"saturated_produce{label}_cpu"] for label in measure.SATURATION_LABELS.values()}
                if "latency" in self.rows:
                    if mode not in self.latency_rates:
                        self.latency_rates[mode] = max(measure.peak_rate(broker, self.plan) // 2, 1)
                        say(f"latency in mode {mode} is measured at {self.latency_rates[mode]:,} records/s")
                    self.take(values, measure.measure_latency(broker, self.plan, self.latency_rates[mode]))
                values["rss_peak_mib"] = measure.peak_memory(broker)
                if "transactions" in self.rows:
                    self.take(values, measure.measure_transactions(broker, self.plan))
                if "groups" in self.rows:
                    self.take(values, measure.measure_groups(broker, self.plan))
            broker.stop()
            if "saturate" in self.rows and side == "fleuve":
                self.take(values, measure.measure_floor(workspace.path, mode))
        if "start" not in self.rows:
            values.pop("start_ms", None)
        if "memory" not in self.rows:
            values.pop("rss_idle_mib", None), values.pop("rss_peak_mib", None)
        return values

    def restart(self, side: str, label: str) -> dict[str, float]:
        values: dict[str, float] = {}
        partitions, each = self.plan.many_partitions, 100
        if label == "restart10k":
            partitions, each = self.plan.very_many_partitions, 10
        with Workspace(f"bench-{side}") as workspace:
            broker = self.broker(workspace, side, "page-cache")
            self.take(values, measure.measure_restart(broker, partitions, label, each))
        return values

    def compaction(self, side: str) -> dict[str, float]:
        values: dict[str, float] = {}
        with Workspace(f"bench-{side}") as workspace:
            broker = self.broker(workspace, side, "page-cache")
            broker.settings.update(measure.COMPACTION_SETTINGS)
            self.take(values, measure.measure_compaction(broker, self.plan))
        return values

    def encrypted(self, side: str) -> dict[str, float]:
        values: dict[str, float] = {}
        with Workspace(f"bench-{side}") as workspace:
            broker = self.broker(workspace, side, "page-cache")
            broker.settings.update(encrypted.make_certificate(workspace.path))
            self.take(values, measure.measure_encrypted(broker, self.plan))
        return values

    def take(self, values: dict[str, float], figures: measure.Figures) -> None:
        values.update(figures.values)
        self.notes += figures.notes
        if figures.foreign_share:
            self.noise.append(figures.foreign_share)

    def pairs(self, label: str, job, count: int = 0) -> list[dict[str, dict[str, float]]]:
        """Kafka, Fleuve, Kafka, Fleuve, ...: neighbours in time are compared with each other."""
        pairs = []
        count = count or self.options.pairs
        for number in range(count):
            pair: dict[str, dict[str, float]] = {}
            for side in SIDES:
                began = time.monotonic()
                try:
                    pair[side] = job(side)
                except (BrokerFailed, measure.GeneratorFailed, measure.Failed, TimeoutError, OSError, subprocess.TimeoutExpired) as error:
                    self.notes.append(f"{label}, pair {number + 1}, {side}: {str(error)[:300]}")
                    say(self.notes[-1])
                say(f"{label}, pair {number + 1} of {count}, {side}: {time.monotonic() - began:.0f} s")
            pairs.append(pair)
        return pairs

    def all(self) -> dict[str, list]:
        results = {}
        if self.rows - {"compaction", "tls", "restart", "restart10k"}:
            for mode in self.options.modes.split(","):
                results[mode] = self.pairs(mode, lambda side, mode=mode: self.visit(side, mode))
        if "compaction" in self.rows:
            results["compaction"] = self.pairs("compaction", self.compaction)
        if "tls" in self.rows:
            results["tls"] = self.pairs("tls", self.encrypted)
        for label in ("restart", "restart10k"):
            if label in self.rows:
                # Kafka takes minutes for each restart with very many partitions.
                count = 1 if self.options.short and label == "restart10k" else 0
                results[label] = self.pairs(label, lambda side, label=label: self.restart(side, label), count)
        return results


def markdown(run: Run, results: dict[str, list], scratch: Path) -> str:
    plan, options = run.plan, run.options
    lines = [
        "# Benchmarks",
        "",
        f"Fleuve beside Apache Kafka {KAFKA_VERSION} (one KRaft node, heap fixed at 1 GiB), taken in turn on the same machine by",
        "`make bench`. A ratio is Fleuve : Kafka within one pair of neighbouring runs; shown are its median and its smallest and",
        "largest value. ↑ higher is better, ↓ lower is better. Targets are what we ask of ourselves.",
        "",
        f"Taken {datetime.now(timezone.utc):%Y-%m-%d}" + (" with --quick: too short to rely on." if options.quick else "."),
        *(f"- {line}" for line in machine.describe(scratch)),
        f"- {report.quiet_enough(run.noise, NOISE_SHARE_MAX)}",
        "- Spinners at idle priority kept the cores awake." if options.spinners else "- No spinners: idle cores slept as they do.",
        "- Broker on core 0, generators on core 1." if plan.split_cores else "- Broker and generators shared all cores.",
    ]
    for mode in [mode for mode in MODES if mode in results]:
        lines += ["", f"## {MODES[mode][0]}", ""]
        if mode in run.latency_rates:
            lines += [
                f"Latency at {run.latency_rates[mode]:,} records/s of 1 KiB for both: half of what Kafka passed end to end at most.",
                "",
            ]
        lines += report.table(results[mode])
    if "compaction" in results:
        lines += ["", f"## Compaction of {plan.compaction_bytes >> 20:,} MiB", "", "From the change of the topic's policy until the checkpoint says that all is compacted, page-cache mode.", ""]
        lines += report.table(results["compaction"])
    if "tls" in results:
        lines += ["", "## Over TLS", "", "TLS 1.3 on both sides, page-cache mode, generators of `bench/encrypted.py` (librdkafka and OpenSSL inside Python).", ""]
        lines += report.table(results["tls"])
    if "restart" in results:
        lines += ["", f"## Restart with {plan.many_partitions:,} partitions", "", "From process start until one record was read and two were acknowledged, page-cache mode.", ""]
        lines += report.table(results["restart"])
    if "restart10k" in results:
        lines += ["", f"## Restart with {plan.very_many_partitions:,} partitions", "", "The same with ten records in each.", ""]
        lines += report.table(results["restart10k"])
    lines += [
        "",
        "## How",
        "",
        f"- Generators: `rdkafka_performance` of librdkafka 2.12.1 (throughput, acks=all, {measure.PARTITIONS} partitions, its defaults, no",
        "  compression; counted between the first deliveries and 97 % of them, which leaves out librdkafka's own timers),",
        "  `bench/latency.c` on the same library (acks=all, linger 1 ms, latency from the intended send time),",
        "  `bench/wire.py` (first acknowledgement; it tries every millisecond).",
        f"- Transactions: {measure.transactions.PRODUCERS} producers, each AddPartitionsToTxn, Produce and EndTxn by turns, with 20 ms before it tries again. Groups: {measure.groups.MEMBERS} members that",
        f"  send heartbeats every {measure.groups.HEARTBEAT_SECONDS * 1000:.0f} ms, and do at once what they are told, share {measure.groups.PARTITIONS} partitions. Both over raw",
        "  sockets in one thread (`bench/dialogue.py`), so that no client library sets the pace.",
        "- Saturation: `bench/saturate.py` sends the same encoded batch of 512 KiB again and again, without the pacing of the machine's",
        "  congestion control, whose timers would be charged to whichever process they interrupt. In the rows of `bench/floor.c`",
        "  Fleuve's column has what that program takes for the same load: it receives requests, writes them to a file (and flushes",
        "  what came during its last flush), and looks at none. That is what the kernel costs.",
        f"- Every run had a new data directory and {plan.warmup_seconds} s of warm-up load before its figures; produce and consume ran about",
        f"  {plan.load_seconds} s each; at most {measure.LOAD_BYTES_MAX >> 30} GiB were produced, and consumed again until the time was over. The page cache had been filled before, so that",
        f"  neither side pays for the host giving memory to this machine; latency {plan.latency_seconds} s. Kafka's storage was formatted before its clock started.",
        "- CPU is user and system time of the broker process from /proc; idle memory is taken",
        f"  {measure.IDLE_SECONDS} s after the first record, peak memory (VmHWM) after all loads.",
    ]
    if run.notes:
        lines += ["", "## Remarks", "", *(f"- {note}" for note in run.notes)]
    return "\n".join(lines) + "\n"


def spinners() -> list[subprocess.Popen]:
    """One busy loop a core at idle priority: virtual cores that never sleep wake at once."""
    loop = ["sh", "-c", "while :; do :; done"]
    return [subprocess.Popen(["chrt", "--idle", "0", "taskset", "-c", str(core), *loop]) for core in range(os.cpu_count() or 1)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--rows", default=",".join(ROW_GROUPS))
    parser.add_argument("--short", action="store_true", help="shorter warm-up and loads: all pairs in a third of the hour that they take otherwise")
    parser.add_argument("--quick", action="store_true", help="one pair of short runs: shows that it works, not how fast")
    parser.add_argument("--split", action="store_true", help="broker on core 0, generators on core 1")
    parser.add_argument("--spinners", action="store_true", help="keep idle cores awake: virtual ones wake slowly")
    parser.add_argument("--partitions", type=int, help="in place of the 10,000 of restart10k, to see that it works")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    options = parser.parse_args()
    for given, known in ((options.rows, ROW_GROUPS), (options.modes, MODES)):
        for name in given.split(","):
            if name not in known:
                parser.error(f"unknown '{name}': known are {', '.join(known)}")
    plan = measure.Plan(split_cores=options.split)
    if options.short:
        plan = measure.Plan(warmup_seconds=10, load_seconds=3, latency_seconds=6, latency_warmup_seconds=2, transaction_warmup_seconds=5, group_joins=3, split_cores=options.split)
    if options.quick:
        options.pairs = 1
        plan = measure.Plan(warmup_seconds=3, load_seconds=2, latency_seconds=3, latency_warmup_seconds=1, transaction_warmup_seconds=1, group_joins=1, split_cores=options.split, compaction_bytes=32 << 20)
    if options.partitions:
        plan.very_many_partitions = options.partitions
    for needed in (measure.PERFORMANCE, measure.LATENCY):
        if not Path(needed).exists():
            parser.error(f"{needed} is missing: run scripts/setup.sh bench first")
    awake = spinners() if options.spinners else []
    run = Run(options, plan)
    try:
        results = run.all()
    finally:
        for process in awake:
            process.kill()
    home = CACHE / "bench"
    home.mkdir(parents=True, exist_ok=True)
    raw = home / f"{datetime.now(timezone.utc):%Y%m%d-%H%M%S}.json"
    raw.write_text(json.dumps({"plan": asdict(plan), "results": results, "noise": run.noise, "notes": run.notes}, indent=1))
    text = markdown(run, results, home)
    print(text)
    if options.write:
        (ROOT / "docs").mkdir(exist_ok=True)
        page = ROOT / "docs" / "benchmarks.md"
        # What bench/streams.py wrote stays.
        block = report.stream_processing(page.read_text()) if page.exists() else None
        if block:
            text = text.replace("\n## How\n", f"\n{block}\n\n## How\n", 1)
        page.write_text(text)
    complete = all(set(pair) == set(SIDES) for pairs in results.values() for pair in pairs)
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
