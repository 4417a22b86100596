"""Pipelines: commands that travel together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from data_bridge._native import Queue
from data_bridge.kv._queued import QueuedCommands

if TYPE_CHECKING:
    from data_bridge.kv._methods import StoreMethods


class Pipeline(Queue, QueuedCommands):
    """Commands of a synchronous store, sent together by `execute` or at the end of a `with` block.

    Every method queues its command and returns the pipeline. The results stand in `results`, in order.
    """

    __slots__ = ("_atomic", "_store", "results")

    _atomic: bool
    _store: StoreMethods
    results: list[Any]

    def __new__(cls, store: StoreMethods, atomic: bool = False) -> Self:
        """For a store; `atomic` makes one step of the commands."""
        self = super().__new__(cls, store._fallback)
        self._store, self._atomic, self.results = store, atomic, []
        return self

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Sends what is queued and returns the results in order.

        Commands that failed leave an exception in their place; the first one is raised unless `raise_on_error` is
        False. An atomic pipeline raises it and has changed nothing.
        """
        self.results = self._store._run(self, self._atomic)
        return checked(self.results) if raise_on_error else self.results

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: object, trace: object) -> None:
        if exc_type is None:
            self.execute()
        else:
            self.reset()


def checked(results: list[Any]) -> list[Any]:
    """The results, or the first exception among them."""
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results
