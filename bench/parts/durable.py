"""Durable writes: SETs of one client and of many, each answered when it is on disk (`always`) or at once (`everysec`).

The servers keep their files in a folder for temporary files: that must stand on a disk, or syncs cost nothing.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Literal

from bench import load
from bench.plan import Plan
from bench.postgres import NAME as POSTGRES
from bench.postgres import Postgres
from bench.postgres import started as postgres_started
from bench.rows import OURS, Row, Sample, Target
from bench.servers import KINDS, Kind, Running, ask, our_arguments, redis_arguments, started

TITLE = (
    "Durable SETs of 100 B: `everysec` in pipelines of 16, server and client on a core each; "
    "`always` unpipelined by number of clients, nothing pinned, a client that never sleeps"
)

UNLOGGED, REDIS = "ours without a log", "redis 7.0"
RATES = {1: 1.0, 8: 1.2, 64: 1.4, 256: 1.6}
"""Clients, and the target beside Redis."""
WRITES_PER_SYNC = {64: 38.0}
KEYS = 100_000
PAUSE_MS = 20.0

Durability = Literal["none", "everysec", "always"]


def ours(name: str, durability: Durability) -> Kind:
    """Our server with a task namespace of this durability; `none` = without a directory."""
    policy = "default:task" if durability == "none" else f"default:task:{durability}"
    data = [] if durability == "none" else ["--data", "data"]
    more = ["--namespace", policy, "--drain-delay", "0", *data]
    known = KINDS[0]
    return Kind(name, known.find, lambda port: [*our_arguments(port), *more], known.remedy)


def redis(durability: Durability) -> Kind:
    """Redis with its append-only file."""
    known = next(kind for kind in KINDS if kind.name == REDIS)
    more = ["--appendonly", "yes", "--appendfsync", durability]
    return Kind(REDIS, known.find, lambda port: [*redis_arguments(port), *more], known.remedy)


def measure(plan: Plan) -> tuple[list[Row], dict[str, str]]:
    """All rows of the part, and how each server ran."""
    load.build()
    rows, everysec = lazily_synced(plan)
    synced, how = always(plan)
    for name, text in everysec.items():
        how[name] = f"{text}; {how[name]}" if name in how else text
    return [*rows, *synced], how


def lazily_synced(plan: Plan) -> tuple[list[Row], dict[str, str]]:
    """What a log that nobody waits for costs, and how long others wait at most."""
    cores = sorted(os.sched_getaffinity(0))
    kinds = [ours(OURS, "everysec"), ours(UNLOGGED, "none"), redis("everysec")]
    with ExitStack() as stack:
        running, how = start(stack, kinds, cores[-1:])
        for server in running:
            load.fill(server, "set", plan.keys[0])

        def cost(server: Running) -> Callable[[], float]:
            options = {"pipeline": 16, "keys": plan.keys[0]}
            return lambda: (
                load.run(server, "set", cores[:1], seconds=plan.seconds, **options).cpu_microseconds
            )

        values = plan.interleaved({server.name: cost(server) for server in running})
        targets = [Target("≤", 1.18, UNLOGGED), Target("≤", 0.5, REDIS)]
        rows = [show(Row("everysec, CPU of a write, pipeline 16", "us", values, targets, headline=True))]
        values = plan.interleaved({server.name: pause(server, plan.seconds * 3) for server in running})
        what = "everysec, longest reply beside 8 clients that write"
        rows.append(show(Row(what, "ms", values, [Target("≤", PAUSE_MS)])))
    return rows, how


def always(plan: Plan) -> tuple[list[Row], dict[str, str]]:
    """Throughput, server CPU and writes for each sync by number of clients."""
    rows = []
    with ExitStack() as stack:
        running, how = start(stack, [ours(OURS, "always"), redis("always")], None)
        for server in running:
            load.fill(server, "set", KEYS)
        postgres = stack.enter_context(postgres_started())
        how[POSTGRES] = postgres if isinstance(postgres, str) else postgres.how
        for clients, goal in RATES.items():
            measured = {server.name: Measured(server, clients, plan.seconds) for server in running}
            rates = {name: one.rate for name, one in measured.items()}
            if isinstance(postgres, Postgres):
                rates[POSTGRES] = upserts(postgres, clients, plan.seconds)
            values = plan.interleaved(rates)
            targets = [Target("≥", goal, REDIS), Target("≥", 3.0, POSTGRES)]
            rows.append(show(Row(f"always, {named(clients)}", "op/s", values, targets, headline=True)))
            values = {name: Sample.of(one.costs) for name, one in measured.items()}
            what = f"always, {named(clients)}, CPU of a write"
            rows.append(show(Row(what, "us", values, [Target("≤", 0.5, REDIS)], headline=True)))
            grouped = measured[OURS].grouped if OURS in measured else []
            if grouped:
                least = [Target("≥", WRITES_PER_SYNC[clients])] if clients in WRITES_PER_SYNC else []
                what = f"always, {named(clients)}, writes for each sync"
                rows.append(show(Row(what, "writes", {OURS: Sample.of(grouped)}, least)))
    return rows, how


class Measured:
    """What the rounds of one server showed beside its rate."""

    def __init__(self, server: Running, clients: int, seconds: float) -> None:
        self.server, self.clients, self.seconds = server, clients, seconds
        self.costs: list[float] = []
        self.grouped: list[float] = []

    def rate(self) -> float:
        """Writes a second of one round."""
        before = syncs(self.server)
        options = {"connections": self.clients, "pipeline": 1, "keys": KEYS}
        outcome = load.run(self.server, "set", None, seconds=self.seconds, **options)
        self.costs.append(outcome.cpu_microseconds)
        if before is not None and (after := syncs(self.server)):
            self.grouped.append(outcome.operations / max(1, after - before))
        return outcome.rate


def start(
    stack: ExitStack, kinds: list[Kind], cores: list[int] | None
) -> tuple[list[Running], dict[str, str]]:
    """Those that are there, and how each runs or why it is missing."""
    servers = {kind.name: stack.enter_context(started(kind, cores)) for kind in kinds}
    running = [server for server in servers.values() if isinstance(server, Running)]
    return running, {name: one if isinstance(one, str) else one.how for name, one in servers.items()}


def syncs(server: Running) -> int | None:
    """Syncs of the log so far; only ours tells."""
    found = re.search(r"log_syncs:(\d+)", ask(server.port, b"INFO", b"persistence").decode(errors="replace"))
    return int(found[1]) if found else None


def upserts(postgres: Postgres, clients: int, seconds: float) -> Callable[[], float]:
    """One-row upserts a second; over a few seconds, since connecting takes part of them."""
    return lambda: postgres.upserts(clients, max(3.0, seconds))


def pause(server: Running, seconds: float) -> Callable[[], float]:
    """The longest wait in milliseconds of a client that writes one key while eight others write as fast as they can."""

    def longest() -> float:
        options = {"connections": 8, "pipeline": 16, "keys": KEYS, "seconds": seconds}
        others = threading.Thread(target=load.run, args=(server, "set", None), kwargs=options)
        others.start()
        worst = longest_reply(server.port, others.is_alive)
        others.join()
        return worst

    return longest


def longest_reply(port: int, goes_on: Callable[[], bool]) -> float:
    """The longest SET in milliseconds as long as something goes on."""
    worst = 0.0
    with socket.create_connection(("127.0.0.1", port)) as connection:
        while goes_on():
            start = time.monotonic()
            connection.sendall(b"*3\r\n$3\r\nSET\r\n$5\r\nprobe\r\n$1\r\n1\r\n")
            connection.recv(64)
            worst = max(worst, time.monotonic() - start)
            time.sleep(0.001)
    return worst * 1e3


def named(clients: int) -> str:
    """`1 client`, `8 clients`."""
    return f"{clients} client{'s' if clients > 1 else ''}"


def show(row: Row) -> Row:
    """Prints a row as soon as it is there."""
    shown = ", ".join(f"{name} {sample.middle:.3g}" for name, sample in row.values.items())
    print(f"    {row.what} [{row.unit}]: {shown}", flush=True)
    return row
