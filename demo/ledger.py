"""`python -m demo.ledger`: the checker of the task store, a program of its own that shares no code with the workers.

It joins what every worker wrote into its own file with the results that are stored, tries forbidden steps, and ends
with exit code 1 if a task ran twice, got lost, or holds something else than its worker wrote.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import redis
from data_bridge import kv

PREFIX = "task:"
ALWAYS = {"flights": int, "cancelled": int, "distance": int, "revenue": Decimal}
RESULTS: Mapping[str, Mapping[str, type]] = {
    "SUCCESS": {**ALWAYS, "mean_delay": float, "first": datetime, "destinations": set},
    "FAILURE": {**ALWAYS, "error": str},
}
"""What a finished task holds, with exactly these types."""
TRIED_TASKS = 200
"""Finished tasks on which forbidden steps are tried."""
SHOWN = 10


@dataclass(frozen=True)
class Run:
    """One run of a task, as its worker wrote it down."""

    worker: str
    task: str
    state: str
    flights: int
    distance: int
    revenue: Decimal


@dataclass(frozen=True)
class Expected:
    """What the source file says all tasks together must come to."""

    tasks: int
    flights: int
    distance: int


def read_runs(folder: Path) -> list[Run]:
    """The runs of all workers; a file that ends in half a line is an error."""
    runs = []
    for path in sorted(folder.glob("*.tsv")):
        with path.open(encoding="utf-8", newline="") as file:
            for task, state, flights, distance, revenue in csv.reader(file, delimiter="\t"):
                runs.append(Run(path.stem, task, state, int(flights), int(distance), Decimal(revenue)))
    return runs


def audit(runs: Sequence[Run], stored: Mapping[str, Mapping[Any, Any]], expected: Expected) -> list[str]:
    """What is wrong between the workers' files and the store; empty if nothing is."""
    by_task: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_task[run.task].append(run)
    wrong = [
        f"{task} ran {len(several)} times: {', '.join(run.worker for run in several)}"
        for task, several in by_task.items()
        if len(several) > 1
    ]
    wrong += [f"{task} was lost: no worker ran it" for task in stored if task not in by_task]
    wrong += [f"{task} was run but is not stored" for task in by_task if task not in stored]
    for task, several in by_task.items():
        if task in stored:
            wrong += [f"{task}: {fault}" for fault in faults(several[0], stored[task])]
    if len(stored) != expected.tasks or not stored:
        wrong.append(f"{len(stored)} tasks are stored, {expected.tasks} were given")
    totals = [(name, sum(task.get(name, 0) for task in stored.values())) for name in ("flights", "distance")]
    wrong += [
        f"the tasks' {name} come to {found}, the source has {getattr(expected, name)}"
        for name, found in totals
        if found != getattr(expected, name)
    ]
    return wrong


def faults(run: Run, stored: Mapping[Any, Any]) -> list[str]:
    """Where a stored task is not finished, not typed, or not what its worker wrote."""
    state = str(stored.get("status"))
    if state not in RESULTS:
        return [f"was lost in state {state}"]
    wrong = [
        f"{name} is {stored.get(name)!r}, no {kind.__name__}"
        for name, kind in RESULTS[state].items()
        if type(stored.get(name)) is not kind
    ]
    mine = (run.worker, run.state, run.flights, run.distance, run.revenue)
    theirs = tuple(stored.get(name) for name in ("worker", "status", "flights", "distance", "revenue"))
    return wrong if mine == theirs else [*wrong, f"holds {theirs}, its worker wrote {mine}"]


def forbidden_steps(
    client: kv.Client, redis_client: redis.Redis, tasks: Sequence[str]
) -> tuple[int, list[str]]:
    """Tries to take finished tasks back, by every door; how often, and what was not refused."""
    tried, wrong = 0, []
    for task in tasks:
        before = client.get_versioned(task)
        steps: list[tuple[str, Callable[[str, str], object]]] = [
            ("a step back", lambda key, state: client.transition(key, expect=state, to="STARTED")),
            ("a second claim", lambda key, _: client.transition(key, expect="PENDING", to="STARTED")),
            ("a typed write", lambda key, _: client.hset(key, "status", "PENDING")),
            ("a whole new hash", lambda key, _: client.set(key, {"status": "PENDING"})),
            ("HSET of redis-py", lambda key, _: redis_client.hset(key, "status", "STARTED")),
        ]
        for name, step in steps:
            tried += 1
            try:
                step(task, before.value["status"])
            except (kv.StateError, kv.ConflictError, redis.ResponseError):
                continue
            wrong.append(f"{task}: {name} from {before.value['status']} was not refused")
        if client.get_versioned(task) != before:
            wrong.append(f"{task}: a refused step changed it")
    return tried, wrong


def stored_tasks(client: kv.Client) -> dict[str, dict[Any, Any]]:
    """Every task that is stored."""
    names = sorted(client.scan(prefix=PREFIX))
    found: dict[str, dict[Any, Any]] = {}
    for start in range(0, len(names), 500):
        found |= client.get_many(names[start : start + 500])
    return found


def main() -> int:
    """Checks; 0 if everything is right, 1 if not."""
    parser = argparse.ArgumentParser(
        prog="python -m demo.ledger", description="Checks the tasks of the demo."
    )
    parser.add_argument("port", type=int, help="where the server answers")
    parser.add_argument("runs", type=Path, help="folder with the workers' files")
    for name in ("tasks", "flights", "distance"):
        parser.add_argument(f"--{name}", type=int, required=True, help=f"{name} that must be there")
    arguments = parser.parse_args()
    expected = Expected(arguments.tasks, arguments.flights, arguments.distance)
    with (
        kv.connect(f"kv://127.0.0.1:{arguments.port}/tasks") as client,
        redis.Redis(port=arguments.port, db=1) as redis_client,
    ):
        stored = stored_tasks(client)
        runs = read_runs(arguments.runs)
        wrong = audit(runs, stored, expected)
        finished = [task for task, fields in stored.items() if fields.get("status") in RESULTS]
        tried, taken = forbidden_steps(
            client, redis_client, finished[:: max(1, len(finished) // TRIED_TASKS)]
        )
    wrong += taken if tried else ["no forbidden step could be tried"]
    for line in wrong[:SHOWN]:
        print(f"wrong: {line}")
    workers = len({run.worker for run in runs})
    print(
        f"{len(runs):,} runs of {workers} workers, {len(stored):,} tasks, {tried:,} forbidden steps, {len(wrong)} wrong"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
