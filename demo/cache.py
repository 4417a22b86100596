"""Part (a): the typed cache. Every value of two real tables goes in and comes back as what the source file says.

Embedded and remote take the same steps; redis-py shows what a client without types makes of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

import redis
from data_bridge import kv

from demo import balances, eviction, expiry
from demo.report import Progress, Report
from demo.servers import Servers
from demo.source import FLIGHTS, MISSING_TEXT, PRICES, Record, Table

TITLE = "typed cache: flights and prices through every door, TTL, eviction, exact money"
EMBEDDED_MEMORY = 1 << 30
BATCH = 1000
SAMPLED = 20
"""redis-py takes every so manyth row: enough for a contrast."""

T = TypeVar("T")
Store = kv.Store | kv.Client


def show(report: Report, servers: Servers) -> None:
    """The whole part; the server's cache holds the flights afterwards."""
    with (
        kv.open(eviction="none", max_memory=EMBEDDED_MEMORY) as embedded,
        kv.connect(servers.url("cache")) as client,
    ):
        doors: dict[str, Store] = {"embedded": embedded, "remote": client}
        for table in (FLIGHTS, PRICES):
            load(report, doors, table)
            for door, store in doors.items():
                prove(report, door, store, table)
    contrast(report, servers)
    expiry.show(report, servers)
    eviction.show(report)
    balances.show(report, servers)


def key_of(table: Table, number: int) -> str:
    """Where a row is stored."""
    return f"{table.name.removesuffix('s')}:{number:06d}"


def batches(items: Iterator[T], size: int = BATCH) -> Iterator[list[T]]:
    """The items in lists of at most so many."""
    while batch := list(islice(items, size)):
        yield batch


def load(report: Report, doors: dict[str, Store], table: Table) -> None:
    """Stores each row as a hash of typed fields, through every door."""
    seconds = dict.fromkeys(doors, 0.0)
    number = 0
    with Progress(f"{table.name} stored", table.rows) as step:
        for records in batches(table.records()):
            mapping = {key_of(table, row): record for row, record in records}
            for door, store in doors.items():
                start = time.perf_counter()
                store.set_many(mapping)
                seconds[door] += time.perf_counter() - start
            number += len(records)
            step.at(number)
    for door, spent in seconds.items():
        report.check(
            f"{table.name} loaded {door}",
            number == table.rows,
            f"{number:,} rows of {len(table.columns)} columns, {number / spent:,.0f} rows a second",
        )


def prove(report: Report, door: str, store: Store, table: Table) -> None:
    """Reads every row back and holds each value and its type against the text of the file."""
    values, different = 0, list[str]()
    number = 0
    with Progress(f"{table.name} read back {door} and compared", table.rows) as step:
        for rows in batches(table.texts()):
            keys = [key_of(table, number + place) for place in range(len(rows))]
            found = store.get_many(keys)
            for key, texts in zip(keys, rows, strict=True):
                different += table.differences(texts, found.get(key))
            number += len(rows)
            values += sum(map(len, rows))
            step.at(number)
    shown = f", first: {different[0]}" if different else ""
    report.check(
        f"{table.name} read back {door}: value and type as in the file",
        not different and number == table.rows,
        f"{values:,} values, {len(different):,} differ{shown}",
    )


@dataclass
class Kept:
    """How many values came back as they were."""

    typed: int = 0
    shown: int = 0
    values: int = 0

    def count(self, record: Record, found: dict[str, str | None]) -> None:
        """Counts the values of one row, as a client without types got them."""
        for name, value in record.items():
            self.values += 1
            self.typed += type(found.get(name)) is type(value) and found[name] == value
            self.shown += name in found and found[name] == as_text(value)


def as_text(value: Any) -> str | None:
    """What a client without types is shown of a value."""
    if value is None:
        return None
    return value.isoformat() if isinstance(value, datetime) else str(value)


def contrast(report: Report, servers: Servers) -> None:
    """The flights as redis-py reads them from us, and as they come back after redis-py wrote them."""
    with (
        redis.Redis(port=servers.port, db=2, decode_responses=True) as ours,
        redis.Redis(port=servers.peer_port, decode_responses=True) as peer,
    ):
        kept = read_untyped(ours, "flights read from our server with redis-py", write=None)
        report.check(
            "flights written typed, read with redis-py from the same keys",
            kept.values > 0 and kept.shown == kept.values,
            f"{kept.values:,} values, all shown as text, {kept.typed / kept.values:.0%} with their type",
        )
        kept = read_untyped(peer, f"flights through redis-py and {servers.peer}", write=store_texts)
        report.measured(
            f"contrast: flights through redis-py and {servers.peer}",
            f"{kept.typed / kept.values:.0%} of {kept.values:,} values keep their type; None and datetime refused",
        )


Write = Callable[[Any, list[str], list[Record]], None]


def read_untyped(client: redis.Redis, what: str, write: Write | None) -> Kept:
    """Reads a sample of the flights with redis-py, written by `write` before if there is one."""
    kept = Kept()
    with Progress(what, FLIGHTS.rows // SAMPLED + 1) as step:
        for rows in batches(FLIGHTS.records(every=SAMPLED)):
            keys = [key_of(FLIGHTS, number) for number, _ in rows]
            if write is not None:
                write(client, keys, [record for _, record in rows])
            pipeline = client.pipeline(transaction=False)
            for key in keys:
                pipeline.hgetall(key)
            for (_, record), found in zip(rows, pipeline.execute(), strict=True):
                kept.count(record, found)
            step.add(len(rows))
    return kept


def store_texts(client: redis.Redis, keys: list[str], records: list[Record]) -> None:
    """Writes rows the only way redis-py takes them: as text."""
    pipeline = client.pipeline(transaction=False)
    for key, record in zip(keys, records, strict=True):
        texts: dict[Any, Any] = {
            name: MISSING_TEXT if value is None else str(value) for name, value in record.items()
        }
        pipeline.hset(key, mapping=texts)
    pipeline.execute()
