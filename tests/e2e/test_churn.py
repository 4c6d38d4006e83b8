"""Ten thousand connections that end at random points: the worker lives, every descriptor returns, and no byte of one
connection reaches another. `python -m bench.churn` is the same for longer, with another seed each time."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CONNECTIONS = 10_000
SEED = 1


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_connections_that_end_anywhere_leave_nothing_behind(loop: str) -> None:
    command = [
        sys.executable,
        "-m",
        "bench.churn",
        "--connections",
        str(CONNECTIONS),
        "--loop",
        loop,
        "--seed",
        str(SEED),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("everything holds\n")
