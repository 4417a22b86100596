"""The tasks of the tests with real Celery workers. Broker and backend come from the environment."""

from __future__ import annotations

import gc
import itertools
import os
import time
from decimal import Decimal
from typing import Any

from celery import Celery, chord, group, signals
from events import note, rest

BACKEND = os.environ.get("BACKEND_OF_CELERY") or os.environ["BACKEND"]
app: Any = Celery("celery_tasks", broker=os.environ["BROKER"], backend=BACKEND)
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=8,
    result_backend_always_retry=True,
    result_extended=True,
    broker_connection_retry_on_startup=True,
    worker_cancel_long_running_tasks_on_connection_loss=False,
)


@signals.before_task_publish.connect
def _sent(sender: str, headers: Any, **_: Any) -> None:
    note("sent", headers["id"], sender, headers["retries"])


@signals.task_prerun.connect
def _begins(task_id: str, task: Any, **_: Any) -> None:
    redelivered = (task.request.delivery_info or {}).get("redelivered")
    note("again" if redelivered else "ran", task_id, task.name, task.request.retries, task.request.hostname)


_ended = itertools.count(1)


@signals.task_postrun.connect
def _tidies(**_: Any) -> None:
    # Celery keeps a copy of each frame's code of a failure, in cycles: tens of megabytes before Python collects them.
    if next(_ended) % 100 == 0:
        gc.collect()


class RefusedError(Exception):
    """A failure with typed arguments."""


@app.task
def echo(value: Any) -> Any:
    """What it got, with a Decimal and a tuple beside it, which JSON has no words for."""
    return {"value": value, "price": Decimal("19.90"), "pair": (1, b"two")}


@app.task
def add(x: int, y: int) -> int:
    """A number."""
    rest()
    return x + y


@app.task
def total(numbers: list[Any]) -> int:
    """The sum of numbers, nested or not."""
    return sum(total(number) if isinstance(number, list) else number for number in numbers)


@app.task
def refuse(amount: int) -> None:
    """Fails."""
    raise RefusedError("too much", Decimal(amount))


@app.task
def unstorable() -> object:
    """Returns what nothing can store."""
    return object()


@app.task(bind=True, max_retries=3)
def third_time(self: Any) -> int:
    """Succeeds at the third try."""
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return int(self.request.retries)


@app.task(bind=True)
def steps(self: Any, count: int) -> int:
    """Tells its progress."""
    for number in range(count):
        self.update_state(state="PROGRESS", meta={"step": number})
        time.sleep(0.05)
    return count


@app.task(bind=True)
def replaced(self: Any, x: int) -> Any:
    """Becomes a group."""
    raise self.replace(group(add.s(x, number) for number in range(3)))


@app.task
def launches(count: int) -> Any:
    """Sends a chord of its own; the result is that of the body."""
    body: Any = chord(group(add.s(number, 1) for number in range(count)), total.s()).apply_async()
    return body.id


@app.task
def long_chain(count: int) -> str:
    """Sends a chain and keeps the results as children."""
    signature = add.s(0, 1)
    for _ in range(count - 1):
        signature |= add.s(1)
    return str(signature.apply_async().id)
