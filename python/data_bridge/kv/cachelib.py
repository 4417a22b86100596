"""cachelib's cache: `data_bridge.kv.cachelib.KVCache("kv://127.0.0.1:7379/cache")`, or `memory://`.

A timeout of 0 is for ever, as in cachelib. What the store has no kind for is pickled, unless `fallback=None` is given.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from cachelib import BaseCache
from data_bridge.kv._pickled import PICKLE, UNFIT, fitting
from data_bridge.kv._shared import shared


class KVCache(BaseCache):
    """A namespace of a server, or `memory://`, as a cachelib cache. Each method is one step of the store."""

    def __init__(
        self,
        url: str | None = None,
        default_timeout: int | timedelta = 300,
        key_prefix: str = "",
        ignore_delete_many_errors: bool = True,
        **options: Any,
    ) -> None:
        """`options` are those of `kv.connect`, or of `kv.open` for `memory://`. Deleting has no errors to ignore."""
        super().__init__(default_timeout)
        self.key_prefix = key_prefix
        options = {"fallback": PICKLE, **options}
        self._fallback = options["fallback"]
        self._store = shared(url, options).store
        self._store()

    def _ttl(self, timeout: int | timedelta | None) -> int | None:
        seconds = self._normalize_timeout(timeout)
        return seconds if seconds > 0 else None

    def _names(self, keys: tuple[str, ...]) -> list[str]:
        return [self.key_prefix + key for key in keys]

    def get(self, key: str) -> Any:
        return self._store().get(self.key_prefix + key)

    def get_many(self, *keys: str) -> list[Any]:
        return self._store().mget(self._names(keys)) if keys else []

    def has(self, key: str) -> bool:
        return bool(self._store().exists(self.key_prefix + key))

    def set(self, key: str, value: Any, timeout: int | timedelta | None = None) -> bool:
        store, name, ttl = self._store(), self.key_prefix + key, self._ttl(timeout)
        try:
            store.set(name, value, ttl=ttl)
        except UNFIT:
            store.set(name, fitting(value, self._fallback), ttl=ttl)
        return True

    def add(self, key: str, value: Any, timeout: int | timedelta | None = None) -> bool:
        store, name, ttl = self._store(), self.key_prefix + key, self._ttl(timeout)
        try:
            return bool(store.set(name, value, ttl=ttl, nx=True))
        except UNFIT:
            return bool(store.set(name, fitting(value, self._fallback), ttl=ttl, nx=True))

    def set_many(self, mapping: dict[str, Any], timeout: int | timedelta | None = None) -> list[Any]:
        store, ttl = self._store(), self._ttl(timeout)
        values = {self.key_prefix + key: value for key, value in mapping.items()}
        try:
            store.set_many(values, ttl=ttl)
        except UNFIT:
            fit = {name: fitting(value, self._fallback) for name, value in values.items()}
            store.set_many(fit, ttl=ttl)
        return list(mapping)

    def delete(self, key: str) -> bool:
        return bool(self._store().delete(self.key_prefix + key))

    def delete_many(self, *keys: str) -> list[Any]:
        self._store().delete(*self._names(keys))
        return list(keys)

    def clear(self) -> bool:
        self._store().clear(self.key_prefix)
        return True

    def inc(self, key: str, delta: int = 1) -> int:
        return int(self._store().incr(self.key_prefix + key, delta, ttl=self._ttl(None)))

    def dec(self, key: str, delta: int = 1) -> int:
        return self.inc(key, -delta)
