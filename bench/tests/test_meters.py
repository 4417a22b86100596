"""Tests of the meters and the server starter, against a process of the test's own."""

import subprocess
import sys
import time

from bench import meters
from bench.servers import Kind, started


def test_cpu_time_and_memory_of_a_process_grow_with_its_work() -> None:
    code = "\n".join(
        [
            "import sys",
            "while sys.stdin.readline():",
            "    kept = bytearray(50 << 20)",
            "    print(sum(range(2_000_000)), flush=True)",
        ]
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        cpu, memory = meters.cpu_seconds(process.pid), meters.rss_bytes(process.pid)
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.readline() == "1999999000000\n"
        assert meters.cpu_seconds(process.pid) > cpu
        assert meters.rss_bytes(process.pid) > memory + (40 << 20)
        process.kill()


def test_steal_is_a_share_of_the_time() -> None:
    with meters.watch_steal() as steal:
        end = time.monotonic() + 0.05
        while time.monotonic() < end:
            pass
    assert 0 <= steal.share <= 1


def test_the_machine_fits_one_line() -> None:
    assert "cores of" in meters.machine()
    assert "\n" not in meters.machine()


def test_a_missing_server_says_what_would_bring_it() -> None:
    with started(Kind("peer", lambda: None, lambda _: [], "apt-get install peer")) as server:
        assert server == "missing (apt-get install peer)"


def test_memory_is_sampled_while_it_is_watched() -> None:
    code = "kept = b'x' * (60 << 20)\nprint(1, flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        with meters.Memory(process.pid) as memory:
            assert process.stdout.readline() == "1\n"
            seen = len(memory.samples)
            while len(memory.samples) < seen + 2:
                time.sleep(meters.SAMPLE_SECONDS)
        process.communicate("end\n")
        taken = len(memory.samples)
    assert taken == len(memory.samples)
    assert memory.peak == max(memory.samples) > 60 << 20 > memory.samples[0]
