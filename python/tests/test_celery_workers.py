"""Celery's real workers on a real server: tasks, groups and chords by the thousand, restarts, and what is left over."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chord, group
from celery.result import GroupResult
from data_bridge import kv
from data_bridge._native import opcode as op
from data_bridge.kv.celery import backend as backends

WORKERS = Path(__file__).parent / "workers"
READY_SECONDS = 60


def environment(broker: str, backend: str) -> dict[str, str]:
    path = os.pathsep.join([str(WORKERS), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "BROKER": broker, "BACKEND": backend, "PYTHONPATH": path}


@contextmanager
def worker(broker: str, backend: str, pool: str, concurrency: int) -> Iterator[subprocess.Popen[str]]:
    """A worker process, ready for tasks; SIGTERM ends it, and it must end well."""
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "celery_tasks",
        "worker",
        "-P",
        pool,
        "-c",
        str(concurrency),
    ]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "INFO"]
    running = subprocess.Popen(
        [*command, *quiet],
        env=environment(broker, backend),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert running.stderr is not None
    for line in running.stderr:
        if "ready." in line:
            break
    else:
        pytest.fail(f"the worker ended with {running.wait()}")
    # What it logs is read, or it would block.
    reader = subprocess.Popen(["cat"], stdin=running.stderr, stdout=subprocess.DEVNULL)
    try:
        yield running
        running.terminate()
        assert running.wait(timeout=60) == 0
    finally:
        running.kill()
        running.wait()
        reader.wait(timeout=60)


class Site:
    """A program that sends tasks: its app, the tasks by name, and a client that looks at the store."""

    def __init__(self, broker: str, server: Any) -> None:
        self.backend = f"data-bridge://127.0.0.1:{server.port}/tasks"
        self.app = Celery("celery_tasks", broker=broker, backend=self.backend, set_as_current=False)
        self.app.conf.result_backend_always_retry = True
        self.store = kv.connect(server.url("tasks"))

    def task(self, name: str) -> Callable[..., Any]:
        """A signature of a task by its name."""
        return lambda *args: self.app.signature(f"celery_tasks.{name}", args)

    def fact(self, name: str) -> int:
        """A number that the server tells of its clients."""
        text = self.store._call(op.INFO, ("clients",))
        return int(text.split(f"{name}:")[1].split("\r")[0])

    def close(self) -> None:
        """Ends every connection."""
        self.app.backend.result_consumer.stop()
        self.app.close()
        self.store.close()
        while backends._stores:
            backends._stores.popitem()[1].close()


@pytest.fixture
def site(broker: str, own_server: Any) -> Iterator[Site]:
    """A program with a store of its own."""
    opened = Site(broker, own_server)
    opened.store.ping()
    yield opened
    opened.close()


def run_tasks(site: Site, rounds: int) -> list[Any]:
    """Sends groups, chords of every shape and single tasks, and checks all results. Answers the results."""
    add, total = site.task("add"), site.task("total")
    results: list[Any] = []
    for number in range(rounds):
        single = group(add(number, index) for index in range(20)).apply_async()
        simple = chord(group(add(number, index) for index in range(20)), total()).apply_async()
        nested = chord(
            group(add(1, 1), group(add(index, 1) for index in range(5)), add(2, 2) | group(add(3), add(4))),
            total(),
        ).apply_async()
        chained = (add(number, 1) | group(add(index) for index in range(5)) | total()).apply_async()
        results += [
            (single, [number + index for index in range(20)]),
            (simple, 20 * number + 190),
            (nested, 2 + 15 + (7 + 8)),
            (chained, 5 * (number + 1) + 10),
        ]
    for result, expected in results:
        assert result.get(timeout=100) == expected
    return [result for result, _ in results]


@pytest.mark.parametrize(
    ("pool", "concurrency", "rounds"), [("prefork", 2, 20), ("threads", 4, 20), ("gevent", 20, 3)]
)
def test_thousands_of_tasks_and_nothing_is_left(
    broker: str, site: Site, pool: str, concurrency: int, rounds: int
) -> None:
    with worker(broker, site.backend, pool, concurrency):
        results = run_tasks(site, 2)
        connections = site.fact("connected_clients")
        results += run_tasks(site, rounds)
        assert site.fact("connected_clients") <= connections + concurrency
        assert site.fact("blocked_clients") == 0
        assert site.app.backend.result_consumer._waits == {}
        check_results(site)
    for result in results:
        result.forget()
    left = [key for key in site.store.scan("celery-") if site.store.kind(key) == "hash"]
    chords = [key for key in left if key.endswith(".chord")]
    ends = [site.store.get(key) for key in chords]
    assert ends.count({"chord": "done"}) >= 3 * (2 + rounds)
    # For the group at the end of a chain in a header Celery tells a size that no part ever asks for.
    assert all(end in ({"chord": "done"}, {"chord": "counting", "size": 2}) for end in ends)
    assert all(0 < (site.store.ttl(key) or 0) <= 86400 for key in left)
    site.close()
    with kv.connect(site.store._address.shown()) as last:
        end = time.monotonic() + 20
        while "connected_clients:1\r\n" not in last._call(op.INFO, ("clients",)):
            assert time.monotonic() < end, last._call(op.INFO, ("clients",))


def check_results(site: Site) -> None:
    """Types, failures, retries, progress, replaced tasks and chords that a task sends."""
    moved = site.task("echo")([1, (Decimal("1.0"), None)]).apply_async()
    sent = moved.get(timeout=60)
    assert (sent["price"], sent["pair"]) == (Decimal("19.90"), (1, b"two"))
    assert moved.name == "celery_tasks.echo"
    failed = site.task("refuse")(3).apply_async()
    with pytest.raises(Exception, match="too much") as raised:
        failed.get(timeout=60)
    assert (type(raised.value).__name__, raised.value.args[1]) == ("RefusedError", Decimal(3))
    with pytest.raises(Exception, match="can't be stored"):
        site.task("unstorable")().apply_async().get(timeout=60)
    assert site.task("third_time")().apply_async().get(timeout=60) == 2
    assert site.task("replaced")(10).apply_async().get(timeout=60) == [10, 11, 12]
    body = site.task("launches")(5).apply_async().get(timeout=60)
    assert site.app.AsyncResult(body).get(timeout=60) == 15
    last: Any = site.task("long_chain")(40).apply_async()
    assert site.app.AsyncResult(last.get(timeout=60)).get(timeout=60) == 40
    assert [child.parent for child in last.children] == [None]
    broken: Any = chord([site.task("add")(1, 1), site.task("refuse")(1)], site.task("total")()).apply_async()
    with pytest.raises(Exception, match="Dependency"):
        site.app.AsyncResult(broken.id).get(timeout=60)
    told: list[Any] = []
    assert (
        site.task("steps")(3)
        .apply_async()
        .get(timeout=60, on_message=lambda meta: told.append(meta["status"]))
        == 3
    )
    assert (told[0], told[-1]) == ("PROGRESS", "SUCCESS")
    saved = group(site.task("add")(1, index) for index in range(3)).apply_async()
    saved.save()
    assert GroupResult.restore(saved.id, app=site.app).get(timeout=60) == [1, 2, 3]


def test_a_restart_of_the_server_in_the_middle(broker: str, own_server: Any) -> None:
    site = Site(broker, own_server)
    again = None
    try:
        with worker(broker, site.backend, "prefork", 2):
            running = site.task("steps")(40).apply_async()
            site.store.wait(f"celery-task-meta-{running.id}", field="status", until="PROGRESS", timeout=60)
            own_server.kill()
            waiting = [site.task("add")(number, 1).apply_async() for number in range(50)]
            again = type(own_server)(port=own_server.port)
            assert running.get(timeout=100) == 40
            assert [result.get(timeout=100) for result in waiting] == list(range(1, 51))
            run_tasks(site, 1)
    finally:
        site.close()
        if again is not None:
            again.kill()


def test_under_gevent_results_are_waited_for_together(broker: str, site: Site) -> None:
    code = """
