"""What the kernel knows: the CPU and memory a process used, who else was busy, and what machine this is."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def process_cpu_seconds(pid: int) -> float:
    """User and system time of a process with all its threads and the children it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(int(field) for field in fields[11:15]) / TICKS


def memory_mib(pid: int, field: str) -> float:
    """VmRSS or VmHWM of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise KeyError(field)


def touch_page_cache(folder: Path, size: int) -> None:
    """Fills `size` bytes of the page cache and gives them back.

    In a virtual machine the host backs a page of memory when it is first written, which costs several times the write
    itself. Whoever fills the page cache further than anybody before would be charged for that.
    """
    path = folder / "touched"
    block = bytes(1 << 20)
    with open(path, "wb") as file:
        for _ in range(size >> 20):
            file.write(block)
    path.unlink()


def busy_seconds() -> float:
    """CPU time that all of the machine spent on anything, waiting for disks and idling excepted."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS


def own_children_seconds() -> float:
    """CPU time of this process and of the children it has waited for: the generators."""
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


@dataclass
class Usage:
    """CPU over a stretch of time: the broker's, and the share of the machine taken by neither broker nor generator."""

    seconds: float
    broker_seconds: float
    foreign_share: float


class Stopwatch:
    """Measures one stretch; the generators must have been waited for when it stops."""

    def __init__(self, pid: int):
        self.pid = pid
        self.began = self._now()

    def _now(self) -> tuple[float, float, float, float]:
        return time.monotonic(), process_cpu_seconds(self.pid), busy_seconds(), own_children_seconds()

    def stop(self) -> Usage:
        seconds, broker, busy, own = (after - before for after, before in zip(self._now(), self.began))
        foreign = max(busy - broker - own, 0.0) / (seconds * (os.cpu_count() or 1))
        return Usage(seconds, broker, foreign)


def describe(scratch: Path) -> list[str]:
    """The machine and the software, as lines of a report."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")), platform.machine())
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1024 / 1024

    def output(*command: str) -> str:
        try:
            ended = subprocess.run(command, capture_output=True, text=True)
        except OSError:
            return "unknown"
        return (ended.stdout or ended.stderr).strip().splitlines()[0] if ended.returncode == 0 else "unknown"

    congestion = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    filesystem = output("stat", "-f", "-c", "%T", str(scratch))
    return [
        f"{os.cpu_count()} × {model}, {memory:.0f} GiB memory, {filesystem}, Linux {platform.release()}, TCP with {congestion}",
        f"{output('java', '-version')}; {output('rustc', '--version')}; Fleuve at {output('git', 'rev-parse', '--short', 'HEAD')}",
    ]
