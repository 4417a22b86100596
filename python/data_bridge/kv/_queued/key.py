"""Methods on keys of any kind: several at once, delete, expire, rename, clear."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Self

from data_bridge._native import opcode as op
from data_bridge._native import ttl_ms, unix_ms
from data_bridge.kv import _shapes as shapes
from data_bridge.kv._queued.base import QueuedBase
from data_bridge.kv._values import MISSING, Value


class QueuedKeyCommands(QueuedBase):
    """Keys of any kind."""

    __slots__ = ()

    def get_many(self, keys: Iterable[str]) -> Self:
        """The values of several keys in one step; missing keys are left out."""
        keys = shapes.several(keys)
        if not keys:
            return self._ready({})
        return self._call(op.KV_MGET, keys, MISSING, shapes.present(keys))

    def mget(self, keys: Iterable[str] | str, *args: str) -> Self:
        """The values of several keys in order, None for a missing one."""
        return self._call(op.KV_MGET, shapes.listed(keys, args))

    def mset(self, mapping: Mapping[str, Value], *, durable: bool = False) -> Self:
        """Writes several values in one step."""
        return self._call(shapes.code(op.KV_MSET, durable), shapes.pairs_after(0, mapping), None, bool)

    def msetnx(self, mapping: Mapping[str, Value], *, durable: bool = False) -> Self:
        """Writes several values in one step if none of the keys exists."""
        return self._call(shapes.code(op.MSETNX, durable), shapes.pairs(mapping), None, bool)

    def delete(self, *keys: str, durable: bool = False) -> Self:
        """Deletes keys; how many there were."""
        return self._call(shapes.code(op.DEL, durable), keys) if keys else self._ready(0)

    def unlink(self, *names: str, durable: bool = False) -> Self:
        """The same as `delete`."""
        return self._call(shapes.code(op.UNLINK, durable), names) if names else self._ready(0)

    def exists(self, *keys: str) -> Self:
        """How many of the keys exist; a key given twice counts twice."""
        return self._call(op.EXISTS, keys) if keys else self._ready(0)

    def expire(self, key: str, ttl: float | timedelta, *, durable: bool = False) -> Self:
        """Lets the key expire after `ttl` (seconds or timedelta); False if there is none."""
        return self._call(shapes.code(op.PEXPIRE, durable), (key, ttl_ms(ttl)), None, bool)

    def expire_at(self, key: str, when: float | datetime, *, durable: bool = False) -> Self:
        """Lets the key expire at an aware datetime or Unix time, a past one deletes it; False if there is none."""
        return self._call(shapes.code(op.PEXPIREAT, durable), (key, unix_ms(when)), None, bool)

    def pexpire(self, name: str, time: int, *, durable: bool = False) -> Self:
        """Lets the key expire after so many milliseconds."""
        return self._call(shapes.code(op.PEXPIRE, durable), (name, time), None, bool)

    def expireat(self, name: str, when: int | datetime, *, durable: bool = False) -> Self:
        """The same as `expire_at`."""
        return self._call(shapes.code(op.PEXPIREAT, durable), (name, unix_ms(when)), None, bool)

    def persist(self, key: str, *, durable: bool = False) -> Self:
        """Removes the deadline; False if there was none."""
        return self._call(shapes.code(op.PERSIST, durable), (key,), None, bool)

    def ttl(self, key: str) -> Self:
        """Seconds left, None without a deadline; `KeyError` for a missing key."""
        return self._call(op.PTTL, (key,), None, shapes.seconds_left(key))

    def pttl(self, name: str) -> Self:
        """Milliseconds left as Redis tells them: -1 without a deadline, -2 without a key."""
        return self._call(op.PTTL, (name,))

    def expiretime(self, name: str) -> Self:
        """The deadline in Unix seconds as Redis tells it: -1 without one, -2 without a key."""
        return self._call(op.EXPIRETIME, (name,))

    def kind(self, key: str) -> Self:
        """The kind of the value ("int", "text", "hash", …), None for a missing key."""
        return self._call(op.KV_KIND, (key,))

    def type(self, name: str) -> Self:
        """Redis's word for the kind: string, list, set, hash, zset, none."""
        return self._call(op.TYPE, (name,))

    def rename(self, src: str, dst: str, *, durable: bool = False) -> Self:
        """Renames a key, over an existing one too; `NotFoundError` for a missing one."""
        return self._call(shapes.code(op.RENAME, durable), (src, dst), None, shapes.nothing)

    def renamenx(self, src: str, dst: str, *, durable: bool = False) -> Self:
        """Renames a key if the new name is free."""
        return self._call(shapes.code(op.RENAMENX, durable), (src, dst), None, bool)

    def copy(self, source: str, destination: str, *, replace: bool = False, durable: bool = False) -> Self:
        """Copies a value with its deadline, over an existing key only if `replace`; whether it did."""
        args = (source, destination, *shapes.flags(REPLACE=replace))
        return self._call(shapes.code(op.COPY, durable), args, None, bool)

    def touch(self, *keys: str) -> Self:
        """How many of the keys exist; it counts as a use of each."""
        return self._call(op.TOUCH, keys) if keys else self._ready(0)

    def clear(self, prefix: str = "", *, durable: bool = False) -> Self:
        """Deletes the keys with a prefix, all of the namespace without one. Not atomic with a prefix."""
        if shapes.checked_prefix(prefix):
            return self._call(shapes.code(op.KV_CLEAR, durable), (prefix,), None, shapes.nothing)
        return self._call(shapes.code(op.FLUSHDB, durable), (), None, shapes.nothing)

    def randomkey(self) -> Self:
        """A key picked at random."""
        return self._call(op.RANDOMKEY, ())

    def dbsize(self) -> Self:
        """Number of keys in the namespace."""
        return self._call(op.DBSIZE, ())

    def sync(self) -> Self:
        """Returns once everything that was done so far is on disk, also where durability is `everysec`.

        Without a data directory nothing is ever on disk, and nothing is waited for. Raises `DurabilityError` if the log
        failed.
        """
        return self._call(op.KV_SYNC, (), None, shapes.nothing)

    def flushdb(self, *, durable: bool = False) -> Self:
        """Removes every key of the namespace; refused for a task namespace unless it allows that."""
        return self._call(shapes.code(op.FLUSHDB, durable), (), None, bool)

    def memory_usage(self, key: str) -> Self:
        """Bytes that the key takes in memory."""
        return self._call(op.MEMORY, ("USAGE", key))
