"""Views: a stored collection as the Python collection of its kind. Each method is one command on the stored value."""

from __future__ import annotations

import operator
from collections.abc import (
    ItemsView,
    Iterable,
    Iterator,
    MutableMapping,
    MutableSequence,
    MutableSet,
    ValuesView,
)
from typing import TYPE_CHECKING, Any, overload

from data_bridge._native import opcode as op
from data_bridge.kv import _shapes as shapes
from data_bridge.kv._values import MISSING, Member, Value
from data_bridge.kv.errors import NotFoundError, OutOfRangeError

if TYPE_CHECKING:
    from data_bridge.kv._methods import StoreMethods


class View:
    """A key of a store."""

    __slots__ = ("_store", "key")

    def __init__(self, store: StoreMethods, key: str) -> None:
        self._store, self.key = store, key

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.key!r})"

    __hash__ = object.__hash__


class HashItems(ItemsView[Any, Any]):
    """Fields and values of a hash, read in one step."""

    _mapping: HashView

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return iter(self._mapping.copy().items())


class Values(ValuesView[Any]):
    """The values of a hash or the scores of a sorted set, read in one step."""

    _mapping: HashView | SortedSetView

    def __iter__(self) -> Iterator[Any]:
        return (value for _, value in self._mapping.items())

    def __contains__(self, value: object) -> bool:
        return any(found is value or found == value for found in self)


class HashView(View, MutableMapping[Any, Any]):
    """A stored hash as a mutable mapping."""

    __slots__ = ()

    def __getitem__(self, field: Member) -> Any:
        return self._store._call(op.HGET, (self.key, field), MISSING, shapes.found(field))

    def __setitem__(self, field: Member, value: Value) -> None:
        self._store._call(op.HSET, (self.key, field, value))

    def __delitem__(self, field: Member) -> None:
        if not self._store.hdel(self.key, field):
            raise KeyError(field)

    def __contains__(self, field: object) -> bool:
        return bool(self._store._call(op.HEXISTS, (self.key, field)))

    def __len__(self) -> int:
        return self._store.hlen(self.key)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._store.hkeys(self.key))

    def items(self) -> HashItems:
        """Fields and values, read in one step."""
        return HashItems(self)

    def values(self) -> Values:
        """The values, read in one step."""
        return Values(self)

    def copy(self) -> dict[Any, Any]:
        """The whole hash as a dict."""
        return self._store.hgetall(self.key)

    def items_typed(self) -> list[tuple[str, Any, Any]]:
        """(kind, field, value) of each field, also of those that are equal in Python."""
        return self._store.items_typed(self.key)

    def pop(self, field: Member, default: Any = MISSING) -> Any:
        """Removes a field and returns its value, in one step."""
        if default is MISSING:
            return self._store._call(op.KV_HPOP, (self.key, field), MISSING, shapes.found(field))
        return self._store._call(op.KV_HPOP, (self.key, field), default)

    def popitem(self) -> tuple[Any, Any]:
        """Takes the oldest field with its value, whoever else takes some; `KeyError` if there is none."""
        for field in self:
            value = self.pop(field, taken := object())
            if value is not taken:
                return field, value
        raise KeyError("popitem(): the hash is empty")

    def setdefault(self, field: Member, default: Value = None) -> Any:
        """The value of a field, set to `default` first where it is missing, in one step."""
        return self._store._call(op.KV_HSETDEFAULT, (self.key, field, default))

    def update(self, other: Any = (), /, **more: Value) -> None:
        """Sets several fields in one step."""
        pairs = shapes.merged(other, more)
        if pairs:
            self._store.hset(self.key, mapping=pairs)

    def clear(self) -> None:
        """Deletes the hash."""
        self._store.delete(self.key)


class ListView(View, MutableSequence[Any]):
    """A stored list as a mutable sequence."""

    __slots__ = ()

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.copy()[index]
        args = (self.key, shapes.position(index))
        return self._store._call(op.LINDEX, args, MISSING, shapes.element)

    def __setitem__(self, index: int | slice, value: Any) -> None:
        if isinstance(index, slice):
            raise TypeError("a slice of a stored list can't be assigned: write the whole list")
        place = shapes.position(index)
        try:
            self._store.lset(self.key, place, value)
        except (NotFoundError, OutOfRangeError):
            self[place]  # an IndexError, unless it is the value that is out of range
            raise

    def __delitem__(self, index: int | slice) -> None:
        if isinstance(index, slice):
            raise TypeError("a slice of a stored list can't be deleted: use ltrim, or write the whole list")
        self.pop(index)

    def __len__(self) -> int:
        return self._store.llen(self.key)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.copy())

    def __reversed__(self) -> Iterator[Any]:
        return reversed(self.copy())

    def __contains__(self, value: object) -> bool:
        return self._store.lpos(self.key, value) is not None

    def copy(self) -> list[Any]:
        """The whole list."""
        return self._store.lrange(self.key, 0, -1)

    def append(self, value: Value) -> None:
        """Adds an element at the end."""
        self._store.rpush(self.key, value)

    def extend(self, values: Iterable[Value]) -> None:
        """Adds elements at the end, in one step."""
        values = tuple(values)
        if values:
            self._store.rpush(self.key, *values)

    def insert(self, index: int, value: Value) -> None:
        """Inserts before an index."""
        self._store._call(op.KV_LINSERT, (self.key, operator.index(index), value))

    def pop(self, index: int = -1) -> Any:
        """Removes an element and returns it, in one step."""
        if index == -1:
            return self._store._call(op.RPOP, (self.key,), MISSING, shapes.element)
        try:
            return self._store._call(
                op.KV_LREMOVE, (self.key, operator.index(index)), MISSING, shapes.element
            )
        except OutOfRangeError as error:
            raise IndexError("pop index out of range") from error

    def remove(self, value: Value) -> None:
        """Removes the first equal element."""
        if not self._store.lrem(self.key, 1, value):
            raise ValueError(f"{value!r} is not in the list")

    def clear(self) -> None:
        """Deletes the list."""
        self._store.delete(self.key)


