"""Turns the figures of all pairs into Markdown: medians, the ratio of each pair, and how far the ratios spread."""

from __future__ import annotations

import re
from dataclasses import dataclass
from statistics import median


STREAMS_BEGIN, STREAMS_END = "<!-- stream processing: written by bench/streams.py -->", "<!-- end of stream processing -->"


def stream_processing(page: str) -> str | None:
    """The part of docs/benchmarks.md that bench/streams.py writes."""
    found = re.search(re.escape(STREAMS_BEGIN) + ".*?" + re.escape(STREAMS_END), page, flags=re.S)
    return found.group() if found else None


@dataclass(frozen=True)
class Row:
    """One line of the table; `target` is what we ask of the ratio Fleuve : Kafka."""

    name: str
    title: str
    digits: int
    higher_is_better: bool
    target: str = ""


ROWS = [
    Row("produce_100", "produce 100 B, records/s", 0, True, "≥ 2"),
    Row("produce_mb_100", "produce 100 B, MB/s", 1, True),
    Row("produce_1024", "produce 1 KiB, records/s", 0, True, "≥ 2"),
    Row("produce_mb_1024", "produce 1 KiB, MB/s", 1, True),
    Row("produce_cpu_100", "produce 100 B, broker CPU-s/GB", 2, False, "≤ 0.25"),
    Row("produce_cpu_1024", "produce 1 KiB, broker CPU-s/GB", 2, False, "≤ 0.25"),
    Row("consume_100", "consume 100 B, records/s", 0, True),
    Row("consume_mb_100", "consume 100 B, MB/s", 1, True),
    Row("consume_1024", "consume 1 KiB, records/s", 0, True),
    Row("consume_mb_1024", "consume 1 KiB, MB/s", 1, True),
    Row("consume_cpu_100", "consume 100 B, broker CPU-s/GB", 2, False, "≤ 0.25"),
    Row("consume_cpu_1024", "consume 1 KiB, broker CPU-s/GB", 2, False, "≤ 0.25"),
    Row("saturated_produce_100_mb", "produce saturation (encoded batches of 100 B records), MB/s", 1, True, "≥ 2"),
    Row("saturated_produce_100_cpu", "produce saturation of 100 B, broker CPU-s/GB", 2, False, "≤ 0.25"),
    Row("floor_100_cpu", "the same by `bench/floor.c`, which only receives and writes, CPU-s/GB", 2, False),
    Row("saturated_produce_mb", "produce saturation (encoded batches of 1 KiB records), MB/s", 1, True, "≥ 2"),
    Row("saturated_produce_cpu", "produce saturation of 1 KiB, broker CPU-s/GB", 2, False, "≤ 0.25"),
    Row("floor_cpu", "the same by `bench/floor.c`, CPU-s/GB", 2, False),
    Row("saturated_consume_mb", "consume saturation (nothing parsed), MB/s", 1, True),
    Row("saturated_consume_cpu", "consume saturation, broker CPU-s/GB", 2, False),
    Row("latency_p50_ms", "end to end p50, ms", 2, False),
    Row("latency_p99_ms", "end to end p99, ms", 2, False, "≤ 0.33"),
    Row("latency_p999_ms", "end to end p99.9, ms", 2, False),
    Row("latency_cores", "broker CPU in the latency run, cores", 3, False),
    Row("transactions", "transactions of one record (64 producers), 1/s", 0, True),
    Row("transactions_cpu", "transactions, broker CPU-ms each", 2, False),
    Row("group_classic_form_ms", "100 members come together, classic protocol, ms", 0, False),
    Row("group_classic_join_ms", "rebalance of 100 members for one more, classic protocol, ms", 0, False),
    Row("group_classic_cores", "broker CPU meanwhile, cores", 3, False),
    Row("group_consumer_form_ms", "100 members come together, consumer protocol, ms", 0, False),
    Row("group_consumer_join_ms", "rebalance of 100 members for one more, consumer protocol, ms", 0, False),
    Row("group_consumer_cores", "broker CPU meanwhile, cores", 3, False),
    Row("rss_idle_mib", "resident memory idle, MiB", 1, False, "≤ 0.1"),
    Row("rss_peak_mib", "resident memory at peak, MiB", 1, False),
    Row("start_ms", "start to first acknowledged record, ms", 1, False, "≤ 0.05"),
    Row("compaction_mb", "compaction of 1 KiB records, each key four times, MB/s", 1, True),
    Row("compaction_cpu", "compaction, broker CPU-s/GB", 2, False),
    Row("tls_produce_mb", "produce 1 KiB over TLS, MB/s", 1, True),
    Row("tls_produce_cpu", "produce 1 KiB over TLS, broker CPU-s/GB", 2, False),
    Row("tls_consume_mb", "consume 1 KiB over TLS, MB/s", 1, True),
    Row("tls_consume_cpu", "consume 1 KiB over TLS, broker CPU-s/GB", 2, False),
    Row("restart_clean_ms", "restart with 1,000 partitions, clean, ms", 0, False),
    Row("restart_kill_ms", "restart with 1,000 partitions, after SIGKILL, ms", 0, False),
    Row("restart_rss_mib", "resident memory with 1,000 partitions, MiB", 1, False),
    Row("restart10k_clean_ms", "restart with 10,000 partitions, clean, ms", 0, False, "≤ 0.1"),
    Row("restart10k_kill_ms", "restart with 10,000 partitions, after SIGKILL, ms", 0, False),
    Row("restart10k_rss_mib", "resident memory with 10,000 partitions, MiB", 1, False),
]


def figure(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"


def ratio_text(value: float) -> str:
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def table(pairs: list[dict[str, dict[str, float]]]) -> list[str]:
    """The rows that at least one pair measured on both sides."""
    lines = [
        "| | Kafka | Fleuve | ratio | spread of ratios | pairs | target |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in ROWS:
        both = [(pair["kafka"][row.name], pair["fleuve"][row.name]) for pair in pairs if all(row.name in pair.get(side, {}) for side in ("kafka", "fleuve"))]
        if not both:
            continue
        ratios = [fleuve / kafka for kafka, fleuve in both if kafka]
        arrow = "↑" if row.higher_is_better else "↓"
        cells = [
            f"{row.title} {arrow}",
            figure(median(kafka for kafka, _ in both), row.digits),
            figure(median(fleuve for _, fleuve in both), row.digits),
            f"**{ratio_text(median(ratios))}**" if ratios else "–",
            f"{ratio_text(min(ratios))} – {ratio_text(max(ratios))}" if ratios else "–",
            str(len(both)),
            row.target,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def quiet_enough(shares: list[float], limit: float) -> str:
    if not shares:
        return "No load was measured."
    loud = sum(share > limit for share in shares)
    verdict = f"{loud} of {len(shares)} measurements exceed {limit:.0%}" if loud else f"none of {len(shares)} measurements exceeds {limit:.0%}"
    return f"CPU taken by neither broker nor generator: median {median(shares):.1%}, at most {max(shares):.1%} of the machine; {verdict}."
