"""`python -m demo`: runs the parts one after the other and ends with a summary; exit code 0 if every check held."""

from __future__ import annotations

import sys
import time
import traceback
from types import ModuleType

from demo.report import Report

try:
    from demo import cache, overflow, servers, source, speed, tasks
except ImportError as error:
    print(f"error: {error}. Remedy: make demo, which builds and installs what is missing", file=sys.stderr)
    raise SystemExit(1) from None

PARTS: dict[str, ModuleType] = {
    "cache": cache,
    "tasks": tasks,
    "overflow": overflow,
    "speed": speed,
}


def main() -> int:
    """The whole demo."""
    report, start = Report(), time.monotonic()
    try:
        with servers.running() as all_servers:
            print(
                f"our server: 127.0.0.1:{all_servers.port}; redis-server: {all_servers.redis_how}", flush=True
            )
            for name, part in PARTS.items():
                run(report, name, part, all_servers)
    except (servers.MissingServerError, source.MissingDataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nbroken off", file=sys.stderr)
        return 130
    print(f"\n{report.table()}\n")
    held = report.complete(list(PARTS))
    checks = sum(line.held is not None for line in report.lines)
    verdict = f"all {checks} checks held" if held else f"{len(report.failed)} of {checks} checks FAILED"
    print(f"{verdict}, {time.monotonic() - start:.0f} s")
    return 0 if held else 1


def run(report: Report, name: str, part: ModuleType, all_servers: servers.Servers) -> None:
    """One part; a part that breaks is a check that failed, and the next one runs all the same."""
    report.begin(name, part.TITLE)
    start = time.monotonic()
    try:
        part.show(report, all_servers)
    except source.MissingDataError:
        raise
    except Exception as error:
        traceback.print_exc()
        report.check("ran to its end", False, f"{type(error).__name__}: {error}")
    print(f"    {name}: {time.monotonic() - start:.1f} s", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
