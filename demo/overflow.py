"""Part (c): a table larger than the memory budget. A server with a directory holds flights, each with lines of three
smaller tables; everything is read back from disk while the memory of its process is watched.

Hot keys are read meanwhile by `HotReader`, in a process of its own; the cold ones by `read_back`, in several.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from data_bridge import kv

from bench import meters
from bench.servers import ROOT, Kind, Running, ask, existing, started
from demo.cache import batches, key_of
from demo.report import Progress, Report
from demo.servers import MissingServerError, Servers
from demo.source import FLIGHTS, Record, lines_beside

TITLE = (
    "larger than memory: a table several times the budget, every value read back from disk, memory watched"
)
EVERY = 3
"""Every so manyth flight is stored: enough for several budgets."""
ROWS = -(-FLIGHTS.rows // EVERY)
BUDGET = 48 << 20
TIMES = 5
"""So many times the budget the table has to be at least."""
OVERSHOOT = 1.10
"""Share of the budget that resident memory may reach at any moment."""
COLD_SHARE = 0.75
"""Share of the rows that has to be read from disk: the rest may be in memory."""
READERS_AT_ONCE = 2
BATCH = 100
LINES = "lines"
"""The field that a row has beside those of a flight."""
HOT_KEYS = 200
QUIET_SECONDS = 1.0
PAUSE_SECONDS = 0.001
PATIENCE = 120.0
SHOWN = 3


def show(report: Report, servers: Servers) -> None:
    """The whole part, on a server of its own."""
    with tempfile.TemporaryDirectory(dir=ROOT / "target") as folder, started(overflowing(folder)) as ours:
        if isinstance(ours, str):
            raise MissingServerError(f"no server of ours with a directory: {ours}. Remedy: make build")
        url = f"kv://127.0.0.1:{ours.port}/tasks"
        with meters.Memory(ours.pid) as memory:
            fill(report, servers.url("cache"), url)
            forget_pages(Path(folder))
            with HotReader(
                url, [key_of(FLIGHTS, number) for number in range(0, HOT_KEYS * EVERY, EVERY)]
            ) as hot:
                time.sleep(QUIET_SECONDS)
                quiet = hot.taken()
                before = tier_figures(ours)
                prove(report, url)
                busy = hot.taken()
            after = tier_figures(ours)
        report_tiers(report, before, after)
        report.measured(
            "a hot key's get, alone / while cold rows are read",
            f"{percentiles(quiet)} / {percentiles(busy)} ms (p50, p99, longest of {len(busy):,})",
        )
        report.check(
            f"resident memory within {OVERSHOOT:.2f}x the budget at every moment",
            len(memory.samples) > 1 / meters.SAMPLE_SECONDS and memory.peak <= OVERSHOOT * BUDGET,
            f"at most {memory.peak / BUDGET:.2f}x of {BUDGET >> 20} MiB in {len(memory.samples)} samples, 10 a second",
        )


def overflowing(folder: str) -> Kind:
    """Our server with a directory and a small budget."""

    def arguments(port: int) -> list[str]:
        addresses = ["--listen", f"127.0.0.1:{port}", "--admin", "off", "--drain-delay", "0"]
        return ["serve", *addresses, "--data", folder, "--max-memory", str(BUDGET)]

    binary = ROOT / "target" / "release" / "data-bridge-kv"
    return Kind("data-bridge-kv", lambda: existing(binary), arguments, "not built")


@dataclass(frozen=True)
class Beside:
    """The lines of three smaller tables, by what a flight says of itself."""

    planes: Mapping[str, str]
    airports: Mapping[str, str]
    weather: Mapping[tuple[str, ...], list[str]]
    """By airport, year, month and day: a line for each hour."""

    @classmethod
    def read(cls) -> Beside:
        """Reads the source files."""
        weather = defaultdict[tuple[str, ...], list[str]](list)
        for line in lines_beside("weather"):
            weather[tuple(line.split(",", 4)[:4])].append(line)
        return cls(
            planes={line.split(",", 1)[0]: line for line in lines_beside("planes")},
            airports={line.split(",", 1)[0]: line for line in lines_beside("airports")},
            weather=weather,
        )

    def of(self, flight: Record) -> list[str | None]:
        """The lines about a flight's aircraft, where it begins and ends, and the weather of its day where it begins."""
        day = (flight["origin"], str(flight["year"]), str(flight["month"]), str(flight["day"]))
        return [
            self.planes.get(flight["tailnum"]),
            self.airports.get(flight["origin"]),
            self.airports.get(flight["dest"]),
            *self.weather.get(day, []),
        ]

    def differences(self, texts: Sequence[str], found: object) -> list[str]:
        """What differs in value or type between the files and a row that was read back; takes the row apart."""
        if type(found) is not dict:
            return [f"no row: {found!r:.80}"]
        lines = found.pop(LINES, None)
        different = FLIGHTS.differences(texts, found)
        if not different and (type(lines) is not list or lines != self.of(found)):
            different.append(f"{self.of(found)!r:.200} came back as {lines!r:.200}")
        return different


def fill(report: Report, source: str, url: str) -> None:
    """Takes the flights from the cache of the first part, and stores each with what belongs to it."""
    beside, stored = Beside.read(), 0
    start = time.perf_counter()
    with (
        kv.connect(source) as flights,
        kv.connect(url) as client,
        Progress("flights stored under a small budget", ROWS) as step,
    ):
        for numbers in batches(iter(range(0, FLIGHTS.rows, EVERY)), BATCH):
            found = flights.get_many([key_of(FLIGHTS, number) for number in numbers])
            client.set_many({key: {**flight, LINES: beside.of(flight)} for key, flight in found.items()})
            stored += len(found)
            step.at(stored)
        keys = len(client)
    report.check(
        "flights stored, each with the lines of three more tables about it",
        keys == stored == ROWS,
        f"{keys:,} rows, {stored / (time.perf_counter() - start):,.0f} rows a second, each one durable",
    )


