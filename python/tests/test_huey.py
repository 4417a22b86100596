"""Huey's storage: its own tests of storages, and a real consumer."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from data_bridge import kv
from data_bridge.kv.huey import DataBridgeHuey, Storage
from huey.constants import EmptyData
from huey.tests.base import BaseTestCase
from huey.tests.test_storage import StorageTests

WORKERS = Path(__file__).parent / "workers"
NAMES = sorted(name for name in vars(StorageTests) if name.startswith("test_"))


class StorageCase(StorageTests, BaseTestCase):
    """Huey's tests on a store that the fixture below opens."""

    __test__ = False
    opened: Any = None

    def get_huey(self) -> Any:
        """A Huey on our storage."""
        return self.opened


@pytest.mark.parametrize("name", NAMES)
def test_hueys_own(store: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    huey = DataBridgeHuey("own", client=store, read_timeout=0.05, utc=False)
    monkeypatch.setattr(StorageCase, "opened", huey)
    result = unittest.TestResult()
    StorageCase(name).run(result)
    assert (result.errors, result.failures, result.skipped, result.testsRun) == ([], [], [], 1)


def test_there_are_tests_of_huey() -> None:
    assert len(NAMES) > 8


def test_messages_are_taken_once_in_their_order(store: Any) -> None:
    storage = Storage("q", client=store, read_timeout=0.05)
    for _ in range(2):
        storage.enqueue(b"same")
    assert [storage.dequeue(), storage.dequeue(), storage.dequeue()] == [b"same", b"same", None]
    for number in range(200):
        storage.enqueue(b"%d" % number)
    with ThreadPoolExecutor(4) as pool:
        taken = [item or b"" for item in pool.map(lambda _: storage.dequeue(), range(200))]
    assert sorted(taken) == sorted(b"%d" % number for number in range(200))
    storage.add_to_schedule(b"due", datetime.now() - timedelta(seconds=1))
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda _: storage.read_schedule(datetime.now()), range(4)))
    assert sorted(read) == [[], [], [], [b"due"]]


def test_an_empty_queue_and_results_are_waited_for(store: Any) -> None:
    storage = Storage("w", client=store, read_timeout=20)
    threading.Timer(0.05, lambda: storage.enqueue(b"x")).start()
    start = time.monotonic()
    assert storage.dequeue() == b"x"
    threading.Timer(0.05, lambda: storage.put_data("k", b"v", is_result=True)).start()
    assert storage.wait_result("k", timeout=20)
    assert time.monotonic() - start < 10
    assert 86_000 < store.ttl("huey.result.w.k") <= 86_400
    storage.put_data("k", b"kept")
    assert store.ttl("huey.result.w.k") is None
    assert (storage.pop_data("k"), storage.pop_data("k")) == (b"kept", EmptyData)


def test_results_come_through_an_outage_of_the_server(own_server: Any) -> None:
    """Huey logs a result that can't be stored and goes on; who waited for one met a ConnectionError."""
    again: list[Any] = []

    def restart() -> None:
        own_server.kill()
        threading.Event().wait(0.1)
        again.append(type(own_server)(port=own_server.port))

    waiting, storing = (Storage("outage", url=own_server.url()) for _ in range(2))
    with ThreadPoolExecutor(2) as pool:
        ready = pool.submit(waiting.wait_result, "key", timeout=60)
        restarted = pool.submit(restart)
        while own_server.process.poll() is None:
            time.sleep(0.001)
        storing.put_data("key", b"result", is_result=True)
        assert ready.result(60)
        restarted.result(60)
    assert storing.pop_data("key") == b"result"
    again[0].kill()
    with pytest.raises(kv.ConnectionError):
        Storage("outage", url=own_server.url(), patience=0).put_data("key", b"lost", is_result=True)


def test_a_real_consumer(own_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKEND", own_server.url("tasks"))
    monkeypatch.syspath_prepend(str(WORKERS))
    monkeypatch.delitem(sys.modules, "huey_tasks", raising=False)
    path = os.pathsep.join([str(WORKERS), *filter(None, [os.environ.get("PYTHONPATH")])])
    import huey_tasks as module

    command = [sys.executable, "-m", "huey.bin.huey_consumer", "huey_tasks.huey", "-w", "4", "-k", "thread"]
    running = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        sent = [module.add(number, 1) for number in range(300)]
        assert [one.get(blocking=True, timeout=60) for one in sent] == list(range(1, 301))
        module.third_time("tries")
        module.huey.storage.client.wait("huey.counters.tests", field="tries", until=3, timeout=60)
        scheduled = module.add.schedule((20, 22), delay=0.1)
        assert scheduled.get(blocking=True, timeout=60) == 42
    finally:
        running.terminate()
        running.wait(timeout=60)
    with kv.connect(own_server.url("tasks")) as client:
        assert [key for key in client.scan("huey.result.") if client.ttl(key) is None] == []
    module.huey.storage.close()
