"""Hit ratios of eviction on real traces, by the engine's example `hit_ratio`, beside true LRU and S3-FIFO."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from statistics import fmean

from bench.plan import Plan
from bench.rows import OURS, Row, Sample, Target
from bench.servers import ROOT

TITLE = "Eviction: hit ratio in percent on real traces, every request of the same size"

LRU, S3_FIFO = "true LRU", "S3-FIFO"
HOW = {LRU: "computed in the same run", S3_FIFO: "libCacheSim 0.3.5, figures that came with the traces"}
SHARDS = 16


def measure(_: Plan) -> tuple[list[Row], dict[str, str]]:
    """A row for each trace and size, and the two that have targets."""
    command = [
        "cargo",
        "run",
        "--quiet",
        "--release",
        "--locked",
        "-p",
        "data-bridge-kv",
        "--example",
        "hit_ratio",
    ]
    done = subprocess.run(
        [*command, "--", str(SHARDS)], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    rows = list(trace_rows(done.stdout))
    if not rows:
        why = "missing: no traces, see the head of crates/data-bridge-kv/examples/hit_ratio.rs"
        return [Row("smallest margin over true LRU", "points", {}, [Target("≥", -0.5)])], HOW | {LRU: why}
    margins = [row.values[OURS].middle - row.values[LRU].middle for row in rows]
    mean = {name: Sample.of([fmean(row.values[name].middle for row in rows)]) for name in rows[0].values}
    margin = {OURS: Sample.of([min(margins)])}
    return [
        Row("smallest margin over true LRU", "points", margin, [Target("≥", -0.5)], headline=True),
        Row("mean over all traces and sizes", "%", mean, [Target("≥", 1.0, S3_FIFO)], headline=True),
        *rows,
    ], HOW


def trace_rows(output: str) -> Iterator[Row]:
    """The lines of the example's first table: trace, capacity, LRU, S3-FIFO, ours."""
    inside = False
    for line in output.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == "trace":
            inside = True
        elif inside and not line.startswith("|"):
            return
        elif inside and not cells[0].startswith("-"):
            trace, capacity, *figures = cells
            lru, s3_fifo, ours = (Sample.of([float(figure)]) for figure in figures[:3])
            yield Row(f"{trace}, {capacity} entries", "%", {OURS: ours, LRU: lru, S3_FIFO: s3_fifo})
