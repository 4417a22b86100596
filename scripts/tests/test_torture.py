"""Tests of scripts/torture: budgets, what is kept of a run, and the block that is appended to the results."""

import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "torture"
CALM = """
running 1 test
300 sequences, 12000 replies compared
test agrees ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 1.02s
"""


@pytest.fixture
def torture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module that keeps its files elsewhere."""
    loader = importlib.machinery.SourceFileLoader("torture", str(SCRIPT))
    spec = importlib.util.spec_from_loader("torture", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "torture", module)
    loader.exec_module(module)
    monkeypatch.setattr(module, "KEPT", tmp_path)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return module


def program(folder: Path, output: str, status: int) -> str:
    """A test program that says this."""
    path = folder / f"program-{status}"
    path.write_text(
        f"#!/bin/sh\necho \"seed $KV_SEED of $KV_SEQUENCES\"\ncat <<'END'\n{output}\nEND\nexit {status}\n"
    )
    path.chmod(0o755)
    return str(path)


def test_budgets(torture: Any) -> None:
    assert [torture.seconds(text) for text in ("90s", "60m", "1.5h")] == [90, 3600, 5400]
    with pytest.raises(SystemExit, match="write 90s"):
        torture.seconds("soon")


def test_a_round_goes_on_with_seeds_that_were_never_used(torture: Any, tmp_path: Path) -> None:
    (tmp_path / "crates/some").mkdir(parents=True)
    row = torture.Row(1, "model", "some", "model", "agrees", "KV_SEQUENCES", 300)
    run = torture.Run(tmp_path / "state.json")
    torture.run_row(row, program(tmp_path, CALM, 0), run, 100)
    torture.run_row(row, program(tmp_path, CALM, 0), run, 100)
    assert torture.Run(tmp_path / "state.json").first_seed == run.first_seed + 600
    told = run.done["model"]
    assert (told["runs"], told["count"], told["failed"]) == (2, 600, 0)
    assert told["said"] == "300 sequences, 12000 replies compared"
    block = torture.block(run, "10m", 60)
    assert "| 1 | model | 2 | 600 | 0.0 | 0 | 300 sequences, 12000 replies compared |" in block
    assert "No failures." in block


def test_a_failure_is_told_with_the_line_that_shows_it_again(torture: Any, tmp_path: Path) -> None:
    (tmp_path / "crates/some").mkdir(parents=True)
    row = torture.Row(12, "sim", "some", "sim", "outlives")
    run = torture.Run(tmp_path / "state.json")
    failed = "lost\nreproduce: KV_SEED=7 cargo test\ntest result: FAILED. 0 passed; 1 failed"
    torture.run_row(row, program(tmp_path, failed, 101), run, 100)
    # One that ran nothing has not passed.
    nothing = CALM.replace("1 passed", "0 passed")
    torture.run_row(row, program(tmp_path, nothing, 0), run, 100)
    assert run.failures[0] == "12 sim: reproduce: KV_SEED=7 cargo test"
    assert len(run.failures) == 2
    assert "lost" in (tmp_path / "sim-1000000.log").read_text()
    assert "- 12 sim: reproduce" in torture.block(run, "10m", 60)


def test_a_python_test_says_what_it_did(torture: Any, tmp_path: Path) -> None:
    (tmp_path / ".venv/bin").mkdir(parents=True)
    python = Path(program(tmp_path, "2457 tasks ran, 16 kills\n.\n1 passed in 130.43s (0:02:10)", 0))
    python.rename(tmp_path / ".venv/bin/python")
    run = torture.Run(tmp_path / "state.json")
    torture.run_queues(run, 100)
    told = run.done["queues"]
    assert (told["count"], told["failed"], told["said"]) == (2000, 0, "2457 tasks ran, 16 kills")
    assert "| 21 | queues | 1 | 2000 |" in torture.block(run, "10m", 60)


def test_every_row_names_a_test_that_is_there(torture: Any) -> None:
    root = SCRIPT.parent.parent
    queues = root / torture.QUEUES.test
    assert torture.QUEUES.count in queues.read_text()
    for row in torture.ROWS:
        files = [
            *(root / "crates" / row.crate / "tests").glob(f"{row.binary}.rs"),
            *(root / "crates" / row.crate / "tests" / row.binary).glob("*.rs"),
        ]
        text = "".join(path.read_text() for path in files)
        name = row.test.rsplit("::", 1)[-1]
        assert f"fn {name}" in text, row
        assert not row.count or row.count in text, row
