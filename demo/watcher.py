"""The watchers of the task store: they are told what happens and ask for nothing meanwhile. Used by `demo.tasks`.

`Watcher` hears of every change; `Waiters` wait for the end of each task, all at once on one connection.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

from data_bridge import kv

from demo.report import Progress
from demo.worker import WAIT_SECONDS

PREFIX = "task"
LAST_KEY = "task-end"
"""Written when everything is over, so that the watcher knows that it has seen it all."""


class Watcher:
    """A thread that is told every change of a task; as a context manager it ends when it has seen the last key."""

    def __init__(self, url: str, tasks: int) -> None:
        self.url, self.tasks = url, tasks
        self.versions: dict[str, int] = {}
        self.events = self.finished = self.lost = 0
        self.cpu_seconds = 0.0
        self.watching = threading.Event()
        self.thread = threading.Thread(target=self.follow, daemon=True)

    def __enter__(self) -> Watcher:
        self.thread.start()
        if not self.watching.wait(WAIT_SECONDS):
            raise RuntimeError("the watch did not begin")
        return self

    def follow(self) -> None:
        """Iterates over the changes; the client sends one request and then only listens."""
        with kv.connect(self.url) as client, client.watch(prefix=PREFIX) as watch:
            self.watching.set()
            with Progress("tasks finished, as the watcher is told", self.tasks) as step:
                for event in watch:
                    if event.key == LAST_KEY:
                        break
                    self.lost += event.change == "lost"
                    self.events += 1
                    # A task changes twice: claimed, then finished.
                    self.finished += event.key in self.versions
                    self.versions[event.key] = event.version
                    step.at(self.finished)
        self.cpu_seconds = time.thread_time()

    def __exit__(self, *exc: object) -> None:
        self.thread.join(WAIT_SECONDS if exc[0] is None else 0)


class Waiters:
    """A thread with an event loop in which every task is waited for by a coroutine of its own; a context manager."""

    def __init__(self, url: str, tasks: Sequence[str]) -> None:
        self.url, self.tasks = url, tasks
        self.ended: dict[str, kv.Versioned] = {}
        self.thread = threading.Thread(target=lambda: asyncio.run(self.wait_for_all()), daemon=True)

    def __enter__(self) -> Waiters:
        self.thread.start()
        return self

    async def wait_for_all(self) -> None:
        """Waits for the end of each task; the engine wakes each waiter once."""
        async with kv.aio.connect(self.url) as client:

            async def wait_for(task: str) -> None:
                ends = {"SUCCESS", "FAILURE"}
                self.ended[task] = await client.wait(task, field="status", until=ends, timeout=WAIT_SECONDS)

            await asyncio.gather(*map(wait_for, self.tasks))

    def __exit__(self, *exc: object) -> None:
        self.thread.join(WAIT_SECONDS if exc[0] is None else 0)
