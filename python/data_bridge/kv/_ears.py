"""Many waits of a synchronous program on one connection, without a thread of their own: `listen` hears all of them.

For adapters of frameworks that collect results as they come. Starting and dropping a wait never blocks, so that both
may happen inside the garbage collector; only `listen` waits, and under gevent it lets other tasks run.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from data_bridge._native import AsyncRemote, Bell
from data_bridge._native import opcode as op
from data_bridge.kv import _shapes as shapes
from data_bridge.kv._embedded import Store
from data_bridge.kv._remote import Client, keep_alive
from data_bridge.kv._values import MISSING, newer_than
from data_bridge.kv.errors import ConnectionError  # noqa: A004 - named as its builtin

ROOM = 256 << 10
"""Bytes that one read of the socket takes at most."""
PREFACE = b"\xdbKV\x01"
"""What a greeting starts with. No request does: its length stands there, and that would be 22 MB."""


class Calling(threading.local):
    """The name that the wait which this thread is starting will have."""

    name: Any = None


class Desk:
    """What the native classes take for an event loop and a transport: it keeps what they hand over."""

    __slots__ = ("broken", "calling", "heard", "out")

    def __init__(self) -> None:
        self.heard: deque[tuple[Wait, Any]] = deque()
        self.out: deque[bytes] = deque()
        self.broken = False
        self.calling = Calling()

    def create_future(self) -> Wait:
        """Where an answer goes. It has its name from the start: another thread may hear the answer first."""
        return Wait(self, self.calling.name)

    def is_closed(self) -> bool:
        """It is there for as long as what it hears for."""
        return False

    def call_soon(self, call: Callable[[], object]) -> None:
        """The one call that is asked for is the flush, which every `flush` makes."""

    def write(self, data: bytes) -> None:
        """Bytes for the other side. A greeting goes first, whatever other threads ask meanwhile."""
        if data.startswith(PREFACE):
            self.out.appendleft(data)
        else:
            self.out.append(data)

    def abort(self) -> None:
        """The connection is of no use."""
        self.broken = True


class Wait:
    """One wait, by the name that its owner gave it; towards the native classes it is a future."""

    __slots__ = ("_desk", "_on_drop", "_over", "name", "number")

    def __init__(self, desk: Desk, name: Any) -> None:
        self._desk, self._over = desk, False
        self._on_drop: Callable[[Wait], object] | None = None
        self.name, self.number = name, 0

    def done(self) -> bool:
        """Whether it was answered or dropped."""
        return self._over

    def cancelled(self) -> bool:
        """Asked only by what `drop` calls."""
        return self._over

    def get_loop(self) -> Desk:
        """The desk that it belongs to."""
        return self._desk

    def add_done_callback(self, callback: Callable[[Wait], object]) -> None:
        """What to call when it is dropped."""
        self._on_drop = callback

    def set_result(self, answer: Any) -> None:
        """The answer came: a `Versioned`, or an exception."""
        self._over = True
        self._on_drop = None
        self._desk.heard.append((self, answer))

    set_exception = set_result

    def drop(self) -> None:
        """Nobody waits for it any more."""
        if not self._over:
            self._over = True
            if self._on_drop is not None:
                self._on_drop(self)
                self._on_drop = None


class Ears(ABC):
    """The waits of one store. What was heard stands in `heard`: a wait with a `Versioned` or an exception."""

    def __init__(self) -> None:
        self._desk = Desk()
        self.heard = self._desk.heard

    @abstractmethod
    def wait(self, name: Any, key: str, version: int) -> Wait:
        """Waits until the key's version is greater; 0 waits for any value, also one that is there already."""

    @abstractmethod
    def drop(self, wait: Wait) -> None:
        """Ends a wait."""

    @abstractmethod
    def flush(self) -> None:
        """Sends what was asked for, as far as it goes without blocking."""

    @abstractmethod
    def listen(self, timeout: float | None) -> None:
        """Waits until something was heard, at most so many seconds. `ConnectionError` when there is no connection."""

    @abstractmethod
    def close(self) -> None:
        """Ends all waits."""

    def __del__(self) -> None:
        self.close()


def ears_of(store: Store | Client) -> Ears:
    """The ears of a store of either kind."""
    return RemoteEars(store) if isinstance(store, Client) else EmbeddedEars(store)


class Core(AsyncRemote):
    """The requests in flight on a connection, and the codec."""

    __slots__ = ()

    def _connect(self, event_loop: Desk) -> None:
        """The next `listen` connects."""


