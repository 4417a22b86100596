"""The store for asyncio: the same names, awaited. `kv.aio.connect` is a client, `kv.aio.open` an embedded store.

>>> import asyncio
>>> from data_bridge import kv
>>> async def main() -> int:
...     async with kv.aio.open() as store:
...         await store.set("visits", 41)
...         return await store.incr("visits")
>>> asyncio.run(main())
42
"""

from __future__ import annotations

import asyncio
import builtins
import os
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal, NoReturn, Self

from data_bridge._native import AsyncRemote, Bell, Blocked, Ready
from data_bridge._native import opcode as op
from data_bridge.kv._async_methods import AsyncMethods, AsyncWatch
from data_bridge.kv._codecs import Fallback
from data_bridge.kv._embedded import Store, open_engine
from data_bridge.kv._remote import Address, address, keep_alive
from data_bridge.kv._shapes import timeout_ms
from data_bridge.kv.errors import ClosedError, ConnectionError, TimeoutError  # noqa: A004 - named as their builtins

__all__ = ["AsyncClient", "AsyncStore", "connect", "open"]


class AsyncClient(AsyncRemote, AsyncMethods):
    """A namespace of a server, for the event loop that runs when it is used. The first call connects."""

    __slots__ = ("_address", "_closed", "_opening", "_options")

    _address: Address
    _options: dict[str, Any]
    _opening: asyncio.Task[None] | None
    _closed: bool

    def __new__(cls, address: Address, options: dict[str, Any]) -> Self:
        """For an address; `options` are those of `connect`."""
        self = super().__new__(
            cls,
            namespace=address.namespace,
            password=address.password,
            timeout=options["timeout"],
            fallback=options["fallback"],
        )
        self._address, self._options, self._opening, self._closed = address, options, None, False
        return self

    def _connect(self, loop: asyncio.AbstractEventLoop) -> None:
        self._opening = loop.create_task(self._open(loop))

    async def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        where = self._address
        if isinstance(where.target, str):
            attempt = loop.create_unix_connection(lambda: self, where.target)  # type: ignore[type-var]
        else:
            attempt = loop.create_connection(lambda: self, *where.target)  # type: ignore[type-var]
        try:
            await asyncio.wait_for(attempt, self._options["connect_timeout"])
        except builtins.TimeoutError:
            self._failed(TimeoutError(f"can't connect to {where.shown()}: no answer in time"))
        except (OSError, ValueError) as error:  # ValueError: what can be no name of a host
            self._failed(ConnectionError(f"can't connect to {where.shown()}: {error}"))

    def connection_made(self, transport: Any) -> None:
        """For the event loop."""
        if not isinstance(self._address.target, str):
            keep_alive(transport.get_extra_info("socket"))
        super().connection_made(transport)

    async def aclose(self) -> None:
        """Closes the connection; what waits fails, later calls raise `ClosedError`."""
        self._closed = True
        self._close()

    def namespace(self, name: str | int) -> AsyncClient:
        """Another namespace of the same server, by name or number, with a connection of its own."""
        return AsyncClient(replace(self._address, namespace=str(name)), self._options)

    def ping(self) -> Awaitable[bool]:
        """Whether the server answers."""
        return self._call(op.PING, (), None, bool)

    async def _start_watch(self, args: tuple[Any, ...], watch: AsyncWatch) -> Any:
        if self._closed:
            raise ClosedError("the client is closed")
        # A connection of its own: its end is the end of the watch.
        client = AsyncClient(self._address, self._options)
        try:
            await client._watch(args, watch.receiver())
        except BaseException:
            client._close()
            raise
        return client._close

    def __repr__(self) -> str:
        return f"kv.aio.connect({self._address.shown()!r})"

    def __copy__(self) -> AsyncClient:
        return AsyncClient(self._address, self._options)

    def __deepcopy__(self, _memo: object) -> AsyncClient:
        return AsyncClient(self._address, self._options)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _unpickled, (self._address.shown(), self._options)


def _unpickled(url: str, options: dict[str, Any]) -> AsyncClient:
    return connect(url, **options)


def connect(
    url: str | None = None,
    *,
    password: str | None = None,
    connect_timeout: float = 5.0,
    timeout: float | None = 5.0,
    fallback: Fallback | None = None,
) -> AsyncClient:
    """A client of a server on one connection: all calls of a loop are pipelined. The options are those of `kv.connect`.

    It is an async context manager, and can be used without: `aclose` ends it.
    """
    timeout_ms(connect_timeout)  # refuses what is none
    options = {"connect_timeout": connect_timeout, "timeout": timeout, "fallback": fallback}
    return AsyncClient(address(url, password), options)


