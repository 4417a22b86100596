"""Methods that add to a number: atomic, exact for int and Decimal."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import timedelta
from decimal import Decimal
from typing import Any, TypeAlias

from data_bridge._native import opcode as op
from data_bridge.kv import _shapes as shapes
from data_bridge.kv._async.base import AsyncBase

Number: TypeAlias = int | float | Decimal


class AsyncNumberCommands(AsyncBase):
    """Numbers."""

    __slots__ = ()

    def incr(
        self,
        key: str,
        by: Number = 1,
        *,
        initial: Number | None = None,
        minimum: Number | None = None,
        maximum: Number | None = None,
        ttl: float | timedelta | None = None,
        refresh_ttl: bool = False,
        convert: bool = False,
        durable: bool = False,
    ) -> Awaitable[Any]:
        """Adds `by` and returns the new number. A missing key starts at `initial`, or at zero of `by`'s kind.

        A bound that would be passed changes nothing and raises `OutOfRangeError`. `ttl` applies where the key is
        created, with `refresh_ttl` always. Kinds do not mix, except an int added to a Decimal, or by `convert`.
        """
        options = shapes.increment(initial, minimum, maximum, ttl, refresh_ttl, convert)
        return self._call(shapes.code(op.KV_INCR, durable), (key, by, *options))

    def decr(
        self,
        key: str,
        by: Number = 1,
        *,
        initial: Number | None = None,
        minimum: Number | None = None,
        maximum: Number | None = None,
        ttl: float | timedelta | None = None,
        refresh_ttl: bool = False,
        convert: bool = False,
        durable: bool = False,
    ) -> Awaitable[Any]:
        """Subtracts `by` and returns the new number; the rest as `incr`."""
        options = shapes.increment(initial, minimum, maximum, ttl, refresh_ttl, convert)
        return self._call(shapes.code(op.KV_DECR, durable), (key, by, *options))

    def incrby(self, name: str, amount: int = 1, *, durable: bool = False) -> Awaitable[int]:
        """Adds an int."""
        return self._call(shapes.code(op.KV_INCR, durable), (name, amount))

    def decrby(self, name: str, amount: int = 1, *, durable: bool = False) -> Awaitable[int]:
        """Subtracts an int."""
        return self._call(shapes.code(op.KV_DECR, durable), (name, amount))

    def incrbyfloat(self, name: str, amount: float = 1.0, *, durable: bool = False) -> Awaitable[Any]:
        """Adds a float, to an int too."""
        return self._call(shapes.code(op.KV_INCR, durable), (name, float(amount), "CONVERT"))
