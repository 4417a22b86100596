"""Tasks without a framework: leases, fences, retries, and that each ends once."""

from __future__ import annotations

import asyncio
import inspect
import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from data_bridge import kv
from data_bridge.kv import _task_steps as task_steps
from data_bridge.kv import tasks as module
from data_bridge.kv.tasks import FAILURE, PENDING, STARTED, SUCCESS, AsyncTasks, Task, Tasks


@pytest.fixture(params=["embedded", "remote"])
def tasks(request: pytest.FixtureRequest, server: Any) -> Iterator[Tasks]:
    """Tasks in an empty store of either kind, of which the embedded one allows only their steps."""
    graph = {"jobs": {"mode": "task", "transitions": module.TRANSITIONS}}
    with kv.open(namespaces=graph) if request.param == "embedded" else kv.connect(server.url()) as opened:
        store = opened.namespace("jobs") if request.param == "embedded" else opened
        store.clear("task")
        yield Tasks(store, lease=30, backoff=0.01, max_backoff=0.02, max_tries=3)


def claimed(tasks: Tasks, timeout: float = 5.0) -> Task:
    task = tasks.claim("w", timeout=timeout)
    assert task is not None
    return task


def ids_in(tasks: Tasks, state: str) -> list[str]:
    return [task.id for task in tasks.in_state(state)]


def test_the_life_of_a_task(tasks: Tasks) -> None:
    name = tasks.create({"n": Decimal("1.10")})
    assert (ids_in(tasks, PENDING), ids_in(tasks, STARTED)) == ([name], [])
    task = claimed(tasks)
    assert (task.id, task.status, task.payload, task.tries) == (name, STARTED, {"n": Decimal("1.10")}, 1)
    assert tasks.claim("other") is None
    assert (ids_in(tasks, PENDING), ids_in(tasks, STARTED)) == ([], [name])
    tasks.succeed(task, (1, 2))
    done = tasks.wait(name, timeout=1)
    assert (done.status, done.result, done.worker) == (SUCCESS, (1, 2), "w")
    assert (ids_in(tasks, STARTED), ids_in(tasks, SUCCESS)) == ([], [name])
    assert 86_000 < (tasks.store.ttl(f"task:{name}") or 0) <= 86_400
    for step in (tasks.succeed, tasks.fail, tasks.retry, tasks.heartbeat):
        with pytest.raises(kv.ConflictError):
            step(task)


def test_ids_are_taken_once(tasks: Tasks) -> None:
    assert tasks.create(1, task_id="mine") == "mine"
    with pytest.raises(kv.ConflictError):
        tasks.create(2, task_id="mine")
    found = tasks.get("mine")
    assert found is not None
    assert (found.payload, tasks.get("other")) == (1, None)
    assert ids_in(tasks, PENDING) == ["mine"]


def test_tasks_come_when_they_are_due(tasks: Tasks) -> None:
    later = tasks.create("later", delay=0.2)
    first, second = tasks.create("first"), tasks.create("second")
    assert [claimed(tasks).id for _ in range(2)] == [first, second]
    assert tasks.claim() is None
    assert tasks.claim(timeout=0.01) is None
    assert claimed(tasks).id == later


def test_a_claim_waits(tasks: Tasks) -> None:
    threading.Timer(0.1, lambda: tasks.create("soon")).start()
    assert claimed(tasks).payload == "soon"


def test_retries_end_as_a_failure(tasks: Tasks) -> None:
    name = tasks.create()
    assert [tasks.retry(claimed(tasks), f"no {number}") for number in range(3)] == [True, True, False]
    failed = tasks.wait(name, timeout=1)
    assert (failed.status, failed.error, failed.tries) == (FAILURE, "no 2", 3)
    assert ids_in(tasks, FAILURE) == [name]
    other = tasks.create()
    tasks.fail(claimed(tasks), {"why": b"that"})
    assert tasks.wait(other).error == {"why": b"that"}
    assert tasks.claim() is None


