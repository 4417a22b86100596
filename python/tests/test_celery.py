"""Celery's result backend without workers: what is stored, who is told, and how often a chord sends its body."""

from __future__ import annotations

import enum
import socket
import threading
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, time, timedelta, timezone
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from celery import Celery, states
from celery import exceptions as celery_exceptions
from celery.result import AsyncResult, GroupResult, ResultSet
from data_bridge import kv
from data_bridge.kv.celery import DataBridgeBackend
from data_bridge.kv.celery import backend as backends
from data_bridge.kv.celery import chords as chords_of_celery
from data_bridge.kv.celery import consumer as consumer_of_celery
from kombu.exceptions import EncodeError

Point = namedtuple("Point", "x y")


class Colour(str, enum.Enum):  # noqa: UP042 - as programs have them that are older than StrEnum
    """A text that is shown as something else."""

    RED = "red"


class Size(enum.IntEnum):
    """A number with a name."""

    BIG = 2


opened: list[Celery] = []


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    """Each test opens its stores anew."""
    yield
    while opened:
        app = opened.pop()
        app.backend.result_consumer.stop()
        app.close()
    while backends._stores:
        backends._stores.popitem()[1].close()


@pytest.fixture(params=["memory", "remote"])
def url(request: pytest.FixtureRequest, server: Any) -> str:
    """Where results go: a store of this process, or a server."""
    if request.param == "memory":
        return f"data-bridge+memory://{uuid4()}"
    with kv.connect(server.url("tasks")) as client:
        client.clear("celery")
    return f"data-bridge://127.0.0.1:{server.port}/tasks"


def app_with(url: str, **conf: Any) -> Celery:
    app = Celery(f"test-{uuid4()}", broker="memory://", backend=url, set_as_current=False)
    app.conf.update(conf)
    opened.append(app)
    return app


@pytest.fixture
def app(url: str) -> Celery:
    """A program whose results are in a store."""
    return app_with(url)


TYPED = {
    "int": 2**80,
    "float": -0.0,
    "decimal": Decimal("1.10"),
    "bytes": b"\x00\xff",
    "bool": True,
    "none": None,
    "moment": datetime(2026, 1, 2, 3, 4, 5, 6),
    "delta": timedelta(microseconds=7),
    "uuid": UUID(int=7),
    "pair": (1, [2, {"three": {4}}]),
    5: "a number as a field",
    (1, None): frozenset({(3, b"4")}),
    "twice": datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
    "offset": datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    "time": time(1, 2, 3, 4),
    "no numbers": [float("nan"), float("inf"), float("-inf")],
}


def test_the_url_finds_the_backend(app: Celery) -> None:
    assert type(app.backend) is DataBridgeBackend
    assert app.backend.client is DataBridgeBackend(app.backend.url, app=app).client
    again = __import__("pickle").loads(__import__("pickle").dumps(app.AsyncResult("some")))
    assert again.id == "some"


def test_results_keep_their_types(app: Celery) -> None:
    app.backend.store_result("t", TYPED, states.SUCCESS)
    result = app.AsyncResult("t").get(timeout=5)
    assert repr(result) == repr(TYPED)
    assert {name: type(value) for name, value in result.items()} == {n: type(v) for n, v in TYPED.items()}
    assert isinstance(app.AsyncResult("t").date_done, datetime)
    stored = app.backend.client.get("celery-task-meta-t")
    assert (stored["status"], repr(stored["result"])) == ("SUCCESS", repr(TYPED))


def test_subclasses_of_builtins_are_stored_as_those(app: Celery) -> None:
    given = [Point(1, 2), OrderedDict(a=(Point(3, 4),)), frozenset({Point(5, 6)})]
    app.backend.store_result("t", given, states.SUCCESS)
    assert app.backend.get_result("t") == [(1, 2), {"a": ((3, 4),)}, frozenset({(5, 6)})]
    assert type(app.backend.get_result("t")[0]) is tuple
    app.backend.store_result(
        "u", [Colour.RED, Size.BIG, True, OrderedDict({Colour.RED: None})], states.SUCCESS
    )
    assert repr(app.backend.get_result("u")) == "['red', 2, True, {'red': None}]"


