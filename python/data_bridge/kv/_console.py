"""The command line of a client: `cli` for a look at a server's keys, `check` for whether it works."""

from __future__ import annotations

import argparse
import ast
import os
import sys
import time
from collections.abc import Callable, ItemsView, Iterator, KeysView, ValuesView
from typing import Any

from data_bridge.kv._remote import Client, connect
from data_bridge.kv.errors import KvError


def console(args: list[str]) -> int:
    """`cli [--url URL] METHOD [ARGUMENT...]`: calls one method of a client and prints the result.

    Arguments are Python literals; what is none is a str.
    """
    parser = argparse.ArgumentParser(prog="data-bridge-kv cli", description="Calls one method of a client.")
    parser.add_argument("--url", help="kv://host:port/namespace; KV_URL unless given")
    parser.add_argument("method", help="for example get, set, ttl, hgetall, scan")
    parser.add_argument("arguments", nargs="*", help="Python literals; anything else is a str")
    given = parser.parse_args(args)
    with connected(parser, given.url) as client:
        method = None if given.method.startswith("_") else getattr(client, given.method, None)
        if not callable(method):
            parser.error(f"a client has no method {given.method!r}")
        return printed(lambda: method(*map(literal, given.arguments)))


def connected(parser: argparse.ArgumentParser, url: str | None) -> Client:
    """A client; a URL that is none ends the program with a line that says why."""
    try:
        return connect(url)
    except KvError as error:
        parser.error(str(error))


def printed(call: Callable[[], Any]) -> int:
    """Prints a result, the items of an iterator or of `keys` one a line; an error goes to standard error."""
    try:
        result = call()
        for item in result if isinstance(result, (Iterator, KeysView, ValuesView, ItemsView)) else [result]:
            sys.stdout.write(f"{item!r}\n")
        sys.stdout.flush()
    except KeyboardInterrupt:  # as a watch ends
        return 130
    except BrokenPipeError:  # who reads it has enough; nothing more is written, at the end neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (KvError, KeyError, TypeError, ValueError) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    return 0


def literal(text: str) -> Any:
    """A Python literal, or the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def check(args: list[str]) -> int:
    """`check [--url URL]`: writes, reads and deletes a key of its own, and says how long that took."""
    parser = check_arguments()
    with connected(parser, parser.parse_args(args).url) as client:
        return printed(lambda: checked(client))


def check_arguments() -> argparse.ArgumentParser:
    """What `check` takes where it names no directory."""
    parser = argparse.ArgumentParser(prog="data-bridge-kv check", description="Checks that a server works.")
    parser.add_argument("--url", help="kv://host:port/namespace; KV_URL unless given")
    return parser


def checked(client: Client) -> str:
    """One round of everything that a client needs."""
    key, value = f"data-bridge-check:{time.time_ns()}", [1, 2.5, "three", b"four"]
    start = time.perf_counter()
    client.set(key, value, ttl=10)
    read = client.pop(key)
    milliseconds = (time.perf_counter() - start) * 1e3
    if read != value:
        raise ValueError(f"wrote {value!r}, read {read!r}")
    return f"{client!r} works: a write and a read took {milliseconds:.2f} ms"