def test_a_task_may_be_tried_any_number_of_times(tasks: Tasks) -> None:
    """The pause doubled until it was no float any more, and then nobody could claim anything."""
    endless = Tasks(tasks.store, lease=0.01, backoff=0.01, max_backoff=0.02, max_tries=10**9)
    name = endless.create()
    claimed(endless)
    endless.store.hset(f"task:{name}", "tries", 5000)
    assert claimed(endless).tries == 5001


def test_an_empty_id_is_an_id_and_a_limit_of_nothing_nothing(tasks: Tasks) -> None:
    assert tasks.create(task_id="") == ""
    assert tasks.in_state(PENDING, limit=0) == []
    assert ids_in(tasks, PENDING) == [""]


def test_a_lost_lease_is_tried_again_and_fenced(tasks: Tasks) -> None:
    short = Tasks(tasks.store, lease=0.05, backoff=0.01, max_tries=2)
    name = short.create()
    late = claimed(short)
    again = claimed(short)
    assert (again.id, again.tries, again.error) == (name, 2, "the lease of w ended")
    with pytest.raises(kv.ConflictError):
        short.succeed(late)
    again = short.heartbeat(again, lease=30)
    time.sleep(0.06)
    assert short.requeue_expired() == 0
    short.succeed(again, "kept")
    assert short.wait(name).result == "kept"
    short.create(task_id="dies")
    for _ in range(2):
        assert claimed(short).id == "dies"
    assert short.claim(timeout=0.2) is None
    assert short.wait("dies", timeout=1).status == FAILURE


def test_a_heartbeat_in_the_last_moment_counts(tasks: Tasks) -> None:
    tasks.create()
    task = tasks.heartbeat(claimed(tasks), lease=0.001)
    time.sleep(0.01)
    policy = tasks.policy
    renewed: list[Task] = []

    def interrupted() -> Any:
        script = task_steps.requeue_expired(policy)
        call = next(script)
        while True:
            answer = yield call
            if not renewed:
                assert answer == [task.id]
                renewed.append(tasks.heartbeat(task))
            try:
                call = script.send(answer)
            except StopIteration as end:
                return end.value

    assert tasks._run(interrupted()) == 0
    tasks.succeed(renewed[0])


def test_a_claim_that_wakes_late_looks_once_more(tasks: Tasks) -> None:
    short = Tasks(tasks.store, lease=0.02, max_tries=1)
    short.create(task_id="dies")
    claimed(short)

    def late() -> Any:
        script = task_steps.claim(short.policy, "w", 0.1)
        go_on = partial(next, script)
        while True:
            try:
                call = go_on()
            except StopIteration as end:
                return end.value
            try:
                go_on = partial(script.send, (yield call))
            except TimeoutError as error:
                time.sleep(0.1)  # as on a busy machine
                go_on = partial(script.throw, error)

    assert tasks._run(late()) is None
    dead = short.get("dies")
    assert dead is not None
    assert dead.status == FAILURE


def test_a_task_that_was_deleted_is_forgotten(tasks: Tasks) -> None:
    tasks.store.delete(f"task:{tasks.create()}")
    assert tasks.claim(timeout=0.01) is None
    assert tasks.store.zcard("task~PENDING") == 0


def test_a_wait_ends_in_time(tasks: Tasks) -> None:
    with pytest.raises(TimeoutError):
        tasks.wait(tasks.create(), timeout=0.01)


def test_each_task_runs_once(tasks: Tasks) -> None:
    names = [tasks.create(number) for number in range(200)]
    ran: list[int] = []

    def work(worker: int) -> None:
        while (task := tasks.claim(f"w{worker}", timeout=0.2)) is not None:
            ran.append(task.payload)
            tasks.succeed(task, task.payload * 2)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert sorted(ran) == list(range(200))
    assert [tasks.wait(name, timeout=0).result for name in names] == [2 * number for number in range(200)]
    assert (ids_in(tasks, PENDING), ids_in(tasks, STARTED)) == ([], [])


