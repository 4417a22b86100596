"""Django's cache backend: `BACKEND = "data_bridge.kv.django.KVCache"`.

`LOCATION` is the URL of a server's namespace (`kv://127.0.0.1:7379/cache`, from KV_URL unless given), or `memory://`
for a store in this process. `OPTIONS` are those of `kv.connect`, or of `kv.open` for `memory://`. Values keep their
types as everywhere; what the store has no kind for is pickled, since Django promises that any such object can be
cached, unless `OPTIONS` has `"fallback": None`. Sessions come with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, cast

from asgiref.sync import sync_to_async
from data_bridge.kv._pickled import PICKLE, UNFIT, fitting
from data_bridge.kv._shared import shared
from data_bridge.kv.errors import NotFoundError, OutOfRangeError
from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache, InvalidCacheBackendError
from django.core.exceptions import SynchronousOnlyOperation

SHORTEST = 0.001
"""Seconds: the store's deadlines are in milliseconds."""
ONLY_EXISTING: dict[str, Any] = {"initial": math.inf, "convert": True}
"""Options by which an addition to a missing key is out of range: one step looks and adds."""
NOT_AS_IT_IS = (*UNFIT, SynchronousOnlyOperation)


class KVCache(BaseCache):
    """A namespace of a server, or a store in this process, as a Django cache. Each method is one step of the store.

    A timeout of 0 or less is over at once, None is never. `incr` keeps the deadline, `incr_version` renames the key and
    keeps it too. `clear` removes every key of the namespace. Connections are the process's: `close` leaves them open.
    """

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        options = {"fallback": PICKLE, **params.get("OPTIONS", {})}
        if {"MAX_ENTRIES", "CULL_FREQUENCY"} & options.keys():
            raise InvalidCacheBackendError(
                "MAX_ENTRIES and CULL_FREQUENCY: the store evicts by its memory budget"
            )
        if not isinstance(location, str):
            raise InvalidCacheBackendError(f"LOCATION is the URL of one server, not {location!r}")
        self._fallback = options["fallback"]
        shares = shared(location or None, options)
        self._store, self._async_store = shares.store, shares.async_store
        self._store()

    def get_backend_timeout(self, timeout: Any = DEFAULT_TIMEOUT) -> float | None:
        """Seconds that the store takes: None for ever, 0 for what is over at once."""
        if timeout is DEFAULT_TIMEOUT:
            timeout = self.default_timeout
        if timeout is None:
            return None
        return max(timeout, SHORTEST) if timeout > 0 else 0

    def _name(self, key: Any, version: int | None) -> str:
        return cast(str, self.make_and_validate_key(key, version=version))

    def _names(self, keys: Iterable[Any], version: int | None) -> dict[str, Any]:
        return {self._name(key, version): key for key in keys}

    def _fitting(self, value: Any) -> Any:
        return fitting(value, self._fallback)

    async def _in_thread(self, value: Any) -> Any:
        # Pickling a query set that is not evaluated yet asks the database, which no loop may wait for.
        return await sync_to_async(self._fitting)(value)

    def add(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        name, ttl = self._name(key, version), self.get_backend_timeout(timeout)
        store = self._store()
        if ttl == 0:
            return not store.exists(name)
        try:
            return store.set(name, value, ttl=ttl, nx=True)
        except UNFIT:
            return store.set(name, self._fitting(value), ttl=ttl, nx=True)

    async def aadd(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        name, ttl = self._name(key, version), self.get_backend_timeout(timeout)
        store = self._async_store()
        if ttl == 0:
            return not await store.exists(name)
        try:
            return await store.set(name, value, ttl=ttl, nx=True)
        except NOT_AS_IT_IS:
            return await store.set(name, await self._in_thread(value), ttl=ttl, nx=True)

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        return self._store().get(self._name(key, version), default)

    async def aget(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        return await self._async_store().get(self._name(key, version), default)

    def set(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> None:
        name, ttl = self._name(key, version), self.get_backend_timeout(timeout)
        store = self._store()
        if ttl == 0:
            store.delete(name)
            return
        try:
            store.set(name, value, ttl=ttl)
        except UNFIT:
            store.set(name, self._fitting(value), ttl=ttl)

    async def aset(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> None:
        name, ttl = self._name(key, version), self.get_backend_timeout(timeout)
        store = self._async_store()
        if ttl == 0:
            await store.delete(name)
            return
        try:
            await store.set(name, value, ttl=ttl)
        except NOT_AS_IT_IS:
            await store.set(name, await self._in_thread(value), ttl=ttl)

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        name, ttl = self._name(key, version), self.get_backend_timeout(timeout)
        store = self._store()
        if ttl is None:
            return any(store.pipeline(atomic=True).exists(name).persist(name).execute())
        return bool(store.expire(name, ttl) if ttl else store.delete(name))

    async def atouch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        name, ttl = self._name(key, version), self.get_backend_timeout(timeout)
        store = self._async_store()
        if ttl is None:
            return any(await store.pipeline(atomic=True).exists(name).persist(name).execute())
        return bool(await (store.expire(name, ttl) if ttl else store.delete(name)))

    def delete(self, key: Any, version: int | None = None) -> bool:
        return bool(self._store().delete(self._name(key, version)))

    async def adelete(self, key: Any, version: int | None = None) -> bool:
        return bool(await self._async_store().delete(self._name(key, version)))

    def get_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        names = self._names(keys, version)
        return {names[name]: value for name, value in self._store().get_many(names).items()}

    async def aget_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        names = self._names(keys, version)
        found = await self._async_store().get_many(names)
        return {names[name]: value for name, value in found.items()}

    def has_key(self, key: Any, version: int | None = None) -> bool:
        return bool(self._store().exists(self._name(key, version)))

    async def ahas_key(self, key: Any, version: int | None = None) -> bool:
        return bool(await self._async_store().exists(self._name(key, version)))

    def incr(self, key: Any, delta: Any = 1, version: int | None = None) -> Any:
        name, store = self._name(key, version), self._store()
        try:
            return store.incr(name, delta, **ONLY_EXISTING)
        except OutOfRangeError:
            if not store.exists(name):
                raise _missing(key) from None
            # It is too much, or the key was made in between.
            return store.incr(name, delta, **ONLY_EXISTING)

    async def aincr(self, key: Any, delta: Any = 1, version: int | None = None) -> Any:
        name, store = self._name(key, version), self._async_store()
        try:
            return await store.incr(name, delta, **ONLY_EXISTING)
        except OutOfRangeError:
            if not await store.exists(name):
                raise _missing(key) from None
            # It is too much, or the key was made in between.
            return await store.incr(name, delta, **ONLY_EXISTING)

    def set_many(
        self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[Any]:
        values, ttl = self._values(data, version), self.get_backend_timeout(timeout)
        store = self._store()
        if ttl == 0 or not values:
            store.delete(*values)
            return []
        try:
            store.set_many(values, ttl=ttl)
        except UNFIT:
            store.set_many({name: self._fitting(value) for name, value in values.items()}, ttl=ttl)
        return []

    async def aset_many(
        self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[Any]:
        values, ttl = self._values(data, version), self.get_backend_timeout(timeout)
        store = self._async_store()
        if ttl == 0 or not values:
            await store.delete(*values)
            return []
        try:
            await store.set_many(values, ttl=ttl)
        except NOT_AS_IT_IS:
            await store.set_many(
                {name: await self._in_thread(value) for name, value in values.items()}, ttl=ttl
            )
        return []

    def _values(self, data: Mapping[Any, Any], version: int | None) -> dict[str, Any]:
        return {self._name(key, version): value for key, value in data.items()}

    def delete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        self._store().delete(*self._names(keys, version))

    async def adelete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        await self._async_store().delete(*self._names(keys, version))

    def clear(self) -> None:
        self._store().clear()

    async def aclear(self) -> None:
        await self._async_store().clear()

    def incr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        version = self.version if version is None else version
        try:
            self._store().rename(self._name(key, version), self._name(key, version + delta))
        except NotFoundError:
            raise _missing(key) from None
        return version + delta

    async def aincr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        version = self.version if version is None else version
        try:
            await self._async_store().rename(self._name(key, version), self._name(key, version + delta))
        except NotFoundError:
            raise _missing(key) from None
        return version + delta


def _missing(key: Any) -> ValueError:
    return ValueError(f"Key '{key}' not found")
