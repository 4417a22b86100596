"""Redis-named methods on sets, with redis-py's argument order. Members are typed scalars."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from data_bridge._native import opcode as op
from data_bridge.kv import _shapes as shapes
from data_bridge.kv._sync.base import Base
from data_bridge.kv._values import Member


class SetCommands(Base):
    """Sets."""

    __slots__ = ()

    def sadd(self, name: str, *values: Member, durable: bool = False) -> int:
        """Adds members; how many are new."""
        return self._call(shapes.code(op.SADD, durable), (name, *values))

    def srem(self, name: str, *values: Member, durable: bool = False) -> int:
        """Removes members; how many there were."""
        return self._call(shapes.code(op.SREM, durable), (name, *values))

    def sismember(self, name: str, value: Member) -> bool:
        """Whether it is a member."""
        return self._call(op.SISMEMBER, (name, value), None, bool)

    def smismember(self, name: str, values: Iterable[Member] | Member, *args: Member) -> list[bool]:
        """Whether each of these is a member."""
        return self._call(op.SMISMEMBER, (name, *shapes.listed(values, args)), None, shapes.bools)

    def smembers(self, name: str) -> set[Any]:
        """All members; empty for a missing key."""
        return self._call(op.SMEMBERS, (name,), None, set)

    def scard(self, name: str) -> int:
        """Number of members."""
        return self._call(op.SCARD, (name,))

    def spop(self, name: str, count: int | None = None, *, durable: bool = False) -> Any:
        """Takes a random member, None if there is none; with a count a list."""
        shape = None if count is None else list
        return self._call(shapes.code(op.SPOP, durable), shapes.counted(name, count), None, shape)

    def srandmember(self, name: str, number: int | None = None) -> Any:
        """A random member, None if there is none; with a number a list, a negative one allows repeats."""
        shape = None if number is None else list
        return self._call(op.SRANDMEMBER, shapes.counted(name, number), None, shape)

    def smove(self, src: str, dst: str, value: Member, *, durable: bool = False) -> bool:
        """Moves a member from one set to another."""
        return self._call(shapes.code(op.SMOVE, durable), (src, dst, value), None, bool)

    def sinter(self, keys: Iterable[str] | str, *args: str) -> set[Any]:
        """Members of all sets."""
        return self._call(op.SINTER, shapes.listed(keys, args), None, set)

    def sunion(self, keys: Iterable[str] | str, *args: str) -> set[Any]:
        """Members of any set."""
        return self._call(op.SUNION, shapes.listed(keys, args), None, set)

    def sdiff(self, keys: Iterable[str] | str, *args: str) -> set[Any]:
        """Members of the first set only."""
        return self._call(op.SDIFF, shapes.listed(keys, args), None, set)

    def sinterstore(self, dest: str, keys: Iterable[str] | str, *args: str, durable: bool = False) -> int:
        """Stores the intersection; its size."""
        return self._call(shapes.code(op.SINTERSTORE, durable), (dest, *shapes.listed(keys, args)))

    def sunionstore(self, dest: str, keys: Iterable[str] | str, *args: str, durable: bool = False) -> int:
        """Stores the union; its size."""
        return self._call(shapes.code(op.SUNIONSTORE, durable), (dest, *shapes.listed(keys, args)))

    def sintercard(self, numkeys: int, keys: Iterable[str], limit: int = 0) -> int:
        """How many members all sets have; with a limit at most so many."""
        return self._call(op.SINTERCARD, (numkeys, *keys, "LIMIT", limit))

    def sdiffstore(self, dest: str, keys: Iterable[str] | str, *args: str, durable: bool = False) -> int:
        """Stores the difference; its size."""
        return self._call(shapes.code(op.SDIFFSTORE, durable), (dest, *shapes.listed(keys, args)))
