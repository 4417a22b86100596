"""Views of an asynchronous store: the methods of the synchronous views, awaited. What is an operator there has a name
here: `get`, `set`, `delete`, `contains`, `length`."""

from __future__ import annotations

import operator
from collections.abc import Awaitable, Iterable
from typing import TYPE_CHECKING, Any

from data_bridge._native import opcode as op
from data_bridge.kv import _shapes as shapes
from data_bridge.kv._values import MISSING, Member, Value
from data_bridge.kv.errors import NotFoundError, OutOfRangeError

if TYPE_CHECKING:
    from data_bridge.kv._async_methods import AsyncMethods


class AsyncView:
    """A key of a store."""

    __slots__ = ("_store", "key")

    def __init__(self, store: AsyncMethods, key: str) -> None:
        self._store, self.key = store, key

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.key!r})"

    async def clear(self) -> None:
        """Deletes the key."""
        await self._store.delete(self.key)


class AsyncHashView(AsyncView):
    """A stored hash."""

    __slots__ = ()

    def get(self, field: Member, default: Any = None) -> Awaitable[Any]:
        """The value of a field, `default` where it is missing."""
        return self._store._call(op.HGET, (self.key, field), default)

    async def set(self, field: Member, value: Value) -> None:
        """Sets a field."""
        await self._store._call(op.HSET, (self.key, field, value))

    async def delete(self, field: Member) -> None:
        """Removes a field; `KeyError` if it is missing."""
        if not await self._store.hdel(self.key, field):
            raise KeyError(field)

    def contains(self, field: Member) -> Awaitable[bool]:
        """Whether there is such a field."""
        return self._store.hexists(self.key, field)

    def length(self) -> Awaitable[int]:
        """Number of fields."""
        return self._store.hlen(self.key)

    def keys(self) -> Awaitable[list[Any]]:
        """All fields."""
        return self._store.hkeys(self.key)

    def values(self) -> Awaitable[list[Any]]:
        """All values."""
        return self._store.hvals(self.key)

    async def items(self) -> list[tuple[Any, Any]]:
        """Fields and values, read in one step."""
        return list((await self.copy()).items())

    def copy(self) -> Awaitable[dict[Any, Any]]:
        """The whole hash as a dict."""
        return self._store.hgetall(self.key)

    def items_typed(self) -> Awaitable[list[tuple[Any, ...]]]:
        """(kind, field, value) of each field, also of those that are equal in Python."""
        return self._store.items_typed(self.key)

    def pop(self, field: Member, default: Any = MISSING) -> Awaitable[Any]:
        """Removes a field and returns its value, in one step; `KeyError` if it is missing and there is no default."""
        if default is MISSING:
            return self._store._call(op.KV_HPOP, (self.key, field), MISSING, shapes.found(field))
        return self._store._call(op.KV_HPOP, (self.key, field), default)

    async def popitem(self) -> tuple[Any, Any]:
        """Takes the oldest field with its value, whoever else takes some; `KeyError` if there is none."""
        for field in await self.keys():
            value = await self.pop(field, taken := object())
            if value is not taken:
                return field, value
        raise KeyError("popitem(): the hash is empty")

    def setdefault(self, field: Member, default: Value = None) -> Awaitable[Any]:
        """The value of a field, set to `default` first where it is missing, in one step."""
        return self._store._call(op.KV_HSETDEFAULT, (self.key, field, default))

    async def update(self, other: Any = (), /, **more: Value) -> None:
        """Sets several fields in one step."""
        pairs = shapes.merged(other, more)
        if pairs:
            await self._store.hset(self.key, mapping=pairs)


class AsyncListView(AsyncView):
    """A stored list."""

    __slots__ = ()

    def get(self, index: int) -> Awaitable[Any]:
        """The element at an index; `IndexError` if there is none."""
        return self._store._call(op.LINDEX, (self.key, shapes.position(index)), MISSING, shapes.element)

    async def set(self, index: int, value: Value) -> None:
        """Replaces the element at an index; `IndexError` if there is none."""
        place = shapes.position(index)
        try:
            await self._store.lset(self.key, place, value)
        except (NotFoundError, OutOfRangeError):
            await self.get(place)  # an IndexError, unless it is the value that is out of range
            raise

    async def contains(self, value: Value) -> bool:
        """Whether an element is equal."""
        return await self._store.lpos(self.key, value) is not None

    def length(self) -> Awaitable[int]:
        """Number of elements."""
        return self._store.llen(self.key)

    def copy(self) -> Awaitable[list[Any]]:
        """The whole list."""
        return self._store.lrange(self.key, 0, -1)

    async def append(self, value: Value) -> None:
        """Adds an element at the end."""
        await self._store.rpush(self.key, value)

    async def extend(self, values: Iterable[Value]) -> None:
        """Adds elements at the end, in one step."""
        values = tuple(values)
        if values:
            await self._store.rpush(self.key, *values)

    async def insert(self, index: int, value: Value) -> None:
        """Inserts before an index."""
        await self._store._call(op.KV_LINSERT, (self.key, operator.index(index), value))

    async def pop(self, index: int = -1) -> Any:
        """Removes an element and returns it, in one step; `IndexError` if there is none."""
        if index == -1:
            return await self._store._call(op.RPOP, (self.key,), MISSING, shapes.element)
        try:
            return await self._store._call(
                op.KV_LREMOVE, (self.key, operator.index(index)), MISSING, shapes.element
            )
        except OutOfRangeError as error:
            raise IndexError("pop index out of range") from error

    async def remove(self, value: Value) -> None:
        """Removes the first equal element; `ValueError` if there is none."""
        if not await self._store.lrem(self.key, 1, value):
            raise ValueError(f"{value!r} is not in the list")