from gevent import monkey
monkey.patch_all()
import gevent
from celery import group
from celery_tasks import add, app
def one(number):
    return sum(group(add.s(number, index) for index in range(5)).apply_async().get(timeout=60))
jobs = [gevent.spawn(one, number) for number in range(20)]
gevent.joinall(jobs, raise_error=True)
print([job.value for job in jobs] == [5 * number + 10 for number in range(20)])
seen = []
add.delay(1, 2).then(lambda result: seen.append(result.get()))
while not seen:
    gevent.sleep(0.01)
print(seen)
"""
    with worker(broker, site.backend, "threads", 4):
        ended = subprocess.run(
            [sys.executable, "-c", code],
            env=environment(broker, site.backend),
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    assert (ended.stdout, ended.returncode) == ("True\n[3]\n", 0), ended.stderr


def test_forked_children_wait_for_themselves(broker: str, site: Site) -> None:
    add = site.task("add")
    with worker(broker, site.backend, "threads", 2):
        assert add(1, 1).apply_async().get(timeout=60) == 2
        waiting = add(2, 2).apply_async()
        site.app.backend.add_pending_result(waiting)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                site.app._after_fork()
                assert add(3, 3).apply_async().get(timeout=60) == 6
                assert site.app.AsyncResult(waiting.id).get(timeout=60) == 4
                code = 0
            finally:
                os._exit(code)
        assert waiting.get(timeout=60) == 4
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