class SetView(View, MutableSet[Any]):
    """A stored set as a mutable set. Operators with other sets return a `set`."""

    __slots__ = ()

    @classmethod
    def _from_iterable(cls, members: Iterable[Any]) -> set[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return set(members)

    def __contains__(self, member: object) -> bool:
        return bool(self._store._call(op.SISMEMBER, (self.key, member)))

    def __iter__(self) -> Iterator[Any]:
        return iter(self.copy())

    def __len__(self) -> int:
        return self._store.scard(self.key)

    def copy(self) -> set[Any]:
        """The whole set."""
        return self._store.smembers(self.key)

    def items_typed(self) -> list[tuple[str, Any]]:
        """(kind, member) of each member, also of those that are equal in Python."""
        return self._store.items_typed(self.key)

    def add(self, value: Member) -> None:
        """Adds a member."""
        self._store.sadd(self.key, value)

    def update(self, *others: Iterable[Member]) -> None:
        """Adds members, in one step."""
        members = tuple(member for other in others for member in other)
        if members:
            self._store.sadd(self.key, *members)

    def discard(self, value: Member) -> None:
        """Removes a member if it is there."""
        self._store.srem(self.key, value)

    def remove(self, value: Member) -> None:
        """Removes a member; `KeyError` if it is not there."""
        if not self._store.srem(self.key, value):
            raise KeyError(value)

    def pop(self) -> Any:
        """Takes a random member; `KeyError` if there is none."""
        return self._store._call(op.SPOP, (self.key,), MISSING, shapes.found("pop from an empty set"))

    def clear(self) -> None:
        """Deletes the set."""
        self._store.delete(self.key)


class SortedSetView(View, MutableMapping[Any, Any]):
    """A stored sorted set as a mapping of members to scores. Iterating goes from the lowest score."""

    __slots__ = ()

    def __getitem__(self, member: Member) -> Any:
        return self._store._call(op.ZSCORE, (self.key, member), MISSING, shapes.found(member))

    def __setitem__(self, member: Member, score: Any) -> None:
        self._store.zadd(self.key, {member: score})

    def __delitem__(self, member: Member) -> None:
        if not self._store.zrem(self.key, member):
            raise KeyError(member)

    def __contains__(self, member: object) -> bool:
        return self._store._call(op.ZSCORE, (self.key, member)) is not None

    def __len__(self) -> int:
        return self._store.zcard(self.key)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._store.zrange(self.key, 0, -1))

    def items(self) -> SortedSetItems:
        """Members and scores, read in one step."""
        return SortedSetItems(self)

    def values(self) -> Values:
        """The scores, read in one step."""
        return Values(self)

    def pop(self, member: Member, default: Any = MISSING) -> Any:
        """Removes a member and returns its score, in one step."""
        taken = self._store.pipeline(atomic=True).zscore(self.key, member).zrem(self.key, member)
        return shapes.score(member, taken.execute(), default)

    def popitem(self) -> tuple[Any, Any]:
        """The same as `pop_lowest`."""
        return self.pop_lowest()

    def setdefault(self, member: Member, default: Any = 0) -> Any:
        """The score of a member, set to `default` first where it is none, in one step."""
        scored = self._store.pipeline(atomic=True).zadd(self.key, {member: default}, nx=True)
        return scored.zscore(self.key, member).execute()[1]

    def copy(self) -> list[tuple[Any, Any]]:
        """All (member, score), from the lowest score."""
        return self._store.zrange(self.key, 0, -1, withscores=True)

    def update(self, other: Any = (), /, **more: Any) -> None:
        """Sets several scores in one step."""
        pairs = shapes.merged(other, more)
        if pairs:
            self._store.zadd(self.key, pairs)

    def incr(self, member: Member, by: Any = 1) -> Any:
        """Adds to a score; the new score."""
        return self._store.zincrby(self.key, by, member)

    def rank(self, member: Member, *, reverse: bool = False) -> int | None:
        """Position of a member, None if it is none."""
        return (self._store.zrevrank if reverse else self._store.zrank)(self.key, member)

    def by_rank(self, start: int = 0, end: int = -1, *, reverse: bool = False) -> list[tuple[Any, Any]]:
        """(member, score) by position, both ends included."""
        return self._store.zrange(self.key, start, end, desc=reverse, withscores=True)

    def by_score(
        self, low: Any = "-inf", high: Any = "+inf", *, reverse: bool = False
    ) -> list[tuple[Any, Any]]:
        """(member, score) with a score in a range, both ends included."""
        first, last = (high, low) if reverse else (low, high)
        return self._store.zrange(self.key, first, last, desc=reverse, byscore=True, withscores=True)

    def pop_lowest(self) -> tuple[Any, Any]:
        """Takes the member with the lowest score; `KeyError` if there is none."""
        return self._first(self._store.zpopmin(self.key))

    def pop_highest(self) -> tuple[Any, Any]:
        """Takes the member with the highest score; `KeyError` if there is none."""
        return self._first(self._store.zpopmax(self.key))

    def _first(self, taken: list[tuple[Any, Any]]) -> tuple[Any, Any]:
        if not taken:
            raise KeyError("pop from an empty sorted set")
        return taken[0]

    def clear(self) -> None:
        """Deletes the sorted set."""
        self._store.delete(self.key)


class SortedSetItems(ItemsView[Any, Any]):
    """Members and scores of a sorted set, read in one step."""

    _mapping: SortedSetView

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return iter(self._mapping.copy())
