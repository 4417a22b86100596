"""Redis-named methods on sorted sets, with redis-py's argument order. Members are typed; scores are floats, or exact
Decimals in a sorted set that was created with Decimal scores."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping
from decimal import Decimal
from typing import Any, TypeAlias

from data_bridge._native import opcode as op
from data_bridge.kv import _shapes as shapes
from data_bridge.kv._async.base import AsyncBase
from data_bridge.kv._values import Member

Score: TypeAlias = int | float | Decimal
Bound: TypeAlias = int | float | Decimal | str
"""A score, or Redis's text of a bound: "-inf", "+inf", "(1.5" for one that is excluded."""


class AsyncSortedSetCommands(AsyncBase):
    """Sorted sets."""

    __slots__ = ()

    def zadd(
        self,
        name: str,
        mapping: Mapping[Any, Score],
        nx: bool = False,
        xx: bool = False,
        ch: bool = False,
        incr: bool = False,
        gt: bool = False,
        lt: bool = False,
        *,
        durable: bool = False,
    ) -> Awaitable[Any]:
        """Adds members with scores; how many are new (`ch`: changed), with `incr` the new score or None."""
        flags = shapes.flags(NX=nx, XX=xx, GT=gt, LT=lt, CH=ch, INCREMENT=incr)
        return self._call(shapes.code(op.ZADD, durable), (name, *flags, *shapes.scores(mapping)))

    def zincrby(self, name: str, amount: Score, value: Member, *, durable: bool = False) -> Awaitable[Any]:
        """Adds to a member's score; the new score."""
        return self._call(shapes.code(op.ZINCRBY, durable), (name, amount, value))

    def zrem(self, name: str, *values: Member, durable: bool = False) -> Awaitable[int]:
        """Removes members; how many there were."""
        return self._call(shapes.code(op.ZREM, durable), (name, *values))

    def zscore(self, name: str, value: Member) -> Awaitable[Any]:
        """A member's score, None if it is no member."""
        return self._call(op.ZSCORE, (name, value))

    def zmscore(self, key: str, members: Iterable[Member]) -> Awaitable[list[Any]]:
        """Scores in order, None for what is no member."""
        return self._call(op.ZMSCORE, (key, *members))

    def zcard(self, name: str) -> Awaitable[int]:
        """Number of members."""
        return self._call(op.ZCARD, (name,))

    def zcount(self, name: str, min: Bound, max: Bound) -> Awaitable[int]:
        """Number of members with a score in a range."""
        return self._call(op.ZCOUNT, (name, min, max))

    def zrank(self, name: str, value: Member, withscore: bool = False) -> Awaitable[Any]:
        """Position from the lowest score, None if it is no member."""
        return self._call(op.ZRANK, (name, value, *shapes.flags(WITHSCORE=withscore)))

    def zrevrank(self, name: str, value: Member, withscore: bool = False) -> Awaitable[Any]:
        """Position from the highest score, None if it is no member."""
        return self._call(op.ZREVRANK, (name, value, *shapes.flags(WITHSCORE=withscore)))

    def zrange(
        self,
        name: str,
        start: Any,
        end: Any,
        desc: bool = False,
        withscores: bool = False,
        byscore: bool = False,
        offset: int | None = None,
        num: int | None = None,
        *,
        bylex: bool = False,
    ) -> Awaitable[list[Any]]:
        """Members of a range of positions, of scores, or of members; with scores as (member, score) pairs."""
        flags = shapes.flags(BYSCORE=byscore, BYLEX=bylex, REV=desc)
        args = (name, start, end, *flags, *shapes.limit(offset, num), *shapes.flags(WITHSCORES=withscores))
        return self._call(op.ZRANGE, args, None, list)

    def zrangestore(
        self,
        dest: str,
        name: str,
        start: Any,
        end: Any,
        byscore: bool = False,
        bylex: bool = False,
        desc: bool = False,
        offset: int | None = None,
        num: int | None = None,
        *,
        durable: bool = False,
    ) -> Awaitable[int]:
        """Stores the members of a range; how many."""
        flags = shapes.flags(BYSCORE=byscore, BYLEX=bylex, REV=desc)
        args = (dest, name, start, end, *flags, *shapes.limit(offset, num))
        return self._call(shapes.code(op.ZRANGESTORE, durable), args)

    def zrevrange(self, name: str, start: int, end: int, withscores: bool = False) -> Awaitable[list[Any]]:
        """Members by position from the highest score."""
        args = (name, start, end, *shapes.flags(WITHSCORES=withscores))
        return self._call(op.ZREVRANGE, args, None, list)

    def zrangebyscore(
        self,
        name: str,
        min: Bound,
        max: Bound,
        start: int | None = None,
        num: int | None = None,
        withscores: bool = False,
    ) -> Awaitable[list[Any]]:
        """Members with a score in a range."""
        args = (name, min, max, *shapes.limit(start, num), *shapes.flags(WITHSCORES=withscores))
        return self._call(op.ZRANGEBYSCORE, args, None, list)

    def zrevrangebyscore(
        self,
        name: str,
        max: Bound,
        min: Bound,
        start: int | None = None,
        num: int | None = None,
        withscores: bool = False,
    ) -> Awaitable[list[Any]]:
        """Members with a score in a range, from the highest."""
        args = (name, max, min, *shapes.limit(start, num), *shapes.flags(WITHSCORES=withscores))
        return self._call(op.ZREVRANGEBYSCORE, args, None, list)

    def zlexcount(self, name: str, min: str | bytes, max: str | bytes) -> Awaitable[int]:
        """Number of members from one to another, where all have one score: "[a", "(b", "-" or "+"."""
        return self._call(op.ZLEXCOUNT, (name, min, max))

    def zrangebylex(
        self,
        name: str,
        min: str | bytes,
        max: str | bytes,
        start: int | None = None,
        num: int | None = None,
    ) -> Awaitable[list[Any]]:
        """Members from one to another, where all have one score: "[a", "(b", "-" or "+"."""
        return self._call(op.ZRANGEBYLEX, (name, min, max, *shapes.limit(start, num)), None, list)

    def zrevrangebylex(
        self,
        name: str,
        max: str | bytes,
        min: str | bytes,
        start: int | None = None,
        num: int | None = None,
    ) -> Awaitable[list[Any]]:
        """The same from the highest member."""
        return self._call(op.ZREVRANGEBYLEX, (name, max, min, *shapes.limit(start, num)), None, list)

    def zremrangebylex(
        self, name: str, min: str | bytes, max: str | bytes, *, durable: bool = False
    ) -> Awaitable[int]:
        """Removes the members from one to another; how many."""
        return self._call(shapes.code(op.ZREMRANGEBYLEX, durable), (name, min, max))

    def zunion(
        self,
        keys: Iterable[str] | Mapping[str, Score],
        aggregate: str | None = None,
        withscores: bool = False,
    ) -> Awaitable[list[Any]]:
        """Members of any set, with summed scores unless `aggregate` says "MIN" or "MAX"; a mapping gives weights."""
        args = shapes.combination(keys, aggregate, withscores)
        return self._call(op.ZUNION, args, None, list)

    def zinter(
        self,
        keys: Iterable[str] | Mapping[str, Score],
        aggregate: str | None = None,
        withscores: bool = False,
    ) -> Awaitable[list[Any]]:
        """Members of all sets, likewise."""
        args = shapes.combination(keys, aggregate, withscores)
        return self._call(op.ZINTER, args, None, list)

    def zdiff(self, keys: Iterable[str], withscores: bool = False) -> Awaitable[list[Any]]:
        """Members of the first set only."""
        args = shapes.combination(keys, None, withscores)
        return self._call(op.ZDIFF, args, None, list)

    def zunionstore(
        self,
        dest: str,
        keys: Iterable[str] | Mapping[str, Score],
        aggregate: str | None = None,
        *,
        durable: bool = False,
    ) -> Awaitable[int]:
        """Stores the union; its size."""
        args = (dest, *shapes.combination(keys, aggregate))
        return self._call(shapes.code(op.ZUNIONSTORE, durable), args)

    def zinterstore(
        self,
        dest: str,
        keys: Iterable[str] | Mapping[str, Score],
        aggregate: str | None = None,
        *,
        durable: bool = False,
    ) -> Awaitable[int]:
        """Stores the intersection; its size."""
        args = (dest, *shapes.combination(keys, aggregate))
        return self._call(shapes.code(op.ZINTERSTORE, durable), args)

    def zdiffstore(self, dest: str, keys: Iterable[str], *, durable: bool = False) -> Awaitable[int]:
        """Stores the difference; its size."""
        return self._call(shapes.code(op.ZDIFFSTORE, durable), (dest, *shapes.combination(keys, None)))

    def zintercard(self, numkeys: int, keys: Iterable[str], limit: int = 0) -> Awaitable[int]:
        """How many members all sets have; with a limit at most so many."""
        return self._call(op.ZINTERCARD, (numkeys, *keys, "LIMIT", limit))

    def zremrangebyrank(self, name: str, min: int, max: int, *, durable: bool = False) -> Awaitable[int]:
        """Removes members by position; how many."""
        return self._call(shapes.code(op.ZREMRANGEBYRANK, durable), (name, min, max))

    def zremrangebyscore(self, name: str, min: Bound, max: Bound, *, durable: bool = False) -> Awaitable[int]:
        """Removes members by score; how many."""
        return self._call(shapes.code(op.ZREMRANGEBYSCORE, durable), (name, min, max))

    def zpopmin(self, name: str, count: int | None = None, *, durable: bool = False) -> Awaitable[list[Any]]:
        """Takes the members with the lowest scores, one without a count, as (member, score) pairs."""
        return self._call(
            shapes.code(op.ZPOPMIN, durable),
            shapes.counted(name, 1 if count is None else count),
            None,
            shapes.pair_list,
        )

    def zpopmax(self, name: str, count: int | None = None, *, durable: bool = False) -> Awaitable[list[Any]]:
        """Takes the members with the highest scores, one without a count, as (member, score) pairs."""
        return self._call(
            shapes.code(op.ZPOPMAX, durable),
            shapes.counted(name, 1 if count is None else count),
            None,
            shapes.pair_list,
        )

    def zrandmember(self, key: str, count: int | None = None, withscores: bool = False) -> Awaitable[Any]:
        """Random members; with a count a list, with scores (member, score) pairs."""
        args = shapes.counted(key, count, "WITHSCORES" if withscores else None)
        return self._call(op.ZRANDMEMBER, args, None, shapes.pair_list if withscores else None)
