"""Stores larger than memory: `kv.open(path)`."""

from __future__ import annotations

import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from data_bridge import kv

BUDGET = 1 << 20


def value(n: int) -> list[Any]:
    """A value of several kinds, of about 600 bytes."""
    return [n, f"text {n} " * 60, Decimal(n) / 4, {"field": n}]


def test_everything_is_there(tmp_path: Path) -> None:
    store = kv.open(tmp_path / "overflow", max_memory=BUDGET, max_disk=256 << 20)
    for n in range(6000):
        store[f"key:{n}"] = value(n)
    assert len(store) == 6000
    assert sum(file.stat().st_size for file in (tmp_path / "overflow").iterdir()) > 2 * BUDGET
    assert all(store[f"key:{n}"] == value(n) for n in range(6000))
    assert len(set(store)) == 6000
    assert store.get("missing") is None
    store.close()
    again = kv.open(tmp_path / "overflow", max_memory=BUDGET)
    assert len(again) == 0
    again.close()


def test_threads_read_cold_keys_side_by_side(tmp_path: Path) -> None:
    store = kv.open(tmp_path, max_memory=BUDGET, mode="task")
    for n in range(4000):
        store[f"key:{n}"] = value(n)
    wrong: list[int] = []

    def read(start: int) -> None:
        wrong.extend(n for n in range(start, 4000, 4) if store[f"key:{n}"] != value(n))

    threads = [threading.Thread(target=read, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    store.close()
    again = kv.open(tmp_path, max_memory=BUDGET, mode="task")
    assert all(again[f"key:{n}"] == value(n) for n in range(0, 4000, 17))
    again.close()


def test_a_directory_is_for_one_store(tmp_path: Path) -> None:
    store = kv.open(tmp_path)
    with pytest.raises(kv.LockedError, match="another process"):
        kv.open(tmp_path)
    with pytest.raises(ValueError, match="max_disk needs a path"):
        kv.open(max_disk=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(kv.UnavailableError, match="data directory"):
        kv.open(tmp_path / "file")
    store.close()
