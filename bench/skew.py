"""Skewed traffic on servers and stores whose data is larger than their memory, and the control group that holds the
system's page cache small for them. Used by the part `tier`.

`run_client` runs in processes of its own, spawned by `measured`: each is one client that reads keys drawn by Zipf's
law, one after the other, and writes a few. What a cache no longer has it stores again, as the users of caches do.
"""

from __future__ import annotations

import importlib
import itertools
import multiprocessing
import random
import socket
import time
from bisect import bisect
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GROUPS = [
    (Path("/sys/fs/cgroup/memory"), "memory", "memory.limit_in_bytes"),
    (Path("/sys/fs/cgroup"), "", "memory.max"),
]
"""Where control groups are, of either version, and which file limits memory."""
CLIENTS = 2
FILL = 10_000
"""Keys of one transaction that fills."""
BLOCK_CACHE, WRITE_BUFFER = 96 << 20, 16 << 20
"""Bytes of RocksDB's own cache, which is the budget of the others, and of a table that it writes."""
WRITES = 0.05
EXPONENT = 0.99
SCRAMBLE = 2654435761
"""Spreads the ranks over the keys: the hot ones do not stand beside each other."""


@dataclass(frozen=True)
class Seen:
    """What the clients saw: a time in seconds for each read, how many of them found their key, how long it all took."""

    seconds: list[float]
    found: int
    operations: int
    duration: float

    @property
    def hit_percent(self) -> float:
        """Share of the reads that found their key."""
        return 100 * self.found / len(self.seconds)

    @property
    def rate(self) -> float:
        """Operations a second."""
        return self.operations / self.duration

    def microseconds(self, share: float) -> float:
        """The time that this share of the reads stayed within."""
        ordered = sorted(self.seconds)
        return ordered[int(share * (len(ordered) - 1))] * 1e6


@dataclass(frozen=True)
class Traffic:
    """What one client does."""

    target: str
    """`port:N` of a RESP server, or `KIND:FOLDER` of a store."""
    keys: int
    size: int
    seconds: float


def measured(traffic: Traffic, clients: int) -> Seen:
    """The traffic of several clients at once."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(clients, mp_context=spawn) as pool:
        parts = list(pool.map(run_client, [traffic] * clients, range(clients)))
    return Seen(
        [second for part in parts for second in part.seconds],
        sum(part.found for part in parts),
        sum(part.operations for part in parts),
        max(part.duration for part in parts),
    )


def run_client(traffic: Traffic, seed: int) -> Seen:
    """One client, in the process it is called in."""
    get, put = opened(traffic.target)
    with_value = b"y" * traffic.size
    drawn = ranks(traffic.keys, seed)
    draw = random.Random(seed)
    seconds: list[float] = []
    found = operations = 0
    start = now = time.perf_counter()
    while now < start + traffic.seconds:
        key = b"key:%012d" % (next(drawn) * SCRAMBLE % traffic.keys)
        operations += 1
        if draw.random() < WRITES:
            put(key, with_value)
            now = time.perf_counter()
            continue
        before = time.perf_counter()
        is_there = get(key)
        now = time.perf_counter()
        seconds.append(now - before)
        found += is_there
        if not is_there:
            put(key, with_value)
    return Seen(seconds, found, operations, now - start)


def ranks(keys: int, seed: int) -> Iterator[int]:
    """Ranks below `keys` by Zipf's law, for ever."""
    weights = list(itertools.accumulate((rank + 1) ** -EXPONENT for rank in range(keys)))
    draw = random.Random(seed)
    while True:
        yield bisect(weights, draw.random() * weights[-1], hi=keys - 1)


Get = Callable[[bytes], bool]
Put = Callable[[bytes, bytes], object]


def opened(target: str) -> tuple[Get, Put]:
    """How to read and write."""
    kind, _, place = target.partition(":")
    if kind == "port":
        return over_resp(int(place))
    return STORES[kind].opened(place)


