"""Methods that compare before they write: by value, by version, as a step of a state machine."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from datetime import timedelta
from typing import Any

from data_bridge._native import opcode as op
from data_bridge.kv import _shapes as shapes
from data_bridge.kv._async.base import AsyncBase
from data_bridge.kv._values import MISSING, Member, Transition, Value, Versioned


class AsyncStateCommands(AsyncBase):
    """Values, versions and states."""

    __slots__ = ()

    def compare_and_set(
        self,
        key: str,
        expected: Value,
        new: Value,
        *,
        ttl: float | timedelta | None = None,
        durable: bool = False,
    ) -> Awaitable[bool]:
        """Writes `new` if the value is exactly `expected`, kind included; `kv.MISSING` means no such key."""
        args = (key, *shapes.expected(expected), "TO", new, *shapes.expiry(ttl))
        return self._call(shapes.code(op.KV_CAS, durable), args, None, bool)

    def compare_and_delete(self, key: str, expected: Value, *, durable: bool = False) -> Awaitable[bool]:
        """Deletes the key if its value is exactly `expected`."""
        return self._call(shapes.code(op.KV_CAD, durable), (key, *shapes.expected(expected)), None, bool)

    def get_versioned(self, key: str) -> Awaitable[Versioned]:
        """The value and the version of a key; `Versioned(kv.MISSING, 0)` for a missing one."""
        return self._call(op.KV_GETV, (key,), MISSING, shapes.versioned)

    def set_if_version(
        self,
        key: str,
        value: Value,
        version: int,
        *,
        ttl: float | timedelta | None = None,
        durable: bool = False,
    ) -> Awaitable[int]:
        """Writes if the key still has this version (0 = no such key) and returns the new version.

        Raises `ConflictError` with the current value and version otherwise.
        """
        return self._call(shapes.code(op.KV_SETV, durable), (key, value, version, *shapes.expiry(ttl)))

    def delete_if_version(self, key: str, version: int, *, durable: bool = False) -> Awaitable[None]:
        """Deletes the key if it still has this version; `ConflictError` otherwise."""
        return self._call(shapes.code(op.KV_DELV, durable), (key, version), None, shapes.nothing)

    def transition(
        self,
        key: str,
        *,
        field: Member = "status",
        expect: Any,
        to: Value,
        update: Mapping[Any, Value] | None = None,
        ttl: float | timedelta | None = None,
        fence: int | None = None,
        durable: bool = False,
    ) -> Awaitable[Transition]:
        """One step of a state machine: checks the state, sets the new one, merges `update` and the TTL, wakes waiters.

        The state lives in `field` of a hash. `expect` is a state or a set of them, `kv.MISSING` for no such key or
        field. `fence` is the version the caller knows. Otherwise nothing changes and `ConflictError` tells what was
        found; `StateError` if the namespace's graph forbids the step.
        """
        args = shapes.transition(key, field, expect, to, update, ttl, fence)
        return self._call(shapes.code(op.KV_TRANSITION, durable), args, MISSING, shapes.transitioned)