@pytest.mark.parametrize(
    "value", [object(), Decimal("NaN"), "\ud800", Decimal("1." + "1" * 40), [{1: {(lambda: 1,)}}]]
)
def test_what_nothing_can_store_is_celerys_encode_error(app: Celery, value: Any) -> None:
    with pytest.raises(EncodeError):
        app.backend.store_result("t", value, states.SUCCESS)
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(EncodeError):
        app.backend.store_result("t", endless, states.SUCCESS)
    with pytest.raises(EncodeError, match="64 MiB"):
        app.backend.store_result("t", b"x" * (65 << 20), states.SUCCESS)
    assert app.backend.get_state("t") == states.PENDING


class BrokenError(Exception):
    """A failure that a module defines."""


def test_exceptions_are_rebuilt(app: Celery) -> None:
    error = BrokenError("why", Decimal("1.50"), object())
    app.backend.store_result("t", error, states.FAILURE, traceback="the trace")
    with pytest.raises(BrokenError) as raised:
        app.AsyncResult("t").get(timeout=5)
    assert raised.value.args[:2] == ("why", Decimal("1.50"))
    assert raised.value.args[2].startswith("<object object at ")
    assert app.AsyncResult("t").traceback == "the trace"
    app.backend.mark_as_retry("r", BrokenError("again"))
    assert isinstance(app.AsyncResult("r").result, BrokenError)


def test_a_final_state_stays(app: Celery) -> None:
    backend = app.backend
    broken = BrokenError()
    steps = [
        ("PENDING", 0),
        ("STARTED", 1),
        ("PROGRESS", 2),
        ("RETRY", broken),
        ("FAILURE", broken),
        ("HALF", 5),
    ]
    for state, value in [*steps, ("SUCCESS", 6)]:
        backend.store_result("t", value, state)
        assert backend.get_task_meta("t", cache=False)["status"] == state
    backend.store_result("t", 7, states.FAILURE)
    backend.store_result("t", 8, "PROGRESS")
    meta = backend.get_task_meta("t", cache=False)
    assert (meta["status"], meta["result"]) == (states.SUCCESS, 6)


def test_of_many_ends_of_a_task_one_stays(app: Celery) -> None:
    def finish(number: int) -> None:
        state = states.FAILURE if number % 3 else states.SUCCESS
        value: Any = number if state == states.SUCCESS else BrokenError(number)
        app.backend.store_result("t", value, state)

    versions = []
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(finish, range(60)))
        versions = list(
            pool.map(lambda _: app.backend.client.get_versioned("celery-task-meta-t")[1], range(8))
        )
    assert app.backend.get_state("t") == states.SUCCESS
    assert len(set(versions)) == 1


def test_expiry(url: str) -> None:
    app = app_with(url, result_expires=1000, result_failure_expires=50, result_chord_expires=200)
    app.backend.store_result("good", 1, states.SUCCESS)
    app.backend.store_result("bad", BrokenError(), states.FAILURE)
    GroupResult("g", [app.AsyncResult("good")], app=app).save()
    app.backend.apply_chord(("g", []), None)
    client = app.backend.client
    keys = [
        "celery-task-meta-good",
        "celery-task-meta-bad",
        "celery-taskset-meta-g",
        "celery-taskset-meta-g.chord",
    ]
    assert [round(client.ttl(key), -1) for key in keys] == [1000, 50, 1000, 200]
    lasting = app_with(url, result_expires=None, result_failure_expires=50)
    lasting.backend.store_result("turns", BrokenError(), states.FAILURE)
    assert client.ttl("celery-task-meta-turns") is not None
    lasting.backend.store_result("turns", 1, states.SUCCESS)
    assert client.ttl("celery-task-meta-turns") is None


def test_forget_and_exists(app: Celery) -> None:
    result = app.AsyncResult("t")
    assert not result.exists()
    app.backend.store_result("t", None, states.PENDING)
    assert result.exists()
    result.forget()
    assert not result.exists()
    assert app.AsyncResult("t").state == states.PENDING


def test_extended_results(url: str) -> None:
    app = app_with(url, result_extended=True)
    request = SimpleNamespace(
        id="t", task="tasks.add", args=(1, Decimal(2)), kwargs={"a": b"b"}, hostname="w", retries=1, children=[],
        delivery_info={"routing_key": "q"}, group=None, parent_id=None, chord=None, ignore_result=False,
    )  # fmt: skip
    app.backend.mark_as_done("t", 3, request=request)
    result = app.AsyncResult("t")
    found = (result.name, result.args, result.kwargs, result.worker, result.retries, result.queue)
    assert found == ("tasks.add", (1, Decimal(2)), {"a": b"b"}, "w", 1, "q")


