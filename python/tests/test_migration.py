"""`data-bridge-kv import`: a Redis database into a namespace, from a real Redis and from our own server."""

from __future__ import annotations

import contextlib
import io
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from data_bridge import kv
from data_bridge.kv import _migration
from data_bridge.kv.__main__ import main
from redis.client import Pipeline


@pytest.fixture(scope="module")
def real_redis(keep_port: Callable[[], int]) -> Iterator[str]:
    """The URL of a Redis server."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    port = keep_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert any("eady to accept" in line for line in process.stdout)
    yield f"redis://127.0.0.1:{port}/3"
    process.terminate()
    process.communicate(timeout=20)


@pytest.fixture(params=["redis", "ours"])
def source(request: pytest.FixtureRequest, server: Any) -> Iterator[tuple[str, Any]]:
    """The URL of a Redis database with keys of every type, and a client of it."""
    ours = f"redis://127.0.0.1:{server.port}/13"
    url = ours if request.param == "ours" else request.getfixturevalue("real_redis")
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        client.set("text", "hé")
        client.set("bytes", b"\xff\x00", px=600_000)
        client.rpush("list", "a", b"\xfe", "a")
        client.sadd("set", "a", "b")
        client.hset("hash", mapping={"f": "1", "g": b"\xfd"})
        client.zadd("zset", {"low": -1.5, "high": 2.5})
        client.pexpire("zset", 500_000)
        client.mset({f"many:{number}": number for number in range(1200)})
        yield url, client


@pytest.fixture
def target(server: Any) -> Iterator[kv.Client]:
    """An empty namespace."""
    with kv.connect(server.url("14")) as client:
        client.clear()
        yield client


def imported(source: str, server: Any, *options: str) -> int:
    """Runs the command."""
    return main(["import", source, server.url("14"), *options])


def test_every_type_comes_over(source: Any, target: kv.Client, server: Any, capsys: Any) -> None:
    assert imported(source[0], server, "--verify") == 0
    shown = capsys.readouterr().out
    assert "copied: 1,206 keys, 0 gone meanwhile, 0 not" in shown
    assert "the same: 1,206 keys, 0 gone meanwhile, 0 not" in shown
    assert target["text"] == "hé".encode()
    assert (target["bytes"], target["list"]) == (b"\xff\x00", [b"a", b"\xfe", b"a"])
    assert (target["set"], target["hash"]) == ({b"a", b"b"}, {b"f": b"1", b"g": b"\xfd"})
    assert target["zset"] == [(b"low", -1.5), (b"high", 2.5)]
    assert (target.kind("zset"), target.ttl("text")) == ("sortedset", None)
    assert 590 < (target.ttl("bytes") or 0) <= 600
    assert 490 < (target.ttl("zset") or 0) <= 500
    assert target.dbsize() == 1206
    # Again, over what is there.
    assert imported(source[0], server) == 0
    assert target.dbsize() == 1206


def test_as_text(source: Any, target: kv.Client, server: Any) -> None:
    assert imported(source[0], server, "--text", "--verify") == 0
    assert (target["text"], target["bytes"], target["list"]) == ("hé", b"\xff\x00", ["a", b"\xfe", "a"])
    assert (target["hash"], target["many:7"]) == ({"f": "1", "g": b"\xfd"}, "7")


def test_only_a_prefix(source: Any, target: kv.Client, server: Any) -> None:
    source[1].set("many*", 1)
    assert imported(source[0], server, "--prefix", "many*") == 0
    assert list(target) == ["many*"]


def test_what_has_no_place_is_named(real_redis: str, target: kv.Client, server: Any, capsys: Any) -> None:
    with redis.Redis.from_url(real_redis) as client:
        client.flushdb()
        client.mset({b"k" * 300: 1, b"\xff": 1, b"good": 1})
        client.xadd("stream", {"a": 1})
    assert imported(real_redis, server) == 1
    shown = capsys.readouterr().out
    assert "copied: 1 keys, 0 gone meanwhile, 3 not" in shown
    assert all(
        why in shown for why in ("256", r"b'\xff': 'utf-8' codec", "b'stream': a stream has no kind here")
    )
    assert list(target) == ["good"]


def test_what_the_source_does_not_show_is_not_gone(
    real_redis: str, target: kv.Client, server: Any, capsys: Any
) -> None:
    with redis.Redis.from_url(real_redis) as client:
        client.flushdb()
        client.set("text", 1)
        client.hset("hash", "f", "v")
        client.rpush("list", "a")
        for name, denied in (("blind", "get"), ("timeless", "pttl"), ("mute", "info"), ("plain", "multi")):
            client.acl_setuser(name, enabled=True, nopass=True, keys="*", commands=["+@all", f"-{denied}"])
        client.acl_setuser("part", enabled=True, nopass=True, keys=["te*"], commands=["+@all"])
    for name, done, why in (
        ("blind", 2, "run the 'get' command"),
        ("timeless", 0, "'pttl'"),
        ("part", 1, "b'hash': the source does not show it: "),
        ("mute", 3, ""),
        ("plain", 3, ""),
    ):
        url = real_redis.replace("//", f"//{name}:x@")
        assert imported(url, server, "--verify") == (0 if done == 3 else 1)
        shown = capsys.readouterr().out
        assert f"copied: {done} keys, 0 gone meanwhile, {3 - done} not" in shown
        assert why in shown
    decoded = f"{real_redis}?decode_responses=True"
    assert imported(decoded, server, "--verify") == 0
    assert target["text"] == b"1"


def test_a_key_that_changes_while_it_is_read(
    real_redis: str, target: kv.Client, server: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis.Redis.from_url(real_redis) as client:
        client.flushdb()
        client.set("brief", 1, ex=100)
    pipeline: Any = Pipeline
    monkeypatch.setattr(pipeline, "type", lambda self, key: self.eval("return {ok='hash'}", 0))
    assert imported(real_redis, server) == 1  # it is another type by now
    assert "0 gone meanwhile, 1 not\n  b'brief': the source does not show it: " in capsys.readouterr().out
    monkeypatch.undo()
    late = "redis.call('DEL', KEYS[1]) return {ok='string'}"
    monkeypatch.setattr(pipeline, "type", lambda self, key: self.eval(late, 1, key))
    assert imported(real_redis, server) == 0
    assert "copied: 0 keys, 1 gone meanwhile, 0 not" in capsys.readouterr().out
    assert not target.exists("brief")  # it would have no deadline


def commands(side: Any) -> Iterator[bytes]:
    """The commands that a Redis client sends, as they stand on the wire."""
    while head := side.readline():
        words = [head]
        for _ in range(int(head[1:])):
            size = side.readline()
            words += [size, side.read(int(size[1:]) + 2)]
        yield b"".join(words)


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_key_that_is_written_while_it_is_read_keeps_value_and_deadline_together(
    real_redis: str, target: kv.Client, server: Any, protocol: int
) -> None:
    with redis.Redis.from_url(real_redis) as client, socket.create_server(("127.0.0.1", 0)) as way:
        client.flushdb()
        client.set("lock", "lasting")
        host, port = real_redis.removeprefix("redis://").partition("/")[0].split(":")

        def pass_on() -> None:
            near, far = way.accept()[0], socket.create_connection((host, int(port)))
            with near, far, near.makefile("rb") as asked:
                for command in commands(asked):
                    far.sendall(command)
                    near.sendall(far.recv(65536))
                    if b"get\r\n" in command:
                        client.set("lock", "brief", ex=600)

        passing = threading.Thread(target=pass_on)
        passing.start()
        url = f"redis://127.0.0.1:{way.getsockname()[1]}/3?protocol={protocol}"
        read = _migration.Source(url, True, "", 100)
        [(_, [entry])] = read.pages()
        read.close()
        passing.join()
    assert (entry.value, entry.deadline is None) == ("brief", False)


def test_an_import_goes_on_over_a_connection_that_broke(
    source: Any, target: kv.Client, server: Any, capsys: Any
) -> None:
    broken: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as way:

        def pass_on(near: socket.socket) -> None:
            with near, socket.create_connection(("127.0.0.1", server.port)) as far:
                back = threading.Thread(target=forward, args=(near, far))
                back.start()
                forwarded = 0
                while data := far.recv(65536):
                    forwarded += len(data)
                    if len(broken) < 2 and forwarded > 20_000:
                        broken.append(forwarded)  # carried out, and nobody hears of it
                        break
                    near.sendall(data)
                for end in (near, far):
                    end.shutdown(socket.SHUT_RDWR)
                back.join()

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=pass_on, args=(way.accept()[0],)).start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        url = f"kv://127.0.0.1:{way.getsockname()[1]}/14"
        assert main(["import", source[0], url, "--verify"]) == 0
        way.shutdown(socket.SHUT_RDWR)
        accepting.join()
    shown = capsys.readouterr().out
    assert "copied: 1,206 keys, 0 gone meanwhile, 0 not" in shown
    assert "the same: 1,206 keys, 0 gone meanwhile, 0 not" in shown
    assert len(broken) == 2
    assert target.dbsize() == 1206


def forward(here: socket.socket, there: socket.socket) -> None:
    """What one side says, to the other."""
    with contextlib.suppress(OSError):
        while data := here.recv(65536):
            there.sendall(data)


def test_a_target_that_stays_away_is_told(
    source: Any, target: kv.Client, server: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(client: kv.Client, entry: Any) -> None:
        raise kv.ConnectionError("connection refused")

    monkeypatch.setattr(_migration, "write", away)
    monkeypatch.setattr(_migration, "PATIENCE", 0.1)
    assert imported(source[0], server) == 1
    shown = capsys.readouterr()
    assert "copied: 0 keys" in shown.out
    assert "the target did not come back within 0 s; with --resume the next run goes on" in shown.err


def test_a_part_of_a_cluster_is_told(
    real_redis: str, target: kv.Client, server: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis.Redis, "info", lambda self: {"run_id": "a", "cluster_enabled": 1})
    assert imported(real_redis, server) == 0
    assert "import from each of its masters" in capsys.readouterr().err


def test_differences_are_found(source: Any, target: kv.Client, server: Any) -> None:
    assert imported(source[0], server) == 0
    target["text"] = b"other"
    target.delete("list")
    target.persist("bytes")
    target.expire("zset", 100)
    target.zadd("many:1", {"a": 1}) if target.delete("many:1") else None
    read = _migration.Source(source[0], False, "", 100)
    tally = _migration.Tally()
    _migration.walk(read, target, True, None, io.StringIO(), tally)
    found = sorted(line.partition(": ") for line in tally.refused)
    assert [key for key, _, _ in found] == ["b'bytes'", "b'list'", "b'many:1'", "b'text'", "b'zset'"]
    whys = [why for _, _, why in found]
    assert whys[:4] == [
        "expires: False, in the source: True",
        "missing",
        "another value of kind sortedset",
        "another value of kind bytes",
    ]
    assert "ms apart" in whys[4]


def test_a_run_that_was_cut_off_goes_on(
    source: Any, target: kv.Client, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    place, real = tmp_path / "place", _migration.write
    written: list[bytes] = []

    def cut_off(client: kv.Client, entry: Any) -> None:
        if len(written) == 600:
            raise KeyboardInterrupt
        written.append(entry.key)
        real(client, entry)

    monkeypatch.setattr(_migration, "write", cut_off)
    assert imported(source[0], server, "--resume", str(place), "--count", "50") == 1
    before = target.dbsize()
    assert 500 < before <= 600
    assert f"copied: {before} keys, 0 gone meanwhile, 0 not" in capsys.readouterr().out
    assert int(place.read_text().partition(" ")[0]) > 0

    def going_on(client: kv.Client, entry: Any) -> None:
        written.append(entry.key)
        real(client, entry)

    monkeypatch.setattr(_migration, "write", going_on)
    assert imported(source[0], server, "--resume", str(place), "--count", "50") == 0
    assert target.dbsize() == 1206
    # The page that was cut off is written again, those before it are not.
    assert len(written) < 1300
    assert not place.exists()


def test_a_place_in_another_process_is_none(
    source: Any, target: kv.Client, server: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    read = _migration.Source(source[0], False, "", 100)
    process, _ = read.process()
    others = [
        "another " + read.part + f" {target!r}",
        f"{process} 9 '' {target!r}",
        f"{process} {read.part.partition(' ')[0]} 'a' {target!r}",
        f"{process} {read.part} elsewhere",
    ]
    foreign = [(f"99 {other}", "another import or another process") for other in ("", *others)]
    for text, said in [("", ""), (f"0 {process} {read.part} {target!r}", ""), *foreign]:
        place.write_text(text)
        target.clear()
        assert imported(source[0], server, "--resume", str(place)) == 0
        shown = capsys.readouterr().err
        assert said in shown if said else "another" not in shown
        assert target.dbsize() == 1206
    monkeypatch.setattr(redis.Redis, "info", lambda self: {})
    place.write_text(f"99  0 '' {target!r}")
    assert imported(source[0], server, "--resume", str(place)) == 0
    assert "does not say which process" in capsys.readouterr().err
    place.write_text("notes of somebody\n")
    assert imported(source[0], server, "--resume", str(place)) == 1
    assert "is not a file of --resume" in capsys.readouterr().err
    assert place.read_text() == "notes of somebody\n"


def test_the_bar_is_for_terminals() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for out, wanted in (
        (Terminal(), "\rcopying [###############               ]  50% 5 keys"),
        (io.StringIO(), ""),
    ):
        _migration.Bar("copying", 10, out).show(5)
        assert out.getvalue().startswith(wanted)
        assert bool(out.getvalue()) == bool(wanted)


def test_an_unknown_namespace_is_told_once(source: Any, server: Any, capsys: Any) -> None:
    assert main(["import", source[0], server.url("nowhere")]) == 1
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("unknown namespace 'nowhere'")) == ("", 1)


def test_mistakes(server: Any, capsys: Any) -> None:
    assert imported("redis://127.0.0.1:1/0", server) == 1
    assert "ConnectionError" in capsys.readouterr().err
    for source, place in (("http://127.0.0.1", server.url()), ("redis://127.0.0.1:1", "redis://127.0.0.1")):
        with pytest.raises(SystemExit) as stop:
            main(["import", source, place])
        assert stop.value.code == 2


def test_a_source_that_says_nothing_is_given_up(
    server: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_migration, "SILENCE", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for scheme in ("redis", "rediss"):  # a server without TLS is silent too where one greets it with TLS
            assert imported(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/0", server) == 1
            assert "TimeoutError" in capsys.readouterr().err


def test_a_file_is_imported_by_the_server_program(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    def run(words: list[str]) -> int:
        ran.append(words)
        return 0

    monkeypatch.setattr("data_bridge.kv.__main__.run_server", run)
    for words in (["export", "kv://host/1", "file"], ["import", "file", "kv://host/1", "--skip"]):
        assert main(words) == 0
        assert ran[-1] == ["data-bridge-kv", *words]
