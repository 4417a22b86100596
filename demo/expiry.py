"""TTL: keys go at their time, neither earlier nor later, and a watcher is told without asking. Used by `demo.cache`."""

from __future__ import annotations

import random
import statistics
import time

from data_bridge import kv

from demo.report import Progress, Report
from demo.servers import Servers

KEYS = 2000
KEPT = 500
TTLS = (0.3, 1.5)
"""Seconds: the shortest and the longest time to live."""
PROBES = 40
PROBE_TTL = 0.03
RESOLUTION = 0.002
"""Seconds by which a deadline of whole milliseconds may differ from the one asked for, twice over."""
PATIENCE = 10.0


def show(report: Report, servers: Servers) -> None:
    """Both ways a key can be found gone: by looking, and by being told."""
    with kv.open() as embedded, kv.connect(servers.url("default")) as client:
        looked(report, "embedded", embedded)
        looked(report, "remote", client)
        told(report, client)


def looked(report: Report, door: str, store: kv.Store | kv.Client) -> None:
    """Reads a key without pause around its deadline: there before it, gone after it."""
    reads = wrong = 0
    for number in range(PROBES):
        key = f"probe:{number}"
        earliest = time.monotonic() + PROBE_TTL
        store.set(key, number, ttl=PROBE_TTL)
        latest = time.monotonic() + PROBE_TTL
        asked = latest
        while asked < latest + 2 * RESOLUTION:
            asked = time.monotonic()
            there = key in store
            answered = time.monotonic()
            reads += 1
            wrong += (
                there if asked > latest + RESOLUTION else (not there and answered < earliest - RESOLUTION)
            )
    report.check(
        f"TTL {door}: there until the deadline, gone after it",
        reads > PROBES and wrong == 0,
        f"{reads:,} reads around {PROBES} deadlines, {wrong} wrong",
    )


def told(report: Report, client: kv.Client) -> None:
    """Keys that nobody reads expire on time, and a watcher hears of each."""
    draw = random.Random(13)
    deadlines: dict[str, tuple[float, float]] = {}
    with client.watch(prefix="ttl:") as watch:
        for number in range(KEYS):
            key, ttl = f"ttl:{number}", draw.uniform(*TTLS)
            before = time.monotonic()
            client.set(key, number, ttl=ttl)
            deadlines[key] = (before + ttl, time.monotonic() + ttl)
        client.set_many({f"ttl:kept:{number}": number for number in range(KEPT)})
        lags: list[float] = []
        early = 0
        with Progress("keys told to have expired", KEYS) as step:
            while len(lags) < KEYS and (event := watch.next(timeout=PATIENCE)) is not None:
                if event.change == "expire":
                    now = time.monotonic()
                    earliest, latest = deadlines.pop(event.key)
                    early += now < earliest - RESOLUTION
                    lags.append(max(0.0, now - latest))
                    step.at(len(lags))
    kept = sum(1 for _ in client.scan(prefix="ttl:"))
    lag = (
        f"median {statistics.median(lags) * 1e3:.1f} ms, worst {max(lags) * 1e3:.1f} ms late"
        if lags
        else "none"
    )
    report.check(
        "TTL: keys expire unread, a watcher is told of each",
        len(lags) == KEYS and early == 0 and kept == KEPT,
        f"{len(lags):,} of {KEYS:,} told, {early} early, {lag}",
    )
