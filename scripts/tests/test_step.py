"""Tests of scripts/step: it keeps the exit status, and an unreachable registry ends in one line of advice."""

import subprocess
from pathlib import Path

import pytest

STEP = Path(__file__).parents[1] / "step"


def step(command: str) -> subprocess.CompletedProcess[str]:
    """Runs a shell command as the step `work`."""
    return subprocess.run([STEP, "work", "bash", "-c", command], capture_output=True, text=True, check=False)


def test_a_step_shows_its_name_output_and_time() -> None:
    done = step("echo hello; echo trouble >&2")
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert lines[0] == "==> work"
    assert {"hello", "trouble"} <= set(lines)
    assert lines[-1].startswith("    work: ok, ")
    assert done.stderr == ""


def test_the_status_of_the_command_is_kept() -> None:
    done = step("exit 7")
    assert done.returncode == 7
    assert "work: FAILED (7)" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    "message",
    [
        "warning: spurious network error (3 tries remaining): [6] Could not resolve hostname",
        "Max retries exceeded with url: /simple/ruff/ (Caused by NewConnectionError)",
        "npm error code EAI_AGAIN",
    ],
)
def test_an_unreachable_registry_ends_in_one_line_of_advice(message: str) -> None:
    done = step(f"echo '{message}'; exit 1")
    assert done.returncode == 1
    assert "registry cannot be reached" in done.stderr
    assert "Remedy: " in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_network_words_in_a_good_run_are_no_error() -> None:
    assert step("echo 'spurious network error, retried'").stderr == ""
