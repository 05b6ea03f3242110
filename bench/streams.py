#!/usr/bin/env python3
"""`fleuve-streams` beside Kafka Streams: same topologies, same input, same broker, in turn.

    bench/streams.py [--broker fleuve|kafka|HOST:PORT] [--short|--long] [--pairs N] [--rows stateless,words,...] [--sides java,rust] [--write]

Needs `scripts/setup.sh kafka streams`, a release build of the binary, and of bench/streams. Input lies in its topic before
an application starts; each run has an application id and an output topic of its own. What counts is the CPU time of the
application's process from /proc, user and system with all its threads: it holds on a machine that is busy otherwise. What
both sides wrote is compared. --write puts the table into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]
import machine  # noqa: E402
import wire  # noqa: E402
from harness.broker import CACHE, KAFKA_LIBS, KAFKA_VERSION, ROOT, Workspace, add_broker_argument  # noqa: E402
from report import STREAMS_BEGIN, STREAMS_END, figure, ratio_text, stream_processing  # noqa: E402

PARTITIONS = 4
RUN_SECONDS_MAX = 600
HEAP = "512m"
SIDES = ("java", "rust")
MIB = 1 << 20


@dataclass(frozen=True)
class Row:
    """One comparison."""

    name: str
    title: str
    topology: str
    kind: str
    records: int
    # What goes through the counted operator for each record of the input.
    each: int = 1
    store: str = "in_memory"
    guarantee: str = "at_least_once"
    target: str = ""
    # Whether all output counts, or the last of each key: caches send as often as they see fit.
    digest: str = "last"


ROWS = [
    Row("stateless", "JSON, filter and map", "stateless", "orders", 3_000_000, target="≥ 5", digest="all"),
    Row("stateless-eos", "the same, exactly once", "stateless", "orders", 3_000_000, guarantee="exactly_once_v2", target="≥ 5", digest="all"),
    Row("count", "count by key, in memory", "count", "events", 3_000_000),
    Row("count-often", "the same, committed every 100 ms", "count", "events", 3_000_000, guarantee="at_least_once_often"),
    Row("count-eos", "the same, exactly once", "count", "events", 3_000_000, guarantee="exactly_once_v2"),
    Row("words", "word count with repartition, in memory", "words", "lines", 300_000, each=10),
    Row("windowed", "count by key and minute, in memory", "windowed", "events", 3_000_000, target="≥ 4"),
    Row("count-disk", "count by key, on disk", "count", "events", 3_000_000, store="persistent"),
    Row("words-disk", "word count with repartition, on disk", "words", "lines", 300_000, each=10, store="persistent", target="≥ 4"),
    Row("windowed-disk", "count by key and minute, on disk", "windowed", "events", 3_000_000, store="persistent", target="≥ 4"),
]
# Exactly once beside at least once of the same; with state at the same commit interval, because each commit empties the cache.
GUARANTEES = [("stateless-eos", "stateless"), ("count-eos", "count-often")]


class Failed(Exception):
    """A run went wrong."""


@dataclass
class Bench:
    """A broker, and what has been written to it."""

    options: argparse.Namespace
    broker: object
    scratch: Path
    classes: Path
    program: Path
    filled: dict[str, int] = field(default_factory=dict)
    runs: int = 0

    def command(self, side: str, arguments: list[str]) -> list[str]:
        state = self.scratch / f"state-{self.runs}"
        if side == "rust":
            return [str(self.program), "run", *arguments, str(state)]
        logging = f"-Dlog4j2.configurationFile={ROOT / 'tests' / 'harness' / 'log4j2.properties'}"
        streams = KAFKA_LIBS.parent / "streams"
        classpath = f"{self.classes}:{KAFKA_LIBS}/*:{streams}/*"
        return ["java", f"-Xmx{HEAP}", logging, "-cp", classpath, "StreamsLoad", *arguments, str(state)]

    def tool(self, *arguments: str) -> str:
        ended = subprocess.run([str(self.program), *arguments], capture_output=True, text=True, timeout=RUN_SECONDS_MAX)
        if ended.returncode:
            raise Failed(f"{' '.join(arguments)} ended with {ended.returncode}: {ended.stderr[-500:]}")
        return ended.stdout

    def topic(self, name: str, configs: dict[str, str] | None = None) -> str:
        client = wire.Client(self.broker.port)
        client.create_topic(name, PARTITIONS, configs)
        client.close()
        return name

    def input(self, kind: str, records: int) -> str:
        """The topic with input of this kind, written when it is first asked for."""
        name = f"{kind}-{records}"
        if name not in self.filled:
            self.tool("fill", kind, self.broker.bootstrap, self.topic(name), str(records))
            self.filled[name] = records
        return name

    def run(self, side: str, row: Row, share: int) -> dict:
        """One application, from its start to its end."""
        self.runs += 1
        records = row.records // share
        source = self.input(row.kind, records)
        name = f"{row.name}-{side}-{self.runs}"
        output = self.topic(f"{name}-output")
        arguments = [row.topology, self.broker.bootstrap, name, source, output, str(records * row.each), row.guarantee, row.store]
        figures = self.measured(self.command(side, arguments))
        what = json.loads(self.tool("digest", self.broker.bootstrap, output, row.digest))
        figures["digest"] = what["digest"]
        figures["outputs"] = what["records"]
        shutil.rmtree(self.scratch / f"state-{self.runs}", ignore_errors=True)
        return figures

    def measured(self, command: list[str]) -> dict:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS_MAX)
        lines = [line for line in ended.stdout.splitlines() if line.startswith("{")]
        if ended.returncode or not lines:
            raise Failed(f"{' '.join(command[:3])}... ended with {ended.returncode}: {ended.stderr[-1000:]}")
        figures = json.loads(lines[-1])
        figures["rate"] = figures["records"] / figures["cpu"]
        figures["warm_rate"] = figures["warm_records"] / max(figures["warm_cpu"], 0.01)
        figures["rss_mib"] = figures.pop("rss_kib") / 1024
        return figures

    def first_output(self, side: str, state_mib: int) -> dict[str, float]:
        """Seconds from the start of a process to its output, with so much state to restore."""
        self.runs += 1
        name = f"restore-{side}-{self.runs}"
        keys = max(state_mib * MIB // 1024, 0)
        output = self.topic(f"{name}-output")
        source = self.topic(f"{name}-input")
        changelog = self.topic(f"{name}-state-changelog", {"cleanup.policy": "compact"})
        # The records of the input have keys of the state, some of each partition.
        self.tool("fill", "state", self.broker.bootstrap, source, str(RESTORE_RECORDS))
        if keys:
            self.tool("fill", "state", self.broker.bootstrap, changelog, str(keys))
        watcher = subprocess.Popen([str(self.program), "await", self.broker.bootstrap, output, str(RESTORE_RECORDS)], stdout=subprocess.PIPE, text=True)
        arguments = ["restore", self.broker.bootstrap, name, source, output, str(RESTORE_RECORDS), "at_least_once", self.options.restore_store]
        try:
            if watcher.stdout.readline().strip() != "reading":
                raise Failed("the watcher did not start")
            began = time.monotonic()
            with open(self.scratch / "errors", "w+") as errors:
                process = subprocess.Popen(self.command(side, arguments), stdout=subprocess.PIPE, stderr=errors, text=True)
                watcher.stdout.readline()
                first = time.monotonic() - began
                if watcher.stdout.readline().strip() != "all":
                    raise Failed(f"{name}: no output")
                every = time.monotonic() - began
                out, _ = process.communicate(timeout=RUN_SECONDS_MAX)
        finally:
            watcher.kill()
            watcher.wait()
        figures = json.loads(out.strip().splitlines()[-1])
        shutil.rmtree(self.scratch / f"state-{self.runs}", ignore_errors=True)
        return {"first": first, "all": every, "cpu": figures["cpu"], "rss_mib": figures["rss_kib"] / 1024}


# Enough that every partition gets some.
RESTORE_RECORDS = 100


def say(text: str) -> None:
    print(f"streams: {text}", file=sys.stderr, flush=True)


def compare(bench: Bench) -> tuple[dict[str, list[dict[str, dict]]], list[str]]:
    """Pairs of runs by row, and what went wrong."""
    options = bench.options
    results: dict[str, list[dict[str, dict]]] = {}
    notes: list[str] = []
    share = 10 if options.short else 1
    jobs = [(row.name, lambda side, row=row: bench.run(side, row, share)) for row in ROWS if row.name in options.rows]
    if "start" in options.rows:
        jobs.append(("start", lambda side: bench.first_output(side, 0)))
    if "restore" in options.rows:
        jobs.append(("restore", lambda side: bench.first_output(side, options.state_mib)))
    for number in range(options.pairs):
        for name, job in jobs:
            pair: dict[str, dict] = {}
            for side in options.sides if number % 2 == 0 else options.sides[::-1]:
                try:
                    pair[side] = job(side)
                    say(f"pair {number + 1}, {name}, {side}: " + ", ".join(f"{key} {value:.2f}" if isinstance(value, float) else f"{key} {value}" for key, value in pair[side].items()))
                except (Failed, subprocess.TimeoutExpired) as error:
                    notes.append(f"{name}, {side}: {str(error)[:600]}")
                    say(notes[-1])
            if len({figures["digest"] for figures in pair.values() if "digest" in figures}) > 1:
                notes.append(f"{name}: outputs differ: {pair}")
                say(notes[-1])
            results.setdefault(name, []).append(pair)
    return results, notes


def line(title: str, pairs: list[dict[str, dict]], key: str, digits: int, invert: bool, target: str) -> str | None:
    """One row of the table; the ratio says how many times better ours is."""
    both = [(pair["java"][key], pair["rust"][key]) for pair in pairs if all(side in pair for side in SIDES)]
    if not both:
        return None
    ratios = [java / rust if invert else rust / java for java, rust in both]
    cells = [
        title,
        figure(median(java for java, _ in both), digits),
        figure(median(rust for _, rust in both), digits),
        f"**{ratio_text(median(ratios))}**",
        f"{ratio_text(min(ratios))} – {ratio_text(max(ratios))}",
        str(len(both)),
        target,
    ]
    return "| " + " | ".join(cells) + " |"


def guarantee_cost(results: dict, guaranteed: str, plain: str, side: str) -> float | None:
    """CPU per record of exactly once : at least once, of the same pair."""
    ratios = [
        plainly[side]["warm_rate"] / exactly[side]["warm_rate"]
        for exactly, plainly in zip(results.get(guaranteed, []), results.get(plain, []))
        if side in exactly and side in plainly
    ]
    return median(ratios) - 1 if ratios else None


def markdown(options: argparse.Namespace, results: dict, notes: list[str], scratch: Path) -> list[str]:
    lines = [
        STREAMS_BEGIN,
        "## Stream processing",
        "",
        f"`fleuve-streams` beside Kafka Streams {KAFKA_VERSION} (heap of at most {HEAP}), in turn by `make bench-streams`, {datetime.now(timezone.utc):%Y-%m-%d};",
        f"broker: {options.broker}. Records per second of processor time of the application's process, the second and last third of the",
        "run, so that a JVM is warm. A ratio says how many times better ours is.",
        "",
        *(f"- {what}" for what in machine.describe(scratch)),
        "",
        "| records / CPU-s | Kafka Streams | Fleuve | better by | spread | pairs | target |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    titles = {row.name: row for row in ROWS}
    for name, row in titles.items():
        lines.append(line(row.title, results.get(name, []), "warm_rate", 0, False, row.target))
    lines += ["", "| | Kafka Streams | Fleuve | better by | spread | pairs | target |", "|---|---:|---:|---:|---:|---:|---|"]
    for name, row in titles.items():
        lines.append(line(f"{row.title}: records / CPU-s, start included", results.get(name, []), "rate", 0, False, ""))
        lines.append(line(f"{row.title}: peak MiB", results.get(name, []), "rss_mib", 0, True, "≥ 5"))
    lines.append(line("start to first output, s", results.get("start", []), "first", 2, True, "< 1 s"))
    restored = f"start to output of all partitions with {options.state_mib} MiB to restore"
    lines.append(line(f"{restored}, s", results.get("restore", []), "all", 2, True, "≥ 3"))
    lines.append(line(f"{restored}, CPU-s", results.get("restore", []), "cpu", 2, True, ""))
    lines.append(line(f"{restored}, peak MiB", results.get("restore", []), "rss_mib", 0, True, "≥ 5"))
    lines.append("")
    for guaranteed, plain in GUARANTEES:
        costs = [guarantee_cost(results, guaranteed, plain, side) for side in SIDES]
        if None not in costs:
            lines.append(f"Exactly once, {titles[plain].title}: {costs[0]:+.0%} CPU with Kafka Streams, {costs[1]:+.0%} with Fleuve (target: at most 15 %).")
    lines += [
        "",
        f"Input lies in a topic of {PARTITIONS} partitions: orders of 170 B as JSON (Jackson, serde), events of {'50,000'} keys, lines of ten words. One stream",
        "thread, all settings as they come, state logged to changelogs, caches on. A run ends when all input went through and was",
        "committed. What was written is compared: all of it, or the last value of each key.",
        *(f"- {note}" for note in notes),
        STREAMS_END,
    ]
    return [text for text in lines if text is not None]


def write(lines: list[str]) -> None:
    """Replaces the block in the page, or adds it before the method."""
    page = ROOT / "docs" / "benchmarks.md"
    text = page.read_text()
    block = "\n".join(lines)
    old = stream_processing(text)
    if old:
        text = text.replace(old, block)
    else:
        text = text.replace("\n## How\n", f"\n{block}\n\n## How\n", 1)
    page.write_text(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_broker_argument(parser)
    known = [row.name for row in ROWS] + ["start", "restore"]
    split = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("--short", action="store_true", help="a tenth of the records: shows that it works, not how fast")
    parser.add_argument("--long", action="store_true", help="1 GiB of state to restore")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--rows", type=split, default=known)
    parser.add_argument("--sides", type=split, default=list(SIDES))
    parser.add_argument("--restore-store", default="persistent", help="persistent or in_memory: where the restored state is kept")
    parser.add_argument("--program", type=Path, default=Path(os.environ.get("CARGO_TARGET_DIR", HERE / "streams" / "target")) / "release" / "streams-load")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    options = parser.parse_args()
    for row in options.rows:
        if row not in known:
            parser.error(f"unknown row {row}: known are {', '.join(known)}")
    if not options.program.exists():
        parser.error(f"{options.program} is missing: cargo build --release --manifest-path bench/streams/Cargo.toml")
    options.state_mib = 1024 if options.long else 10 if options.short else 100
    with Workspace("streams", options.keep) as workspace:
        classes = workspace.path / "classes"
        if "java" in options.sides:
            jars = f"{KAFKA_LIBS}/*:{KAFKA_LIBS.parent / 'streams'}/*"
            subprocess.run(["javac", "-cp", jars, "-d", str(classes), str(HERE / "StreamsLoad.java")], check=True)
        # What is measured is the application; the broker need neither flush nor clean for it.
        settings = {"group.initial.rebalance.delay.ms": "0", "log.initial.task.delay.ms": "86400000"}
        if options.broker == "fleuve":
            settings["fleuve.flush.before.ack"] = "false"
        broker = workspace.broker(options.broker, settings).start()
        bench = Bench(options, broker, workspace.path, classes, options.program)
        results, notes = compare(bench)
        broker.stop()
        lines = markdown(options, results, notes, workspace.path)
    home = CACHE / "bench"
    home.mkdir(parents=True, exist_ok=True)
    (home / f"streams-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}.json").write_text(json.dumps({"results": results, "notes": notes}, indent=1))
    print("\n".join(lines))
    if options.write:
        write(lines)
    return 1 if notes else 0


if __name__ == "__main__":
    sys.exit(main())
