"""Dramatiq's results and rate limiters, with and without real workers."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from data_bridge import kv
from data_bridge.kv.dramatiq import RateLimiterBackend, ResultBackend
from dramatiq.brokers.stub import StubBroker
from dramatiq.rate_limits import Barrier, BucketRateLimiter, ConcurrentRateLimiter, WindowRateLimiter
from dramatiq.results import ResultFailure, ResultMissing, Results, ResultTimeout

WORKERS = Path(__file__).parent / "workers"
Point = namedtuple("Point", "x y")


def message(number: int = 0) -> Any:
    return dramatiq.Message("default", "actor", (), {}, {}, message_id=str(number))


@pytest.fixture
def results(store: Any) -> ResultBackend:
    """Results in a store of either kind."""
    return ResultBackend(client=store)


@pytest.fixture
def limits(store: Any) -> RateLimiterBackend:
    """Rate limits in a store of either kind."""
    return RateLimiterBackend(client=store)


@pytest.mark.parametrize("value", [None, [], {}, 0, "", {"a": (Decimal("1.10"), b"x")}, {1, 2}])
def test_results_keep_their_types(results: ResultBackend, value: Any) -> None:
    results.store_result(message(), value, 60_000)
    assert repr(results.get_result(message())) == repr(value)
    assert repr(results.get_result(message(), block=True, timeout=0)) == repr(value)
    assert 59 < results.client.ttl(results.build_message_key(message())) <= 60  # type: ignore[operator]


def test_subclasses_and_encoders(results: ResultBackend) -> None:
    results.store_result(message(), [Point(1, 2)], 60_000)
    assert results.get_result(message()) == [(1, 2)]
    encoded = ResultBackend(
        client=results.client, encoder=dramatiq.JSONEncoder(), use_namespace_prefix_keys=True
    )
    encoded.store_result(message(), {"a": (1, 2)}, 60_000)
    assert encoded.get_result(message()) == {"a": [1, 2]}
    assert isinstance(results.client.get("dramatiq-results:default:actor:0")["result"], bytes)


def test_missing_results(results: ResultBackend) -> None:
    with pytest.raises(ResultMissing):
        results.get_result(message())
    start = time.monotonic()
    for timeout in (0, *[5] * 30):
        with pytest.raises(ResultTimeout):
            results.get_result(message(), block=True, timeout=timeout)
    assert time.monotonic() - start < 15, "each was rounded up to a second"


def waited_for(results: ResultBackend) -> None:
    while results.get_result(message(), block=True, timeout=5000) == "old":
        pass


def test_results_are_told(results: ResultBackend) -> None:
    key = results.build_message_key(message())
    results.client.set(key, {"result": "old"}, ttl=0.01)
    threading.Timer(0.1, lambda: results.store_exception(message(), ValueError("no"), 1000)).start()
    with pytest.raises(ResultFailure, match="no"):
        waited_for(results)


def test_a_wait_outlives_a_restart_of_the_server(own_server: Any) -> None:
    again: list[Any] = []

    def restart() -> None:
        own_server.kill()
        again.append(type(own_server)(port=own_server.port))
        with kv.connect(own_server.url()) as client:
            ResultBackend(client=client).store_result(message(), "after", 60_000)

    with kv.connect(own_server.url()) as client:
        results = ResultBackend(client=client)
        thread = threading.Timer(0.05, restart)
        thread.start()
        assert results.get_result(message(), block=True, timeout=60_000) == "after"
        thread.join()
        again[0].kill()
        with pytest.raises(kv.ConnectionError):
            results.get_result(message(), block=True, timeout=150)


def test_a_result_is_stored_once_the_server_is_back(own_server: Any) -> None:
    own_server.kill()
    again: list[Any] = []
    thread = threading.Timer(0.2, lambda: again.append(type(own_server)(port=own_server.port)))
    with kv.connect(own_server.url()) as client:
        with pytest.raises(kv.ConnectionError):
            ResultBackend(client=client, patience=0).store_result(message(), "lost", 60_000)
        thread.start()
        results = ResultBackend(client=client)
        results.store_result(message(), "kept", 60_000)
        assert results.get_result(message()) == "kept"
    thread.join()
    again[0].kill()


def test_a_wait_ends_with_its_client(own_server: Any) -> None:
    client = kv.connect(own_server.url())
    client.close()
    with pytest.raises(kv.ClosedError):
        RateLimiterBackend(client=client).wait("nobody", None)


def test_steps_of_limits(limits: RateLimiterBackend) -> None:
    assert [limits.add("k", 1, 10_000), limits.add("k", 2, 10_000)] == [True, False]
    assert [limits.incr("k", 1, 2, 50_000), limits.incr("k", 1, 2, 50_000)] == [True, False]
    assert 49 < (limits.client.ttl("k") or 0) <= 50
    assert [limits.decr("k", 1, 1, 10_000), limits.decr("k", 1, 1, 10_000)] == [True, False]
    assert limits.client.get("k") == 1
    assert not limits.incr("new", 3, 2, 1000)
    assert not limits.client.exists("new")


def test_sums(limits: RateLimiterBackend) -> None:
    keys = ["a", "b", "c"]
    limits.add("a", 3, 60_000)
    assert [limits.incr_and_sum("b", lambda: keys, 1, 5, 60_000) for _ in range(3)] == [True, True, False]
    assert limits.client.get_many(keys) == {"a": 3, "b": 2}
    assert 59 < (limits.client.ttl("b") or 0) <= 60
    assert not limits.incr_and_sum("d", list, 9, 5, 1000)


def test_no_sum_passes_its_maximum(limits: RateLimiterBackend) -> None:
    keys = ["a", "b", "c"]

    def take(number: int) -> bool:
        return limits.incr_and_sum(keys[number % 3], lambda: keys, 1, 20, 60_000)

    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(take, range(60)))
    assert taken.count(True) == 20
    assert sum(limits.client.get_many(keys).values()) == 20


def test_limiters_and_barriers(limits: RateLimiterBackend) -> None:
    concurrent = ConcurrentRateLimiter(limits, "concurrent", limit=2)
    with concurrent.acquire(), concurrent.acquire(), concurrent.acquire(raise_on_failure=False) as third:
        assert not third
    window = WindowRateLimiter(limits, "window", limit=3, window=30)
    bucket = BucketRateLimiter(limits, "bucket", limit=3, bucket=3_600_000)
    for limiter in (window, bucket):
        acquired = []
        for _ in range(5):
            with limiter.acquire(raise_on_failure=False) as got:
                acquired.append(got)
        assert acquired == [True] * 3 + [False] * 2
    barrier = Barrier(limits, "barrier")
    assert barrier.create(parties=3)
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda _: barrier.wait(timeout=10_000), range(3))) == [True] * 3
    assert not limits.wait("nobody", 20)


def test_with_dramatiqs_own_worker(store: Any) -> None:
    broker = StubBroker()
    broker.add_middleware(Results(backend=ResultBackend(client=store)))
    dramatiq.set_broker(broker)

    @dramatiq.actor(broker=broker, store_results=True)
    def double(value: Any) -> Any:
        return value * 2

    worker = dramatiq.Worker(broker, worker_timeout=10, worker_threads=4)
    worker.start()
    try:
        sent = [double.send(number) for number in range(200)]
        assert [one.get_result(block=True, timeout=20_000) for one in sent] == [2 * n for n in range(200)]
        group = dramatiq.group([double.message(number) for number in range(20)]).run()
        assert list(group.get_results(block=True, timeout=20_000)) == [2 * number for number in range(20)]
        pipe = (double.message(1) | double.message_with_options(args=())).run()
        assert pipe.get_result(block=True, timeout=20_000) == 4
    finally:
        worker.stop()
        broker.close()


@pytest.fixture
def actors(broker: str, own_server: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module of the actors, with real worker processes that run them."""
    monkeypatch.setenv("BROKER", broker)
    monkeypatch.setenv("BACKEND", own_server.url("tasks"))
    monkeypatch.syspath_prepend(str(WORKERS))
    path = os.pathsep.join([str(WORKERS), *filter(None, [os.environ.get("PYTHONPATH")])])
    monkeypatch.delitem(sys.modules, "dramatiq_tasks", raising=False)
    command = [sys.executable, "-m", "dramatiq", "dramatiq_tasks", "--processes", "2", "--threads", "4"]
    running = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.DEVNULL)
    import dramatiq_tasks

    yield dramatiq_tasks
    running.terminate()
    assert running.wait(timeout=60) == 0


def test_real_workers(actors: Any, own_server: Any) -> None:
    sent = [actors.add.send(number, 1) for number in range(1000)]
    assert [one.get_result(block=True, timeout=60_000) for one in sent] == list(range(1, 1001))
    echoed = actors.echo.send([1, 2]).get_result(block=True, timeout=60_000)
    assert (echoed["price"], echoed["pair"]) == (Decimal("19.90"), (1, b"two"))
    with pytest.raises(ResultFailure, match="too much"):
        actors.refuse.send().get_result(block=True, timeout=60_000)
    limited = [actors.alone.send(number) for number in range(20)]
    assert [one.get_result(block=True, timeout=60_000) for one in limited] == [1] * 20
    with kv.connect(own_server.url("tasks")) as client:
        assert all(client.ttl(key) for key in client.scan() if key != "inside")
