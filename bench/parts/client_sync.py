"""Synchronous Python clients: round trips and pipelines of one thread, each against the same server."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from typing import Any

from bench import meters
from bench.plan import Plan
from bench.rows import OURS, Row, Target
from bench.servers import Running, all_started

TITLE = "Synchronous Python clients, one thread, GET of a 100 B str, operations a second, cores kept awake"

REDIS_PY, GLIDE = "redis-py+hiredis", "valkey-glide-sync"
VALUE = "x" * 100
KEYS = [f"key:{number:012d}" for number in range(100)]

Measurement = Callable[[float], float]
"""Runs for about so many seconds and says how many operations a second it did."""


def measure(plan: Plan) -> tuple[list[Row], dict[str, str]]:
    """All rows of the part, and what each client is."""
    with ExitStack() as stack:
        running, _ = stack.enter_context(all_started([OURS, "redis 7.0"]))
        if not running:
            raise RuntimeError("no server to measure against: make build")
        server = running[0]
        single: dict[str, Measurement] = {}
        piped: dict[str, Measurement] = {}
        how = {name: add(stack, server, single, piped) for name, add in CLIENTS.items()}
        stack.enter_context(meters.cores_awake())
        rows = [
            compare(plan, "round trip", single, [Target("≥", 2.0, REDIS_PY)]),
            compare(plan, "pipeline of 100", piped, [Target("≥", 8.0, REDIS_PY)]),
        ]
    return rows, {name: f"{text}, against {server.name}" for name, text in how.items()}


def compare(plan: Plan, what: str, clients: dict[str, Measurement], targets: list[Target]) -> Row:
    """One row: every client does the same."""

    def timed(one: Measurement) -> Callable[[], float]:
        return lambda: one(plan.seconds)

    values = plan.interleaved({name: timed(one) for name, one in clients.items()})
    shown = ", ".join(f"{name} {sample.middle:,.0f}" for name, sample in values.items())
    print(f"    {what} [op/s]: {shown}", flush=True)
    return Row(what, "op/s", values, targets, headline=True)


def repeated(operation: Callable[[], object], operations: int) -> Measurement:
    """Calls an operation that counts as so many until the time is over."""

    def rate(seconds: float) -> float:
        done, start = 0, time.perf_counter()
        end = start + seconds
        while time.perf_counter() < end:
            operation()
            done += operations
        return done / (time.perf_counter() - start)

    return rate


def add_ours(
    stack: ExitStack, server: Running, single: dict[str, Measurement], piped: dict[str, Measurement]
) -> str:
    """Our client, over the native protocol; it talks to no other server."""
    if server.name != OURS or importlib.util.find_spec("data_bridge") is None:
        return "missing (make build)"
    kv = importlib.import_module("data_bridge.kv")
    client = stack.enter_context(kv.connect(f"kv://127.0.0.1:{server.port}"))
    for key in KEYS:
        client.set(key, VALUE)

    def pipeline() -> None:
        with client.pipeline() as pipe:
            for key in KEYS:
                pipe.get(key)

    single[OURS] = repeated(lambda: client.get(KEYS[0]), 1)
    piped[OURS] = repeated(pipeline, len(KEYS))
    return "native protocol"


def add_redis_py(
    stack: ExitStack, server: Running, single: dict[str, Measurement], piped: dict[str, Measurement]
) -> str:
    """redis-py with the hiredis parser."""
    redis: Any = importlib.import_module("redis")
    client = stack.enter_context(redis.Redis(port=server.port))
    client.mset(dict.fromkeys(KEYS, VALUE))

    def pipeline() -> None:
        pipe = client.pipeline(transaction=False)
        for key in KEYS:
            pipe.get(key)
        pipe.execute()

    single[REDIS_PY] = repeated(lambda: client.get(KEYS[0]), 1)
    piped[REDIS_PY] = repeated(pipeline, len(KEYS))
    return f"{version('redis')}, hiredis {version('hiredis')}"


def add_glide(
    stack: ExitStack, server: Running, single: dict[str, Measurement], piped: dict[str, Measurement]
) -> str:
    """valkey-glide, blocking."""
    glide: Any = importlib.import_module("glide_sync")
    address = glide.NodeAddress("127.0.0.1", server.port)
    client = glide.GlideClient.create(glide.GlideClientConfiguration([address]))
    stack.callback(client.close)
    for key in KEYS:
        client.set(key, VALUE)

    def pipeline() -> None:
        batch = glide.Batch(is_atomic=False)
        for key in KEYS:
            batch.get(key)
        client.exec(batch, raise_on_error=True)

    single[GLIDE] = repeated(lambda: client.get(KEYS[0]), 1)
    piped[GLIDE] = repeated(pipeline, len(KEYS))
    return version("valkey-glide-sync")


CLIENTS = {OURS: add_ours, REDIS_PY: add_redis_py, GLIDE: add_glide}
