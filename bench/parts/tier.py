"""The cold tier: by itself on the disk, and a server with it under skewed traffic on more data than memory.

The first rows come from the engine's examples `cold_bench` and `restart`, the others from servers with the same memory
budget, one at a time, with the system's page cache held small by a control group where one can be made.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench import load, meters, skew
from bench.day import LIVES, RATE, Day, Look
from bench.plan import Plan, RefusedError
from bench.rows import OURS, Row, Sample, Target
from bench.servers import KINDS, ROOT, Kind, Running, free_port, redis_arguments, started

TITLE = (
    "Data larger than memory: the cold tier by itself; and a server with it under reads by Zipf's law "
    f"({skew.WRITES:.0%} writes, one command under way for each of {skew.CLIENTS} clients in Python)"
)

PLAIN, ARRIVAL = "plain pread", "in order of arrival"
LMDB, ROCKSDB = "lmdb", "rocksdb"
REDIS = "redis 7.0, allkeys-lru"
FACTORS = (2, 5, 10)
SIZE = 4000
"""Bytes of a value: so large that a cache of the budget is through with its entries several times in one run."""
OVERHEAD = 100
"""Bytes of a key and what every store adds, to say how many keys are so many budgets."""
CACHE = 1.5
"""Budgets that the process may take with its page cache."""
ENTRIES = ((5_000_000, 150), (300_000, 4096))
QUICK_ENTRIES = ((100_000, 150), (10_000, 4096))
RESTART_KEYS = 5_000_000
LOOKS = {"at a quarter": 0.25, "at half": 0.5, "in the end": 1.0}
"""When space and memory of the day are looked at."""


@dataclass(frozen=True)
class Sizes:
    """How large a run is."""

    entries: tuple[tuple[int, int], ...]
    restart_keys: int
    budget: int
    seconds: float
    factors: tuple[int, ...]
    day: float
    """Seconds of the day."""

    @classmethod
    def of(cls, plan: Plan) -> Sizes:
        """Those of a plan: small for a look."""
        if plan.rounds > 1:
            return cls(ENTRIES, RESTART_KEYS, 96 << 20, 10 * plan.seconds, FACTORS, 120.0)
        return cls(QUICK_ENTRIES, plan.keys[0], 48 << 20, 20 * plan.seconds, FACTORS[:1], 8.0)


def measure(plan: Plan) -> tuple[list[Row], dict[str, str]]:
    """All rows of the part, and how each server ran."""
    sizes = Sizes.of(plan)
    load.build()
    rows = [*tier_rows(plan, sizes), *churn_rows(), *restart_rows(sizes)]
    how = {
        PLAIN: "`pread` of the same files at random, in turn with ours, in the same run",
        ARRIVAL: "our own segments without grouping by deadline",
    }
    for factor in sizes.factors:
        rows += skewed_rows(sizes, factor, how)
    return [*rows, *day_rows(sizes)], how


def example(name: str, *arguments: str) -> str:
    """What an example of the engine prints; its directory is its first argument and gone afterwards."""
    command = ["cargo", "run", "--quiet", "--release", "--locked", "-p", "data-bridge-kv", "--example", name]
    with folder() as directory:
        done = subprocess.run(
            [*command, "--", directory, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
        )
    return done.stdout


@contextmanager
def folder() -> Iterator[str]:
    """A directory on the disk of the tree: that of the system's may be in memory."""
    with tempfile.TemporaryDirectory(dir=ROOT / "target") as directory:
        yield directory


def found(pattern: str, text: str) -> float:
    """The number that a pattern finds."""
    match = re.search(pattern, text)
    if match is None:
        raise RuntimeError(f"no {pattern} in {text!r}")
    return float(match[1])


COLD = {
    "demotion": ("k entries/s", r"demote: (\S+) k", Target("≥", 300.0)),
    "demotion, CPU of an entry": ("us", r"(\S+) us CPU an entry", Target("≤", 2.5)),
    "demotion, bytes written for one": ("B", r"(\S+) bytes on disk per byte", Target("≤", 1.3)),
    "RAM of a cold key": ("B", r"index: (\S+) bytes", Target("≤", 32.0)),
    "missing key, without I/O": ("ns", r"missing key: (\S+) ns", None),
}