class AsyncSetView(AsyncView):
    """A stored set."""

    __slots__ = ()

    def contains(self, member: Member) -> Awaitable[bool]:
        """Whether it is a member."""
        return self._store._call(op.SISMEMBER, (self.key, member), None, bool)

    def length(self) -> Awaitable[int]:
        """Number of members."""
        return self._store.scard(self.key)

    def copy(self) -> Awaitable[set[Any]]:
        """The whole set."""
        return self._store.smembers(self.key)

    def items_typed(self) -> Awaitable[list[tuple[Any, ...]]]:
        """(kind, member) of each member, also of those that are equal in Python."""
        return self._store.items_typed(self.key)

    async def add(self, value: Member) -> None:
        """Adds a member."""
        await self._store.sadd(self.key, value)

    async def update(self, *others: Iterable[Member]) -> None:
        """Adds members, in one step."""
        members = tuple(member for other in others for member in other)
        if members:
            await self._store.sadd(self.key, *members)

    async def discard(self, value: Member) -> None:
        """Removes a member if it is there."""
        await self._store.srem(self.key, value)

    async def remove(self, value: Member) -> None:
        """Removes a member; `KeyError` if it is not there."""
        if not await self._store.srem(self.key, value):
            raise KeyError(value)

    def pop(self) -> Awaitable[Any]:
        """Takes a random member; `KeyError` if there is none."""
        return self._store._call(op.SPOP, (self.key,), MISSING, shapes.found("pop from an empty set"))


class AsyncSortedSetView(AsyncView):
    """A stored sorted set, in order of score."""

    __slots__ = ()

    def get(self, member: Member, default: Any = None) -> Awaitable[Any]:
        """The score of a member, `default` where it is none."""
        return self._store._call(op.ZSCORE, (self.key, member), default)

    async def set(self, member: Member, score: Any) -> None:
        """Sets the score of a member."""
        await self._store.zadd(self.key, {member: score})

    async def delete(self, member: Member) -> None:
        """Removes a member; `KeyError` if it is none."""
        if not await self._store.zrem(self.key, member):
            raise KeyError(member)

    async def contains(self, member: Member) -> bool:
        """Whether it is a member."""
        return await self.get(member) is not None

    def length(self) -> Awaitable[int]:
        """Number of members."""
        return self._store.zcard(self.key)

    def keys(self) -> Awaitable[list[Any]]:
        """All members."""
        return self._store.zrange(self.key, 0, -1)

    def copy(self) -> Awaitable[list[tuple[Any, Any]]]:
        """All (member, score)."""
        return self.by_rank()

    def items(self) -> Awaitable[list[tuple[Any, Any]]]:
        """All (member, score)."""
        return self.by_rank()

    async def values(self) -> list[Any]:
        """All scores."""
        return [score for _, score in await self.by_rank()]

    async def pop(self, member: Member, default: Any = MISSING) -> Any:
        """Removes a member and returns its score, in one step; `KeyError` if it is none and there is no default."""
        taken = self._store.pipeline(atomic=True).zscore(self.key, member).zrem(self.key, member)
        return shapes.score(member, await taken.execute(), default)

    def popitem(self) -> Awaitable[tuple[Any, Any]]:
        """The same as `pop_lowest`."""
        return self.pop_lowest()

    async def setdefault(self, member: Member, default: Any = 0) -> Any:
        """The score of a member, set to `default` first where it is none, in one step."""
        scored = self._store.pipeline(atomic=True).zadd(self.key, {member: default}, nx=True)
        return (await scored.zscore(self.key, member).execute())[1]

    async def update(self, other: Any = (), /, **more: Any) -> None:
        """Sets several scores in one step."""
        pairs = shapes.merged(other, more)
        if pairs:
            await self._store.zadd(self.key, pairs)

    def incr(self, member: Member, by: Any = 1) -> Awaitable[Any]:
        """Adds to a score; the new score."""
        return self._store.zincrby(self.key, by, member)

    def rank(self, member: Member, *, reverse: bool = False) -> Awaitable[int | None]:
        """Position of a member, None if it is none."""
        return (self._store.zrevrank if reverse else self._store.zrank)(self.key, member)

    def by_rank(
        self, start: int = 0, end: int = -1, *, reverse: bool = False
    ) -> Awaitable[list[tuple[Any, Any]]]:
        """(member, score) by position, both ends included."""
        return self._store.zrange(self.key, start, end, desc=reverse, withscores=True)

    def by_score(
        self, low: Any = "-inf", high: Any = "+inf", *, reverse: bool = False
    ) -> Awaitable[list[tuple[Any, Any]]]:
        """(member, score) with a score in a range, both ends included."""
        first, last = (high, low) if reverse else (low, high)
        return self._store.zrange(self.key, first, last, desc=reverse, byscore=True, withscores=True)

    async def pop_lowest(self) -> tuple[Any, Any]:
        """Takes the member with the lowest score; `KeyError` if there is none."""
        return _first(await self._store.zpopmin(self.key))

    async def pop_highest(self) -> tuple[Any, Any]:
        """Takes the member with the highest score; `KeyError` if there is none."""
        return _first(await self._store.zpopmax(self.key))


def _first(taken: list[tuple[Any, Any]]) -> tuple[Any, Any]:
    if not taken:
        raise KeyError("pop from an empty sorted set")
    return taken[0]
