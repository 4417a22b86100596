"""The embedded store in this process beside a dict, msgspec into a dict, and other embedded caches of Python."""

from __future__ import annotations

import datetime
import importlib
import importlib.util
import random
import tempfile
import time
import timeit
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from bench.plan import Plan
from bench.rows import OURS, Row, Target

TITLE = "Embedded in one Python process: CPU nanoseconds of one operation, empty loop subtracted, TTL on every key"

KEYS = 10_000
DICT, MSGSPEC = "dict", "msgspec into dict"
TTL_SECONDS = 3600

RECORD = {
    "id": 7_201_133,
    "name": "Ada Lovelace",
    "price": Decimal("1234.50"),
    "ratio": 0.15625,
    "active": True,
    "note": None,
    "created": datetime.datetime(2024, 5, 17, 12, 30, tzinfo=datetime.UTC),
    "token": uuid.UUID(int=0x1234_5678_9ABC_DEF0),
    "blob": b"\x00\x01\x02\x03",
    "tags": ["red", "green"],
}


@dataclass(frozen=True)
class Store:
    """One store with the statements that read and write it (`store`, `key`, `value` are in scope)."""

    store: Any
    read: str
    write: str


class Stores:
    """All stores by name, and what each is or why it is missing."""

    def __init__(self, stack: ExitStack) -> None:
        self.all: dict[str, Store] = {}
        self.how: dict[str, str] = {}
        self.add_ours(stack)
        self.add_dicts()
        self.add_caches(stack)

    def add_ours(self, stack: ExitStack) -> None:
        """Our store, in cache mode with eviction on."""
        if importlib.util.find_spec("data_bridge") is None:
            return
        kv = importlib.import_module("data_bridge.kv")
        store = stack.enter_context(kv.open())
        self.all[OURS] = Store(store, "store[key]", f"store.set(key, value, ttl={TTL_SECONDS})")

    def add_dicts(self) -> None:
        """A plain dict, and one that holds encoded values."""
        self.all[DICT] = Store({}, "get(key)", "store[key] = value")
        self.how[DICT] = "`dict.get` and `d[k] = v` in this process: no copy, no TTL, no eviction"
        msgpack = self.imported("msgspec.msgpack", MSGSPEC, "encoded on write, decoded on read")
        if msgpack is not None:
            coder = Coder({}, msgpack.Encoder().encode, msgpack.Decoder().decode)
            self.all[MSGSPEC] = Store(coder, "decode(encoded[key])", "encoded[key] = encode(value)")

    def add_caches(self, stack: ExitStack) -> None:
        """Caches with a bound: by reference, and on disk."""
        cachebox = self.imported("cachebox", "cachebox", "TTLCache, by reference")
        if cachebox is not None:
            box = cachebox.TTLCache(10 * KEYS, TTL_SECONDS)
            self.all["cachebox"] = Store(box, "store[key]", "store[key] = value")
        moka = self.imported("moka_py", "moka-py", "Moka with a TTL, by reference")
        if moka is not None:
            cache = moka.Moka(10 * KEYS, ttl=TTL_SECONDS)
            self.all["moka-py"] = Store(cache, "get(key)", "store.set(key, value)")
        lmdb = self.imported("lmdb", "lmdb", "one transaction an operation, no sync, str only")
        if lmdb is not None:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            environment = lmdb.open(folder, map_size=1 << 30, sync=False)
            read = "with store.begin() as t: t.get(key.encode()).decode()"
            write = "with store.begin(write=True) as t: t.put(key.encode(), value.encode())"
            self.all["lmdb"] = Store(environment, read, write)

    def imported(self, module: str, name: str, how: str) -> Any:
        """A peer's module; None, and said so, where it is not installed."""
        try:
            found = importlib.import_module(module)
        except ImportError:
            self.how[name] = "missing (scripts/venv bench)"
            return None
        version = getattr(importlib.import_module(module.split(".")[0]), "__version__", "")
        self.how[name] = f"{version} {how}".strip()
        return found


@dataclass(frozen=True)
class Coder:
    """A dict of encoded values with its codec."""

    encoded: dict[str, bytes]
    encode: Callable[[object], bytes]
    decode: Callable[[bytes], object]


def measure(plan: Plan) -> tuple[list[Row], dict[str, str]]:
    """All rows of the part, and what each peer is."""
    keys = [f"key:{number:012d}" for number in range(KEYS)]
    order = random.Random(7).choices(keys, k=int(500_000 * plan.seconds))
    rows = []
    with opened() as stores:
        for what, value, names, read_target, write_target in CASES:
            chosen = {name: store for name, store in stores.all.items() if names is None or name in names}
            for store in chosen.values():
                loop(store, store.write, keys, value)
            reads = {name: (store, store.read) for name, store in chosen.items()}
            writes = {name: (store, store.write) for name, store in chosen.items()}
            rows.append(compare(plan, f"get {what}", reads, order, value, read_target))
            rows.append(compare(plan, f"set {what}", writes, order, value, write_target))
        return rows, stores.how


TYPED = [OURS, DICT, MSGSPEC, "cachebox", "moka-py"]
CASES: list[tuple[str, object, list[str] | None, list[Target], list[Target]]] = [
    ("int", 1_234_567, TYPED, [Target("≤", 4.5, DICT)], []),
    ("short str", "twenty-four characters..", None, [Target("≤", 4.5, DICT)], [Target("≤", 1.5, DICT)]),
    ("Decimal", Decimal("1234.50"), TYPED, [], []),
    ("dict of ten typed fields", RECORD, TYPED, [], [Target("≤", 1.0, MSGSPEC)]),
]


@contextmanager
def opened() -> Iterator[Stores]:
    """All stores; closed at the end."""
    with ExitStack() as stack:
        yield Stores(stack)


def compare(
    plan: Plan,
    what: str,
    statements: dict[str, tuple[Store, str]],
    order: list[str],
    value: object,
    targets: list[Target],
) -> Row:
    """One row: every store does the same operations in the same order."""

    def timed(store: Store, statement: str) -> Callable[[], float]:
        def nanoseconds() -> float:
            empty = loop(store, "pass", order, value)
            return (loop(store, statement, order, value) - empty) / len(order) * 1e9

        return nanoseconds

    values = plan.interleaved({name: timed(*pair) for name, pair in statements.items()})
    shown = ", ".join(f"{name} {sample.middle:.0f}" for name, sample in values.items())
    print(f"    {what} [ns]: {shown}", flush=True)
    return Row(what, "ns", values, targets, headline=bool(targets))


def loop(store: Store, statement: str, order: list[str], value: object) -> float:
    """Seconds of this thread's CPU time for the statement on each key of the order."""
    scope = {"order": order, "value": value, "given": store.store}
    setup = "store = given; get = getattr(store, 'get', None)"
    if isinstance(store.store, Coder):
        setup = "encoded, encode, decode = given.encoded, given.encode, given.decode"
    return timeit.Timer(
        f"for key in order:\n    {statement}", setup, timer=time.thread_time, globals=scope
    ).timeit(1)
