"""How late keys go: a million keys whose deadlines lie within one second, and nobody who reads them."""

from __future__ import annotations

import time
from bisect import bisect_left

from bench import load
from bench.plan import Plan, RefusedError
from bench.rows import Row, Sample, Target
from bench.servers import KINDS, Running, ask, started

TITLE = "Active expiry: milliseconds between a key's deadline and its end, keys with deadlines spread over one second"

SPAN_SECONDS = 1.0
PATIENCE_SECONDS = 20.0
"""After so long what is left counts as this late."""
POLL_SECONDS = 0.005


def measure(plan: Plan) -> tuple[list[Row], dict[str, str]]:
    """Median and 99th percentile of the lag, and how each server ran."""
    load.build()
    keys = plan.keys[0]
    lags: dict[str, list[tuple[float, float]]] = {}
    how = {}
    for kind in KINDS:
        for _ in range(min(3, plan.rounds)):
            with started(kind) as server:
                how[kind.name] = server if isinstance(server, str) else server.how
                if isinstance(server, str):
                    break
                try:
                    found = lag_of(server, keys)
                except RefusedError as refused:
                    print(f"    {refused}", flush=True)
                    break
                print(f"    {kind.name}: p50 {found[0]:.0f} ms, p99 {found[1]:.0f} ms", flush=True)
                lags.setdefault(kind.name, []).append(found)
                if found[1] >= PATIENCE_SECONDS * 1000:
                    break
    middle = {name: Sample.of([round_[0] for round_ in rounds]) for name, rounds in lags.items()}
    late = {name: Sample.of([round_[1] for round_ in rounds]) for name, rounds in lags.items()}
    count = f"{keys / 1e6:g} M keys"
    note = f"{PATIENCE_SECONDS * 1000:.0f} means more"
    return [
        Row(f"lag p50, {count}", "ms", middle, note=note),
        Row(f"lag p99, {count}", "ms", late, [Target("≤", 50.0)], headline=True, note=note),
    ], how


def lag_of(server: Running, keys: int) -> tuple[float, float]:
    """Median and 99th percentile in milliseconds."""
    fill_seconds = keys / 200_000 + 3
    first = time.time() + fill_seconds
    options = {"value": 32, "deadline": int(first * 1000), "span": int(SPAN_SECONDS * 1000)}
    load.fill(server, "set", keys, **options)
    if time.time() >= first:
        raise RuntimeError(f"{server.name} took longer than {fill_seconds:.0f} s to fill")
    samples = watch(server, keys, first)
    return percentile(samples, keys, first, 0.5), percentile(samples, keys, first, 0.99)


def watch(server: Running, keys: int, first: float) -> list[tuple[float, int]]:
    """Time and number of keys that are gone, until all are or patience ends."""
    time.sleep(max(0.0, first - time.time()))
    samples = []
    while True:
        left = int(ask(server.port, b"DBSIZE")[1:-2])
        now = time.time()
        samples.append((now, keys - left))
        if left == 0 or now > first + SPAN_SECONDS + PATIENCE_SECONDS:
            return samples
        time.sleep(POLL_SECONDS)


def percentile(samples: list[tuple[float, int]], keys: int, first: float, share: float) -> float:
    """Lag below which that share of the keys ended, taking them to end in the order of their deadlines."""
    gone = [count for _, count in samples]
    lags = []
    for step in range(1, 1001):
        number = keys * step // 1000
        at = bisect_left(gone, number)
        deadline = first + SPAN_SECONDS * number / keys
        lags.append(samples[at][0] - deadline if at < len(samples) else PATIENCE_SECONDS)
    lags.sort()
    return max(0.0, lags[int(share * len(lags)) - 1]) * 1000
