"""Algorithms of several steps, written once for synchronous and asynchronous stores.

An algorithm is a generator: it yields what to do with the store, a function of it, and is sent what that gave, or the
error it raised. `run` and `run_async` carry it out.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator
from typing import Any, TypeAlias, TypeVar

from data_bridge.kv._async_methods import AsyncMethods
from data_bridge.kv._methods import StoreMethods
from data_bridge.kv.errors import KvError, OutcomeUnknownError

R = TypeVar("R")
Step: TypeAlias = Callable[[Any], Any]
Steps: TypeAlias = Generator[Step, Any, R]


def run(store: StoreMethods, steps: Steps[R]) -> R:
    """Carries out an algorithm."""
    try:
        step = next(steps)
        while True:
            try:
                found = step(store)
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(found)
    except StopIteration as end:
        return end.value


async def run_async(store: AsyncMethods, steps: Steps[R]) -> R:
    """Carries out an algorithm, awaiting each step."""
    try:
        step = next(steps)
        while True:
            try:
                found = await step(store)
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(found)
    except StopIteration as end:
        return end.value


def may_have_happened(error: BaseException) -> bool:
    """Whether a step that ended so may have been taken, as it was interrupted or its answer lost, and can be undone.

    Who was given up can ask for nothing more.
    """
    if isinstance(error, GeneratorExit):
        return False
    return not isinstance(error, KvError) or isinstance(error, OutcomeUnknownError)


def renew_in_thread(
    name: str, renew: Callable[..., None], args: tuple[Any, ...], release: Callable[[], None]
) -> None:
    """Starts a thread that renews what was just taken; where none can be started, it is given back."""
    try:
        threading.Thread(target=renew, args=args, name=f"renews {name}", daemon=True).start()
    except BaseException:
        with contextlib.suppress(KvError):
            release()
        raise


def is_async(store: Any, helper: str) -> bool:
    """Whether a store is asynchronous; `TypeError` for what is no store."""
    if isinstance(store, AsyncMethods):
        return True
    if isinstance(store, StoreMethods):
        return False
    raise TypeError(
        f"kv.{helper} needs a store, from kv.open, kv.connect, kv.aio.open or kv.aio.connect, not {store!r:.80}"
    )


def positive(**seconds: float) -> None:
    """Refuses lengths of time that are not positive."""
    for name, value in seconds.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive, not {value!r}")
