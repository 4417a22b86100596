"""Money: Decimal balances under increments from many sides at once sum to the cent and beyond. Used by `demo.cache`."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from decimal import Decimal
from functools import partial

import redis
from data_bridge import kv

from demo.report import Report
from demo.servers import Servers
from demo.source import PRICES

SIDES = 4
CHANGES = 4000
"""Additions and subtractions of each side."""


def show(report: Report, servers: Servers) -> None:
    """Processes against the server, threads against an embedded store, and floats for contrast."""
    prices = [(record["symbol"], record["price"]) for _, record in PRICES.records()]
    drawn = [list(changes(prices, side)) for side in range(SIDES)]
    with kv.connect(servers.url("default")) as client:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(SIDES, mp_context=spawn) as pool:
            add_all(pool, partial(add_remote, servers.url("default")), drawn)
        judge(report, f"remote, {SIDES} processes at once", client, drawn)
    with kv.open() as store:
        with ThreadPoolExecutor(SIDES) as pool:
            add_all(pool, partial(add, store), drawn)
        judge(report, f"embedded, {SIDES} threads at once", store, drawn)
    as_floats(report, servers, drawn)


Change = tuple[str, Decimal]


def changes(prices: list[Change], side: int) -> Iterator[Change]:
    """What one side buys and sells: real prices, sign and order drawn."""
    draw = random.Random(side)
    for symbol, price in draw.choices(prices, k=CHANGES):
        yield symbol, price if draw.random() < 0.6 else -price


def add_all(pool: Executor, add_one: partial[None], drawn: list[list[Change]]) -> None:
    """All sides at once."""
    for done in [pool.submit(add_one, side) for side in drawn]:
        done.result()


def add_remote(url: str, side: list[Change]) -> None:
    """One side, in a process of its own."""
    with kv.connect(url) as client:
        add(client, side)


def add(store: kv.Store | kv.Client, side: list[Change]) -> None:
    """One side's changes, one by one."""
    for symbol, amount in side:
        if amount < 0:
            store.decr(f"balance:{symbol}", -amount)
        else:
            store.incr(f"balance:{symbol}", amount)


def judge(report: Report, where: str, store: kv.Store | kv.Client, drawn: list[list[Change]]) -> None:
    """Whether every balance is the exact sum, as a Decimal."""
    exact: dict[str, Decimal] = {}
    for side in drawn:
        for symbol, amount in side:
            exact[f"balance:{symbol}"] = exact.get(f"balance:{symbol}", Decimal(0)) + amount
    found = store.get_many(exact)
    total = sum(found.values(), Decimal(0))
    report.check(
        f"Decimal balances {where}",
        found == exact and all(type(value) is Decimal for value in found.values()),
        f"{SIDES * CHANGES:,} changes, {len(exact)} balances exact, together {total}",
    )


def as_floats(report: Report, servers: Servers, drawn: list[list[Change]]) -> None:
    """The same sum in binary floating point, and with Redis's INCRBYFLOAT."""
    amounts = [amount for side in drawn for _, amount in side]
    exact = sum(amounts, Decimal(0))
    floating = 0.0
    with redis.Redis(port=servers.peer_port, decode_responses=True) as peer:
        pipeline = peer.pipeline(transaction=False)
        for amount in amounts:
            floating += float(amount)
            pipeline.incrbyfloat("demo:balance", float(amount))
        pipeline.execute()
        theirs = Decimal(str(peer.getdel("demo:balance")))
    report.measured(
        f"contrast: the same changes as floats, and with INCRBYFLOAT of {servers.peer}",
        f"off by {abs(Decimal(floating) - exact):.1e} and {abs(theirs - exact):.1e}",
    )
