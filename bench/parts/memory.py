"""Resident memory of one key, by kind and size of its value and number of keys, and what a TTL adds to it."""

from __future__ import annotations

import time
from collections.abc import Callable

from bench import load, meters
from bench.plan import Plan, RefusedError
from bench.recovery import lacks_memory
from bench.rows import Row, Sample, Target
from bench.servers import KINDS, Running, started

TITLE = "Resident bytes of one key of 16 B: growth of the server's RSS over the number of keys"

VALUES = {
    "i64": ("incr", 8, 66.0),
    "32 B": ("set", 32, 96.0),
    "100 B": ("set", 100, 165.0),
}
TTL_LIMIT = 16.0
TTL_KEYS = 5_000_000
"""The most keys that are also measured with a TTL."""
ROUNDS = 3
"""How often one measurement is made of few keys: a megabyte more or less, by chance, is a byte of each of a million."""
FEW_KEYS = 1_000_000
VALKEY = "valkey 9.1"
TTL_SECONDS = 1_000_000


def measure(plan: Plan) -> tuple[list[Row], dict[str, str]]:
    """All rows of the part, and how each server ran."""
    load.build()
    rows = []
    how: dict[str, str] = {}
    for keys in plan.keys:
        if lack := lacks_memory(keys):
            print(f"    skipped: {keys / 1e6:g} M keys: {lack}", flush=True)
            continue
        for kind, (command, size, limit) in VALUES.items():
            count = f"{keys / 1e6:g} M keys"
            plain = per_key(how, fill(command, keys, value=size), keys)
            targets = [Target("≤", limit), Target("≤", 1.0, VALKEY)]
            rows.append(shown(Row(f"{kind}, {count}", "B", plain, targets, headline=True)))
            if keys <= TTL_KEYS:
                timed = per_key(how, fill(command, keys, value=size, ttl=TTL_SECONDS), keys)
                added = {name: difference(timed[name], plain[name]) for name in timed if name in plain}
                what, headline = f"a TTL adds to {kind}, {count}", keys == TTL_KEYS
                rows.append(shown(Row(what, "B", added, [Target("≤", TTL_LIMIT)], headline=headline)))
    return rows, {name: f"{text} (libc malloc)" if name == VALKEY else text for name, text in how.items()}


def shown(row: Row) -> Row:
    """The row, which is printed as it comes."""
    values = ", ".join(f"{name} {sample.middle:.0f}" for name, sample in row.values.items())
    print(f"    {row.what}: {values}", flush=True)
    return row


def fill(command: str, keys: int, **options: str | float) -> Callable[[Running], None]:
    """What fills a server."""
    return lambda server: load.fill(server, command, keys, **options)


def per_key(how: dict[str, str], filling: Callable[[Running], None], keys: int) -> dict[str, Sample]:
    """Bytes a key for each server, each started anew and alone."""
    grown: dict[str, list[float]] = {}
    for kind in KINDS * (ROUNDS if keys <= FEW_KEYS else 1):
        with started(kind) as server:
            if isinstance(server, str):
                how[kind.name] = server
                continue
            how[kind.name] = server.how
            before = meters.rss_bytes(server.pid)
            try:
                filling(server)
            except RefusedError as refused:
                print(f"    {refused}", flush=True)
                continue
            grown.setdefault(kind.name, []).append((settled(server.pid) - before) / keys)
    return {name: Sample.of(rounds) for name, rounds in grown.items()}


def settled(pid: int) -> int:
    """Resident memory once it stops changing (incremental rehashing goes on for a moment after the load)."""
    last = meters.rss_bytes(pid)
    for _ in range(20):
        time.sleep(0.2)
        now = meters.rss_bytes(pid)
        if abs(now - last) < 1 << 16:
            break
        last = now
    return last


def difference(more: Sample, less: Sample) -> Sample:
    """What the one has over the other."""
    return Sample.of([more.middle - less.middle])
