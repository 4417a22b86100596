"""Meters read from /proc: CPU time and memory of a process, hypervisor steal, and spinners that keep cores awake.

Used by the parts of the benchmark. Linux only.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

SAMPLE_SECONDS = 0.1
STEAL_LIMIT = 0.08
"""Share of stolen time above which a round does not count."""


def cpu_seconds(pid: int) -> float:
    """User and system time of all living threads of a process, in seconds with nanosecond resolution."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def rss_bytes(pid: int) -> int:
    """Resident memory of a process in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"process {pid} has no resident memory")


@dataclass
class Steal:
    """Share of time the hypervisor took away while it was watched."""

    share: float = 0.0

    @property
    def too_much(self) -> bool:
        """Whether what was measured meanwhile does not count."""
        return self.share > STEAL_LIMIT


@contextmanager
def watch_steal() -> Iterator[Steal]:
    """Measures steal over the body."""
    steal = Steal()
    before = processor_times()
    yield steal
    spent = [after - earlier for after, earlier in zip(processor_times(), before, strict=True)]
    steal.share = spent[7] / max(1, sum(spent))


def processor_times() -> list[int]:
    """User, nice, system, idle, iowait, irq, softirq, steal of the whole machine in ticks."""
    first = Path("/proc/stat").read_text().splitlines()[0]
    return [int(field) for field in first.split()[1:9]]


@contextmanager
def cores_awake() -> Iterator[None]:
    """Keeps every core out of its idle states with spinners that yield to everything else."""
    code = "import os\nos.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\nwhile True: pass"
    spinners = [subprocess.Popen([sys.executable, "-c", code]) for _ in os.sched_getaffinity(0)]
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def machine() -> str:
    """Processor, cores, memory and kernel in one line."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{len(os.sched_getaffinity(0))} cores of {model}, {gib:.0f} GiB, Linux {platform.release()}"


class Memory:
    """Resident memory of a process, sampled ten times a second while the body of the `with` runs."""

    def __init__(self, pid: int) -> None:
        self.pid, self.samples = pid, [rss_bytes(pid)]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    @property
    def peak(self) -> int:
        """The largest sample in bytes."""
        return max(self.samples)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def _sample(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            try:
                self.samples.append(rss_bytes(self.pid))
            except (OSError, ValueError):
                return

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()
