"""aiocache's cache: `data_bridge.kv.aiocache.KVCache`, in code or as the `cache` of a configuration.

Values keep their types and are not serialized, unless a `serializer` is given; what the store has no kind for is
pickled, unless `fallback` is None. A namespace of aiocache is a prefix of keys, ended by a colon.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiocache.base import BaseCache
from aiocache.serializers import NullSerializer
from data_bridge.kv._pickled import PICKLE, UNFIT, fitting
from data_bridge.kv._shared import shared
from data_bridge.kv.errors import ConflictError, WrongTypeError


class KVCache(BaseCache):
    """A namespace of a server, or `memory://`, as an aiocache cache. The client is the running loop's and ends with it.

    `options` are those of aiocache's caches and of `kv.aio.connect` (of `kv.open` for `memory://`), where aiocache's
    `timeout` bounds an operation.
    """

    NAME = "kv"

    def __init__(self, url: str | None = None, serializer: Any = None, **options: Any) -> None:
        own = {name: options.pop(name) for name in AIOCACHE if name in options}
        super().__init__(serializer=serializer or NullSerializer(encoding=None), **own)
        options = {"fallback": PICKLE, **options}
        self._fallback = options["fallback"]
        self._url, self._store = url, shared(url, options).async_store

    def _build_key(self, key: Any, namespace: str | None = None) -> str:
        prefix = self.namespace if namespace is None else namespace
        name = str(getattr(key, "value", key))
        return f"{prefix}:{name}" if prefix else name

    def _read(self, found: Any) -> Any:
        # A counter is an int in the store, whatever a serializer makes of other values.
        is_counter = type(found) is int and not isinstance(self.serializer, NullSerializer)
        return str(found) if is_counter else found

    async def _get(self, key: str, encoding: Any = None, _conn: Any = None) -> Any:
        return self._read(await self._store().get(key))

    async def _gets(self, key: str, encoding: Any = None, _conn: Any = None) -> int | None:
        return (await self._store().get_versioned(key)).version or None

    async def _multi_get(self, keys: Iterable[str], encoding: Any = None, _conn: Any = None) -> list[Any]:
        return [self._read(found) for found in await self._store().mget(list(keys))]

    async def _set(
        self, key: str, value: Any, ttl: float | None = None, _cas_token: int | None = None, _conn: Any = None
    ) -> bool:
        store = self._store()
        if _cas_token is not None:
            try:
                await store.set_if_version(key, self._fitting(value), _cas_token, ttl=ttl or None)
            except ConflictError:
                return False
            return True
        try:
            await store.set(key, value, ttl=ttl or None)
        except UNFIT:
            await store.set(key, self._fitting(value), ttl=ttl or None)
        return True

    async def _multi_set(
        self, pairs: Iterable[tuple[str, Any]], ttl: float | None = None, _conn: Any = None
    ) -> bool:
        values = dict(pairs)
        try:
            await self._store().set_many(values, ttl=ttl or None)
        except UNFIT:
            fit = {key: self._fitting(value) for key, value in values.items()}
            await self._store().set_many(fit, ttl=ttl or None)
        return True

    async def _add(self, key: str, value: Any, ttl: float | None = None, _conn: Any = None) -> bool:
        if not await self._store().set(key, self._fitting(value), ttl=ttl or None, nx=True):
            raise ValueError(f"Key {key} already exists, use .set to update the value")
        return True

    async def _exists(self, key: str, _conn: Any = None) -> bool:
        return bool(await self._store().exists(key))

    async def _increment(self, key: str, delta: int, _conn: Any = None) -> int:
        try:
            return await self._store().incr(key, delta)
        except WrongTypeError as error:
            raise TypeError("Value is not an integer") from error

    async def _expire(self, key: str, ttl: float, _conn: Any = None) -> bool:
        if ttl < 0:
            return bool(await self._store().delete(key))
        return await (self._store().expire(key, ttl) if ttl else self._store().persist(key))

    async def _delete(self, key: str, _conn: Any = None) -> int:
        return await self._store().delete(key)

    async def _clear(self, namespace: str | None = None, _conn: Any = None) -> bool:
        await self._store().clear(f"{namespace}:" if namespace else "")
        return True

    async def _raw(
        self, command: str, *args: Any, encoding: Any = None, _conn: Any = None, **options: Any
    ) -> Any:
        return await getattr(self._store(), command)(*args, **options)

    async def _redlock_release(self, key: str, value: Any) -> bool:
        return await self._store().compare_and_delete(key, value)

    def _fitting(self, value: Any) -> Any:
        return fitting(value, self._fallback)

    def __repr__(self) -> str:
        return f"KVCache ({self._url or 'KV_URL'})"


AIOCACHE = ("plugins", "namespace", "key_builder", "timeout", "ttl")
"""Options of every aiocache cache."""
