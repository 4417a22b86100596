"""Taskiq's results, progress and schedules, with and without real workers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from data_bridge import kv
from data_bridge.kv.taskiq import ResultBackend, Schedules
from pydantic import BaseModel
from taskiq import InMemoryBroker, ScheduledTask, TaskiqResult
from taskiq.depends.progress_tracker import TaskProgress, TaskState
from taskiq.exceptions import ResultGetError

WORKERS = Path(__file__).parent / "workers"


class Model(BaseModel):
    """A result that pydantic defines."""

    x: int


class State(Enum):
    """What no kind of the store is."""

    DONE = "done"


class Report(BaseModel):
    """A result with fields that no kind of the store is."""

    state: State
    path: Path
    total: Decimal


@pytest.fixture(params=["embedded", "remote"])
def run(request: pytest.FixtureRequest, server: Any) -> Callable[[Callable[[Any], Awaitable[None]]], None]:
    """Runs a test with an empty asynchronous store of either kind."""

    def with_store(test: Callable[[Any], Awaitable[None]]) -> None:
        async def body() -> None:
            async with (
                kv.aio.open() if request.param == "embedded" else kv.aio.connect(server.url()) as store
            ):
                await store.clear("taskiq")
                await test(store)

        asyncio.run(body())

    return with_store


def result(value: Any, **more: Any) -> TaskiqResult[Any]:
    return TaskiqResult(is_err="error" in more, return_value=value, execution_time=0.5, **more)


def test_results_keep_their_types(run: Any) -> None:
    async def test(store: Any) -> None:
        backend: ResultBackend[Any] = ResultBackend(client=store)
        given = result({"a": (Decimal("1.10"), b"x")}, log="said", labels={"l": 1})
        assert not await backend.is_result_ready("t")
        with pytest.raises(ResultGetError):
            await backend.get_result("t")
        await backend.set_result("t", given)
        assert await backend.is_result_ready("t")
        assert await backend.get_result("t", with_logs=True) == given
        assert (await backend.get_result("t")).log is None
        assert 86_000 < await store.ttl("taskiq:t") <= 86_400
        await backend.set_result("m", result([Model(x=1), OrderedDict(a=1)]))
        assert (await backend.get_result("m")).return_value == [{"x": 1}, {"a": 1}]

    run(test)


def test_models_of_anything_that_pydantic_dumps_are_results(run: Any) -> None:
    async def test(store: Any) -> None:
        backend: ResultBackend[Any] = ResultBackend(client=store)
        given = Report(state=State.DONE, path=Path("a/b"), total=Decimal("1.10"))
        await backend.set_result("m", result(given))
        assert Report(**(await backend.get_result("m")).return_value) == given
        await backend.set_result("e", result([State.DONE]))
        assert (await backend.get_result("e")).return_value == ["done"]
        await backend.set_progress("m", TaskProgress(state="half", meta=given))
        progress: Any = await backend.get_progress("m")
        assert progress.meta["state"] == "done"
        with pytest.raises(kv.UnsupportedValueError, match="type object"):
            await backend.set_result("o", result(object()))

    run(test)


def test_a_ttl_that_no_result_can_have_is_refused_where_it_is_given() -> None:
    """Taskiq's worker only logged that it can't store any result."""
    for ttl in (0, -1):
        with pytest.raises(ValueError, match="ttl must be positive"):
            ResultBackend("kv://127.0.0.1:1", ttl=ttl)


def test_errors_are_rebuilt(run: Any) -> None:
    async def test(store: Any) -> None:
        backend: ResultBackend[Any] = ResultBackend(client=store, ttl=None)
        error = ValueError("no", Decimal("1.50"), object())
        error.__cause__ = KeyError("why")
        await backend.set_result("t", result(None, error=error))
        again = (await backend.get_result("t")).error
        assert isinstance(again, ValueError)
        assert again.args[:2] == ("no", Decimal("1.50"))
        assert isinstance(again.__cause__, KeyError)
        assert await store.ttl("taskiq:t") is None

    run(test)


def test_results_are_waited_for(run: Any) -> None:
    async def test(store: Any) -> None:
        backend: ResultBackend[Any] = ResultBackend(client=store, keep_results=False)
        waiting = asyncio.ensure_future(backend.wait("t", timeout=10))
        await asyncio.sleep(0)
        await backend.set_result("t", result(7))
        assert (await waiting).return_value == 7
        assert not await backend.is_result_ready("t")
        await backend.set_result("t", result(8))
        assert (await backend.get_result("t")).return_value == 8
        assert not await backend.is_result_ready("t")
        with pytest.raises(TimeoutError):
            await backend.wait("t", timeout=0.01)

    run(test)


def test_progress(run: Any) -> None:
    async def test(store: Any) -> None:
        backend: ResultBackend[Any] = ResultBackend(client=store)
        assert await backend.get_progress("t") is None
        for state in (TaskState.STARTED, "HALF"):
            told = TaskProgress(state=state, meta={"step": Decimal("0.5")})
            await backend.set_progress("t", told)
            assert await backend.get_progress("t") == told
        await backend.set_progress("t", TaskProgress(state="X", meta=Model(x=1)))
        assert await backend.get_progress("t") == TaskProgress(state="X", meta={"x": 1})

    run(test)


def test_schedules(run: Any) -> None:
    async def test(store: Any) -> None:
        source = Schedules(client=store)
        common: dict[str, Any] = {
            "task_name": "t",
            "labels": {"l": b"x"},
            "args": [Decimal(1)],
            "kwargs": {"k": (1,)},
        }
        given = [
            ScheduledTask(cron="* * * * *", cron_offset=timedelta(hours=1), schedule_id="cron", **common),
            ScheduledTask(time=datetime(2030, 1, 2, tzinfo=UTC), schedule_id="time", **common),
            ScheduledTask(interval=timedelta(seconds=5), schedule_id="interval", **common),
        ]
        for schedule in given:
            await source.add_schedule(schedule)
        found = sorted(await source.get_schedules(), key=lambda schedule: schedule.schedule_id)
        assert found == sorted(given, key=lambda schedule: schedule.schedule_id)
        for schedule in found:
            await source.post_send(schedule)
        assert {schedule.schedule_id for schedule in await source.get_schedules()} == {"cron", "interval"}
        await source.delete_schedule("cron")
        assert [schedule.schedule_id for schedule in await source.get_schedules()] == ["interval"]

    run(test)


def test_results_come_through_an_outage_of_the_server(own_server: Any) -> None:
    async def body() -> None:
        backend: ResultBackend[Any] = ResultBackend(own_server.url())
        schedules = Schedules(own_server.url())
        waiting = asyncio.ensure_future(backend.wait("t", timeout=60))
        assert not await backend.is_result_ready("t")
        own_server.kill()
        with pytest.raises(kv.ConnectionError):
            await ResultBackend[Any](client=backend.client, patience=0).set_result("t", result("lost"))
        restart = asyncio.create_task(asyncio.to_thread(type(own_server), port=own_server.port))
        schedule = ScheduledTask(
            cron="* * * * *", schedule_id="s", task_name="t", labels={}, args=[], kwargs={}
        )
        await asyncio.gather(backend.set_result("t", result(7)), schedules.add_schedule(schedule))
        assert (await waiting).return_value == 7
        assert await schedules.get_schedules() == [schedule]
        await backend.shutdown()
        await schedules.shutdown()
        (await restart).kill()

    asyncio.run(body())


def test_with_taskiqs_own_broker(server: Any) -> None:
    async def body() -> None:
        backend: ResultBackend[Any] = ResultBackend(server.url())
        broker = InMemoryBroker().with_result_backend(backend)

        @broker.task
        async def double(value: int) -> int:
            return value * 2

        await broker.startup()
        sent = [await double.kiq(number) for number in range(100)]
        assert [(await task.wait_result(timeout=20)).return_value for task in sent] == [
            2 * n for n in range(100)
        ]
        await broker.shutdown()
        await broker.startup()
        assert (await (await double.kiq(4)).wait_result(timeout=20)).return_value == 8
        await broker.shutdown()

    asyncio.run(body())


def test_real_workers(own_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKEND", own_server.url("tasks"))
    monkeypatch.syspath_prepend(str(WORKERS))
    monkeypatch.delitem(sys.modules, "taskiq_tasks", raising=False)
    path = os.pathsep.join([str(WORKERS), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}

    def started(*args: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "taskiq", *args]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    async def body() -> None:
        import taskiq_tasks as tasks

        await tasks.broker.startup()
        backend = tasks.broker.result_backend

        async def value(task: Any) -> Any:
            return (await backend.wait(task.task_id, timeout=60)).return_value

        sent = [await tasks.add.kiq(number, 1) for number in range(1000)]
        assert await asyncio.gather(*map(value, sent)) == list(range(1, 1001))
        echoed = await value(await tasks.echo.kiq([1]))
        assert (echoed["price"], echoed["pair"]) == (Decimal("19.90"), (1, b"two"))
        failed = await backend.wait((await tasks.refuse.kiq()).task_id, timeout=60)
        assert (type(failed.error), failed.error.args) == (ValueError, ("too much", Decimal(3)))
        assert await value(await tasks.tells.kiq()) == {"step": Decimal("0.5")}
        await tasks.add.schedule_by_time(tasks.schedules, datetime.now(UTC), 20, 22)
        (scheduled,) = await tasks.schedules.get_schedules()
        assert scheduled.args == [20, 22]
        async with backend.client.watch(prefix="taskiq:") as changes:
            async for change in changes:
                if change.change == "set" and ":schedule:" not in change.key:
                    assert (await backend.client.get(change.key))["return_value"] == 42
                    break
        while await tasks.schedules.get_schedules():
            pass
        await tasks.broker.shutdown()
        await tasks.schedules.shutdown()

    running = [
        started("worker", "taskiq_tasks:broker", "--workers", "2"),
        started("scheduler", "taskiq_tasks:scheduler", "--update-interval", "1"),
    ]
    try:
        asyncio.run(body())
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(timeout=60)
