"""Redis-named methods on sorted sets, with redis-py's argument order. Members are typed; scores are floats, or exact
Decimals in a sorted set that was created with Decimal scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, TypeAlias

from data_bridge._native import opcode as op
from data_bridge.kv import _shapes as shapes
from data_bridge.kv._sync.base import Base
from data_bridge.kv._values import Member

Score: TypeAlias = int | float | Decimal
Bound: TypeAlias = int | float | Decimal | str
"""A score, or Redis's text of a bound: "-inf", "+inf", "(1.5" for one that is excluded."""


class SortedSetCommands(Base):
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
    ) -> Any:
        """Adds members with scores; how many are new (`ch`: changed), with `incr` the new score or None."""
        flags = shapes.flags(NX=nx, XX=xx, GT=gt, LT=lt, CH=ch, INCREMENT=incr)
        return self._call(shapes.code(op.ZADD, durable), (name, *flags, *shapes.scores(mapping)))

    def zincrby(self, name: str, amount: Score, value: Member, *, durable: bool = False) -> Any:
        """Adds to a member's score; the new score."""
        return self._call(shapes.code(op.ZINCRBY, durable), (name, amount, value))

    def zrem(self, name: str, *values: Member, durable: bool = False) -> int:
        """Removes members; how many there were."""
        return self._call(shapes.code(op.ZREM, durable), (name, *values))

    def zscore(self, name: str, value: Member) -> Any:
        """A member's score, None if it is no member."""
        return self._call(op.ZSCORE, (name, value))

    def zmscore(self, key: str, members: Iterable[Member]) -> list[Any]:
        """Scores in order, None for what is no member."""
        return self._call(op.ZMSCORE, (key, *members))

    def zcard(self, name: str) -> int:
        """Number of members."""
        return self._call(op.ZCARD, (name,))

    def zcount(self, name: str, min: Bound, max: Bound) -> int:
        """Number of members with a score in a range."""
        return self._call(op.ZCOUNT, (name, min, max))

    def zrank(self, name: str, value: Member, withscore: bool = False) -> Any:
        """Position from the lowest score, None if it is no member."""
        return self._call(op.ZRANK, (name, value, *shapes.flags(WITHSCORE=withscore)))

    def zrevrank(self, name: str, value: Member, withscore: bool = False) -> Any:
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
    ) -> list[Any]:
        """Members of a range of positions, or of scores; with scores as (member, score) pairs."""
        flags = shapes.flags(BYSCORE=byscore, REV=desc)
        args = (name, start, end, *flags, *shapes.limit(offset, num), *shapes.flags(WITHSCORES=withscores))
        return self._call(op.ZRANGE, args, None, list)

    def zrevrange(self, name: str, start: int, end: int, withscores: bool = False) -> list[Any]:
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
    ) -> list[Any]:
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
    ) -> list[Any]:
        """Members with a score in a range, from the highest."""
        args = (name, max, min, *shapes.limit(start, num), *shapes.flags(WITHSCORES=withscores))
        return self._call(op.ZREVRANGEBYSCORE, args, None, list)

    def zremrangebyrank(self, name: str, min: int, max: int, *, durable: bool = False) -> int:
        """Removes members by position; how many."""
        return self._call(shapes.code(op.ZREMRANGEBYRANK, durable), (name, min, max))

    def zremrangebyscore(self, name: str, min: Bound, max: Bound, *, durable: bool = False) -> int:
        """Removes members by score; how many."""
        return self._call(shapes.code(op.ZREMRANGEBYSCORE, durable), (name, min, max))

    def zpopmin(self, name: str, count: int | None = None, *, durable: bool = False) -> list[Any]:
        """Takes the members with the lowest scores, one without a count, as (member, score) pairs."""
        return self._call(
            shapes.code(op.ZPOPMIN, durable),
            shapes.counted(name, 1 if count is None else count),
            None,
            shapes.pair_list,
        )

    def zpopmax(self, name: str, count: int | None = None, *, durable: bool = False) -> list[Any]:
        """Takes the members with the highest scores, one without a count, as (member, score) pairs."""
        return self._call(
            shapes.code(op.ZPOPMAX, durable),
            shapes.counted(name, 1 if count is None else count),
            None,
            shapes.pair_list,
        )

    def zrandmember(self, key: str, count: int | None = None, withscores: bool = False) -> Any:
        """Random members; with a count a list, with scores (member, score) pairs."""
        args = shapes.counted(key, count, "WITHSCORES" if withscores else None)
        return self._call(op.ZRANDMEMBER, args, None, shapes.pair_list if withscores else None)
