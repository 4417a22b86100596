"""The embedded store: `kv.open()`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal, NoReturn

from data_bridge._native import Embedded, Engine
from data_bridge.kv._codecs import Fallback
from data_bridge.kv._memory import budget
from data_bridge.kv._methods import StoreMethods


class Store(Embedded, StoreMethods):
    """A namespace of a store in this process. Threads may share it; a forked child may not use it."""

    __slots__ = ()

    def close(self) -> None:
        """Ends the store with all its namespaces: waits end, later calls raise `ClosedError`.

        What `everysec` had not written yet goes to disk first. Raises `DurabilityError` if the log failed, now or
        before: what was not on disk by then is lost. The store is closed all the same, and closing it again raises
        nothing.
        """
        self._engine.close()

    def snapshot(self, destination: str | os.PathLike[str]) -> None:
        """Copies the task namespaces of the store to an empty directory, as they are at one moment, for a backup.

        Other threads go on meanwhile. `data-bridge-kv backup restore` makes of the copy a directory for `kv.open`.
        """
        self._engine.snapshot(destination)

    def namespace(self, name: str | int) -> Store:
        """Another namespace of the same store, by name or number."""
        return Store(self._engine, str(name), self._fallback)

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            "an embedded store can't be pickled: it lives in this process; use kv.connect in the other one"
        )


def check_bytes(name: str, given: object) -> None:
    """Refuses what is no number of bytes."""
    if given is None:
        return
    if not isinstance(given, int) or isinstance(given, bool):
        raise TypeError(f"{name} must be a number of bytes, an int, not {given!r}")
    if not 0 < given < 1 << 63:
        raise ValueError(f"{name} must be a number of bytes above 0, not {given!r}")


def open_engine(
    path: str | os.PathLike[str] | None,
    max_disk: int | None,
    mode: str,
    eviction: str | None,
    max_memory: int | None,
    namespaces: Mapping[str, Mapping[str, Any]] | None,
    durability: str | None,
) -> Engine:
    """The engine of an embedded store."""
    if max_disk is not None and path is None:
        raise ValueError("max_disk needs a path")
    for name, given_bytes in (("max_memory", max_memory), ("max_disk", max_disk)):
        check_bytes(name, given_bytes)
    given = None if namespaces is None else {name: dict(options) for name, options in namespaces.items()}
    memory = budget() if max_memory is None else max_memory
    return Engine(path, max_disk, mode, eviction, durability, memory, given)


def open(  # noqa: A001 - reads as kv.open()
    path: str | os.PathLike[str] | None = None,
    *,
    mode: Literal["cache", "task"] = "cache",
    eviction: Literal["lru", "lru-ttl", "lfu", "none"] | None = None,
    max_memory: int | None = None,
    max_disk: int | None = None,
    namespaces: Mapping[str, Mapping[str, Any]] | None = None,
    durability: Literal["none", "everysec", "always"] | None = None,
    fallback: Fallback | None = None,
) -> Store:
    """Opens a store in this process: in memory, or with a directory that outlives it.

    `mode` is that of namespace 0: a cache evicts when `max_memory` (bytes; default 10 % of the container's limit, at
    most 1 GiB) is spent, by `eviction`, least recently used first unless given; a task store never does.

    With a `path` a task store is found again as it was left, also after a crash: `durability="always"`, its default,
    means that a call returns when its change is on disk; with `"everysec"` a crash may take back the last second. A
    cache starts empty. In both, values that memory has no room for go to files there and come back when they are read;
    they take at most `max_disk` bytes (three quarters of what is free or this store's already, unless given), beside
    the log of task namespaces. The directory is this store's alone.

    `namespaces` gives policies by name: `mode`, `durability`, `eviction`, `default_ttl`, `transitions`, `history` (how
    many of its last transitions a task keeps in its field `history`), `allow_flush`, `floor`. `fallback` is a codec for
    objects that nothing else takes.

    >>> from data_bridge import kv
    >>> store = kv.open()
    >>> store["answer"] = 42
    >>> store["answer"], store.get("question")
    (42, None)
    """
    return Store(
        open_engine(path, max_disk, mode, eviction, max_memory, namespaces, durability), "0", fallback
    )
