"""cashews' backend: `import data_bridge.kv.cashews`, then `cache.setup("kv://127.0.0.1:7379/cache")`, or `memory://`.

Values keep their types; what the store has no kind for is pickled. A `secret`, `pickle_type` or `compress_type` of the
setup is respected: then cashews' serializer makes bytes of values. Whoever waits for a lock is woken when it is free.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from cashews import register_backend
from cashews.backends.interface import NOT_EXIST, UNLIMITED, Backend
from cashews.commands import Command
from cashews.exceptions import LockedError
from cashews.serialize import NULL_SERIALIZER
from data_bridge.kv._pickled import PICKLE, fitting
from data_bridge.kv._shared import shared
from data_bridge.kv._values import MISSING
from data_bridge.kv.aio import AsyncClient, AsyncStore
from data_bridge.kv.errors import ConflictError, TimeoutError  # noqa: A004

DEFAULT_MESSAGE = Command.PING.value.upper().encode()


class KVBackend(Backend):
    """A namespace of a server, or a store in this process. The client is the running loop's and ends with it."""

    def __init__(self, address: str | None = None, serializer: Any = None, **options: Any) -> None:
        super().__init__(serializer=serializer or NULL_SERIALIZER)
        options = {"fallback": PICKLE, **options}
        self._fallback = options["fallback"]
        self._open = shared(address, options).async_store
        self._is_init = False

    @property
    def _store(self) -> AsyncStore | AsyncClient:
        return self._open()

    @property
    def is_init(self) -> bool:
        return self._is_init

    async def init(self) -> None:
        self._is_init = True

    async def close(self) -> None:
        self._is_init = False

    async def _written(self, key: str, value: Any, expire: float | None) -> Any:
        assert self._serializer is not None
        return fitting(
            await self._serializer.encode(self, key=key, value=value, expire=expire), self._fallback
        )

    async def _read(self, key: str, found: Any, default: Any) -> Any:
        if found is MISSING:
            return default
        assert self._serializer is not None
        return await self._serializer.decode(self, key=key, value=found, default=default)

    async def set(self, key: str, value: Any, expire: float | None = None, exist: bool | None = None) -> bool:
        written = await self._written(key, value, expire)
        if exist is None:
            await self._store.set(key, written, ttl=expire or None)
            return True
        return bool(await self._store.set(key, written, ttl=expire or None, nx=not exist, xx=exist))

    async def set_many(self, pairs: Mapping[str, Any], expire: float | None = None) -> None:
        values = {key: await self._written(key, value, expire) for key, value in pairs.items()}
        await self._store.set_many(values, ttl=expire or None)

    async def set_raw(self, key: str, value: Any, **kwargs: Any) -> None:
        await self._store.set(key, value, **kwargs)

    async def get(self, key: str, default: Any = None) -> Any:
        return await self._read(key, await self._store.get(key, MISSING), default)

    async def get_raw(self, key: str) -> Any:
        return await self._store.get(key)

    async def get_many(self, *keys: str, default: Any = None) -> tuple[Any, ...]:
        found = await self._store.get_many(keys)
        return tuple([await self._read(key, found.get(key, MISSING), default) for key in keys])

    async def get_match(self, pattern: str, batch_size: int = 100) -> AsyncIterator[tuple[str, Any]]:
        async for key in self.scan(pattern, batch_size):
            value = await self.get(key, MISSING)
            if value is not MISSING:
                yield key, value

    async def exists(self, key: str) -> bool:
        return bool(await self._store.exists(key))

    async def scan(self, pattern: str, batch_size: int = 100) -> AsyncIterator[str]:
        prefix, matches = pattern.partition("*")[0], matcher(pattern)
        async for key in self._store.scan(prefix):
            if matches(key):
                yield key

    async def incr(self, key: str, value: int = 1, expire: float | None = None) -> int:
        return int(await self._store.incr(key, value, ttl=expire or None))

    async def delete(self, key: str) -> bool:
        try:
            return bool(await self._store.delete(key))
        finally:
            await self._call_on_remove_callbacks(key)

    async def delete_many(self, *keys: str) -> None:
        try:
            await self._store.delete(*keys)
        finally:
            await self._call_on_remove_callbacks(*keys)

    async def delete_match(self, pattern: str) -> None:
        keys = [key async for key in self.scan(pattern)]
        if keys:
            await self.delete_many(*keys)

    async def expire(self, key: str, timeout: float) -> None:
        await (self._store.expire(key, timeout) if timeout > 0 else self.delete(key))

    async def get_expire(self, key: str) -> int:
        try:
            seconds = await self._store.ttl(key)
        except KeyError:
            return NOT_EXIST
        return UNLIMITED if seconds is None else round(seconds)

    async def get_bits(self, key: str, *indexes: int, size: int = 1) -> tuple[int, ...]:
        bits = int.from_bytes(await self._store.get(key, b""), "little")
        return tuple(bits >> index * size & (1 << size) - 1 for index in indexes)

    async def incr_bits(self, key: str, *indexes: int, size: int = 1, by: int = 1) -> tuple[int, ...]:
        most = (1 << size) - 1

        def added(found: Any) -> tuple[bytes, tuple[int, ...]]:
            bits, results = int.from_bytes(b"" if found is MISSING else found, "little"), []
            for index in indexes:
                old = bits >> index * size & most
                new = max(0, min(most, old + by))
                bits ^= (old ^ new) << index * size
                results.append(new)
            return bits.to_bytes(-(-bits.bit_length() // 8), "little"), tuple(results)

        return await self._changed(key, None, added)

    async def slice_incr(
        self, key: str, start: float, end: float, maxvalue: int, expire: float | None = None
    ) -> int:
        def added(found: Any) -> tuple[list[float], int]:
            times = [time for time in (() if found is MISSING else found) if start <= time < end]
            if len(times) < maxvalue:
                times.append(end)
            return times, len(times)

        return await self._changed(key, expire or None, added)

    async def _changed(self, key: str, ttl: float | None, change: Callable[[Any], tuple[Any, Any]]) -> Any:
        """Writes what a function makes of a value, and gives what else it says; again if somebody was faster."""
        found, version = await self._store.get_versioned(key)
        while True:
            value, result = change(found)
            try:
                await self._store.set_if_version(key, value, version, ttl=ttl)
            except ConflictError as other:
                found, version = other.current, other.version
            else:
                return result

    async def set_add(self, key: str, *values: str, expire: float | None = None) -> None:
        pipe = self._store.pipeline(atomic=True).sadd(key, *values)
        await (pipe.expire(key, expire) if expire else pipe).execute()

    async def set_remove(self, key: str, *values: str) -> None:
        await self._store.srem(key, *values)

    async def set_pop(self, key: str, count: int = 100) -> Iterable[str]:
        return list(await self._store.spop(key, count) or ())

    async def get_size(self, key: str) -> int:
        return await self._store.memory_usage(key) or 0

    async def get_keys_count(self) -> int:
        return await self._store.dbsize()

    async def ping(self, message: bytes | None = None) -> bytes:
        if isinstance(self._store, AsyncClient):
            await self._store.ping()
        return b"PONG" if message in (None, DEFAULT_MESSAGE) else message or b""

    async def clear(self) -> None:
        await self._store.clear()

    async def set_lock(self, key: str, value: Any, expire: float) -> bool:
        return bool(await self._store.set(key, value, ttl=expire, nx=True))

    async def is_locked(self, key: str, wait: float | None = None, step: float = 0.1) -> bool:
        give_up = time.monotonic() + (wait or 0)
        while await self._changes(key, give_up - time.monotonic()):
            pass
        return await self.exists(key)

    async def unlock(self, key: str, value: Any) -> bool:
        return await self._store.compare_and_delete(key, value)

    @asynccontextmanager
    async def lock(
        self, key: str, expire: float, wait: bool = True, check_interval: float = 0
    ) -> AsyncGenerator[None]:
        identifier = uuid.uuid4().hex
        while not await self.set_lock(key, identifier, expire):
            if not wait:
                raise LockedError(f"Key {key} is already locked")
            await self._changes(key, expire)
        try:
            yield
        finally:
            await self.unlock(key, identifier)

    async def _changes(self, key: str, seconds: float) -> bool:
        """Waits until a key that is there changes, at most so long; whether it is worth to look again."""
        if seconds <= 0:
            return False
        # Requests of one connection take effect in order: what changes after the look ends the wait.
        change = asyncio.ensure_future(self._store.wait(key, timeout=seconds))
        try:
            if not await self._store.exists(key):
                return False
            with contextlib.suppress(TimeoutError):
                await change
        finally:
            change.cancel()
        return True


def matcher(pattern: str) -> Callable[[str], bool]:
    """Whether a key is what a pattern means, where `*` stands for any characters."""
    expression = re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)
    return lambda key: expression.fullmatch(key) is not None


for scheme in ("kv", "kvs", "unix", "memory"):
    register_backend(scheme, KVBackend, pass_uri=True)