def chained(app: Celery, length: int) -> AsyncResult:
    result = None
    for number in range(length):
        result = AsyncResult(f"r{number}", app=app, parent=result)
    assert result is not None
    return result


def test_long_chains_are_children_and_groups(app: Celery) -> None:
    result = chained(app, 100)
    request = SimpleNamespace(children=[result], group=None, parent_id=None, chord=None)
    app.backend.store_result("t", 1, states.SUCCESS, request=request)
    (child,) = app.AsyncResult("t").children
    assert child.as_tuple() == result.as_tuple()
    tree = GroupResult("g", [GroupResult("inner", [result], app=app), result], parent=result, app=app)
    tree.save()
    assert GroupResult.restore("g", app=app).as_tuple() == tree.as_tuple()
    GroupResult.restore("g", app=app).delete()
    assert GroupResult.restore("g", app=app) is None


def later(call: Callable[[], object], seconds: float = 0.05) -> None:
    threading.Timer(seconds, call).start()


def test_waiters_are_told(app: Celery) -> None:
    backend, seen = app.backend, []

    def told(meta: Any) -> None:
        seen.append(meta["status"])
        if meta["status"] == "PROGRESS":
            later(lambda: backend.store_result("t", "end", states.SUCCESS))

    later(lambda: backend.store_result("t", {"step": 1}, "PROGRESS"))
    assert app.AsyncResult("t").get(timeout=10, on_message=told) == "end"
    assert seen == ["PROGRESS", "SUCCESS"]


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_short_timeouts_are_kept(app: Celery, timeout: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer_of_celery, "INTERVAL", 20.0)
    start = datetime.now()
    with pytest.raises(celery_exceptions.TimeoutError):
        app.AsyncResult("nothing").get(timeout=timeout)
    with pytest.raises(celery_exceptions.TimeoutError):
        ResultSet([app.AsyncResult("nothing")], app=app).get(timeout=timeout)
    assert datetime.now() - start < timedelta(seconds=15)
    app.backend.store_result("there", 1, states.SUCCESS)
    assert app.AsyncResult("there").get(timeout=0) == 1


