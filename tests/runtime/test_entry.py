"""How a child process begins."""

import subprocess
import sys

import pytest

ANSWERS = """
from flyproxy.runtime.entry import return_large_blocks
from flyproxy.runtime.query_worker import private_bytes
return_large_blocks()
def serve():
    kept = []
    for _ in range(2):
        answers = []
        for number in range(12):
            answers.append(b"%d" % number * (8 << 20))
            kept.append(b"%d" % number * 2000)
    return kept
before = private_bytes()
kept = serve()
print((private_bytes() - before) >> 20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_large_answers_leave_nothing_behind() -> None:
    megabytes_left = subprocess.run([sys.executable, "-c", ANSWERS], capture_output=True, check=True).stdout
    assert int(megabytes_left) < 4