class RemoteEars(Ears):
    """The waits of a client, on a connection of their own that is made anew when it was lost."""

    def __init__(self, client: Client) -> None:
        super().__init__()
        self._address, self._patience = client._address, client._options["connect_timeout"]
        self._core = Core(
            namespace=self._address.namespace,
            password=self._address.password,
            timeout=None,
            fallback=client._fallback,
            event_loop=self._desk,
        )
        self._socket: socket.socket | None = None
        self._is_new = False
        self._writing = threading.Lock()
        self._due = False
        self._rest = b""

    def wait(self, name: Any, key: str, version: int) -> Wait:
        self._desk.calling.name = name
        wait: Any = self._core._wait(op.KV_WAIT, _newer(key, version), MISSING, shapes.versioned)
        return wait

    def drop(self, wait: Wait) -> None:
        wait.drop()
        self.flush()

    def flush(self) -> None:
        # Whoever holds the lock sends for those who come meanwhile, be it this thread's garbage collector.
        self._due = True
        while self._due and self._writing.acquire(blocking=False):
            try:
                self._due = False
                self._send()
            finally:
                self._writing.release()

    def _send(self) -> None:
        if self._socket is None:
            return
        self._core._flush()
        pieces = [self._rest]
        while self._desk.out:
            pieces.append(self._desk.out.popleft())
        self._rest = b"".join(pieces)
        if not self._rest:
            return
        try:
            self._rest = self._rest[os.write(self._socket.fileno(), self._rest) :]
        except BlockingIOError:
            pass
        except OSError:
            self._desk.broken = True

    def listen(self, timeout: float | None) -> None:
        if self._socket is None:
            self._open()
        self.flush()
        opened = self._socket
        if opened is None or not (self._desk.broken or _ready([opened], timeout, bool(self._rest))):
            return None
        try:
            data = opened.recv(ROOM)
        except BlockingIOError:
            return self.flush()
        except OSError as error:
            return self._lost(error)
        if data:
            self._is_new = False
            self._core.data_received(data)
        if not data or self._desk.broken:
            self._lost(None)
        return None

    def _open(self) -> None:
        try:
            opened = _connected(self._address.target, self._patience)
        except OSError as error:
            raise ConnectionError(f"can't connect to {self._address.shown()}: {error}") from error
        self._desk.broken = False
        self._rest = b""
        self._desk.out.clear()
        self._core.connection_made(self._desk)
        self._socket, self._is_new = opened, True

    def _lost(self, error: OSError | None) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._core.connection_lost(error)
        if self._is_new:
            # Whoever listens makes a pause, as where nothing accepts a connection.
            raise ConnectionError(f"{self._address.shown()} ends connections before it answers")

    def close(self) -> None:
        if hasattr(self, "_core"):
            self._core._close()
        if getattr(self, "_socket", None) is not None:
            self._socket.close()  # type: ignore[union-attr]
            self._socket = None
        self.heard.clear()


class EmbeddedEars(Ears):
    """The waits of a store in this process."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._bell: Bell | None = Bell(store)
        # What is answered at once rings no bell: this wakes a thread that listens.
        self._alarm, self._alarmed = socket.socketpair()
        self._alarm.setblocking(False)
        self._alarmed.setblocking(False)

    def wait(self, name: Any, key: str, version: int) -> Wait:
        wait = Wait(self._desk, name)
        if self._bell is not None:
            args = (wait, op.KV_WAIT, _newer(key, version), MISSING, shapes.versioned)
            wait.number = self._bell.wait(*args)
            if wait.done():
                with suppress(BlockingIOError):  # a full socket wakes as well
                    self._alarm.send(b"!")
        return wait

    def drop(self, wait: Wait) -> None:
        wait.drop()
        if self._bell is not None:
            self._bell.cancel(wait.number)

    def flush(self) -> None:
        pass

    def listen(self, timeout: float | None) -> None:
        if self._bell is None or self.heard:
            return
        if _ready([self._bell, self._alarmed], timeout):
            self._bell.drain()
            with suppress(BlockingIOError):
                self._alarmed.recv(ROOM)

    def close(self) -> None:
        self._bell = None
        for end in (getattr(self, "_alarm", None), getattr(self, "_alarmed", None)):
            if end is not None:
                end.close()
        self.heard.clear()


def _newer(key: str, version: int) -> tuple[Any, ...]:
    return shapes.wait(key, newer_than(version), None, None)


def _ready(files: list[Any], timeout: float | None, to_write: bool = False) -> bool:
    """Whether one can be read (or written), within so many seconds. `poll` is looked up now: gevent replaces it,
    eventlet takes it away."""
    if not hasattr(select, "poll"):
        return any(select.select(files, files if to_write else [], [], timeout))
    poll = select.poll()
    for file in files:
        poll.register(file, select.POLLIN | (select.POLLOUT if to_write else 0))
    return bool(poll.poll(None if timeout is None else timeout * 1000))


def _connected(target: tuple[str, int] | str, patience: float) -> socket.socket:
    if isinstance(target, str):
        opened = socket.socket(socket.AF_UNIX)
        opened.settimeout(patience)
        opened.connect(target)
    else:
        opened = socket.create_connection(target, patience)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        keep_alive(opened)
    opened.setblocking(False)
    return opened
