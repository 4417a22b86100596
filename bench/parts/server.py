"""Server CPU time of one operation over RESP, by command, value size and pipeline; and throughput on all cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from bench import load
from bench.plan import Plan, RefusedError
from bench.rows import OURS, Row, Target
from bench.servers import FLOOR, FLOOR_KIND, KINDS, Running, all_started, ask

TITLE = "Server CPU microseconds of one operation, 50 connections, 1 M keys of 16 B, server and client on a core each"

OUR_RESP = "ours over RESP"
REDIS_7, REDIS_8, KEVY = "redis 7.0", "redis 8.2", "kevy 7"
BY_PIPELINE = {
    1: [Target("≤", 0.8, REDIS_7, FLOOR), Target("≤", 1.15, FLOOR)],
    16: [Target("≤", limit, peer, FLOOR) for peer, limit in ((REDIS_7, 0.35), (REDIS_8, 0.45), (KEVY, 0.7))],
    100: [Target("≤", 0.25, REDIS_7, FLOOR)],
}
COLLECTIONS = {
    "INCR": "incr",
    "LPUSH and RPOP": "lpush_rpop",
    "HSET": "hset",
    "SADD": "sadd",
    "ZADD": "zadd",
}
COLLECTION_KEYS = 10_000


def measure(plan: Plan) -> tuple[list[Row], dict[str, str]]:
    """All rows of the part, and how each server ran."""
    load.build()
    cores = sorted(os.sched_getaffinity(0))
    client, server = cores[:1], cores[-1:]
    rows = []
    names = [kind.name for kind in [*KINDS, FLOOR_KIND]]
    with all_started(names, cores=server) as (running, how):
        for size in (16, 100):
            fill_all(running, plan.keys[0], size)
            for pipeline, targets in BY_PIPELINE.items():
                for name in ("GET", "SET"):
                    options = {"value": size, "pipeline": pipeline, "keys": plan.keys[0]}
                    values = plan.interleaved(cpu(plan, running, name.lower(), client, options))
                    what = f"{name} {size} B, pipeline {pipeline}"
                    rows.append(show(Row(what, "us", values, targets, headline=pipeline > 1)))
        rows.extend(native_rows(plan, running, client))
        how[OUR_RESP] = "our server, the same run"
        running = [server for server in running if server.name != FLOOR]
        for one in running:
            ask(one.port, b"FLUSHALL")
        for name, command in COLLECTIONS.items():
            options = {"pipeline": 16, "keys": COLLECTION_KEYS, "value": 16}
            values = plan.interleaved(cpu(plan, running, command, client, options))
            rows.append(
                show(Row(f"{name}, pipeline 16", "us", values, [Target("≤", 0.6, REDIS_7)], headline=True))
            )
    with all_started() as (running, _):
        fill_all(running, plan.keys[0], 100)
        for name in ("GET", "SET"):
            measurements = {one.name: rate(plan, one, name.lower()) for one in running}
            values = plan.interleaved(measurements)
            what = f"{name} 100 B, pipeline 16, all cores"
            rows.append(show(Row(what, "op/s", values, [Target("≥", 1.8, REDIS_7)], headline=True)))
    return rows, how


def native_rows(plan: Plan, running: list[Running], client: list[int]) -> list[Row]:
    """Our own protocol beside RESP on the same server and the same keys."""
    ours = [server for server in running if server.name == OURS]
    rows = []
    for name in ("GET", "SET") if ours else ():
        options = {"value": 100, "pipeline": 16, "keys": plan.keys[0]}
        resp = cpu(plan, ours, name.lower(), client, options)
        native = cpu(plan, ours, name.lower(), client, {**options, "protocol": "native"})
        values = plan.interleaved({OURS: native[OURS], OUR_RESP: resp[OURS]})
        what = f"native protocol, {name} 100 B, pipeline 16"
        rows.append(show(Row(what, "us", values, [Target("≤", 0.9, OUR_RESP)], headline=True)))
    return rows


def fill_all(running: list[Running], keys: int, size: int) -> None:
    """The same keys in every server; one that refuses shows up as missing in what follows."""
    for server in running:
        try:
            load.fill(server, "set", keys, value=size)
        except RefusedError as refused:
            print(f"    {refused}", flush=True)


def cpu(
    plan: Plan, running: list[Running], command: str, cores: list[int], options: Mapping[str, str | int]
) -> dict[str, Callable[[], float]]:
    """For each server the CPU microseconds of one operation."""

    def of(server: Running) -> Callable[[], float]:
        return lambda: load.run(server, command, cores, seconds=plan.seconds, **options).cpu_microseconds

    return {server.name: of(server) for server in running}


def rate(plan: Plan, server: Running, command: str) -> Callable[[], float]:
    """Operations a second with nothing pinned."""
    return lambda: load.run(server, command, None, seconds=plan.seconds, keys=plan.keys[0], value=100).rate


def show(row: Row) -> Row:
    """Prints a row as soon as it is there."""
    shown = ", ".join(f"{name} {sample.middle:.3g}" for name, sample in row.values.items())
    print(f"    {row.what} [{row.unit}]: {shown}", flush=True)
    return row
