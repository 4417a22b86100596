"""The pages of the guide, followed as a newcomer does: Python runs, files are written, servers and workers started.

A block with a title is a file. Of a shell block each line is a command: what ends must end well, what serves or works
is left running until the page ends. Ports are replaced, so that pages do not meet.
"""

from __future__ import annotations

import importlib.metadata
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(re.findall(r"(\w[\w-]*\.md)", (DOCS.parent / "mkdocs.yml").read_text().partition("nav:")[2]))
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ENDLESS = {
    ("data-bridge-kv", "serve"): " serves RESP",
    ("celery", "-A"): " ready.",
    ("dramatiq", "shop_invoices"): "is ready for action",
    ("huey_consumer", "shop_huey.huey"): "shop_huey.double",
}
"""Commands that do not end, and what they say when they have begun."""


class Reader:
    """Somebody who follows a page in a folder."""

    def __init__(self, folder: Path, servers: dict[str, str]) -> None:
        self._folder, self._servers = folder, servers
        self._scope: dict[str, Any] = {"__name__": "example"}
        self._running: list[subprocess.Popen[str]] = []

    def follow(self, page: str) -> int:
        """Does what each block says; how many there were."""
        blocks = BLOCK.findall(page)
        for language, title, text in blocks:
            for there, here in self._servers.items():
                text = text.replace(there, here)
            if title:
                (self._folder / title).write_text(text)
            elif language == "python":
                exec(compile(text, f"<{text[:40]}>", "exec"), self._scope)
            elif language == "sh":
                for line in text.replace("\\\n", "").splitlines():
                    self._command(shlex.split(line, comments=True))
        return len(blocks)

    def _command(self, words: list[str]) -> None:
        if words[:2] == ["pip", "install"]:
            extras = re.fullmatch(r"data-bridge(?:\[(.*)\])?", words[2])
            assert extras, words
            known = importlib.metadata.metadata("data-bridge").get_all("Provides-Extra") or []
            assert set(filter(None, (extras[1] or "").split(","))) <= set(known), words
            return
        said = ENDLESS.get((words[0], words[1]))
        if words[:2] == ["data-bridge-kv", "serve"]:
            listen = f"--listen {self._servers['127.0.0.1:7379']}"
            words = [*words, *f"{listen} --admin off --drain-delay 0".split()]
        started = subprocess.Popen(
            [str(Path(sys.executable).with_name(words[0])), *words[1:]],
            cwd=self._folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if said is None:
            output, _ = started.communicate(timeout=60)
            assert started.returncode == 0, output
            return
        self._running.append(started)
        assert started.stdout is not None
        output = ""
        while said not in output:
            line = started.stdout.readline()
            assert line, output
            output += line

    def leave(self) -> None:
        """Ends what still runs, the last first."""
        for process in reversed(self._running):
            process.terminate()
            process.communicate(timeout=60)


@pytest.fixture
def reader(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Any
) -> Iterator[Reader]:
    """Somebody with an empty folder; the page says whether there is a server already."""
    page = (DOCS / request.getfixturevalue("page")).read_text()
    port = request.getfixturevalue("keep_port")() if "data-bridge-kv serve" in page else server.port
    servers = {"127.0.0.1:7379": f"127.0.0.1:{port}", "port=7379": f"port={port}"}
    if "redis://" in page:
        servers["redis://127.0.0.1:6379"] = request.getfixturevalue("broker").rpartition("/")[0]
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    reader = Reader(tmp_path, servers)
    yield reader
    reader.leave()


@pytest.mark.parametrize("page", PAGES)
def test_a_page(page: str, reader: Reader) -> None:
    assert reader.follow((DOCS / page).read_text()) >= (0 if page == "TYPES.md" else 1)


def test_the_guide_has_all_its_pages() -> None:
    assert len(PAGES) == 10
