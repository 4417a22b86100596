"""What the workers of the Celery part run; broker, backend and queue come from the environment."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

TASK = "bench.echo"

app: Any = Celery("bench", broker=os.environ.get("BENCH_BROKER"), backend=os.environ.get("BENCH_BACKEND"))
app.conf.task_default_queue = os.environ.get("BENCH_QUEUE", "bench")


@app.task(name=TASK)
def echo(value: Any) -> Any:
    """What it got."""
    return value
