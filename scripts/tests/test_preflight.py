"""Tests of scripts/preflight: one line with the remedy for each thing a machine lacks, on a made-up PATH."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What the script itself calls.
TOOLS = ("bash", "cut", "dirname", "head", "sed", "sort")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder of commands: a complete machine, from which a test takes something away."""
    for name in TOOLS:
        found = shutil.which(name)
        assert found is not None
        (tmp_path / name).symlink_to(found)
    command(tmp_path, "cargo", "exit 0")
    command(tmp_path, "cc", "exit 0")
    command(tmp_path, "rustc", 'echo "rustc 1.95.0 (0 2026-01-01)"')
    command(tmp_path, "python3", "case $2 in *version_info*) echo 3.13;; esac")
    return tmp_path


def command(folder: Path, name: str, body: str) -> None:
    """Puts a command into the made-up machine."""
    path = folder / name
    path.write_text(f"#!{folder}/bash\n{body}\n")
    path.chmod(0o755)


def preflight(machine: Path, *needs: str) -> tuple[int, list[str]]:
    """Exit status and lines of a run on the made-up machine."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHON"} | {
        "PATH": str(machine)
    }
    script = ROOT / "scripts" / "preflight"
    done = subprocess.run(
        [machine / "bash", script, *needs], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()


def test_a_complete_machine_passes_in_silence(machine: Path) -> None:
    assert preflight(machine, "rust", "linker", "python") == (0, [])


@pytest.mark.parametrize(
    ("name", "body", "need", "complaint", "remedy"),
    [
        ("cc", None, "linker", "no C compiler and linker", "apt-get install gcc libc6-dev"),
        ("cargo", None, "rust", "no Rust toolchain", "install Rust"),
        ("rustc", 'echo "rustc 1.70.0 (0 2023-06-01)"', "rust", "Rust 1.70.0 is older than", "rustup update"),
        ("python3", None, "python", "no python3 on the PATH", "apt-get install python3 python3-venv"),
        ("python3", "echo 3.9", "python", "Python 3.9 is older than 3.11", "PYTHON=python3.11"),
        (
            "python3",
            "case $2 in *ensurepip*) exit 1;; *) echo 3.11;; esac",
            "python",
            "no venv module",
            "apt-get install python3-venv",
        ),
    ],
)
def test_what_is_missing_gives_one_line_with_the_remedy(
    machine: Path, name: str, body: str | None, need: str, complaint: str, remedy: str
) -> None:
    (machine / name).unlink()
    if body is not None:
        command(machine, name, body)
    status, lines = preflight(machine, need)
    assert status == 1
    assert len(lines) == 1
    assert complaint in lines[0]
    assert remedy in lines[0].partition("Remedy: ")[2]


def test_each_missing_thing_gets_its_line(machine: Path) -> None:
    (machine / "cc").unlink()
    (machine / "python3").unlink()
    status, lines = preflight(machine, "rust", "linker", "python")
    assert (status, len(lines)) == (1, 2)


def test_a_busy_port_is_named_and_a_free_one_passes(machine: Path) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        status, lines = preflight(machine, f"port:127.0.0.1:{port}")
        assert (status, len(lines)) == (1, 1)
        assert f"port {port} on 127.0.0.1 is in use" in lines[0]
        assert "make serve PORT=" in lines[0]
    assert preflight(machine, f"port:127.0.0.1:{port}") == (0, [])


def test_an_unknown_need_is_an_error(machine: Path) -> None:
    status, lines = preflight(machine, "oracle")
    assert status == 1
    assert "unknown need 'oracle'" in lines[0]
