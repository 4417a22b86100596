"""Results of functions in a store: `kv.cached` and `kv.invalidate_tags`. How entries live stands in `_entries`."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from datetime import timedelta
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

from data_bridge.kv._async_methods import AsyncMethods
from data_bridge.kv._entries import Entries, Options, log, tag_key
from data_bridge.kv._methods import StoreMethods
from data_bridge.kv._steps import is_async, run, run_async
from data_bridge.kv._values import MISSING

P = ParamSpec("P")
R = TypeVar("R")
NO_STAMPS: dict[str, Any] = {}


class Bound(functools.partial[Any]):
    """A method whose results are kept, of one object: called, and asked for keys, without it."""

    @property
    def key(self) -> Callable[..., str]:
        """`key` of the function, with the object as its first argument."""
        return functools.partial(self.func.key, *self.args)  # type: ignore[attr-defined]

    @property
    def invalidate(self) -> Callable[..., Any]:
        """`invalidate` of the function, with the object as its first argument."""
        return functools.partial(self.func.invalidate, *self.args)  # type: ignore[attr-defined]


class Cached(Generic[P, R]):
    """A function whose results are kept in a synchronous store."""

    def __init__(self, store: StoreMethods, function: Callable[P, R], options: Options) -> None:
        self._store, self._entries = store, Entries(function, options)
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        entries, store = self._entries, self._store
        name = entries.key(*args, **kwargs)
        if entries.has_tags:
            tags = entries.tags(*args, **kwargs)
            found = store.get_many((name, *tags))
            entry = found.get(name, MISSING)
        else:
            tags, found = (), NO_STAMPS
            entry = store.get(name, MISSING)

        def compute(_store: Any) -> R:
            return entries.function(*args, **kwargs)

        if not entries.is_valid(name, entry, tags, found):
            return run(store, entries.fill(name, tags, compute))
        if entries.looks_at_time and entries.is_due(entry):
            if entries.options.stale > 0:
                refresh = functools.partial(self._refresh, name, tags, entry, compute)
                threading.Thread(target=refresh, name=f"refreshes {name}", daemon=True).start()
            else:
                value = run(store, entries.refresh(name, tags, entry, compute))
                return entry["value"] if value is MISSING else value
        return entry["value"]

    def _refresh(self, name: str, tags: tuple[str, ...], due: Any, compute: Callable[[Any], R]) -> None:
        try:
            run(self._store, self._entries.refresh(name, tags, due, compute))
        except Exception:
            log.exception("no refresh, since the store failed: %s", name)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else Bound(self, instance)

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The key of the entry for these arguments."""
        return self._entries.key(*args, **kwargs)

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Deletes the entry for these arguments, one that is being computed too; whether there was one."""
        return run(self._store, self._entries.invalidate(self.key(*args, **kwargs)))


class AsyncCached(Generic[P, R]):
    """A coroutine function whose results are kept in an asynchronous store."""

    def __init__(
        self, store: AsyncMethods, function: Callable[P, Coroutine[Any, Any, R]], options: Options
    ) -> None:
        self._store, self._entries = store, Entries(function, options)
        self._refreshes: set[asyncio.Task[None]] = set()
        functools.update_wrapper(self, function)

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        entries, store = self._entries, self._store
        name = entries.key(*args, **kwargs)
        if entries.has_tags:
            tags = entries.tags(*args, **kwargs)
            found = await store.get_many((name, *tags))
            entry = found.get(name, MISSING)
        else:
            tags, found = (), NO_STAMPS
            entry = await store.get(name, MISSING)

        def compute(_store: Any) -> Awaitable[R]:
            return entries.function(*args, **kwargs)

        if not entries.is_valid(name, entry, tags, found):
            return await run_async(store, entries.fill(name, tags, compute))
        if entries.looks_at_time and entries.is_due(entry):
            if entries.options.stale > 0:
                task = asyncio.create_task(
                    self._refresh(name, tags, entry, compute), name=f"refreshes {name}"
                )
                self._refreshes.add(task)
                task.add_done_callback(self._refreshes.discard)
            else:
                value = await run_async(store, entries.refresh(name, tags, entry, compute))
                return entry["value"] if value is MISSING else value
        return entry["value"]

    async def _refresh(
        self, name: str, tags: tuple[str, ...], due: Any, compute: Callable[[Any], Awaitable[R]]
    ) -> None:
        try:
            await run_async(self._store, self._entries.refresh(name, tags, due, compute))
        except Exception:
            log.exception("no refresh, since the store failed: %s", name)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else Bound(self, instance)

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The key of the entry for these arguments."""
        return self._entries.key(*args, **kwargs)

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Deletes the entry for these arguments, one that is being computed too; whether there was one."""
        return await run_async(self._store, self._entries.invalidate(self.key(*args, **kwargs)))


class Decorator(Protocol):
    """What `cached` makes of a synchronous store."""

    def __call__(self, function: Callable[P, R], /) -> Cached[P, R]:
        """Keeps the function's results."""
        ...


