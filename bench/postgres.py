"""A PostgreSQL server of the benchmark's own; by default each of its commits is durable. Used by the durable part."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.plan import RefusedError

NAME = "PostgreSQL"
REMEDY = "apt-get install postgresql"
READY_SECONDS = 30.0
ROWS = 100_000
SETTINGS = ["listen_addresses=", "max_connections=300", "shared_buffers=256MB"]
UPSERT = f"""\\set id random(1, {ROWS})
INSERT INTO kv VALUES (:id, repeat('x', 100)) ON CONFLICT (id) DO UPDATE SET value = excluded.value;
"""


@dataclass(frozen=True)
class Postgres:
    """A server that answers on a socket in its folder."""

    folder: Path
    binaries: Path
    how: str

    def upserts(self, clients: int, seconds: float) -> float:
        """Upserts a second of so many clients. RefusedError if none was finished."""
        script = self.folder / "upsert.sql"
        script.write_text(UPSERT)
        command: list[str | Path] = [
            self.binaries / "pgbench",
            "-h",
            self.folder,
            "-U",
            "bench",
            "-n",
            "-M",
            "prepared",
        ]
        command += ["-c", str(clients), "-j", "1", "-T", str(round(seconds)), "-f", script, "postgres"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = re.search(r"tps = ([\d.]+)", done.stdout)
        if found is None:
            raise RefusedError(f"{NAME} finished no upsert of {clients} clients in {seconds:g} s")
        return float(found[1])


def binaries() -> Path | None:
    """The folder of the newest version that is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    known = found[-1] if found else None
    if known is None and (server := shutil.which("postgres")):
        known = Path(server).resolve().parent
    return (
        known
        if known and all((known / name).exists() for name in ("postgres", "initdb", "pgbench"))
        else None
    )


@contextmanager
def started() -> Iterator[Postgres | str]:
    """The server running, or why it is missing."""
    found = binaries()
    if found is None:
        yield f"missing ({REMEDY})"
        return
    as_user = other_user()
    if as_user is None and os.geteuid() == 0:
        yield "missing (it does not run as root, and there is no user postgres)"
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if as_user:
            user = pwd.getpwnam("postgres")
            os.chown(folder, user.pw_uid, user.pw_gid)
        data = folder / "data"
        initialise: list[str | Path] = [
            found / "initdb",
            "-U",
            "bench",
            "-A",
            "trust",
            "--no-sync",
            "-D",
            data,
        ]
        subprocess.run(initialise, check=True, capture_output=True, preexec_fn=as_user, cwd=folder)
        settings = [word for setting in SETTINGS for word in ("-c", setting)]
        command: list[str | Path] = [found / "postgres", "-D", data, "-k", folder, *settings]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=as_user, cwd=folder)
        try:
            if not create_table(found, folder, process):
                yield f"missing (did not start: {(folder / 'log').read_text().strip()[-200:]})"
                return
            version = subprocess.run([found / "postgres", "-V"], capture_output=True, text=True, check=True)
            how = (
                f"{version.stdout.strip()}, one-row upserts by pgbench, `{' '.join(settings)}`, defaults else"
            )
            yield Postgres(folder, found, how)
        finally:
            process.terminate()
            process.wait()


def other_user() -> Callable[[], None] | None:
    """Makes a process that root starts one of the user postgres; None where nothing is to be done, or can be."""
    if os.geteuid() != 0:
        return None
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        return None

    def become() -> None:
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)

    return become


def create_table(found: Path, folder: Path, process: subprocess.Popen[bytes]) -> bool:
    """Makes the table as soon as the server answers; False if it ended or took too long."""
    text = "CREATE TABLE kv (id int PRIMARY KEY, value text NOT NULL)"
    command: list[str | Path] = [found / "psql", "-h", folder, "-U", "bench", "-c", text, "postgres"]
    give_up = time.monotonic() + READY_SECONDS
    while time.monotonic() < give_up and process.poll() is None:
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return True
        time.sleep(0.1)
    return False
