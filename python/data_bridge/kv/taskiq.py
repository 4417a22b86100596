"""Taskiq's results, progress and schedules in a store: `broker.with_result_backend(ResultBackend("kv://host:port/tasks"))`.

Results are typed hashes. Taskiq itself asks again and again whether a result is ready; `ResultBackend.wait` is told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeVar

from data_bridge import _native as native
from data_bridge.kv._patience import PATIENCE, awaited_value_of, end_of, patiently_awaited
from data_bridge.kv._plain import plain
from data_bridge.kv._remote import address
from data_bridge.kv._steps import positive
from data_bridge.kv.aio import AsyncClient, AsyncStore, connect
from data_bridge.kv.errors import UnsupportedValueError
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError
from taskiq import AsyncResultBackend, ScheduledTask, ScheduleSource, TaskiqResult
from taskiq.depends.progress_tracker import TaskProgress, TaskState
from taskiq.exceptions import ResultGetError
from taskiq.serialization import prepare_exception

__all__ = ["ResultBackend", "Schedules"]

T = TypeVar("T")

MODES: tuple[Literal["python", "json"], ...] = ("python", "json")
"""How pydantic dumps a model, the best first: as its fields are, or enums, paths and their like as JSON has them."""


class Coder:
    """Tells Taskiq which arguments of an exception can be stored."""

    def dumps(self, obj: Any) -> bytes:
        """The bytes of a value; raises if it has none."""
        return native.encode(obj)

    def loads(self, s: bytes) -> Any:
        """The value again."""
        return native.decode(s)


class Connected:
    """Holds a client: a given one, or its own, which lives from startup to shutdown."""

    def __init__(
        self, url: str | None, client: AsyncStore | AsyncClient | None, options: dict[str, Any]
    ) -> None:
        if url is not None:
            address(url, None)  # a URL that is none is refused here, not in a worker
        self._given, self._url, self._options = client, url, options
        self._own: AsyncClient | None = None

    @property
    def client(self) -> AsyncStore | AsyncClient:
        """The store."""
        if self._given is not None:
            return self._given
        if self._own is None:
            self._own = connect(self._url, **self._options)
        return self._own

    async def close(self) -> None:
        """Ends the client that was connected to here."""
        own, self._own = self._own, None
        if own is not None:
            await own.aclose()


class ResultBackend(AsyncResultBackend[T]):
    """Results in a store: that of `url`, with the options of `kv.aio.connect`, or `client`.

    A result expires after `ttl` seconds (a day; None = never), or is removed when it is read, unless `keep_results`.
    Taskiq drops a result that can't be stored, and a wait whose question fails: while the server is away, each step
    goes on for `patience` seconds.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        client: AsyncStore | AsyncClient | None = None,
        prefix: str = "taskiq",
        ttl: float | None = 86_400,
        keep_results: bool = True,
        patience: float = PATIENCE,
        **options: Any,
    ) -> None:
        if ttl is not None:
            positive(ttl=ttl)
        self._connected = Connected(url, client, options)
        self.prefix, self.ttl, self.keep_results, self.patience = prefix, ttl, keep_results, patience

    @property
    def client(self) -> AsyncStore | AsyncClient:
        """The store."""
        return self._connected.client

    async def shutdown(self) -> None:
        """Ends the connection."""
        await self._connected.close()

    def _key(self, task_id: str) -> str:
        return f"{self.prefix}:{task_id}"

    def _progress_key(self, task_id: str) -> str:
        return f"{self.prefix}:{task_id}:progress"

    def _patiently(self, call: Callable[[], Awaitable[Any]]) -> Awaitable[Any]:
        return patiently_awaited(call, end_of(self.patience))

    async def _set(self, key: str, fields: dict[str, Any]) -> None:
        await self._patiently(lambda: self.client.set(key, fields, ttl=self.ttl))

    async def _set_dumped(self, key: str, fields: dict[str, Any], model: BaseModel, name: str) -> None:
        """Stores fields, of which one has a value of any kind: where no kind fits, what pydantic makes of it."""
        try:
            return await self._set(key, fields)
        except UnsupportedValueError as error:
            unfit = error
        for mode in MODES:
            try:
                fields[name] = model.model_dump(mode=mode, include={name})[name]
                return await self._set(key, plain(fields))
            except (UnsupportedValueError, PydanticSerializationError):
                continue
        raise unfit

    async def set_result(self, task_id: str, result: TaskiqResult[T]) -> None:
        """Stores a result. What is no builtin value is stored as pydantic dumps it."""
        error = None if result.error is None else prepare_exception(result.error, Coder())
        fields: dict[str, Any] = {
            "is_err": result.is_err,
            "log": result.log,
            "return_value": result.return_value,
            "execution_time": result.execution_time,
            "labels": result.labels,
            "error": None if error is None else error.model_dump(),  # type: ignore[union-attr]
        }
        await self._set_dumped(self._key(task_id), fields, result, "return_value")

    async def is_result_ready(self, task_id: str) -> bool:
        """Whether a result is there."""
        return bool(await self._patiently(lambda: self.client.exists(self._key(task_id))))

    async def get_result(self, task_id: str, with_logs: bool = False) -> TaskiqResult[T]:
        """The result of a task; `ResultGetError` where there is none."""
        fields = await self._patiently(lambda: self.client.get(self._key(task_id)))
        if fields is None:
            raise ResultGetError
        await self._was_read(task_id)
        return self._result(fields, with_logs)

    async def wait(
        self, task_id: str, timeout: float | None = None, with_logs: bool = False
    ) -> TaskiqResult[T]:
        """Waits for the result of a task; `TimeoutError` after so many seconds."""
        fields = await awaited_value_of(self.client, self._key(task_id), timeout)
        await self._was_read(task_id)
        return self._result(fields, with_logs)

    async def _was_read(self, task_id: str) -> None:
        if not self.keep_results:
            await self._patiently(lambda: self.client.delete(self._key(task_id)))

    def _result(self, fields: dict[str, Any], with_logs: bool) -> TaskiqResult[T]:
        if not with_logs:
            fields["log"] = None
        return TaskiqResult(**fields)

    async def set_progress(self, task_id: str, progress: TaskProgress[Any]) -> None:
        """Stores how far a task is."""
        fields = {"state": plain(progress.state), "meta": progress.meta}
        await self._set_dumped(self._progress_key(task_id), fields, progress, "meta")

    async def get_progress(self, task_id: str) -> TaskProgress[Any] | None:
        """How far a task is, None where nothing was told."""
        fields = await self._patiently(lambda: self.client.get(self._progress_key(task_id)))
        if fields is None:
            return None
        state = fields["state"]
        known = TaskState(state) if state in TaskState.__members__ else state
        return TaskProgress(state=known, meta=fields["meta"])