class AsyncStore(AsyncMethods):
    """A namespace of a store in this process. What is in memory is ready when it is awaited; waits wake the loop.

    What is on disk is read on another thread while the loop goes on, and a write that needs room is done there: then
    calls that are not awaited one after the other may take effect in any order. A change that is to be on disk first
    is made at once, and its answer comes when it is there: the loop goes on, and one sync serves all who wait. Who is
    cancelled meanwhile has made the change all the same.
    """

    __slots__ = ("_bells", "_store")

    def __init__(self, store: Store) -> None:
        self._store = store
        self._bells: dict[asyncio.AbstractEventLoop, Bell] = {}

    def get(self, key: str, default: Any = None) -> Awaitable[Any]:
        """The value of a key, `default` where there is none."""
        try:
            return Ready(self._store.get(key, default))
        except Blocked as blocked:
            return self._later(blocked)
        except Exception as error:
            return Ready(error, True)

    def set(
        self,
        key: str,
        value: Any,
        *,
        ttl: float | timedelta | None = None,
        nx: bool = False,
        xx: bool = False,
        keep_ttl: bool = False,
        return_old: bool = False,
        durable: bool = False,
        **other: Any,
    ) -> Awaitable[Any]:
        """Writes a value; the options are those of a synchronous store's `set`."""
        options: dict[str, Any] = {
            "ttl": ttl,
            "nx": nx,
            "xx": xx,
            "keep_ttl": keep_ttl,
            "return_old": return_old,
            "durable": durable,
        }
        try:
            return Ready(self._store.set(key, value, **options, **other))
        except Blocked as blocked:
            return self._later(blocked)
        except Exception as error:
            return Ready(error, True)

    def _call(self, opcode: int, args: tuple[Any, ...], missing: Any = None, shape: Any = None) -> Any:
        try:
            return Ready(self._store._call(opcode, args, missing, shape))
        except Blocked as blocked:
            return self._later(blocked)
        except Exception as error:
            return Ready(error, True)

    def _run(self, queue: Any, atomic: bool) -> Any:
        try:
            return Ready(self._store._run(queue, atomic))
        except Blocked as blocked:
            return self._later(blocked)
        except Exception as error:
            return Ready(error, True)

    def _later(self, blocked: Blocked) -> asyncio.Future[Any]:
        loop, bell = self._ears()
        future = loop.create_future()
        bell.defer(future, blocked.args[0])
        return future

    def _ready(self, result: Any) -> Any:
        return Ready(result)

    @property
    def _fallback(self) -> Any:
        return self._store._fallback

    def _wait(self, opcode: int, args: tuple[Any, ...], missing: Any = None, shape: Any = None) -> Any:
        loop, bell = self._ears()
        future = loop.create_future()
        token = bell.wait(future, opcode, args, missing, shape)
        future.add_done_callback(lambda done: bell.cancel(token) if done.cancelled() else None)
        return future

    async def _start_watch(self, args: tuple[Any, ...], watch: AsyncWatch) -> Any:
        _, bell = self._ears()
        number = bell.watch(watch.receiver(), args)
        return lambda: bell.unwatch(number)

    def _ears(self) -> tuple[asyncio.AbstractEventLoop, Bell]:
        loop = asyncio.get_running_loop()
        bell = self._bells.get(loop)
        if bell is None:
            # In place: a loop of another thread may add its own at this moment.
            for known in [*self._bells]:
                if known.is_closed():
                    self._bells.pop(known, None)
            bell = self._bells[loop] = Bell(self._store)
            loop.add_reader(bell.fileno(), bell.drain)
        return loop, bell

    async def aclose(self) -> None:
        """Ends the store with all its namespaces. With a path the loop goes on while the rest goes to disk.

        Raises `DurabilityError` if the log failed; see `kv.Store.close`.
        """
        try:
            if self._store._may_block:
                await asyncio.to_thread(self._store.close)
            else:
                self._store.close()
        finally:
            here, bells, self._bells = asyncio.get_running_loop(), self._bells, {}
            for loop, bell in bells.items():
                if loop is here:
                    _unhang(loop, bell)
                elif not loop.is_closed():
                    loop.call_soon_threadsafe(_unhang, loop, bell)

    async def snapshot(self, destination: str | os.PathLike[str]) -> None:
        """Copies the task namespaces of the store to an empty directory; see `kv.Store.snapshot`."""
        await asyncio.to_thread(self._store.snapshot, destination)

    def namespace(self, name: str | int) -> AsyncStore:
        """Another namespace of the same store, by name or number."""
        return AsyncStore(Store(self._store._engine, str(name), self._fallback, False))

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            "an embedded store can't be pickled: it lives in this process; use kv.aio.connect elsewhere"
        )


def _unhang(loop: asyncio.AbstractEventLoop, bell: Bell) -> None:
    loop.remove_reader(bell.fileno())
    bell.close()


def open(  # noqa: A001 - reads as kv.aio.open()
    path: str | os.PathLike[str] | None = None,
    *,
    mode: Literal["cache", "task"] = "cache",
    eviction: Literal["lru", "lru-ttl", "lfu", "none"] | None = None,
    max_memory: int | None = None,
    max_disk: int | None = None,
    namespaces: Mapping[str, Mapping[str, Any]] | None = None,
    durability: Literal["none", "everysec", "always"] | None = None,
    fallback: Fallback | None = None,
) -> AsyncStore:
    """Opens a store in this process, in memory or with a directory; the options are those of `kv.open`.

    The event loop goes on while a change waits for the disk, and all that wait share one sync.
    """
    engine = open_engine(path, max_disk, mode, eviction, max_memory, namespaces, durability)
    return AsyncStore(Store(engine, "0", fallback, False))
