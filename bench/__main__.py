"""`python -m bench [PART...] [--quick]`: runs parts of the benchmark and writes their tables.

Each part is a module of `bench.parts` with a `TITLE` and `measure(plan) -> (rows, peers)`. Rows go to
`bench-results/PART.json` and `docs/BENCHMARKS.md`; the README's table is copied from the same rows.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import pkgutil
import subprocess
import time

import bench.parts
from bench import meters, rows
from bench.plan import Plan
from bench.servers import ROOT

DOCUMENT_HEAD = """# Benchmarks

Written by `make bench`; nothing here is typed by hand. Each figure is the median of interleaved rounds, with the
smallest and the largest in brackets. Rounds with more than 8 % hypervisor steal are repeated. Absolute figures of a
shared virtual machine mean little; ratios are taken in one run. `missing`: the peer was not there; the list above the
table says what would bring it.
"""


def main() -> int:
    """Runs what was asked for; 2 if a part does not exist."""
    known = sorted(module.name for module in pkgutil.iter_modules(bench.parts.__path__))
    parser = argparse.ArgumentParser(prog="make bench", description="Measures the store beside its peers.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(known)}; all by default")
    parser.add_argument(
        "--quick", action="store_true", help="small and short; shows that it works, writes no tables"
    )
    arguments = parser.parse_args()
    unknown = [part for part in arguments.parts if part not in known]
    if unknown:
        print(f"error: no part named {', '.join(unknown)}. Parts: {', '.join(known)}")
        return 2
    for part in arguments.parts or known:
        run_part(part, Plan.quick() if arguments.quick else Plan.full(), write=not arguments.quick)
    return 0


def run_part(part: str, plan: Plan, *, write: bool) -> None:
    """Measures one part, shows it, and writes its tables."""
    module = importlib.import_module(f"bench.parts.{part}")
    print(f"==> {part}: {module.TITLE}", flush=True)
    start = time.monotonic()
    measured, peers = module.measure(plan)
    report = rows.Report(
        part=part,
        title=module.TITLE,
        command=f"make bench NAME={part}",
        commit=commit(),
        machine=meters.machine(),
        day=datetime.datetime.now(datetime.UTC).date().isoformat(),
        rows=measured,
        peers={name: how for name, how in peers.items() if name != rows.OURS},
    )
    print(report.section())
    if write:
        raw = report.write_json(ROOT / "bench-results")
        document = ROOT / "docs" / "BENCHMARKS.md"
        text = document.read_text() if document.exists() else DOCUMENT_HEAD
        document.write_text(rows.replace_section(text, part, report.section()))
        readme = ROOT / "README.md"
        readme.write_text(rows.replace_headlines(readme.read_text(), part, report.headlines()))
        print(f"written: {raw.relative_to(ROOT)}, {document.relative_to(ROOT)}, README.md")
    print(f"    {part}: {time.monotonic() - start:.0f} s", flush=True)


def commit() -> str:
    """The commit that is measured, with a mark if sources differ from it."""
    sources = ["crates", "python", "bench", "Cargo.lock", "Cargo.toml"]
    short = git("rev-parse", "--short", "HEAD") or "unknown"
    return f"{short} with changes" if git("status", "--porcelain", "--", *sources) else short


def git(*arguments: str) -> str:
    """Output of a git command, empty where there is no repository."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


if __name__ == "__main__":
    raise SystemExit(main())