class Schedules(ScheduleSource):
    """Schedules in a store, which tasks and programs may add to and take from while the scheduler runs.

    While the server is away, adding and removing goes on for `patience` seconds.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        client: AsyncStore | AsyncClient | None = None,
        prefix: str = "taskiq:schedule",
        patience: float = PATIENCE,
        **options: Any,
    ) -> None:
        self._connected = Connected(url, client, options)
        self.prefix, self.patience = prefix, patience

    def _patiently(self, call: Callable[[], Awaitable[Any]]) -> Awaitable[Any]:
        return patiently_awaited(call, end_of(self.patience))

    @property
    def client(self) -> AsyncStore | AsyncClient:
        """The store."""
        return self._connected.client

    async def shutdown(self) -> None:
        """Ends the connection."""
        await self._connected.close()

    def _key(self, schedule_id: str) -> str:
        return f"{self.prefix}:{schedule_id}"

    async def get_schedules(self) -> list[ScheduledTask]:
        """All schedules."""
        keys = {key async for key in self.client.scan(f"{self.prefix}:")}
        return [ScheduledTask(**fields) for fields in (await self.client.get_many(keys)).values()]

    async def add_schedule(self, schedule: ScheduledTask) -> None:
        """Adds a schedule, or replaces the one with its id."""
        fields = plain(schedule.model_dump())
        await self._patiently(lambda: self.client.set(self._key(schedule.schedule_id), fields))

    async def delete_schedule(self, schedule_id: str) -> None:
        """Removes a schedule."""
        await self._patiently(lambda: self.client.delete(self._key(schedule_id)))

    async def post_send(self, task: ScheduledTask) -> None:
        """A schedule for one moment is over once its task was sent."""
        if task.time is not None:
            await self.delete_schedule(task.schedule_id)
