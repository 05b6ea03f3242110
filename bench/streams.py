#!/usr/bin/env python3
"""`fleuve-streams` beside Kafka Streams: same topologies, same input, same broker, in turn.

    bench/streams.py [--broker fleuve|kafka|HOST:PORT] [--quick] [--pairs N] [--rows stateless,words,...] [--sides java,rust] [--write]

Needs `scripts/setup.sh kafka streams`, a release build of the binary, and of bench/streams. Input lies in its topic before
an application starts; each run has an application id and an output topic of its own. What counts is the CPU time of the
application's process from /proc, user and system with all its threads: it holds on a machine that is busy otherwise. What
both sides wrote is compared. Rows of one side only run without the other: ours in one process with its broker, and what
exactly once costs on disk. --write puts the table into docs/benchmarks.md. --quick shows in about two minutes that every
row works, and not how fast.
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
from harness.broker import CACHE, KAFKA_LIBS, KAFKA_VERSION, ROOT, Workspace, add_broker_argument, fleuve  # noqa: E402
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
    sides: tuple[str, ...] = SIDES


EOS, OFTEN, DISK, OURS = "exactly_once_v2", "at_least_once_often", "persistent", ("rust",)
ROWS = [
    Row("stateless", "JSON, filter and map", "stateless", "orders", 2_000_000, target="≥ 5", digest="all"),
    Row("stateless-eos", "the same, exactly once", "stateless", "orders", 2_000_000, guarantee=EOS, digest="all"),
    Row("count", "count by key, in memory", "count", "events", 2_000_000),
    Row("count-often", "the same, committed every 100 ms", "count", "events", 2_000_000, guarantee=OFTEN),
    Row("count-eos", "the same, exactly once", "count", "events", 2_000_000, guarantee=EOS),
    Row("words", "word count with repartition, in memory", "words", "lines", 150_000, each=10),
    Row("windowed", "count by key and minute, in memory", "windowed", "events", 1_000_000, target="≥ 4"),
    Row("join", "join of two streams, five minutes either way, in memory", "join", "pairs", 60_000, digest="all"),
    Row("count-disk", "count by key, on disk", "count", "events", 2_000_000, store=DISK),
    Row("wide-disk", "count by key, a million keys, on disk", "count", "wide", 1_000_000, store=DISK),
    Row("words-disk", "word count with repartition, on disk", "words", "lines", 150_000, each=10, store=DISK, target="≥ 4"),
    Row("windowed-disk", "count by key and minute, on disk", "windowed", "events", 1_000_000, store=DISK, target="≥ 4"),
    Row("join-disk", "join of two streams, five minutes either way, on disk", "join", "pairs", 600_000, store=DISK, digest="all"),
    Row("count-disk-often", "count by key, on disk, committed every 100 ms", "count", "events", 2_000_000, guarantee=OFTEN, store=DISK, sides=OURS),
    Row("count-disk-eos", "the same, exactly once", "count", "events", 2_000_000, guarantee=EOS, store=DISK, sides=OURS),
]
# Exactly once beside at least once of the same: at the same commit interval what the guarantee costs, and with the usual
# intervals of both (100 ms and 30 s) what it costs that caches are emptied ten times a second.
GUARANTEES = [
    ("stateless-eos", "stateless", "without state"),
    ("count-eos", "count-often", "state in memory, the same commit interval"),
    ("count-disk-eos", "count-disk-often", "state on disk, the same commit interval"),
    ("count-eos", "count", "state in memory, each with its own commit interval"),
    ("count-disk-eos", "count-disk", "state on disk, each with its own commit interval"),
]
# With the broker in the same process: records a second of processor time of both, and what is asked of that.
EMBEDDED = [
    ("embedded-stateless", "stateless", "≥ 1,000,000"),
    ("embedded-count", "count", "≥ 500,000"),
    ("embedded-count-disk", "count-disk", "≥ 300,000"),
    ("embedded-words-disk", "words-disk", ""),
]
# Bytes to restore, and the JVM's heap where they are to fit into it.
RESTORES = {"restore-disk": ("persistent", "on disk", None), "restore-memory": ("in_memory", "in memory", "4g")}


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

    def state(self) -> Path:
        """Where the current run keeps its state."""
        return self.scratch / f"state-{self.runs}"

    def command(self, side: str, arguments: list[str], heap: str | None = None) -> list[str]:
        state = self.state()
        if side == "rust":
            return [str(self.program), "run", *arguments, str(state)]
        logging = f"-Dlog4j2.configurationFile={ROOT / 'tests' / 'harness' / 'log4j2.properties'}"
        streams = KAFKA_LIBS.parent / "streams"
        classpath = f"{self.classes}:{KAFKA_LIBS}/*:{streams}/*"
        return ["java", f"-Xmx{heap or HEAP}", logging, "-cp", classpath, "StreamsLoad", *arguments, str(state)]

    def tool(self, *arguments: str) -> str:
        ended = subprocess.run([str(self.program), *arguments], capture_output=True, text=True, timeout=RUN_SECONDS_MAX)
        if ended.returncode:
            raise Failed(f"{' '.join(arguments)} ended with {ended.returncode}: {ended.stderr[-500:]}")
        return ended.stdout

    def topic(self, name: str, configs: dict[str, str] | None = None) -> str:
        settings = [part for key, value in (configs or {}).items() for part in ("--config", f"{key}={value}")]
        fleuve("topic", "create", name, "--partitions", str(PARTITIONS), *settings, "--bootstrap-server", self.broker.bootstrap)
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
        shutil.rmtree(self.state(), ignore_errors=True)
        return figures

    def embedded(self, row: Row, share: int) -> dict:
        """The application and its broker in one process, from the moment when the input is there."""
        self.runs += 1
        records = row.records // share
        arguments = [row.topology, f"embedded-{row.name}", row.kind, str(records), str(records * row.each), row.guarantee, row.store]
        figures = self.measured([str(self.program), "embedded", *arguments, str(self.state())])
        shutil.rmtree(self.state(), ignore_errors=True)
        return figures

    def measured(self, command: list[str]) -> dict:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS_MAX)
        lines = [line for line in ended.stdout.splitlines() if line.startswith("{")]
        if ended.returncode or not lines:
            raise Failed(f"{' '.join(command[:3])}... ended with {ended.returncode}: {ended.stderr[-1000:]}")
        figures = json.loads(lines[-1])
        figures["rate"] = figures["records"] / max(figures["cpu"], 0.01)
        figures["warm_rate"] = figures["warm_records"] / max(figures["warm_cpu"], 0.01)
        figures["rss_mib"] = figures.pop("rss_kib") / 1024
        return figures

    def first_output(self, side: str, state_mib: int, store: str = "persistent", heap: str | None = None) -> dict[str, float]:
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
        arguments = ["restore", self.broker.bootstrap, name, source, output, str(RESTORE_RECORDS), "at_least_once", store]
        try:
            if watcher.stdout.readline().strip() != "reading":
                raise Failed("the watcher did not start")
            began = time.monotonic()
            with open(self.scratch / "errors", "w+") as errors:
                process = subprocess.Popen(self.command(side, arguments, heap), stdout=subprocess.PIPE, stderr=errors, text=True)
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
        shutil.rmtree(self.state(), ignore_errors=True)
        return {"first": first, "all": every, "cpu": figures["cpu"], "rss_mib": figures["rss_kib"] / 1024}


# Enough that every partition gets some.
RESTORE_RECORDS = 100
# A quick run has so many times fewer records.
QUICK = 50


def say(text: str) -> None:
    print(f"streams: {text}", file=sys.stderr, flush=True)


def compare(bench: Bench) -> tuple[dict[str, list[dict[str, dict]]], list[str]]:
    """Pairs of runs by row, and what went wrong."""
    options = bench.options
    results: dict[str, list[dict[str, dict]]] = {}
    notes: list[str] = []
    share = QUICK if options.quick else 1
    titles = {row.name: row for row in ROWS}
    jobs = [(row.name, row.sides, lambda side, row=row: bench.run(side, row, share)) for row in ROWS]
    jobs += [(name, OURS, lambda _, row=titles[of]: bench.embedded(row, share)) for name, of, _ in EMBEDDED]
    jobs.append(("start", SIDES, lambda side: bench.first_output(side, 0)))
    for name, (store, _, heap) in RESTORES.items():
        jobs.append((name, SIDES, lambda side, store=store, heap=heap: bench.first_output(side, options.state_mib, store, heap)))
    jobs = [job for job in jobs if job[0] in options.rows]
    for number in range(options.pairs):
        for name, sides, job in jobs:
            pair: dict[str, dict] = {}
            sides = [side for side in options.sides if side in sides]
            for side in sides if number % 2 == 0 else sides[::-1]:
                began = time.monotonic()
                try:
                    pair[side] = job(side)
                    pair[side]["wall"] = time.monotonic() - began
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
    columns = {side: [pair[side][key] for pair in pairs if side in pair] for side in SIDES}
    if not columns["rust"]:
        return None
    ratios = [pair["java"][key] / pair["rust"][key] for pair in pairs if all(side in pair for side in SIDES)]
    ratios = ratios if invert else [1 / ratio for ratio in ratios]
    cells = [
        title,
        *(figure(median(columns[side]), digits) if columns[side] else "" for side in SIDES),
        f"**{ratio_text(median(ratios))}**" if ratios else "",
        f"{ratio_text(min(ratios))} – {ratio_text(max(ratios))}" if len(ratios) > 1 else "",
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
        "| records / CPU-s | Kafka Streams | Fleuve | better by | spread | target |",
        "|---|---:|---:|---:|---:|---|",
    ]
    titles = {row.name: row for row in ROWS}
    for name, row in titles.items():
        lines.append(line(row.title, results.get(name, []), "warm_rate", 0, False, row.target))
    of = {"stateless": "stateless", "count": "counted in memory", "count-disk": "counted on disk", "words-disk": "words counted on disk, with repartition"}
    for name, row, target in EMBEDDED:
        lines.append(line(f"the broker in the same process, both counted: {of[row]}", results.get(name, []), "rate", 0, False, target))
    lines += ["", "| | Kafka Streams | Fleuve | better by | spread | target |", "|---|---:|---:|---:|---:|---|"]
    for name, row in titles.items():
        if row.sides == SIDES:
            lines.append(line(f"{row.title}: records / CPU-s, start included", results.get(name, []), "rate", 0, False, ""))
            lines.append(line(f"{row.title}: peak MiB", results.get(name, []), "rss_mib", 0, True, "≥ 5"))
    lines.append(line("start to first output, s", results.get("start", []), "first", 2, True, "< 1 s"))
    for name, (_, where, heap) in RESTORES.items():
        restored = f"start to output of all partitions with {options.state_mib} MiB to restore {where}"
        lines.append(line(f"{restored}, s", results.get(name, []), "all", 2, True, "≥ 3"))
        lines.append(line(f"{restored}, CPU-s", results.get(name, []), "cpu", 2, True, ""))
        lines.append(line(f"{restored}, peak MiB" + (f" (heap of {heap})" if heap else ""), results.get(name, []), "rss_mib", 0, True, "" if heap else "≥ 5"))
    lines.append("")
    costs = [(what, [guarantee_cost(results, guaranteed, plain, side) for side in SIDES]) for guaranteed, plain, what in GUARANTEES]
    costs = [(what, each) for what, each in costs if each[1] is not None]
    if costs:
        lines += ["| what exactly once costs, CPU per record | Kafka Streams | Fleuve | target |", "|---|---:|---:|---|"]
    for what, each in costs:
        lines.append(f"| {what} | " + " | ".join("" if cost is None else f"{cost:+.0%}" for cost in each) + " | ≤ 15 % |")
    lines += [
        "",
        f"Input lies in a topic of {PARTITIONS} partitions: orders of 170 B as JSON (Jackson, serde), events of 50,000 keys, lines of ten words of 65,536.",
        "One stream thread, all settings as they come, state logged to changelogs, caches of 10 MiB on. A run ends when all input went",
        "through and was committed. Joined events are of 100 B, one each millisecond, and all of them are kept. What",
        "was written is compared: all of it, or the last value of each key. State to restore is of",
        "1 KiB values; the clock runs from the start of the process until every partition has answered. Beside its own commit",
        "interval exactly once sends on and logs each changed key ten times a second in place of once in 30 s: of 50,000 keys at full",
        "speed nearly every record is one of those.",
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
    known = [row.name for row in ROWS] + [name for name, *_ in EMBEDDED] + ["start", *RESTORES]
    split = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("--quick", action="store_true", help="few records: shows that it works, not how fast")
    parser.add_argument("--state-mib", type=int, help="state to restore; 1 GiB unless set")
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--rows", type=split, default=known)
    parser.add_argument("--sides", type=split, default=list(SIDES))
    parser.add_argument("--program", type=Path, default=Path(os.environ.get("CARGO_TARGET_DIR", HERE / "streams" / "target")) / "release" / "streams-load")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    options = parser.parse_args()
    for row in options.rows:
        if row not in known:
            parser.error(f"unknown row {row}: known are {', '.join(known)}")
    if not options.program.exists():
        parser.error(f"{options.program} is missing: cargo build --release --manifest-path bench/streams/Cargo.toml")
    options.state_mib = options.state_mib or (8 if options.quick else 1024)
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
