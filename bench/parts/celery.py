"""Celery's result backends: storing and collecting results alone, and whole tasks with a worker and a Redis broker."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any
from uuid import uuid4

from celery import Celery, group, states
from celery.result import ResultSet

from bench.celery_tasks import TASK
from bench.plan import Plan
from bench.rows import OURS, Row, Target
from bench.servers import ROOT, all_started

TITLE = "Celery result backends, results of a small dict, one client; the broker is the same Redis for both"

REDIS = "Celery's Redis backend"
RESULT = {"number": 1, "text": "x" * 50}
COLLECTED = 500
GROUPED = 100


@dataclass(frozen=True)
class Backend:
    """A program whose results go to one backend, with a worker that runs its tasks."""

    app: Any

    def stored(self) -> int:
        """Stores one result."""
        self.app.backend.store_result(str(uuid4()), RESULT, states.SUCCESS)
        return 1

    def collected(self) -> int:
        """Stores many results and collects them together."""
        names = [str(uuid4()) for _ in range(COLLECTED)]
        for name in names:
            self.app.backend.store_result(name, RESULT, states.SUCCESS)
        results = ResultSet([self.app.AsyncResult(name) for name in names], app=self.app)
        return len(results.get(timeout=60) or ())

    def round_trip(self) -> int:
        """One task, from sending it to its result."""
        self.app.send_task(TASK, (RESULT,)).get(timeout=60)
        return 1

    def grouped(self) -> int:
        """A group of tasks, from sending them to all of their results."""
        tasks: Any = group(self.app.signature(TASK, (RESULT,)) for _ in range(GROUPED))
        return len(tasks.apply_async().get(timeout=60))


def measure(plan: Plan) -> tuple[list[Row], dict[str, str]]:
    """All rows of the part, and what each backend is."""
    with ExitStack() as stack:
        running, how = stack.enter_context(all_started([OURS, "redis 7.0"]))
        ports = {server.name: server.port for server in running}
        if len(ports) < 2:
            raise RuntimeError("both servers are needed: make build, apt-get install redis-server")
        redis = f"redis://127.0.0.1:{ports['redis 7.0']}"
        urls = {OURS: f"data-bridge://127.0.0.1:{ports[OURS]}/tasks", REDIS: f"{redis}/1"}
        backends = {
            name: Backend(stack.enter_context(program(f"{redis}/0", url, name))) for name, url in urls.items()
        }
        rows = all_rows(plan, backends)
    return rows, {REDIS: f"celery {version('celery')}, redis {version('redis')}; {how['redis 7.0']}"}


def all_rows(plan: Plan, backends: dict[str, Backend]) -> list[Row]:
    """Rates and the client's CPU of everything that is done."""
    rows = []
    for what, work, rated, cost in [
        ("store a result", Backend.stored, [Target("≥", 1.3, REDIS)], []),
        (
            "store and collect a result",
            Backend.collected,
            [Target("≥", 1.3, REDIS)],
            [Target("≤", 0.5, REDIS)],
        ),
        ("task, one at a time", Backend.round_trip, [], []),
        (f"task of a group of {GROUPED}", Backend.grouped, [], []),
    ]:
        for unit, meter, targets in [("op/s", rate, rated), ("us", cpu, cost)]:
            values = plan.interleaved(
                {name: meter(plan, backend, work) for name, backend in backends.items()}
            )
            title = what if meter is rate else f"client CPU: {what}"
            row = Row(title, unit, values, targets, headline=bool(targets))
            shown = ", ".join(f"{name} {sample.middle:,.0f}" for name, sample in values.items())
            print(f"    {title} [{unit}]: {shown}", flush=True)
            rows.append(row)
    return rows


Work = Callable[[Backend], int]


def rate(plan: Plan, backend: Backend, work: Work) -> Callable[[], float]:
    """Operations a second."""

    def a_second() -> float:
        done, start = 0, time.perf_counter()
        while time.perf_counter() < start + plan.seconds:
            done += work(backend)
        return done / (time.perf_counter() - start)

    return a_second


def cpu(plan: Plan, backend: Backend, work: Work) -> Callable[[], float]:
    """Microseconds of this process an operation takes."""

    def microseconds() -> float:
        done, start, used = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() < start + plan.seconds:
            done += work(backend)
        return (time.process_time() - used) / done * 1e6

    return microseconds


@contextmanager
def program(broker: str, url: str, name: str) -> Iterator[Any]:
    """An app and a worker that runs its tasks, in a queue of their own."""
    app: Any = Celery(f"bench-{name}", broker=broker, backend=url, set_as_current=False)
    queue = "ours" if name == OURS else "redis"
    app.conf.task_default_queue = queue
    environment = {**os.environ, "BENCH_BROKER": broker, "BENCH_BACKEND": url, "BENCH_QUEUE": queue}
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "bench.celery_tasks",
        "worker",
        "-P",
        "threads",
        "-c",
        "2",
    ]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "CRITICAL"]
    worker = subprocess.Popen(
        [*command, *quiet], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        app.send_task(TASK, (RESULT,)).get(timeout=60)
        yield app
    finally:
        worker.terminate()
        worker.wait(timeout=60)
        app.close()
