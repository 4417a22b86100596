"""Many waits on one connection: each answer has the name of its wait, whoever hears it."""

from __future__ import annotations

import select
import sys
import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest
from data_bridge import kv
from data_bridge.kv._ears import Ears, ears_of

COUNT = 300


@pytest.fixture
def ears(store: Any) -> Iterator[Ears]:
    """The ears of an empty store of either kind."""
    opened = ears_of(store)
    yield opened
    opened.close()


@pytest.fixture
def _switching_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def hear(ears: Ears, count: int, heard: SimpleQueue[Any]) -> None:
    """Listens until so many waits were answered, and hands on their names."""
    while count:
        ears.listen(20)
        while ears.heard:
            wait, answer = ears.heard.popleft()
            heard.put((wait.name, answer.value))
            count -= 1


@pytest.mark.usefixtures("_switching_often")
@pytest.mark.parametrize("together", [False, True])
def test_answers_are_known_by_name(store: Any, ears: Ears, together: bool) -> None:
    store["k"] = 1
    heard: SimpleQueue[Any] = SimpleQueue()
    names: list[Any] = []
    listener = threading.Thread(target=hear, args=(ears, COUNT, heard))
    sender = threading.Thread(target=lambda: [ears.flush() for _ in iter(listener.is_alive, False)])
    for thread in (listener, sender):
        thread.start()
    for number in range(COUNT):
        ears.wait(number, "k", 0)
        if not together:
            names.append(heard.get())
    for thread in (listener, sender):
        thread.join()
    names += [heard.get() for _ in range(COUNT - len(names))]
    assert sorted(names, key=repr) == sorted(((number, 1) for number in range(COUNT)), key=repr)


def test_a_dropped_wait_is_not_heard(store: Any, ears: Ears) -> None:
    dropped = [ears.wait(f"no {number}", "k", 0) for number in range(10)]
    for wait in dropped[:5]:
        ears.drop(wait)
    ears.wait("yes", "k", 0)
    ears.listen(0.01)
    for wait in dropped[5:]:
        ears.drop(wait)
    store["k"] = 1
    heard: SimpleQueue[Any] = SimpleQueue()
    hear(ears, 1, heard)
    assert heard.get() == ("yes", 1)
    ears.listen(0.01)
    assert not ears.heard


def test_versions_are_waited_for(store: Any, ears: Ears) -> None:
    store["k"] = 0
    seen = store.get_versioned("k").version
    ears.wait("next", "k", seen)
    ears.listen(0.01)
    assert not ears.heard
    store["k"] = 1
    heard: SimpleQueue[Any] = SimpleQueue()
    hear(ears, 1, heard)
    assert heard.get() == ("next", 1)


def test_a_server_that_is_away_is_told() -> None:
    with kv.connect("kv://127.0.0.1:1") as client:
        ears = ears_of(client)
        ears.wait("k", "k", 0)
        for _ in range(2):
            with pytest.raises(kv.ConnectionError, match="can't connect"):
                ears.listen(1)


def test_where_eventlet_took_poll_away(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each result of Celery that was waited for there was an AttributeError."""
    monkeypatch.delattr(select, "poll")
    ears = ears_of(store)
    ears.wait("one", "k", 0)
    ears.listen(0.01)
    assert not ears.heard
    store["k"] = 1
    ears.listen(20)
    wait, answer = ears.heard.popleft()
    assert (wait.name, answer.value) == ("one", 1)
    ears.close()