WORKER = """
import os, sys
from data_bridge import kv
from data_bridge.kv.tasks import Tasks
tasks = Tasks(kv.connect(sys.argv[1]), lease=0.3, backoff=0.01, max_tries=100)
while (task := tasks.claim(timeout=2)) is not None:
    if task.payload % 10 == 3 and task.tries == 1:
        os._exit(9)
    tasks.succeed(task, task.payload)
"""


def test_workers_die_and_no_task_is_lost(own_server: Any) -> None:
    with kv.connect(own_server.url("tasks")) as store:
        tasks = Tasks(store)
        names = [tasks.create(number) for number in range(50)]
        command = [sys.executable, "-c", WORKER, own_server.url("tasks")]
        workers = [subprocess.Popen(command) for _ in range(8)]
        assert [tasks.wait(name, timeout=60).result for name in names] == list(range(50))
        assert sorted(worker.wait(timeout=60) for worker in workers) == [0] * 3 + [9] * 5


def test_the_asynchronous_class(server: Any) -> None:
    async def body() -> None:
        async with kv.aio.connect(server.url()) as store:
            await store.clear("task")
            tasks = AsyncTasks(store, backoff=0.01)
            waiting = asyncio.ensure_future(tasks.claim("w", timeout=10))
            name = await tasks.create(7)
            task = await waiting
            assert task is not None
            assert await tasks.retry(task, "once more")
            again = await tasks.claim(timeout=5)
            assert again is not None
            assert (again.error, again.tries) == ("once more", 2)
            await tasks.succeed(await tasks.heartbeat(again), 8)
            assert (await tasks.wait(name)).result == 8
            other = await tasks.create()
            failing = await tasks.claim()
            assert failing is not None
            await tasks.fail(failing, "no")
            assert [found.id for found in await tasks.in_state(FAILURE)] == [other]
            assert await tasks.requeue_expired() == 0
            found = await tasks.get(name)
            assert found is not None
            assert found.status == SUCCESS
            with pytest.raises(kv.ConflictError):
                await tasks.create(task_id=name)

    asyncio.run(body())


def test_a_claim_that_is_cancelled_on_its_way_costs_nothing(server: Any) -> None:
    """The store may have the claim already: the task waited for the end of a lease that nobody had, and lost a try."""

    async def test() -> None:
        async with kv.aio.connect(server.url("tasks")) as store:
            for turns in range(40):
                tasks = AsyncTasks(store, f"cancelled-{turns}-{time.time_ns()}", max_tries=1)
                await tasks.create()
                claiming = asyncio.create_task(tasks.claim())
                for _ in range(turns % 20):
                    await asyncio.sleep(0)
                claiming.cancel()
                outcomes = await asyncio.gather(claiming, return_exceptions=True)
                if isinstance(outcomes[0], asyncio.CancelledError):
                    again = await tasks.claim()
                    assert again is not None, turns
                    assert again.tries == 1

    asyncio.run(test())


def test_an_interrupted_claim_costs_nothing(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    created, kind = tasks.create(), type(tasks.store.pipeline())
    real = kind.execute

    def interrupted(pipe: Any) -> None:
        monkeypatch.setattr(kind, "execute", real)
        real(pipe)
        raise KeyboardInterrupt

    monkeypatch.setattr(kind, "execute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tasks.claim()
    again = claimed(tasks)
    assert (again.id, again.tries) == (created, 1)


@pytest.mark.parametrize("kind", [Tasks, AsyncTasks])
@pytest.mark.parametrize(
    "options", [{"lease": 0}, {"lease": -1}, {"lease": math.nan}, {"max_tries": 0}, {"keep": 0}]
)
def test_a_task_has_a_lease_and_a_try(kind: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        kind(kv.open(), "mail", **options)


def test_both_classes_have_the_same_methods() -> None:
    def shape(cls: type) -> dict[str, Any]:
        methods = inspect.getmembers(cls, inspect.isfunction)
        found = {name: inspect.signature(method).parameters for name, method in methods if name != "__init__"}
        assert len(found) > 10
        return {name: [(p.name, p.default, p.kind) for p in given.values()] for name, given in found.items()}

    assert shape(Tasks) == shape(AsyncTasks)
