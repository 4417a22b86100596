"""Part (b): the task store. Worker processes race for a task for each carrier and day, while watchers wait.

The workers are `demo.worker`, the checker that judges them afterwards is `demo.ledger`.
"""

from __future__ import annotations

import csv
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from multiprocessing.process import BaseProcess
from pathlib import Path

from data_bridge import kv

from bench.servers import ROOT
from demo.ledger import PREFIX
from demo.report import Progress, Report
from demo.servers import Servers
from demo.source import FLIGHTS
from demo.watcher import LAST_KEY, Waiters, Watcher
from demo.worker import COUNTER, RUN, WAIT_SECONDS, work

TITLE = (
    "task store: workers race for tasks, watchers wait without polling, a checker joins what each side wrote"
)
WORKERS = 4


@dataclass
class Plan:
    """The tasks: the flights of each carrier and day, by number of row, and what they come to."""

    flights: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    days: dict[str, tuple[str, date]] = field(default_factory=dict)
    rows: int = 0
    distance: int = 0

    @classmethod
    def read(cls) -> Plan:
        """Reads the source file."""
        plan = cls()
        names = list(FLIGHTS.columns)
        places = [names.index(name) for name in ("carrier", "year", "month", "day", "distance")]
        for number, texts in enumerate(FLIGHTS.texts()):
            carrier, year, month, day, distance = (texts[place] for place in places)
            on = date(int(year), int(month), int(day))
            task = f"{PREFIX}{carrier}:{on}"
            plan.days[task] = (carrier, on)
            plan.flights[task].append(flight_key(number))
            plan.rows += 1
            plan.distance += int(distance)
        return plan


def flight_key(number: int) -> str:
    """Where the cache holds the flight of a row."""
    return f"flight:{number:06d}"


def show(report: Report, servers: Servers) -> None:
    """The whole part."""
    plan = Plan.read()
    with tempfile.TemporaryDirectory() as folder, kv.connect(servers.url("tasks")) as client:
        runs = Path(folder) / "runs"
        runs.mkdir()
        submit(client, plan)
        with (
            Watcher(servers.url("tasks"), len(plan.days)) as watcher,
            Waiters(servers.url("tasks"), list(plan.days)) as waiters,
            workers(servers, plan, runs) as processes,
        ):
            seconds = race(client, processes)
            client.set(LAST_KEY, {"status": "PENDING"})
        report_race(report, client, plan, seconds)
        report_watch(report, client, plan, watcher, waiters)
        report_audit(report, servers, plan, runs)


def submit(client: kv.Client, plan: Plan) -> None:
    """Stores every task as PENDING, and the state of the whole run."""
    client[RUN] = {"status": "PENDING"}
    tasks = {
        task: {"status": "PENDING", "carrier": carrier, "day": on, "keys": plan.flights[task]}
        for task, (carrier, on) in plan.days.items()
    }
    with Progress("tasks stored", len(tasks)) as step:
        client.set_many(tasks, progress=lambda done, _: step.at(done))


@contextmanager
def workers(servers: Servers, plan: Plan, runs: Path) -> Iterator[list[BaseProcess]]:
    """The worker processes, each with the same list of tasks; ended here whatever happens."""
    spawn = multiprocessing.get_context("spawn")
    keys = list(plan.days)
    processes: list[BaseProcess] = [
        spawn.Process(
            target=work,
            args=(servers.url("tasks"), servers.url("cache"), f"worker-{number}", runs, keys),
            daemon=True,
        )
        for number in range(1, WORKERS + 1)
    ]
    try:
        for process in processes:
            process.start()
        yield processes
    finally:
        for process in processes:
            process.terminate()
            process.join()


def race(client: kv.Client, processes: list[BaseProcess]) -> float:
    """Lets the workers go and waits, without polling, for the last task; seconds."""
    client.transition(RUN, expect="PENDING", to="STARTED")
    start = time.monotonic()
    ended = client.wait(RUN, field="status", until={"SUCCESS", "FAILURE"}, timeout=WAIT_SECONDS).value
    seconds = time.monotonic() - start
    if ended["status"] == "FAILURE":
        raise RuntimeError(f"a worker failed: {ended['error']}")
    for process in processes:
        process.join()
    return seconds


def report_race(report: Report, client: kv.Client, plan: Plan, seconds: float) -> None:
    """How the race went."""
    finished = client[COUNTER]
    rate = finished / seconds
    report.check(
        f"{len(plan.days):,} tasks raced for by {WORKERS} processes, all finished",
        finished == len(plan.days),
        f"{finished:,} in {seconds:.1f} s, {rate:,.0f} a second",
    )


def report_watch(report: Report, client: kv.Client, plan: Plan, watcher: Watcher, waiters: Waiters) -> None:
    """Whether the watchers were told how every task ended."""
    ends = {task: client.get_versioned(task) for task in plan.days}
    missed = [task for task, end in ends.items() if watcher.versions.get(task) != end.version]
    report.check(
        "a watcher is told every task's end, without polling",
        not missed and not watcher.lost and not watcher.thread.is_alive(),
        f"{watcher.events:,} changes told, {len(missed)} ends missed, {watcher.cpu_seconds:.2f} s of CPU",
    )
    report.check(
        f"{len(plan.days):,} coroutines wait on one connection, each for its task's typed result",
        waiters.ended == ends,
        f"{len(waiters.ended):,} woken, {sum(waiters.ended.get(task) != end for task, end in ends.items())} wrong",
    )


def report_audit(report: Report, servers: Servers, plan: Plan, runs: Path) -> None:
    """The checker on what happened, and on a copy with a double run planted."""
    client_end, lines = audit(servers, plan, runs)
    report.check("checker: no task run twice, none lost, forbidden steps refused", client_end == 0, lines[-1])
    copy = runs.with_name("planted")
    shutil.copytree(runs, copy)
    task = plant_double_run(copy)
    end, lines = audit(servers, plan, copy)
    named = [line for line in lines if task in line and "ran 2 times" in line]
    report.check("checker fails on a planted double run", end == 1 and len(named) == 1, lines[0])


def audit(servers: Servers, plan: Plan, runs: Path) -> tuple[int, list[str]]:
    """Runs the checker as a program of its own: exit code and lines."""
    totals = ["--tasks", len(plan.days), "--flights", plan.rows, "--distance", plan.distance]
    command = [sys.executable, "-m", "demo.ledger", servers.port, runs, *totals]
    done = subprocess.run(
        [str(word) for word in command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.returncode, (done.stdout or done.stderr).strip().splitlines() or ["the checker said nothing"]


def plant_double_run(runs: Path) -> str:
    """Copies one line of a worker's file to the file of another; the task it is about."""
    first, second, *_ = sorted(runs.glob("*.tsv"))
    with first.open(encoding="utf-8", newline="") as file:
        row = next(csv.reader(file, delimiter="\t"))
    with second.open("a", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t", lineterminator="\n").writerow(row)
    return row[0]
