"""Waiting for results: the store tells each change of a task that somebody waits for, on one connection."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

from celery import states
from celery.backends.asynchronous import BaseResultConsumer
from data_bridge.kv._ears import Ears, Wait, ears_of
from data_bridge.kv._remote import Client
from data_bridge.kv._values import MISSING
from data_bridge.kv.errors import ClosedError, ConnectionError  # noqa: A004 - named as its builtin

INTERVAL = 1.0
"""Seconds after which a waiter looks at its timeout again."""


class ResultConsumer(BaseResultConsumer):
    """Collects the results that are waited for. One thread listens, for others that wait at the same backend too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._ears: Ears | None = None
        self._waits: dict[str, Any] = {}
        self._unasked: dict[str, object] = {}
        self._turn = threading.Condition()
        self._listening = False

    def on_after_fork(self) -> None:
        """The connection and who waited on it belong to the parent."""
        self._begin()

    def _own_ears(self) -> Ears:
        if self._process != os.getpid():
            self._begin()
        if self._ears is None:
            with self._turn:
                self._ears = self._ears or ears_of(self.backend.client)
        return self._ears

    def start(self, initial_task_id: str, **kwargs: Any) -> None:
        """Waits for the first task."""
        self.consume_from(initial_task_id)

    def stop(self) -> None:
        """Ends all waits."""
        ears, self._ears = self._ears, None
        self._waits.clear()
        self._unasked.clear()
        if ears is not None:
            ears.close()

    def consume_from(self, task_id: str) -> None:
        """Waits for a task from now on. A result that is there already comes as any other.

        The store is asked once somebody listens, so that looking at results with a timeout of 0 leaves nothing behind.
        """
        ears, mark = self._own_ears(), object()
        if self._waits.setdefault(task_id, mark) is mark:
            self._unasked[task_id] = mark
        if self._listening:
            self._ask(ears)
            ears.flush()

    def _ask(self, ears: Ears) -> None:
        while self._unasked:
            try:
                task_id, mark = self._unasked.popitem()
            except KeyError:
                return  # another thread took the last one
            if self._waits.get(task_id) is mark:
                self._wait_for(ears, task_id, 0)

    def _wait_for(self, ears: Ears, task_id: str, version: int) -> None:
        # Another thread may hear the answer, or drop the wait, before this one knows what it is.
        mark = self._waits[task_id] = object()
        wait = ears.wait(task_id, self.backend.get_key_for_task(task_id), version)
        if self._waits.get(task_id) is mark:
            self._waits[task_id] = wait
        elif not wait.done():
            ears.drop(wait)

    def cancel_for(self, task_id: str) -> None:
        """Waits no longer. Garbage collection may call this anywhere, so nothing here blocks."""
        self._unasked.pop(task_id, None)
        wait, ears = self._waits.pop(task_id, None), self._ears
        if isinstance(wait, Wait) and ears is not None and self._process == os.getpid():
            ears.drop(wait)

    def on_wait_for_pending(self, result: Any, timeout: float | None = None, **kwargs: Any) -> None:
        """A timeout of 0 looks once: what is there counts, what would come does not."""
        if timeout is not None and timeout <= 0:
            for meta in result._iter_meta():
                self.on_state_change(meta, None)

    def drain_events_until(
        self, p: Any, timeout: float | None = None, on_interval: Any = None
    ) -> Iterator[None]:
        """Listens until a promise is ready; short timeouts are kept."""
        interval = INTERVAL if timeout is None else min(INTERVAL, max(timeout, 0.001))
        return self.drainer.drain_events_until(p, timeout=timeout, interval=interval, on_interval=on_interval)

    def drain_events(self, timeout: float | None = None) -> None:
        """Listens for changes, at most so many seconds, and tells those who wait."""
        ears = self._own_ears()
        with self._turn:
            if self._listening:
                # What the other thread hears may be ours.
                self._turn.wait(timeout)
                return
            self._listening = True
        try:
            self._ask(ears)
            if not ears.heard:
                ears.listen(timeout)
            while ears.heard:
                wait, answer = ears.heard.popleft()
                self._hear(ears, wait, answer)
        finally:
            with self._turn:
                self._listening = False
                self._turn.notify_all()

    def _hear(self, ears: Ears, wait: Wait, answer: Any) -> None:
        task_id = wait.name
        if task_id not in self._waits:
            return None
        if isinstance(answer, (ClosedError, ConnectionError)) and isinstance(self.backend.client, Client):
            # The server is going away, or the connection was lost more than once: it is asked again.
            return self._wait_for(ears, task_id, 0)
        if isinstance(answer, BaseException):
            del self._waits[task_id]
            raise answer
        if answer.value is MISSING:
            return self._wait_for(ears, task_id, 0)
        meta = self.backend.decode_result(answer.value)
        if meta["status"] in states.READY_STATES:
            del self._waits[task_id]
        else:
            self._wait_for(ears, task_id, answer.version)
        return self.on_state_change(meta, None)