def test_looking_leaves_nothing_behind(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    consumer = app.backend.result_consumer
    monkeypatch.setattr(type(consumer), "_wait_for", lambda *args: asked.append(args))
    results = [app.AsyncResult(f"t{number}") for number in range(10)]
    for result in results:
        with pytest.raises(celery_exceptions.TimeoutError):
            result.get(timeout=0)
    for result in results:
        app.backend.store_result(result.id, 1, states.SUCCESS)
        assert result.get(timeout=0) == 1
    assert (consumer._waits, consumer._unasked, asked) == ({}, {}, [])


def test_a_forgotten_task_is_waited_for_again(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Semaphore(0)
    wait_for = app.backend.result_consumer._wait_for

    def waiting_for(*args: Any) -> None:
        wait_for(*args)
        asked.release()

    def forget_and_store() -> None:
        for _ in range(2):  # for the state that is there, and for the next one
            asked.acquire(timeout=10)
        app.backend.client.delete("celery-task-meta-t")
        asked.acquire(timeout=10)
        app.backend.store_result("t", 2, states.SUCCESS)

    monkeypatch.setattr(app.backend.result_consumer, "_wait_for", waiting_for)
    app.backend.store_result("t", 1, states.STARTED)
    later(forget_and_store)
    assert app.AsyncResult("t").get(timeout=60) == 2


def test_results_of_a_set_come_as_they_are_ready(app: Celery) -> None:
    ids = [f"t{number}" for number in range(50)]
    results = ResultSet([app.AsyncResult(task_id) for task_id in ids], app=app)
    for number, task_id in enumerate(ids[:10]):
        app.backend.store_result(task_id, number, states.SUCCESS)
    for number, task_id in enumerate(ids[10:], 10):
        later(lambda n=number, t=task_id: app.backend.store_result(t, n, states.SUCCESS))  # type: ignore[misc]
    assert results.get(timeout=20) == list(range(50))
    assert dict(app.backend.get_many(ids, max_iterations=1)).keys() == set(ids)
    missing = [*ids, "later"]
    for most in (None, 3):
        with pytest.raises(celery_exceptions.TimeoutError):
            dict(app.backend.get_many(missing, timeout=0, max_iterations=most))
    later(lambda: app.backend.store_result("later", 0, states.FAILURE))
    assert {task_id for task_id, _ in app.backend.get_many(missing, timeout=20)} == set(missing)


def test_threads_share_a_backend(url: str) -> None:
    app = app_with(url, result_backend_thread_safe=True)
    backend = app.backend

    def round_trip(number: int) -> int:
        later(lambda: backend.store_result(f"t{number}", number, states.SUCCESS), 0.01 * (number % 5))
        return int(app.AsyncResult(f"t{number}").get(timeout=30))

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(round_trip, range(64))) == list(range(64))
    assert backend.result_consumer._waits == {}


def test_results_come_after_a_restart_of_the_server(own_server: Any) -> None:
    app = app_with(f"data-bridge://127.0.0.1:{own_server.port}/tasks", result_backend_always_retry=True)
    backend, again = app.backend, []

    def restart() -> None:
        own_server.kill()
        again.append(type(own_server)(port=own_server.port))
        backend.store_result("t", "after", states.SUCCESS)

    later(restart)
    try:
        assert app.AsyncResult("t").get(timeout=60) == "after"
    finally:
        again[0].kill()


def test_a_wait_outlives_many_lost_connections(own_server: Any) -> None:
    own_server.kill()
    again = []

    def accept() -> None:
        with socket.create_server(("127.0.0.1", own_server.port)) as listener:
            for said in (b"\xdbKV\x01", b"\xdbKV\x01", b"", b"\xdbKV\x01"):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(said)
        again.append(type(own_server)(port=own_server.port))
        with kv.connect(own_server.url("tasks")) as client:
            client.set("celery-task-meta-t", {"status": "SUCCESS", "result": 7, "task_id": "t"})

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        app = app_with(f"data-bridge://127.0.0.1:{own_server.port}/tasks")
        assert app.AsyncResult("t").get(timeout=60) == 7
    finally:
        thread.join()
        again[0].kill()


def test_a_store_waits_for_its_server(own_server: Any) -> None:
    app = app_with(
        f"data-bridge://127.0.0.1:{own_server.port}/tasks",
        result_backend_transport_options={
            "retry_policy": {"max_retries": 1, "interval_start": 0, "interval_step": 0}
        },
    )
    own_server.kill()
    with pytest.raises(kv.ConnectionError):
        app.backend.store_result("t", 1, states.SUCCESS)
    always = app_with(
        f"data-bridge://127.0.0.1:{own_server.port}/tasks",
        result_backend_always_retry=True,
        result_backend_max_retries=3,
        result_backend_transport_options={
            "retry_policy": {"max_retries": 1, "interval_start": 0, "interval_step": 0}
        },
    )
    with pytest.raises(celery_exceptions.BackendStoreError):
        always.backend.store_result("t", 1, states.SUCCESS)


# Chords


class Body:
    """Stands for the callback of a chord and keeps what it was called with."""

    def __init__(self, app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[Any] = []
        self.failed: list[Any] = []
        self.signature = app.signature("tasks.body", options={"task_id": "body"})
        monkeypatch.setattr(app.amqp, "_retry_publish", lambda call, results: self.sent.append(results))
        monkeypatch.setattr(
            app.backend, "chord_error_from_stack", lambda callback, error: self.failed.append(error)
        )

    def part(self, number: int, group: str = "g", task: str | None = None) -> Any:
        """The request of a task of the header."""
        return SimpleNamespace(
            id=task or f"p{number}", group=group, group_index=number, chord=self.signature, children=[]
        )


@pytest.fixture
def body(app: Celery, monkeypatch: pytest.MonkeyPatch) -> Body:
    """The body of a chord."""
    return Body(app, monkeypatch)


def begin(app: Celery, size: int | None, group: str = "g") -> None:
    app.backend.apply_chord((group, [app.AsyncResult(f"p{n}") for n in range(3)]), None)
    if size is not None:
        app.backend.set_chord_size(group, size)


def test_a_storm_of_parts_sends_the_body_once(app: Celery, body: Body) -> None:
    backend, size = app.backend, 40
    for round_number in range(5):
        group = f"g{round_number}"
        begin(app, None, group)
        parts = [body.part(number % size, group) for number in range(size * 3)]

        def returned(number: int, request: Any) -> None:
            if number == 7:
                backend.set_chord_size(request.group, size)
            backend.on_chord_part_return(request, states.SUCCESS, request.group_index)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(returned, range(len(parts)), parts))
        assert body.sent == [list(range(size))] * (round_number + 1)
        for late in parts[:5]:
            backend.on_chord_part_return(late, states.SUCCESS, "late")
        assert backend.client.get(backend._chord_key(group)) == {"chord": "done"}
    assert len(body.sent) == 5
    assert body.failed == []


def test_parts_are_known_by_task_and_place(app: Celery, body: Body) -> None:
    begin(app, 2)
    app.backend.on_chord_part_return(body.part(0, task="same"), states.SUCCESS, "a")
    app.backend.on_chord_part_return(body.part(0, task="same"), states.SUCCESS, "changed")
    assert body.sent == []
    app.backend.on_chord_part_return(body.part(1, task="same"), states.SUCCESS, Decimal("2.0"))
    assert body.sent == [["a", Decimal("2.0")]]


def test_a_part_that_is_added_is_waited_for(app: Celery, body: Body) -> None:
    begin(app, 1)
    app.backend.add_to_chord("g", app.AsyncResult("more"))
    app.backend.on_chord_part_return(body.part(0), states.SUCCESS, 0)
    assert body.sent == []
    app.backend.on_chord_part_return(body.part(1), states.SUCCESS, 1)
    assert body.sent == [[0, 1]]


def test_a_failed_part_fails_the_body_once_all_have_returned(app: Celery, body: Body) -> None:
    begin(app, 2)
    app.backend.on_chord_part_return(body.part(0), states.FAILURE, BrokenError("no"))
    assert body.failed == []
    app.backend.on_chord_part_return(body.part(1), states.SUCCESS, 1)
    (error,) = body.failed
    assert "p0" in str(error)
    assert isinstance(error.__cause__, BrokenError)
    assert body.sent == []


def test_a_chord_that_is_applied_again_begins_anew(app: Celery, body: Body) -> None:
    for run in range(2):
        begin(app, None)
        app.backend.on_chord_part_return(body.part(0), states.SUCCESS, run)
        app.backend.set_chord_size("g", 2)
        app.backend.on_chord_part_return(body.part(1), states.SUCCESS, run)
    assert body.sent == [[0, 0], [1, 1]]


def kept_by(backend: Any) -> set[int]:
    """The results that a backend keeps until they are there, by their identity."""
    return {name for waiting in backend._pending_results[0].values() for name in waiting}


def test_nested_headers_keep_their_shape(app: Celery, body: Body) -> None:
    results = [
        app.AsyncResult("p0"),
        GroupResult("inner", [app.AsyncResult("p1"), app.AsyncResult("p2")], app=app),
        # No part of the chord: its result is read.
        app.AsyncResult("last", parent=GroupResult("before", [app.AsyncResult("first")], app=app)),
    ]
    app.backend.mark_as_done("first", "f")
    app.backend.mark_as_done("last", "l")
    app.backend.apply_chord(("g", results), None)
    app.backend.set_chord_size("g", 3)
    waiting = kept_by(app.backend)
    for number, index in [(2, 1), (1, 0), (0, 0)]:
        app.backend.on_chord_part_return(body.part(index, task=f"p{number}"), states.SUCCESS, number)
    assert body.sent == [[0, [1, 2], "l"]]
    # A worker that puts the results together keeps nothing of them.
    assert kept_by(app.backend) <= waiting


def test_a_dispatch_that_was_left_is_taken_over(
    app: Celery, body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker dies while it dispatches: a copy of its part, run elsewhere, waits for its claim to end."""
    begin(app, 1)
    monkeypatch.setattr(app.backend, "_seconds_to_dispatch", lambda callback: 0.3)

    def dies(*_: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as dying:
        dying.setattr(app.amqp, "_retry_publish", dies)
        with pytest.raises(SystemExit):
            app.backend.on_chord_part_return(body.part(0), states.SUCCESS, 0)
    assert app.backend.client.hget(app.backend._chord_key("g"), "chord") == chords_of_celery.DISPATCHING
    with ThreadPoolExecutor(4) as pool:
        calls = [
            pool.submit(app.backend.on_chord_part_return, body.part(0), states.SUCCESS, 0) for _ in range(4)
        ]
        for call in calls:
            call.result()
    assert body.sent == [[0]]


def test_an_unstorable_part_is_an_encode_error(app: Celery, body: Body) -> None:
    begin(app, 1)
    with pytest.raises(EncodeError):
        app.backend.on_chord_part_return(body.part(0), states.SUCCESS, object())
