"""The entries that `kv.cached` keeps: their names, states and tags, and the steps that fill and refresh them.

An entry is a hash with a state. Whoever finds none moves it to FILLING by one transition, computes, and moves it to
READY by another that holds only if nothing happened to the entry meanwhile; everybody else waits for that change. A
refresh does the same through REFRESHING, while the old value is served. A claim ends by itself after `lease` seconds.

A tag is a key with a random stamp. An entry remembers the stamps that its tags had before it was computed, and is valid
while they are the same: deleting a tag's key invalidates all its entries, those that are being computed too.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import math
import random
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from operator import methodcaller
from typing import Any, Generic, ParamSpec

from data_bridge import _native as native
from data_bridge._native import opcode as op
from data_bridge._native import ttl_ms
from data_bridge.kv._plain import DEEPEST
from data_bridge.kv._steps import Step, Steps, may_have_happened, positive
from data_bridge.kv._values import MISSING, Opaque, Transition, Versioned, newer_than
from data_bridge.kv.errors import ConflictError, KvError, TimeoutError, WrongTypeError  # noqa: A004

P = ParamSpec("P")

FILLING, READY, REFRESHING, FAILED = "FILLING", "READY", "REFRESHING", "FAILED"
STATE = "state"
FAILED_SECONDS = 1.0
"""How long a failure stands, for those who wait to see it and try themselves."""
LONGEST_NAME = 200
"""Characters of a key that is made of arguments, before they are hashed."""
log = logging.getLogger("data_bridge.kv")


@dataclass(frozen=True, slots=True)
class Options:
    """What was given to `cached`."""

    ttl: float
    key: str | Callable[..., str] | None
    jitter: float
    early: float
    stale: float
    tags: Iterable[str] | Callable[..., Iterable[str]]
    lease: float

    def __post_init__(self) -> None:
        positive(ttl=self.ttl, lease=self.lease)
        if not 0 <= self.jitter < 1:
            raise ValueError(f"jitter is a part of the ttl, from 0 to less than 1, not {self.jitter!r}")
        if self.early < 0 or self.stale < 0:
            raise ValueError("early and stale_while_revalidate must not be negative")
        if isinstance(self.tags, str):
            raise TypeError("tags must be an iterable of str, not one str")


class Entries(Generic[P]):
    """The entries of one function."""

    def __init__(self, function: Callable[P, Any], options: Options) -> None:
        self.function, self.options = function, options
        self._signature = inspect.signature(function)
        name = getattr(function, "__qualname__", None)
        if name is None and options.key is None:
            raise TypeError(f"{function!r:.80} has no name to make keys of: give it key=...")
        self._prefix = f"{function.__module__}.{name}"
        parameters = self._signature.parameters
        kinds = {parameter.kind for parameter in parameters.values()}
        plain = kinds <= {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
        self._keywords = next((name for name, one in parameters.items() if one.kind is one.VAR_KEYWORD), "")
        self._arity = len(parameters) if plain else -1
        self.looks_at_time = options.early > 0 or options.stale > 0
        self._tags = options.tags if callable(options.tags) else tuple(map(tag_key, options.tags))
        self.has_tags = bool(self._tags)

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The key of the entry for these arguments."""
        given = self.options.key
        if given is not None and not isinstance(given, str):
            return given(*args, **kwargs)
        values: tuple[Any, ...] = args
        if kwargs or len(args) != self._arity or given is not None:
            bound = self._signature.bind(*args, **kwargs)
            bound.apply_defaults()
            if given is not None:
                return given.format_map(bound.arguments)
            if self._keywords in bound.arguments:
                bound.arguments[self._keywords] = dict(sorted(bound.arguments[self._keywords].items()))
            values = tuple(bound.arguments.values())
        name = f"{self._prefix}{values!r}"
        if len(name) <= LONGEST_NAME and SHOWN_EXACTLY.issuperset(map(type, values)):
            return name
        try:
            return f"{self._prefix}:{blake2b(native.encode(in_order(values)), digest_size=16).hexdigest()}"
        except KvError as error:
            raise TypeError(
                f"{self._prefix}: arguments that can't be stored need key=...: {error}"
            ) from error

    def tags(self, *args: P.args, **kwargs: P.kwargs) -> tuple[str, ...]:
        """The keys of the tags of these arguments."""
        given = self._tags
        return tuple(map(tag_key, given(*args, **kwargs))) if callable(given) else given

    def is_valid(self, name: str, entry: Any, tags: tuple[str, ...], stamps: dict[str, Any]) -> bool:
        """Whether an entry has a value that holds."""
        if entry is MISSING:
            return False
        try:
            state = entry[STATE]
        except (TypeError, LookupError):
            raise WrongTypeError(
                f"the key {name!r} holds something else than a result of a function"
            ) from None
        if state not in (READY, REFRESHING):
            return False
        return not tags or entry["tags"] == [stamps.get(tag, MISSING) for tag in tags]

    def is_due(self, entry: Any) -> bool:
        """Whether a valid entry should be refreshed: it is over, or it is near its end and the dice say so.

        The nearer and the dearer to compute, the likelier: -cost * early * ln(random) is the gap of XFetch (Vattani,
        Chierichetti, Lowenstein: Optimal Probabilistic Cache Stampede Prevention, VLDB 2015).
        """
        gap = -entry["cost"] * self.options.early * math.log(1.0 - random.random())
        return time.time() + gap >= entry["until"] and is_unclaimed(entry)

    def fill(self, name: str, tags: tuple[str, ...], compute: Step) -> Steps[Any]:
        """The value of an entry that was not there: computed, or waited for while somebody else computes it."""
        while True:
            stamps = yield from self._stamps(tags)
            found: Versioned = yield methodcaller("get_versioned", name)
            entry, version = found
            if self.is_valid(name, entry, tags, stamps):
                return entry["value"]
            if entry is not MISSING and entry[STATE] == FILLING:
                with contextlib.suppress(TimeoutError):
                    yield methodcaller("wait", name, until=newer_than(version), timeout=self.options.lease)
                continue
            try:
                claim: Transition = yield self._claim(name, found, FILLING, {}, self.options.lease)
            except ConflictError:
                continue
            except BaseException as error:
                if may_have_happened(error):
                    # A claim that is yet to come finds another version or state, and fails.
                    with contextlib.suppress(KvError):
                        expect = {MISSING, FILLING, MISSING if entry is MISSING else entry[STATE]}
                        yield self._step(name, expect, None, FAILED, {}, FAILED_SECONDS)
                raise
            step = functools.partial(self._step, name, FILLING, claim.version)
            return (yield from self._computed(tags, stamps, compute, step, step(FAILED, {}, FAILED_SECONDS)))

    def refresh(self, name: str, tags: tuple[str, ...], due: Any, compute: Step) -> Steps[Any]:
        """The new value of an entry that is due, `MISSING` where somebody else computes it or that failed."""
        stamps = yield from self._stamps(tags)
        found: Versioned = yield methodcaller("get_versioned", name)
        is_same = self.is_valid(name, found.value, tags, stamps) and found.value["until"] == due["until"]
        if not (is_same and is_unclaimed(found.value)):
            return MISSING
        lease = {"lease": time.time() + self.options.lease}
        try:
            claim: Transition = yield self._claim(name, found, REFRESHING, lease, None)
        except ConflictError:
            return MISSING
        step = functools.partial(self._step, name, REFRESHING, claim.version)
        later = {"until": time.time() + FAILED_SECONDS}
        try:
            return (yield from self._computed(tags, stamps, compute, step, step(READY, later, None)))
        except Exception:
            log.exception("a refresh failed, the old value is served until its time is over: %s", name)
            return MISSING

    def invalidate(self, name: str) -> Steps[bool]:
        """Deletes an entry, whether there was one. One that is being computed fails instead, which wakes who waits."""
        try:
            yield self._step(name, FILLING, None, FAILED, {}, FAILED_SECONDS)
        except ConflictError as found:
            return found.current is not MISSING and bool((yield methodcaller("delete", name)))
        return True

    def _claim(self, name: str, found: Versioned, to: str, update: dict[str, Any], ttl: float | None) -> Step:
        expect = MISSING if found.value is MISSING else found.value[STATE]
        return self._step(name, expect, found.version or None, to, update, ttl)

    def _step(
        self, name: str, expect: Any, fence: int | None, to: str, update: dict[str, Any], ttl: float | None
    ) -> Step:
        return methodcaller(
            "transition", name, field=STATE, expect=expect, to=to, update=update, ttl=ttl, fence=fence
        )

    def _computed(
        self,
        tags: tuple[str, ...],
        stamps: dict[str, str],
        compute: Step,
        step: Callable[[str, dict[str, Any], float | None], Step],
        failed: Step,
    ) -> Steps[Any]:
        """Computes a value and stores it if the claim still holds."""
        start = time.perf_counter()
        try:
            value = yield compute
            cost = time.perf_counter() - start
            fresh = self.options.ttl * (1.0 - self.options.jitter * random.random())
            entry = {"value": value, "until": time.time() + fresh, "cost": cost}
            entry["tags"] = [stamps[tag] for tag in tags]
            with contextlib.suppress(ConflictError):
                yield step(READY, entry, fresh + self.options.stale)
        except GeneratorExit:
            raise  # who was given up can ask for nothing more
        except BaseException:
            with contextlib.suppress(KvError):
                yield failed
            raise
        return value

    def _stamps(self, tags: tuple[str, ...]) -> Steps[dict[str, str]]:
        """The stamps of tags, which get one where they have none. They live as long as the longest entry."""
        if not tags:
            return {}
        stamp, ttl = uuid.uuid4().hex, self.options.ttl + self.options.stale + self.options.lease

        def step(store: Any) -> Any:
            pipe = store.pipeline(atomic=True)
            for tag in tags:
                pipe.set(tag, stamp, nx=True, return_old=True, ttl=ttl)
                pipe._call(op.PEXPIRE, (tag, ttl_ms(ttl), "GT"))
            return pipe.execute()

        found = yield step
        olds = zip(tags, found[::2], strict=True)
        return {tag: stamp if old is MISSING else old for tag, old in olds}


SHOWN_EXACTLY = frozenset({type(None), bool, int, float, str, bytes, uuid.UUID})
"""Types whose repr tells their values apart, from each other too."""


def in_order(value: Any, depth: int = 0) -> Any:
    """The value with its sets in an order that is the same in each process."""
    if depth > DEEPEST:
        return value
    if type(value) in (set, frozenset):
        members = sorted(native.encode(in_order(member, depth + 1)) for member in value)
        return Opaque(type(value).__name__, native.encode(members))
    if type(value) in (list, tuple):
        return type(value)(in_order(item, depth + 1) for item in value)
    if type(value) is dict:
        return {key: in_order(item, depth + 1) for key, item in value.items()}
    return value


def is_unclaimed(entry: Any) -> bool:
    """Whether nobody refreshes a valid entry, or who did is taken for dead."""
    return entry[STATE] == READY or time.time() >= entry["lease"]


def tag_key(tag: str) -> str:
    """The key of a tag."""
    return f"tag:{tag}"