def forget_pages(folder: Path) -> None:
    """Lets the system forget what it has in memory of the segments, so that reads go to the disk."""
    for path in folder.glob("cold-*"):
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


@dataclass(frozen=True)
class Share:
    """What one reader has read and compared so far."""

    rows: int
    different: list[str]
    """The first differences."""


def prove(report: Report, url: str) -> None:
    """Several processes read every row back and hold it against the files."""
    spawn = multiprocessing.get_context("spawn")
    shares, results = [Share(0, [])] * READERS_AT_ONCE, spawn.SimpleQueue()
    processes = [
        spawn.Process(target=read_back, args=(url, number, results), daemon=True)
        for number in range(READERS_AT_ONCE)
    ]
    start = time.perf_counter()
    for process in processes:
        process.start()
    with Progress("flights read back from disk and compared", ROWS) as step:
        while any(process.is_alive() for process in processes) or not results.empty():
            if results.empty():
                time.sleep(PAUSE_SECONDS)
                continue
            number, share = results.get()
            shares[number] = share
            step.at(sum(one.rows for one in shares))
    different = [line for one in shares for line in one.different]
    rows = sum(one.rows for one in shares)
    first = f", first: {different[0]}" if different else ""
    report.check(
        "read back from disk: value and type as in the files",
        not different and rows == ROWS,
        f"{rows:,} rows, {len(different)} differ{first}, "
        f"{rows / (time.perf_counter() - start):,.0f} rows a second",
    )


def read_back(url: str, number: int, results: Any) -> None:
    """One reader, in a process of its own: every so manyth batch."""
    beside, share = Beside.read(), Share(0, [])
    with kv.connect(url) as client:
        for place, rows in enumerate(batches(islice(FLIGHTS.texts(), 0, None, EVERY), BATCH)):
            if place % READERS_AT_ONCE != number:
                continue
            keys = [key_of(FLIGHTS, (place * BATCH + offset) * EVERY) for offset in range(len(rows))]
            found = client.get_many(keys)
            different = list(share.different)
            for key, texts in zip(keys, rows, strict=True):
                different += beside.differences(texts, found.get(key))
            share = Share(share.rows + len(found), different[:SHOWN])
            results.put((number, share))


class HotReader:
    """A process that reads the same few keys again and again and times each; a context manager."""

    def __init__(self, url: str, keys: list[str]) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.ours, theirs = spawn.Pipe()
        self.process = spawn.Process(target=read_hot, args=(url, keys, theirs), daemon=True)

    def __enter__(self) -> HotReader:
        self.process.start()
        self.receive()
        return self

    def taken(self) -> list[float]:
        """Seconds that each read took since the last time, or since the start."""
        self.ours.send(True)
        return self.receive()

    def receive(self) -> list[float]:
        """What the process says."""
        if not self.ours.poll(PATIENCE):
            raise RuntimeError("the reader of hot keys does not answer")
        seconds: list[float] = self.ours.recv()
        return seconds

    def __exit__(self, *exc: object) -> None:
        self.process.terminate()
        self.process.join()


def read_hot(url: str, keys: list[str], asked: Connection) -> None:
    """The process of `HotReader`: answers with what it measured whenever it is asked."""
    with kv.connect(url) as client:
        for key in keys * 2:
            client.get(key)
        seconds: list[float] = []
        asked.send(seconds)
        while True:
            for key in keys:
                start = time.perf_counter()
                client.get(key)
                seconds.append(time.perf_counter() - start)
                time.sleep(PAUSE_SECONDS)
                if asked.poll():
                    asked.recv()
                    asked.send(seconds)
                    seconds.clear()


def tier_figures(server: Running) -> dict[str, int]:
    """The figures of `INFO`."""
    text = ask(server.port, b"INFO").decode()
    return {name: int(value) for name, value in re.findall(r"^(\w+):(\d+)\r$", text, re.MULTILINE)}


def report_tiers(report: Report, before: Mapping[str, int], after: Mapping[str, int]) -> None:
    """Where the keys are, and where reads found them."""
    memory, disk = after["tier_keys_in_memory"], after["tier_keys_on_disk"]
    report.check(
        f"the table is more than {TIMES}x the budget of {BUDGET >> 20} MiB",
        after["tier_disk_live_bytes"] > TIMES * BUDGET and memory + disk == ROWS,
        f"{memory:,} keys in memory, all told {after['used_memory'] >> 20} MiB; "
        f"{disk:,} on disk, {after['tier_disk_live_bytes'] >> 20} MiB",
    )
    reads = {
        name: after[name] - before[name] for name in ("tier_reads_memory", "tier_fetched", "tier_promoted")
    }
    report.check(
        f"more than {COLD_SHARE:.0%} of the rows came from disk",
        reads["tier_fetched"] > COLD_SHARE * ROWS,
        f"{reads['tier_fetched']:,} read from disk, mean {after['tier_fetch_mean_us'] / 1e3:.1f} ms, "
        f"{reads['tier_promoted']:,} of them taken back into memory",
    )


def percentiles(seconds: list[float]) -> str:
    """Median, 99th percentile and longest, in milliseconds."""
    ordered = sorted(seconds)
    picked = (ordered[int(share * (len(ordered) - 1))] for share in (0.5, 0.99, 1))
    return ", ".join(f"{one * 1e3:.2f}" for one in picked)