def tier_rows(plan: Plan, sizes: Sizes) -> list[Row]:
    """The tier by itself: medians over the rounds, three at most."""
    rows = []
    for entries, size in sizes.entries:
        outputs = [example("cold_bench", str(entries), str(size)) for _ in range(min(3, plan.rounds))]
        data = f"{entries:,} x {size} B".replace(",", " ")

        def sample(pattern: str, outputs: list[str] = outputs) -> Sample:
            return Sample.of([found(pattern, output) for output in outputs])

        reads = {OURS: sample(r"(\S+) us a cold read"), PLAIN: sample(r"(\S+) us a plain read")}
        what = f"cold read p50, {data}"
        note = "page cache emptied before"
        rows.append(show(Row(what, "us", reads, [Target("≤", 1.15, PLAIN)], headline=True, note=note)))
        for name, (unit, pattern, target) in COLD.items():
            # The targets are those of short values: long ones are the disk's.
            targets = [target] if target is not None and (size < 1000 or "RAM" in name) else []
            values = {OURS: sample(pattern)}
            rows.append(show(Row(f"{name}, {data}", unit, values, targets, headline=bool(targets))))
    return rows


def churn_rows() -> list[Row]:
    """What grouping by deadline saves: four hours of keys with different lives, on a clock that is turned."""
    output = example("cold_bench", "churn")
    values = {
        OURS: Sample.of([found(r"grouped by deadline: .*\((\S+) bytes a byte", output)]),
        ARRIVAL: Sample.of([found(r"in order of arrival: .*\((\S+) bytes a byte", output)]),
    }
    return [show(Row("bytes written for one, keys that expire", "B", values))]


def day_rows(sizes: Sizes) -> list[Row]:
    """A day of keys that expire, in little: memory and space stay flat once as much goes as comes."""
    with folder() as directory, started(in_folder(overflowing(sizes.budget), directory)) as server:
        if isinstance(server, str):
            return []
        peaks: list[int] = []
        with (
            skew.limited(server.pid, int(CACHE * sizes.budget)),
            meters.Memory(server.pid) as memory,
        ):

            def look() -> None:
                """Takes the largest sample since the last look."""
                peaks.append(memory.peak)
                del memory.samples[:-1]

            day = Day(server.port, sizes.day)
            looks = day.run(tuple(LOOKS.values()), look)
    print(f"    {day.compared} values compared", flush=True)
    share = sum(LIVES) / len(LIVES) * sizes.day * RATE / sizes.budget
    data = f"a day with TTL churn, data {share:.1f}x the budget"
    seen = dict(zip(LOOKS, zip(looks, peaks, strict=True), strict=True))

    def row(what: str, unit: str, figure: Callable[[Look, int], float], target: Target) -> list[Row]:
        """A row for each look."""
        rows = []
        for when, (one, peak) in seen.items():
            value = {OURS: Sample.of([figure(one, peak)])}
            rows.append(
                show(Row(f"{what} {when}, {data}", unit, value, [target], headline=when == "in the end"))
            )
        return rows

    resident = row("most resident", "budgets", lambda _, peak: peak / sizes.budget, Target("≤", 1.10))
    # Data that live in memory have no space on disk; records of what has expired do, until their segment goes.
    space = row(
        "space on disk for a live byte",
        "B",
        lambda one, _: one.figures["tier_disk_bytes"] / one.live_bytes,
        Target("≤", 1.5),
    )
    return [*resident, *space]


def restart_rows(sizes: Sizes) -> list[Row]:
    """A directory that was closed opens and answers."""
    output = example("restart", str(sizes.restart_keys))
    opened = found(r"with the index: (\S+) ms", output) / 1000
    first = found(r"with the index: .* first read after (\S+) ms", output) / 1000
    rebuilt = found(r"without the index: (\S+) ms", output) / 1000
    data = f"{sizes.restart_keys / 1e6:g} M keys"
    return [
        show(Row(f"{what}, {data}", "s", {OURS: Sample.of([seconds])}, targets, headline=bool(targets)))
        for what, seconds, targets in [
            ("opened and indexed", opened, [Target("≤", 1.0)]),
            ("first read after a start", first, [Target("≤", 1.0)]),
            ("opened without the index on disk", rebuilt, []),
        ]
    ]


