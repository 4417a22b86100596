"""The tasks of the tests with a real Huey consumer."""

from __future__ import annotations

import os
from typing import Any

from data_bridge.kv.huey import DataBridgeHuey

huey: Any = DataBridgeHuey("tests", url=os.environ["BACKEND"])


@huey.task()
def add(x: int, y: int) -> int:
    """A number."""
    return x + y


@huey.task(retries=2)
def third_time(name: str) -> int:
    """Succeeds at the third try."""
    tries = huey.storage.incr(name)
    if tries < 3:
        raise ValueError("not yet")
    return int(tries)
