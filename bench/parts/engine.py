"""The engine inside a Rust process, by its example `in_process`: time of one operation, and two threads beside one."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from bench.plan import Plan
from bench.rows import OURS, Row, Target, figure
from bench.servers import ROOT

TITLE = "The engine in process (Rust): 95 % reads and 5 % writes of 32 B values, keys drawn by Zipf's law"

PROGRAM = ROOT / "target" / "release" / "examples" / "in_process"
ONE_THREAD = "one thread"
BATCH = 16


def measure(plan: Plan) -> tuple[list[Row], dict[str, str]]:
    """All rows of the part; the only thing beside ours is ours with one thread."""
    command = [
        "cargo",
        "build",
        "--quiet",
        "--release",
        "--locked",
        "-p",
        "data-bridge-kv",
        "--example",
        "in_process",
    ]
    subprocess.run(command, cwd=ROOT, check=True)
    rows = []
    for keys, batch, limit in [(100_000, 1, 80.0), (1_000_000, 1, 120.0), (1_000_000, BATCH, 80.0)]:
        values = plan.interleaved({OURS: cpu(plan, keys, batch)})
        how = "one at a time" if batch == 1 else f"batches of {batch}"
        rows.append(Row(f"{figure(keys)} keys, {how}", "ns", values, [Target("≤", limit)], headline=True))
    rates = plan.interleaved({ONE_THREAD: rate(plan, 1), OURS: rate(plan, 2)})
    rows.append(
        Row("1 000 000 keys, two threads", "op/s", rates, [Target("≥", 1.7, ONE_THREAD)], headline=True)
    )
    for row in rows:
        print(f"    {row.what} [{row.unit}]: {row.values[OURS].middle:,.3g}", flush=True)
    return rows, {ONE_THREAD: "the same engine, one thread"}


def cpu(plan: Plan, keys: int, batch: int) -> Callable[[], float]:
    """CPU time of one operation of one thread in nanoseconds."""
    return lambda: run(plan, keys, 1, batch)[1]


def rate(plan: Plan, threads: int) -> Callable[[], float]:
    """Operations a second of all threads."""
    return lambda: run(plan, 1_000_000, threads, 1)[0]


def run(plan: Plan, keys: int, threads: int, batch: int) -> tuple[float, float]:
    """One run of the example: operations a second, nanoseconds of CPU of one."""
    command = [str(PROGRAM), str(keys), str(threads), str(batch), str(plan.seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    operations, nanoseconds = done.stdout.split()
    return float(operations), float(nanoseconds)
