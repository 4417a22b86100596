"""The examples in the README and in docstrings run as they stand; those of the guide: test_guide.py."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path
from typing import Any

import pytest
from data_bridge import kv

ROOT = Path(__file__).resolve().parents[2]
MODULES = [
    "data_bridge.kv",
    "data_bridge.kv.aio",
    "data_bridge.kv._cached",
    "data_bridge.kv._codecs",
    "data_bridge.kv._embedded",
    "data_bridge.kv._lock",
    "data_bridge.kv._pickled",
    "data_bridge.kv._rate",
    "data_bridge.kv._semaphore",
    "data_bridge.kv.tasks",
]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


def test_code_blocks(server: Any) -> None:
    document = "README.md"
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)
    code = "\n".join(blocks).replace("127.0.0.1:7379", f"127.0.0.1:{server.port}")
    scope: dict[str, Any] = {"__name__": "example", "kv": kv}
    exec(compile(code, document, "exec"), scope)
