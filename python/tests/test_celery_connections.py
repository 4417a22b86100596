"""Celery's result backend: its URLs, and the connections that it has and gives back."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery, states
from celery import exceptions as celery_exceptions
from celery.result import ResultSet
from data_bridge import kv
from data_bridge._native import opcode as op
from data_bridge.kv.celery import backend as backends

Made = Callable[[str], Celery]


@pytest.fixture
def app_with() -> Iterator[Made]:
    """Makes programs whose results are at a URL; what they opened is closed with the test."""
    made: list[Celery] = []

    def make(url: str) -> Celery:
        made.append(Celery(f"test-{uuid4()}", broker="memory://", backend=url, set_as_current=False))
        return made[-1]

    yield make
    for app in made:
        app.backend.result_consumer.stop()
        app.close()
    while backends._stores:
        backends._stores.popitem()[1].close()


@pytest.mark.parametrize(
    ("mistaken", "why"),
    [
        ("data-bridges://h/tasks", "^data-bridges:// is not available yet, .* connect with data-bridge://"),
        ("data-bridge+kvs://h/tasks", "^kvs:// is not available yet"),
        ("data-bridge+http://h/tasks", "a URL is kv://host"),
        ("data-bridge://h:port/tasks", "port of the URL"),
    ],
)
def test_a_url_that_is_none_is_refused_at_once(mistaken: str, why: str) -> None:
    with pytest.raises(kv.KvError, match=why):
        _ = Celery(f"test-{uuid4()}", backend=mistaken, set_as_current=False).backend


def test_urls_hide_the_password(app_with: Made) -> None:
    app = app_with("data-bridge://:secret@127.0.0.1:1/tasks")
    assert "secret" not in app.backend.as_uri()
    assert repr(app.backend.client) == "kv.connect('kv://127.0.0.1:1/tasks')"
    unix = app_with("data-bridge+unix:///run/kv.sock?namespace=tasks")
    assert repr(unix.backend.client) == "kv.connect('unix:///run/kv.sock?namespace=tasks')"


def clients_of_the_server(client: kv.Client, fact: str) -> int:
    text = client._call(op.INFO, ("clients",))
    return int(text.split(f"{fact}:")[1].split("\r")[0])


def test_waits_end_with_their_results(own_server: Any, app_with: Made) -> None:
    app = app_with(f"data-bridge://127.0.0.1:{own_server.port}/tasks")
    client = app.backend.client
    results = [app.AsyncResult(f"never{number}") for number in range(20)]
    with pytest.raises(celery_exceptions.TimeoutError):
        ResultSet(results, app=app).get(timeout=0.05)
    while clients_of_the_server(client, "blocked_clients") != 20:
        pass
    for result in results:
        with pytest.raises(celery_exceptions.TimeoutError):
            result.get(timeout=0.01)
        result.forget()
    assert app.backend.result_consumer._waits == {}
    while clients_of_the_server(client, "blocked_clients"):
        pass


def test_a_thread_takes_its_connection_with_it(own_server: Any, app_with: Made) -> None:
    app = app_with(f"data-bridge://127.0.0.1:{own_server.port}/tasks")
    app.backend.store_result("t", 1, states.SUCCESS)
    with pytest.raises(celery_exceptions.TimeoutError):
        app.AsyncResult("never").get(timeout=0.01)
    before = clients_of_the_server(app.backend.client, "connected_clients")

    def get() -> None:
        assert app.AsyncResult("t").get(timeout=10) == 1

    for _ in range(10):
        thread = threading.Thread(target=get)
        thread.start()
        thread.join()
    # The server may not have counted this thread's own connection before.
    while clients_of_the_server(app.backend.client, "connected_clients") > before + 1:
        gc.collect()
