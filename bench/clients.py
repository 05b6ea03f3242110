#!/usr/bin/env python3
"""The native client beside librdkafka, the Java client and krafka: same load, same broker, in turn.

    bench/clients.py [--broker fleuve|kafka|HOST:PORT] [--short] [--rounds N] [--clients native,librdkafka,java,krafka] [--batch-bytes N]

What counts is the CPU time of the client's process (user and system, from its start to its end) and its largest resident
memory: both hold on a machine that is busy otherwise, which throughput does not. Needs `scripts/setup.sh bench`, and
`cargo build --release` of the binary, of fleuve-client's example `load`, and of bench/krafka for krafka.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]
from harness.broker import CACHE, KAFKA_LIBS, ROOT, Workspace, add_broker_argument, fleuve  # noqa: E402

PARTITIONS = 4
RUN_SECONDS_MAX = 300
SIZES = {100: 5_000_000, 1024: 1_000_000}
LATENCY_RATE, LATENCY_SECONDS, LATENCY_WARMUP_SECONDS, LATENCY_BYTES = 2000, 10, 3, 1024


def command(client: str, classes: Path) -> list[str]:
    return {
        "native": [str(Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "examples" / "load")],
        "librdkafka": [str(CACHE / "bin" / "load")],
        "java": ["java", "-Xmx256m", "-cp", f"{classes}:{KAFKA_LIBS}/*", "Load"],
        "krafka": [str(ROOT / "bench" / "krafka" / "target" / "release" / "load")],
    }[client]


class Failed(Exception):
    """A client's load went wrong."""


def measured(arguments: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Runs one load and returns what it says of itself beside what the system says about it."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(arguments, stdout=output, stderr=errors, env={**os.environ, **environment})
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        lines = output.read().decode(errors="replace").strip().splitlines()
        if process.returncode or not lines:
            raise Failed(f"{' '.join(arguments[:3])} ended with {process.returncode}: {errors.read().decode(errors='replace')[-500:]}")
    figures = json.loads(lines[-1])
    figures["cpu"] = usage.ru_utime + usage.ru_stime
    figures["rss_mib"] = figures.pop("rss_kib", 0) / 1024
    return figures


def compare(options: argparse.Namespace, bootstrap: str, classes: Path) -> dict[tuple[str, str], dict[str, list[dict[str, float]]]]:
    """One list of figures by load and client, a figure a round."""
    results: dict[tuple[str, str], dict[str, list[dict[str, float]]]] = {}
    environment = {"BATCH_BYTES": str(options.batch_bytes)} if options.batch_bytes else {}
    share = 10 if options.short else 1

    def take(load: tuple[str, str], client: str, arguments: list[str]) -> None:
        figures = measured(arguments, environment)
        results.setdefault(load, {}).setdefault(client, []).append(figures)
        print(f"clients: {' '.join(load)}, {client}: {figures}", file=sys.stderr, flush=True)

    for turn in range(options.rounds):
        for size in options.sizes:
            count = SIZES[size] // share
            shared = f"clients-{turn}-{size}"
            for client in options.clients:
                # All consumers read what the first producer wrote, so that batches are the same.
                topic = shared if client == options.clients[0] else f"{shared}-{client}"
                fleuve("topic", "create", topic, "--partitions", str(PARTITIONS), "--bootstrap-server", bootstrap)
                take((f"produce {size} B", "cpu"), client, [*command(client, classes), "produce", bootstrap, topic, str(count), str(size)])
            for client in options.clients:
                take((f"consume {size} B", "cpu"), client, [*command(client, classes), "consume", bootstrap, shared, str(count)])
        for client in [client for client in options.clients if client in ("native", "librdkafka")]:
            topic = f"clients-latency-{turn}-{client}"
            fleuve("topic", "create", topic, "--partitions", str(PARTITIONS), "--bootstrap-server", bootstrap)
            generator = [str(CACHE / "bin" / "latency")] if client == "librdkafka" else [*command(client, classes), "latency"]
            numbers = [PARTITIONS, LATENCY_BYTES, LATENCY_RATE, LATENCY_SECONDS, LATENCY_WARMUP_SECONDS]
            take((f"latency at {LATENCY_RATE}/s", "p99_us"), client, [*generator, bootstrap, topic, *map(str, numbers)])
    return results


def table(results: dict[tuple[str, str], dict[str, list[dict[str, float]]]]) -> list[str]:
    lines = ["| Load | Client | CPU s | records per CPU s | native is better by | peak MiB | p50 / p99 µs |", "|---|---|---|---|---|---|---|"]
    for (load, _), clients in results.items():
        native = clients.get("native", [])
        for client, rounds in clients.items():
            median = {key: statistics.median(figures[key] for figures in rounds) for key in rounds[0] if isinstance(rounds[0][key], (int, float))}
            ratio = statistics.median(theirs["cpu"] / ours["cpu"] for ours, theirs in zip(native, rounds)) if native else 0.0
            records = median.get("records", median.get("measured", 0))
            latency = f"{median['p50_us']:.0f} / {median['p99_us']:.0f}" if "p99_us" in median else ""
            lines.append(f"| {load} | {client} | {median['cpu']:.2f} | {records / median['cpu']:,.0f} | {ratio:.2f} | {median['rss_mib']:.0f} | {latency} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_broker_argument(parser)
    parser.add_argument("--short", action="store_true", help="a tenth of the records")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=lambda text: [int(size) for size in text.split(",")], default=list(SIZES))
    parser.add_argument("--clients", type=lambda text: text.split(","), default=["native", "librdkafka", "java", "krafka"])
    parser.add_argument("--batch-bytes", type=int, help="the same batch.size for all, instead of each client's own")
    options = parser.parse_args()
    with Workspace("clients", options.keep) as workspace:
        classes = workspace.path / "classes"
        if "java" in options.clients:
            subprocess.run(["javac", "-cp", f"{KAFKA_LIBS}/*", "-d", str(classes), str(HERE / "Load.java")], check=True)
        # What is measured is the client; the broker need not flush for it.
        settings = {"fleuve.flush.before.ack": "false"} if options.broker == "fleuve" else {}
        broker = workspace.broker(options.broker, settings).start()
        print("\n".join(table(compare(options, broker.bootstrap, classes))))
        broker.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
