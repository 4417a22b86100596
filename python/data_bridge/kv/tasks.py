"""Tasks without a framework: created once, claimed with a lease, finished once.

>>> from data_bridge import kv
>>> from data_bridge.kv.tasks import Tasks
>>> tasks = Tasks(kv.open(mode="task"))
>>> name = tasks.create({"order": 7})
>>> claimed = tasks.claim("worker-1")
>>> claimed.payload
{'order': 7}
>>> tasks.succeed(claimed, result=19)
>>> tasks.wait(name).result
19
"""

from __future__ import annotations

import os
import socket
from typing import Any, TypeVar

from data_bridge.kv import _task_steps as steps
from data_bridge.kv._async_methods import AsyncMethods
from data_bridge.kv._methods import StoreMethods
from data_bridge.kv._steps import Steps, run, run_async
from data_bridge.kv._task_steps import FAILURE, PENDING, STARTED, SUCCESS, TRANSITIONS, Policy, Task

__all__ = ["FAILURE", "PENDING", "STARTED", "SUCCESS", "TRANSITIONS", "AsyncTasks", "Task", "Tasks"]

T = TypeVar("T")


def this_worker() -> str:
    """The name of a worker unless it is given one."""
    return f"{socket.gethostname()}:{os.getpid()}"


class Tasks:
    """The tasks of one name in a store.

    A claim holds for `lease` seconds and longer with `heartbeat`; when it ends before the task does, the task is tried
    again, `max_tries` times in all, after pauses that grow from `backoff` to `max_backoff` seconds. A task that has
    ended is kept for `keep` seconds (None = for ever).

    A step of a claim that was lost meanwhile raises `ConflictError` and changes nothing.
    """

    def __init__(
        self,
        store: StoreMethods,
        name: str = "task",
        *,
        lease: float = 60.0,
        max_tries: int = 5,
        backoff: float = 1.0,
        max_backoff: float = 300.0,
        keep: float | None = 86_400.0,
    ) -> None:
        self.store = store
        self.policy = Policy(name, lease, max_tries, backoff, max_backoff, keep)

    def _run(self, script: Steps[T]) -> T:
        return run(self.store, script)

    def create(self, payload: Any = None, *, task_id: str | None = None, delay: float = 0.0) -> str:
        """Adds a task and answers its id; `ConflictError` if there is one of this id."""
        return self._run(steps.create(self.policy, payload, task_id, delay))

    def claim(self, worker: str | None = None, *, timeout: float | None = 0.0) -> Task | None:
        """The next task that is due, waiting for one at most so many seconds (None = for ever); None if there is none.

        Leases that have ended are requeued on the way.
        """
        return self._run(steps.claim(self.policy, worker or this_worker(), timeout))

    def heartbeat(self, task: Task, lease: float | None = None) -> Task:
        """Renews the lease: go on with the task that is returned."""
        return self._run(steps.heartbeat(self.policy, task, lease))

    def succeed(self, task: Task, result: Any = None) -> None:
        """Ends a claimed task well."""
        self._run(steps.finish(self.policy, task, SUCCESS, {"result": result}))

    def fail(self, task: Task, error: Any = None) -> None:
        """Ends a claimed task with an error: any value, for instance a text."""
        self._run(steps.finish(self.policy, task, FAILURE, {"error": error}))

    def retry(self, task: Task, error: Any = None, *, delay: float | None = None) -> bool:
        """Gives a claimed task back for another try, after a pause; False if it was its last, so that it failed."""
        return self._run(steps.retry(self.policy, task, error, delay))

    def requeue_expired(self) -> int:
        """Gives tasks whose lease has ended another try, or fails them; how many it met."""
        return self._run(steps.requeue_expired(self.policy))

    def get(self, task_id: str) -> Task | None:
        """A task as it is now."""
        return self._run(steps.get(self.policy, task_id))

    def wait(self, task_id: str, timeout: float | None = None) -> Task:
        """A task once it has ended; `TimeoutError` after so many seconds."""
        return self._run(steps.wait(self.policy, task_id, timeout))

    def in_state(self, state: str, limit: int = 1000) -> list[Task]:
        """Tasks in a state, by when they are due, when their lease ends, or when they ended."""
        return self._run(steps.in_state(self.policy, state, limit))


class AsyncTasks:
    """The same for asyncio: the methods of `Tasks`, awaited."""

    def __init__(
        self,
        store: AsyncMethods,
        name: str = "task",
        *,
        lease: float = 60.0,
        max_tries: int = 5,
        backoff: float = 1.0,
        max_backoff: float = 300.0,
        keep: float | None = 86_400.0,
    ) -> None:
        self.store = store
        self.policy = Policy(name, lease, max_tries, backoff, max_backoff, keep)

    async def _run(self, script: Steps[T]) -> T:
        return await run_async(self.store, script)

    async def create(self, payload: Any = None, *, task_id: str | None = None, delay: float = 0.0) -> str:
        """Adds a task and answers its id; `ConflictError` if there is one of this id."""
        return await self._run(steps.create(self.policy, payload, task_id, delay))

    async def claim(self, worker: str | None = None, *, timeout: float | None = 0.0) -> Task | None:
        """The next task that is due; None after so many seconds."""
        return await self._run(steps.claim(self.policy, worker or this_worker(), timeout))

    async def heartbeat(self, task: Task, lease: float | None = None) -> Task:
        """Renews the lease: go on with the task that is returned."""
        return await self._run(steps.heartbeat(self.policy, task, lease))

    async def succeed(self, task: Task, result: Any = None) -> None:
        """Ends a claimed task well."""
        await self._run(steps.finish(self.policy, task, SUCCESS, {"result": result}))

    async def fail(self, task: Task, error: Any = None) -> None:
        """Ends a claimed task with an error."""
        await self._run(steps.finish(self.policy, task, FAILURE, {"error": error}))

    async def retry(self, task: Task, error: Any = None, *, delay: float | None = None) -> bool:
        """Gives a claimed task back for another try; False if it was its last, so that it failed."""
        return await self._run(steps.retry(self.policy, task, error, delay))

    async def requeue_expired(self) -> int:
        """Gives tasks whose lease has ended another try, or fails them; how many it met."""
        return await self._run(steps.requeue_expired(self.policy))

    async def get(self, task_id: str) -> Task | None:
        """A task as it is now."""
        return await self._run(steps.get(self.policy, task_id))

    async def wait(self, task_id: str, timeout: float | None = None) -> Task:
        """A task once it has ended; `TimeoutError` after so many seconds."""
        return await self._run(steps.wait(self.policy, task_id, timeout))

    async def in_state(self, state: str, limit: int = 1000) -> list[Task]:
        """Tasks in a state."""
        return await self._run(steps.in_state(self.policy, state, limit))
