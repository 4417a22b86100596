"""What workers and programs did, one line each in the file that EVENTS names: for tests that count afterwards."""

from __future__ import annotations

import os
import time


def note(*words: object) -> None:
    """Adds a line. Each is one write to the end of the file, so those of many processes do not mix."""
    path = os.environ.get("EVENTS")
    if path is None:
        return
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, (" ".join(map(str, words)) + "\n").encode())
    finally:
        os.close(file)


def rest() -> None:
    """What a task takes: REST seconds, so that what happens meanwhile meets it."""
    time.sleep(float(os.environ.get("REST", "0")))
