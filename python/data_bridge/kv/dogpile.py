"""dogpile.cache's backend: `make_region().configure("data_bridge.kv", arguments={"url": "kv://host:port/cache"})`.

Values are stored typed, with dogpile's metadata beside them, and read back without a serializer; a region's own
serializer is respected. What the store has no kind for is pickled, unless `fallback` is None.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from data_bridge.kv._lock import Lock, lock
from data_bridge.kv._pickled import PICKLE, UNFIT, fitting
from data_bridge.kv._shared import shared
from data_bridge.kv._values import MISSING
from dogpile.cache.api import (
    NO_VALUE,
    BackendFormatted,
    BackendSetType,
    CacheBackend,
    CachedValue,
    CacheMutex,
)
from dogpile.cache.util import sha1_mangle_key

LONGEST = 256
"""Characters of a key of the store."""


class KVBackend(CacheBackend):
    """Arguments: `url` (KV_URL unless given, or `memory://`); `expiration_time`, seconds after which the store forgets
    a value, more than the region's own; `distributed_lock`, one creator across processes, which ends `lock_timeout`
    (30) seconds after its holder died; `lock_prefix` of the locks' keys; `options`, a dict of those of `kv.connect`.

    A key that is too long for the store is replaced by its SHA-1, unless the region has a `key_mangler` of its own.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        options = {"fallback": PICKLE, **arguments.get("options", {})}
        self._fallback = options["fallback"]
        self._ttl = arguments.get("expiration_time")
        self._lock_ttl = arguments.get("lock_timeout", 30.0) if arguments.get("distributed_lock") else None
        self._lock_prefix = arguments.get("lock_prefix", "lock:")
        self.key_mangler = self._fitting_key
        self._store = shared(arguments.get("url"), options).store
        self._store()

    def _fitting_key(self, key: str) -> str:
        return key if len(self._lock_prefix) + len(key) <= LONGEST else sha1_mangle_key(key)

    def has_lock_timeout(self) -> bool:
        return False  # a lock is renewed for as long as its holder lives

    def get_mutex(self, key: str) -> CacheMutex | None:
        if self._lock_ttl is None:
            return None
        return Mutex(lock(self._store(), self._lock_prefix + key, ttl=self._lock_ttl))

    def get(self, key: str) -> BackendFormatted:
        return _read(self._store().get(key, MISSING))

    def get_multi(self, keys: Iterable[str]) -> Sequence[BackendFormatted]:
        names = list(keys)
        found = self._store().get_many(names)
        return [_read(found.get(name, MISSING)) for name in names]

    def set(self, key: str, value: BackendSetType) -> None:
        self.set_multi({key: value})

    def set_multi(self, mapping: Mapping[str, BackendSetType]) -> None:
        if not mapping:
            return
        values = {key: _written(value) for key, value in mapping.items()}
        try:
            self._store().set_many(values, ttl=self._ttl)
        except UNFIT:
            fit = {key: fitting(value, self._fallback) for key, value in values.items()}
            self._store().set_many(fit, ttl=self._ttl)

    def delete(self, key: str) -> None:
        self._store().delete(key)

    def delete_multi(self, keys: Iterable[str]) -> None:
        self._store().delete(*keys)


def _written(value: BackendSetType) -> Any:
    return tuple(value) if isinstance(value, CachedValue) else value


def _read(found: Any) -> BackendFormatted:
    if found is MISSING:
        return NO_VALUE
    return CachedValue(*found) if isinstance(found, tuple) else found


class Mutex(CacheMutex):
    """A lock across processes that several threads may share, each taking it in turn."""

    def __init__(self, pattern: Lock) -> None:
        self._pattern = pattern
        self._held: Lock | None = None

    def acquire(self, wait: bool = True) -> bool:
        pattern = self._pattern
        mine = Lock(pattern._store, pattern.name, pattern.ttl, None, True)
        taken = mine.acquire(None if wait else 0)
        if taken:
            self._held = mine
        return taken

    def release(self) -> None:
        held, self._held = self._held, None
        if held is None:
            raise RuntimeError(f"the lock {self._pattern.name!r} is not held")
        held.release()

    def locked(self) -> bool:
        return self._pattern.locked()