def skewed_rows(sizes: Sizes, factor: int, how: dict[str, str]) -> list[Row]:
    """The same traffic on each, with data so many times the budget."""
    keys = factor * sizes.budget // (SIZE + OVERHEAD)
    seen: dict[str, skew.Seen] = {}
    peaks: dict[str, Sample] = {}
    for kind in (overflowing(sizes.budget), evicting(sizes.budget)):
        with folder() as directory, started(in_folder(kind, directory)) as server:
            how[kind.name] = server if isinstance(server, str) else server.how.replace(directory, "DIR")
            if isinstance(server, Running):
                seen[kind.name], peaks[kind.name] = on_server(server, sizes, keys, how)
    for name, store in skew.STORES.items():
        how[name] = "missing (scripts/venv bench)"
        if importlib.util.find_spec(store.package) is not None:
            seen[name] = on_store(name, sizes, keys, how)
    data = f"data {factor}x the budget of {sizes.budget >> 20} MiB"
    figures: dict[str, tuple[str, Callable[[skew.Seen], float]]] = {
        "hit ratio": ("%", lambda one: one.hit_percent),
        "throughput": ("op/s", lambda one: one.rate),
        "GET p50": ("us", lambda one: one.microseconds(0.5)),
        "GET p99": ("us", lambda one: one.microseconds(0.99)),
        "GET p99.9": ("us", lambda one: one.microseconds(0.999)),
    }
    rows = [
        Row(f"{name}, {data}", unit, {who: Sample.of([figure(one)]) for who, one in seen.items()})
        for name, (unit, figure) in figures.items()
    ]
    targets = [Target("≤", 1.10)] if factor == FACTORS[-1] else []
    rows.append(Row(f"most resident, {data}", "budgets", peaks, targets, headline=bool(targets)))
    return [show(row) for row in rows]


def on_server(server: Running, sizes: Sizes, keys: int, how: dict[str, str]) -> tuple[skew.Seen, Sample]:
    """Fills a server, then reads and writes; also the most that it had resident, in budgets."""
    with (
        skew.limited(server.pid, int(CACHE * sizes.budget)) as limit,
        meters.Memory(server.pid) as memory,
    ):
        how[server.name] += f"; {limit}"
        try:
            load.fill(server, "set", keys, value=SIZE, connections=4)
        except RefusedError as refused:
            print(f"    {refused}", flush=True)
        traffic = skew.Traffic(f"port:{server.port}", keys, SIZE, sizes.seconds)
        # A first run, until a cache holds what it will hold, is not counted.
        skew.measured(replace(traffic, seconds=1.5 * sizes.seconds), skew.CLIENTS)
        seen = skew.measured(traffic, skew.CLIENTS)
    return seen, Sample.of([memory.peak / sizes.budget])


def on_store(name: str, sizes: Sizes, keys: int, how: dict[str, str]) -> skew.Seen:
    """The same on a store in one client's own process."""
    store = skew.STORES[name]
    with folder() as directory:
        # A process of its own fills it: none of its memory is left in this one.
        skew.filled(name, directory, keys, SIZE)
        for path in Path(directory).iterdir():
            file = os.open(path, os.O_RDONLY)
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)
        traffic = skew.Traffic(f"{name}:{directory}", keys, SIZE, 1.5 * sizes.seconds)
        with skew.limited(os.getpid(), int((CACHE + 1) * sizes.budget)) as limit:
            how[name] = f"in the client's process, one client, {store.how}, {limit} and the client"
            return skew.measured(traffic, 1)


def overflowing(budget: int) -> Kind:
    """Ours with a directory."""
    ours = next(kind for kind in KINDS if kind.name == OURS)

    def arguments(port: int) -> list[str]:
        addresses = ["--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{free_port()}"]
        return ["serve", *addresses, "--drain-delay", "0", "--max-memory", str(budget), "--data"]

    return replace(ours, arguments=arguments)


def evicting(budget: int) -> Kind:
    """Redis at the point where it evicts."""
    redis = next(kind for kind in KINDS if kind.name == "redis 7.0")
    policy = ["--maxmemory", str(budget), "--maxmemory-policy", "allkeys-lru", "--dir"]
    return replace(redis, name=REDIS, arguments=lambda port: [*redis_arguments(port), *policy])


def in_folder(kind: Kind, directory: str) -> Kind:
    """The kind with its directory."""
    return replace(kind, arguments=lambda port: [*kind.arguments(port), directory])


def show(row: Row) -> Row:
    """Prints a row as soon as it is there."""
    shown = ", ".join(f"{name} {sample.middle:,.4g}" for name, sample in row.values.items())
    print(f"    {row.what} [{row.unit}]: {shown}", flush=True)
    return row