class AsyncDecorator(Protocol):
    """What `cached` makes of an asynchronous store."""

    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncCached[P, R]:
        """Keeps the coroutine function's results."""
        ...


@overload
def cached(
    store: StoreMethods,
    ttl: float | timedelta,
    *,
    key: str | Callable[..., str] | None = None,
    jitter: float = 0.0,
    early: float = 0.0,
    stale_while_revalidate: float = 0.0,
    tags: Iterable[str] | Callable[..., Iterable[str]] = (),
    lease: float = 30.0,
) -> Decorator: ...
@overload
def cached(
    store: AsyncMethods,
    ttl: float | timedelta,
    *,
    key: str | Callable[..., str] | None = None,
    jitter: float = 0.0,
    early: float = 0.0,
    stale_while_revalidate: float = 0.0,
    tags: Iterable[str] | Callable[..., Iterable[str]] = (),
    lease: float = 30.0,
) -> AsyncDecorator: ...
def cached(
    store: StoreMethods | AsyncMethods,
    ttl: float | timedelta,
    *,
    key: str | Callable[..., str] | None = None,
    jitter: float = 0.0,
    early: float = 0.0,
    stale_while_revalidate: float = 0.0,
    tags: Iterable[str] | Callable[..., Iterable[str]] = (),
    lease: float = 30.0,
) -> Any:
    """Keeps the results of a function for `ttl` seconds; a coroutine function needs an asynchronous store.

    Of all threads and processes that miss the same entry one computes it, the others wait for its result. Who
    computes for longer than `lease` seconds is taken for dead, and another one starts. An exception goes to the caller
    and is not kept.

    - `key` names entries: a format of the arguments ("price:{sku}") or a function of them; unless given it is made
      of the function's name and its arguments, which must be storable.
    - `jitter` shortens the ttl by a random part of at most this much (0.1 = 10 %), so that entries written together
      do not end together.
    - `early` refreshes an entry before it ends, in one caller, the likelier the nearer the end and the longer it took
      to compute (XFetch; 1 is a good value).
    - `stale_while_revalidate` serves an entry for so many seconds after its ttl, while it is computed anew in the
      background.
    - `tags` are names, or a function of the arguments that gives them, for `kv.invalidate_tags`.

    The decorated function has `key(...)` and `invalidate(...)`, which take its arguments; a method of an object takes
    them without the object.

    >>> from data_bridge import kv
    >>> store = kv.open()
    >>> @kv.cached(store, ttl=60, key="square:{x}", tags=["math"])
    ... def square(x: int) -> int:
    ...     print("computing")
    ...     return x * x
    >>> square(3), square(3)
    computing
    (9, 9)
    >>> kv.invalidate_tags(store, "math")
    1
    >>> square(3)
    computing
    9
    """
    seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
    options = Options(seconds, key, jitter, early, stale_while_revalidate, tags, lease)
    asynchronous = is_async(store, "cached")

    def decorate(function: Any) -> Any:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                "kv.cached keeps results, and those of a generator are gone once they were taken: return a list"
            )
        if inspect.iscoroutinefunction(function) != asynchronous:
            need = "a function, this is a coroutine function: use a store of kv.aio"
            if asynchronous:
                need = "a coroutine function: use a store of kv.open or kv.connect for others"
            raise TypeError(f"kv.cached with {store!r:.80} needs {need}")
        kind: Any = AsyncCached if asynchronous else Cached
        return kind(store, function, options)

    return decorate


@overload
def invalidate_tags(store: StoreMethods, *tags: str) -> int: ...
@overload
def invalidate_tags(store: AsyncMethods, *tags: str) -> Awaitable[int]: ...
def invalidate_tags(store: StoreMethods | AsyncMethods, *tags: str) -> Any:
    """Invalidates every entry of `cached` that has one of the tags, in one step; how many of the tags were in use."""
    is_async(store, "invalidate_tags")
    return store.delete(*map(tag_key, tags))
