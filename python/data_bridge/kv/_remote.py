"""The synchronous remote client: `kv.connect()`."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Self
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit

from data_bridge._native import Remote
from data_bridge._native import opcode as op
from data_bridge.kv._codecs import Fallback
from data_bridge.kv._methods import StoreMethods
from data_bridge.kv.errors import InvalidArgumentError, UnavailableError

DEFAULT_URL = "kv://127.0.0.1:7379"
DEFAULT_PORT = 7379
URL_FORMS = "kv://host:port/namespace or unix:///path?namespace=name"
KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
"""When a silent connection is asked whether its other end is alive, in seconds, and how often."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a URL points: a host and a port, or the path of a Unix socket."""

    target: tuple[str, int] | str
    namespace: str | None
    password: str | None

    def shown(self) -> str:
        """The URL without the password."""
        name = quote(self.namespace or "", safe="")
        if isinstance(self.target, str):
            return f"unix://{quote(self.target)}" + (f"?namespace={name}" if name else "")
        host, port = self.target
        return f"kv://{f'[{host}]' if ':' in host else host}:{port}/{name}".rstrip("/")


def address(url: str | None, password: str | None) -> Address:
    """Reads `kv://[:password@]host[:port][/namespace]` or `unix://[:password@]/path[?namespace=name]`; without a URL
    the environment's KV_URL, else the default."""
    given = url if url is not None else os.environ.get("KV_URL", DEFAULT_URL)
    if not isinstance(given, str):
        raise TypeError(f"a URL is a str, {URL_FORMS}, not {type(given).__name__}")
    try:
        parts = urlsplit(given)
    except ValueError:
        # Without its cause, which shows a part of the password or all of it.
        hint = "write '[', ']' and what is not ASCII in its password as %XX"
        raise InvalidArgumentError(f"the URL can't be read: {hint}") from None
    if parts.scheme == "kvs":
        raise without_tls("kv")
    if password is None:
        password = unquote(parts.password) if parts.password else os.environ.get("KV_PASSWORD") or None
    if parts.scheme == "unix":
        return Address(unquote(parts.path), _namespace_of_socket(parts), password)
    if parts.scheme != "kv":
        # Not the whole of it: a password may be in there.
        other = f", not {parts.scheme}:…" if parts.scheme else ""
        raise InvalidArgumentError(f"a URL is {URL_FORMS}{other}")
    if "://" not in given:
        raise InvalidArgumentError(f"a URL is {URL_FORMS}, not kv:…")
    if parts.query or parts.fragment:
        raise InvalidArgumentError(f"a URL is {URL_FORMS}, without ? and #")
    try:
        port = DEFAULT_PORT if parts.port is None else parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise InvalidArgumentError("the port of the URL is no number from 1 to 65535")
    target = (parts.hostname or "127.0.0.1", port)
    return Address(target, unquote(parts.path.strip("/")) or None, password)


def without_tls(scheme: str) -> UnavailableError:
    """What a URL of TLS gets."""
    return UnavailableError(
        f"{scheme}s:// is not available yet, since the server has no TLS: connect with {scheme}://"
    )


def _namespace_of_socket(parts: SplitResult) -> str | None:
    """The namespace that a URL of a Unix socket names, as `namespace` or in redis-py's word `db`."""
    options = parse_qs(parts.query, keep_blank_values=True)
    names = [name for word in ("namespace", "db") for name in options.pop(word, ())]
    if options or len(names) > 1 or parts.fragment or parts.hostname or not parts.path.strip("/"):
        raise InvalidArgumentError(f"a URL is {URL_FORMS}")
    return names[0] or None if names else None


def is_cooperative() -> bool:
    """Whether gevent or eventlet replaced the socket module's socket."""
    return socket.socket.__module__.partition(".")[0] in ("gevent", "eventlet")


def keep_alive(opened: Any) -> None:
    """Has the system end a connection whose other end is gone, of which a wait without a timeout would never learn.
    A socket without these options serves as well."""
    with suppress(OSError):
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE:
            if hasattr(socket, name):
                opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Client(Remote, StoreMethods):
    """A namespace of a server. Threads may share it, a forked child goes on with connections of its own.

    It can be pickled, without the password: that comes from KV_PASSWORD where it is unpickled.
    """

    __slots__ = ("_address", "_options")

    _address: Address
    _options: dict[str, Any]

    def __new__(cls, address: Address, options: dict[str, Any]) -> Self:
        """For an address; `options` are those of `connect`."""
        self = super().__new__(
            cls,
            address.target,
            namespace=address.namespace,
            password=address.password,
            cooperative=is_cooperative(),
            **options,
        )
        self._address, self._options = address, options
        return self

    def close(self) -> None:
        """Closes the connections; waits and watches end, later calls raise `ClosedError`."""
        super().close()

    def namespace(self, name: str | int) -> Client:
        """Another namespace of the same server, by name or number, with connections of its own."""
        return Client(replace(self._address, namespace=str(name)), self._options)

    def ping(self) -> bool:
        """Whether the server answers."""
        return bool(self._call(op.PING, ()))

    def __repr__(self) -> str:
        return f"kv.connect({self._address.shown()!r})"

    def __copy__(self) -> Client:
        return Client(self._address, self._options)

    def __deepcopy__(self, _memo: object) -> Client:
        return Client(self._address, self._options)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _unpickled, (self._address.shown(), self._options)


def _unpickled(url: str, options: dict[str, Any]) -> Client:
    return connect(url, **options)


def connect(
    url: str | None = None,
    *,
    password: str | None = None,
    max_connections: int = 50,
    pool_timeout: float = 5.0,
    connect_timeout: float = 5.0,
    timeout: float | None = 5.0,
    fallback: Fallback | None = None,
) -> Client:
    """A client of a server: `kv://host:port/namespace` or `unix:///path?namespace=name`, from KV_URL unless given. The
    first call connects.

    The password stands in the URL (`kv://:password@host`), in `password` or in KV_PASSWORD. `timeout` is for one
    operation, `connect_timeout` for a connection, `pool_timeout` for a free one of at most `max_connections`. Waits
    use connections of their own and end when their own timeout says so. `fallback` is a codec for objects that
    nothing else takes.
    """
    options = {
        "max_connections": max_connections,
        "pool_timeout": pool_timeout,
        "connect_timeout": connect_timeout,
        "timeout": timeout,
        "fallback": fallback,
    }
    return Client(address(url, password), options)
