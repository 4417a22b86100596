"""Redis-named methods on lists, with redis-py's argument order. Elements are values of any kind."""

from __future__ import annotations

from typing import Any

from data_bridge._native import opcode as op
from data_bridge.kv import _shapes as shapes
from data_bridge.kv._sync.base import Base
from data_bridge.kv._values import Value


class ListCommands(Base):
    """Lists."""

    __slots__ = ()

    def lpush(self, name: str, *values: Value, durable: bool = False) -> int:
        """Adds elements at the head, one after the other; the new length."""
        return self._call(shapes.code(op.LPUSH, durable), (name, *values))

    def rpush(self, name: str, *values: Value, durable: bool = False) -> int:
        """Adds elements at the tail; the new length."""
        return self._call(shapes.code(op.RPUSH, durable), (name, *values))

    def lpushx(self, name: str, *values: Value, durable: bool = False) -> int:
        """`lpush` if the list exists."""
        return self._call(shapes.code(op.LPUSHX, durable), (name, *values))

    def rpushx(self, name: str, *values: Value, durable: bool = False) -> int:
        """`rpush` if the list exists."""
        return self._call(shapes.code(op.RPUSHX, durable), (name, *values))

    def lpop(self, name: str, count: int | None = None, *, durable: bool = False) -> Any:
        """Takes the first element, None if there is none; with a count a list."""
        return self._call(shapes.code(op.LPOP, durable), shapes.counted(name, count))

    def rpop(self, name: str, count: int | None = None, *, durable: bool = False) -> Any:
        """Takes the last element, None if there is none; with a count a list."""
        return self._call(shapes.code(op.RPOP, durable), shapes.counted(name, count))

    def lindex(self, name: str, index: int) -> Any:
        """One element, None if there is none."""
        return self._call(op.LINDEX, (name, index))

    def lrange(self, name: str, start: int, end: int) -> list[Any]:
        """The elements from start to end, both included, negative from the end."""
        return self._call(op.LRANGE, (name, start, end))

    def llen(self, name: str) -> int:
        """Number of elements."""
        return self._call(op.LLEN, (name,))

    def lset(self, name: str, index: int, value: Value, *, durable: bool = False) -> bool:
        """Replaces one element."""
        return self._call(shapes.code(op.LSET, durable), (name, index, value), None, bool)

    def lrem(self, name: str, count: int, value: Value, *, durable: bool = False) -> int:
        """Removes the first `count` equal elements (the last ones if negative, all if 0); how many."""
        return self._call(shapes.code(op.LREM, durable), (name, count, value))

    def ltrim(self, name: str, start: int, end: int, *, durable: bool = False) -> bool:
        """Keeps only the elements from start to end."""
        return self._call(shapes.code(op.LTRIM, durable), (name, start, end), None, bool)

    def linsert(self, name: str, where: str, refvalue: Value, value: Value, *, durable: bool = False) -> int:
        """Inserts "before" or "after" the first element equal to `refvalue`; the new length, -1 if there is none."""
        return self._call(shapes.code(op.LINSERT, durable), (name, where, refvalue, value))

    def lpos(self, name: str, value: Value) -> int | None:
        """Index of the first equal element."""
        return self._call(op.LPOS, (name, value))

    def lmove(
        self,
        first_list: str,
        second_list: str,
        src: str = "LEFT",
        dest: str = "RIGHT",
        *,
        durable: bool = False,
    ) -> Any:
        """Moves an element from one end of a list to an end of another; the element."""
        return self._call(shapes.code(op.LMOVE, durable), (first_list, second_list, src, dest))

    def rpoplpush(self, src: str, dst: str, *, durable: bool = False) -> Any:
        """Moves the last element of a list to the head of another; the element."""
        return self._call(shapes.code(op.RPOPLPUSH, durable), (src, dst))