def over_resp(port: int) -> tuple[Get, Put]:
    """A connection of its own, one command under way."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def get(key: bytes) -> bool:
        connection.sendall(b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(key), key))
        reply = connection.recv(65536)
        if reply[:1] != b"$":
            raise RuntimeError(f"GET answered {reply[:80]!r}")
        if reply.startswith(b"$-1"):
            return False
        head, _, body = reply.partition(b"\r\n")
        left = int(head[1:]) + 2 - len(body)
        while left > 0:
            left -= len(connection.recv(left))
        return True

    def put(key: bytes, value: bytes) -> None:
        head = b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n" % (len(key), key, len(value))
        connection.sendall(head + value + b"\r\n")
        reply = connection.recv(64)
        if reply != b"+OK\r\n":
            raise RuntimeError(f"SET answered {reply!r}")

    return get, put


def of_lmdb(folder: str) -> tuple[Get, Put]:
    """An LMDB environment, one transaction an operation, no sync, no read-ahead."""
    store = importlib.import_module("lmdb").open(folder, map_size=16 << 30, sync=False, readahead=False)

    def get(key: bytes) -> bool:
        with store.begin() as transaction:
            return transaction.get(key) is not None

    def put(key: bytes, value: bytes) -> None:
        with store.begin(write=True) as transaction:
            transaction.put(key, value)

    return get, put


def fill_lmdb(folder: str, keys: int, size: int) -> None:
    """Every key once."""
    store = importlib.import_module("lmdb").open(folder, map_size=16 << 30, sync=False)
    value = b"x" * size
    for start in range(0, keys, FILL):
        with store.begin(write=True) as transaction:
            for number in range(start, min(start + FILL, keys)):
                transaction.put(b"key:%012d" % number, value)
    store.close()


def rocksdb_at(folder: str) -> Any:
    """A RocksDB database without a log and compression, with a cache of blocks and filters."""
    rocks = importlib.import_module("rocksdict")
    options, blocks = rocks.Options(raw_mode=True), rocks.BlockBasedOptions()
    blocks.set_block_cache(rocks.Cache(BLOCK_CACHE))
    blocks.set_bloom_filter(10, False)
    options.set_block_based_table_factory(blocks)
    options.set_compression_type(rocks.DBCompressionType.none())
    options.set_write_buffer_size(WRITE_BUFFER)
    store = rocks.Rdict(folder, options)
    how = rocks.WriteOptions()
    how.disable_wal = True
    store.set_write_options(how)
    return store


def of_rocksdb(folder: str) -> tuple[Get, Put]:
    """The same as what reads and writes."""
    store = rocksdb_at(folder)
    return (lambda key: store.get(key) is not None), store.put


def fill_rocksdb(folder: str, keys: int, size: int) -> None:
    """Every key once; what is written has its place when it ends."""
    store = rocksdb_at(folder)
    value = b"x" * size
    for number in range(keys):
        store.put(b"key:%012d" % number, value)
    store.flush()
    store.compact_range(None, None)
    store.close()


@dataclass(frozen=True)
class Store:
    """A store in the client's process."""

    package: str
    opened: Callable[[str], tuple[Get, Put]]
    fill: Callable[[str, int, int], None]
    how: str


STORES = {
    "lmdb": Store("lmdb", of_lmdb, fill_lmdb, "no sync, no read-ahead"),
    "rocksdb": Store(
        "rocksdict",
        of_rocksdb,
        fill_rocksdb,
        f"no log, no compression, {BLOCK_CACHE >> 20} MiB of block cache, compacted before",
    ),
}


def filled(name: str, folder: str, keys: int, size: int) -> None:
    """Fills a store, in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        pool.submit(STORES[name].fill, folder, keys, size).result()


@contextmanager
def limited(pid: int, size: int) -> Iterator[str]:
    """A control group with so much memory for a process and its page cache; says how that went."""
    for root, controller, limit in GROUPS:
        home = root / group_of(pid, controller)
        group = root / f"kv-bench-{pid}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text(str(size))
            move(pid, group)
        except OSError:
            group.rmdir()
            continue
        try:
            yield f"at most {size >> 20} MiB with the page cache, by a control group"
        finally:
            move(pid, home if home.exists() else root)
            group.rmdir()
        return
    yield "the page cache as large as it likes: no control group could be made"


def group_of(pid: int, controller: str) -> str:
    """Where a process is in a hierarchy, without the slash in front."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path.lstrip("/")
    return ""


def move(pid: int, group: Path) -> None:
    """Puts a process into a group."""
    (group / "cgroup.procs").write_text(str(pid))
