"""Redis-named methods on single values. Values keep their types: what comes back is what was stored."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import timedelta
from typing import Any

from data_bridge._native import opcode as op
from data_bridge._native import ttl_ms
from data_bridge.kv import _shapes as shapes
from data_bridge.kv._async.base import AsyncBase
from data_bridge.kv._values import Value


class AsyncTextCommands(AsyncBase):
    """Single values by their Redis names."""

    __slots__ = ()

    def setex(
        self, name: str, time: float | timedelta, value: Value, *, durable: bool = False
    ) -> Awaitable[bool]:
        """Writes a value that expires after `time` seconds."""
        return self._call(shapes.code(op.KV_SET, durable), (name, value, "PX", ttl_ms(time)), None, bool)

    def psetex(self, name: str, time_ms: int, value: Value, *, durable: bool = False) -> Awaitable[bool]:
        """Writes a value that expires after so many milliseconds."""
        return self._call(shapes.code(op.KV_SET, durable), (name, value, "PX", time_ms), None, bool)

    def setnx(self, name: str, value: Value, *, durable: bool = False) -> Awaitable[bool]:
        """Writes a value if there is no such key."""
        return self._call(shapes.code(op.KV_SET, durable), (name, value, "NX"), False, bool)

    def getdel(self, name: str, *, durable: bool = False) -> Awaitable[Any]:
        """Reads a value and deletes the key; None for a missing one."""
        return self._call(shapes.code(op.KV_POP, durable), (name,))

    def append(self, key: str, value: str | bytes, *, durable: bool = False) -> Awaitable[int]:
        """Appends to a text or bytes; the new length in bytes."""
        return self._call(shapes.code(op.APPEND, durable), (key, value))

    def strlen(self, name: str) -> Awaitable[int]:
        """Length in bytes of what a Redis client is shown."""
        return self._call(op.STRLEN, (name,))

    def getrange(self, key: str, start: int, end: int) -> Awaitable[Any]:
        """A range of bytes, ends included, negative from the end."""
        return self._call(op.GETRANGE, (key, start, end))

    def setrange(
        self, name: str, offset: int, value: str | bytes, *, durable: bool = False
    ) -> Awaitable[int]:
        """Overwrites bytes from an offset; the new length."""
        return self._call(shapes.code(op.SETRANGE, durable), (name, offset, value))

    def getbit(self, name: str, offset: int) -> Awaitable[int]:
        """One bit; the first is the highest of the first byte."""
        return self._call(op.GETBIT, (name, offset))

    def setbit(self, name: str, offset: int, value: int, *, durable: bool = False) -> Awaitable[int]:
        """Turns one bit on (1) or off (0); what it was."""
        return self._call(shapes.code(op.SETBIT, durable), (name, offset, value))

    def bitcount(
        self, key: str, start: int | None = None, end: int | None = None, mode: str | None = None
    ) -> Awaitable[int]:
        """How many bits are on, in a range of bytes, or of bits if the mode is "BIT"."""
        return self._call(op.BITCOUNT, (key, *shapes.leading(start, end, mode)))

    def bitpos(
        self, key: str, bit: int, start: int | None = None, end: int | None = None, mode: str | None = None
    ) -> Awaitable[int]:
        """The place of the first bit that is on (1) or off (0), -1 if there is none; the range as in `bitcount`."""
        return self._call(op.BITPOS, (key, bit, *shapes.leading(start, end, mode)))
