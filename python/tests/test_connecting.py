"""How clients reach a server: addresses, Unix sockets."""

from __future__ import annotations

import asyncio
import pickle
import stat
from pathlib import Path
from typing import Any

import pytest
import redis
from data_bridge import kv


def test_a_unix_socket_is_as_good_as_a_port(tmp_path: Path, start_server: Any) -> None:
    path = tmp_path / "a b.sock"
    server = start_server("--listen", f"unix:{path}", "--drain-delay", "0")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    url = f"unix://{str(path).replace(' ', '%20')}"
    with kv.connect(url) as client, kv.connect(f"{url}?namespace=tasks") as tasks:
        client["k"] = 1
        assert (client["k"], tasks.get("k")) == (1, None)
        again = pickle.loads(pickle.dumps(tasks))
        again["k"] = 2
        assert client.namespace(1)["k"] == tasks["k"] == 2
        assert repr(again) == f"kv.connect('{url}?namespace=tasks')"
        with kv.connect(server.url()) as over_tcp:
            assert over_tcp["k"] == 1

    async def main() -> None:
        async with kv.aio.connect(f"{url}?db=1") as tasks:
            assert await tasks.get("k") == 2

    asyncio.run(main())
    with redis.Redis.from_url(f"unix://{path}?db=1") as other:
        assert other.get("k") == b"2"
    assert server.stop() == 0
    assert not path.exists()
    with pytest.raises(kv.ConnectionError, match=r"can't connect to unix:///.*a b\.sock: "):
        kv.connect(url).ping()

    async def nobody() -> None:
        with pytest.raises(kv.ConnectionError, match=r"can't connect to unix:///.*: "):
            await kv.aio.connect(url).ping()

    asyncio.run(nobody())
