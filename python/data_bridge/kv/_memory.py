"""How much memory an embedded store may take unless told: a tenth of what this container has, at most 1 GiB."""

from __future__ import annotations

import os
from pathlib import Path

MOST = 1 << 30
SHARE = 10
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def budget() -> int:
    """Bytes."""
    return min(MOST, container_limit() // SHARE)


def container_limit() -> int:
    """Bytes that this container may use, else what the machine has."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in LIMITS:
        try:
            text = path.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            return min(machine, int(text))
    return machine
