"""Redis-named methods on hashes, with redis-py's argument order. Fields and values are typed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from data_bridge._native import opcode as op
from data_bridge.kv import _shapes as shapes
from data_bridge.kv._sync.base import Base
from data_bridge.kv._values import Member, Value


class HashCommands(Base):
    """Hashes."""

    __slots__ = ()

    def hset(
        self,
        name: str,
        key: Member = None,
        value: Value = None,
        mapping: Mapping[Any, Value] | None = None,
        items: Iterable[Any] | None = None,
        *,
        durable: bool = False,
    ) -> int:
        """Sets one field, or those of a mapping or a flat list; how many are new."""
        return self._call(shapes.code(op.HSET, durable), (name, *shapes.fields(key, value, mapping, items)))

    def hsetnx(self, name: str, key: Member, value: Value, *, durable: bool = False) -> bool:
        """Sets a field if it is missing."""
        return self._call(shapes.code(op.HSETNX, durable), (name, key, value), None, bool)

    def hget(self, name: str, key: Member) -> Any:
        """One field's value, None if it is missing."""
        return self._call(op.HGET, (name, key))

    def hmget(self, name: str, keys: Iterable[Member] | Member, *args: Member) -> list[Any]:
        """Several fields' values in order, None for a missing one."""
        return self._call(op.HMGET, (name, *shapes.listed(keys, args)))

    def hdel(self, name: str, *keys: Member, durable: bool = False) -> int:
        """Removes fields; how many there were."""
        return self._call(shapes.code(op.HDEL, durable), (name, *keys))

    def hgetall(self, name: str) -> dict[Any, Any]:
        """All fields with their values; empty for a missing key."""
        return self._call(op.HGETALL, (name,))

    def hkeys(self, name: str) -> list[Any]:
        """All fields."""
        return self._call(op.HKEYS, (name,), None, list)

    def hvals(self, name: str) -> list[Any]:
        """All values."""
        return self._call(op.HVALS, (name,), None, list)

    def hlen(self, name: str) -> int:
        """Number of fields."""
        return self._call(op.HLEN, (name,))

    def hexists(self, name: str, key: Member) -> bool:
        """Whether there is such a field."""
        return self._call(op.HEXISTS, (name, key), None, bool)

    def hincrby(self, name: str, key: Member, amount: Any = 1, *, durable: bool = False) -> Any:
        """Adds to a field's number by the rules of its kind (int, float, Decimal); the new number."""
        return self._call(shapes.code(op.KV_HINCR, durable), (name, key, amount))

    def hincrbyfloat(self, name: str, key: Member, amount: float = 1.0, *, durable: bool = False) -> float:
        """Adds a float to a field's number, to an int too; the new number."""
        return self._call(shapes.code(op.HINCRBYFLOAT, durable), (name, key, float(amount)))

    def hstrlen(self, name: str, key: Member) -> int:
        """Length in bytes of what a Redis client is shown of a field."""
        return self._call(op.HSTRLEN, (name, key))

    def hrandfield(self, key: str, count: int | None = None, withvalues: bool = False) -> Any:
        """Random fields; with a count a list, with values (field, value) pairs."""
        args = shapes.counted(key, count, "WITHVALUES" if withvalues else None)
        return self._call(op.HRANDFIELD, args, None, shapes.pair_list if withvalues else None)
