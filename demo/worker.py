"""One worker process of the task store: claims tasks by `transition`, carries them out, stores typed results.

What it ran goes into a file of its own, line by line, for the checker. Started by `demo.tasks`.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from data_bridge import kv

FARE = Decimal("0.1437")
"""Revenue of a mile flown, in dollars: what makes money of distances."""
RUN = "run"
"""The key whose state starts the workers and tells the end."""
COUNTER = "finished"
WAIT_SECONDS = 120.0


def work(url: str, flights_url: str, name: str, folder: Path, keys: Sequence[str]) -> None:
    """Carries out every task that this worker is the first to claim; a fault ends the whole run."""
    with (
        kv.connect(url) as tasks,
        kv.connect(flights_url) as flights,
        (folder / f"{name}.tsv").open("a", encoding="utf-8", newline="", buffering=1) as file,
    ):
        ledger = csv.writer(file, delimiter="\t", lineterminator="\n")
        tasks.wait(RUN, field="status", until="STARTED", timeout=WAIT_SECONDS)
        try:
            for key in keys:
                version = claimed(tasks, key, name)
                if version is not None:
                    finish(tasks, flights, key, version, ledger.writerow)
                    if tasks.incr(COUNTER) == len(keys):
                        tasks.transition(RUN, expect="STARTED", to="SUCCESS")
        except BaseException as error:
            tasks.transition(RUN, expect="STARTED", to="FAILURE", update={"error": f"{name}: {error!r}"})
            raise


def finish(
    tasks: kv.Client, flights: kv.Client, key: str, version: int, write: Callable[[list[Any]], object]
) -> None:
    """Carries out a claimed task, writes that down, then stores the result under the claim's version."""
    records = flights.get_many(tasks.hget(key, "keys")).values()
    state, result = carried_out(records)
    write([key, state, result["flights"], result["distance"], result["revenue"]])
    tasks.transition(key, expect="STARTED", to=state, update=result, fence=version)


def claimed(tasks: kv.Client, key: str, name: str) -> int | None:
    """The version of the claim, None if another worker was first."""
    try:
        return tasks.transition(key, expect="PENDING", to="STARTED", update={"worker": name}).version
    except kv.ConflictError:
        return None


def carried_out(flights: Iterable[dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """One carrier's day: the state it ends in, and the result."""
    flights = list(flights)
    flown = [flight for flight in flights if flight["dep_time"] is not None]
    distance = sum(flight["distance"] for flight in flights)
    result: dict[str, Any] = {
        "flights": len(flights),
        "cancelled": len(flights) - len(flown),
        "distance": distance,
        "revenue": distance * FARE,
    }
    if not flown:
        return "FAILURE", result | {"error": "every flight was cancelled"}
    delays = [flight["dep_delay"] for flight in flown]
    return "SUCCESS", result | {
        "mean_delay": sum(delays) / len(delays),
        "first": min(flight["time_hour"] for flight in flown),
        "destinations": {flight["dest"] for flight in flown},
    }
