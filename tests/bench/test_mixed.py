"""The mixed load's arithmetic, and its generator against a server that is known."""

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bench.mixed.generator import parse, quantile_ns, requests
from bench.mixed.preload import AGE_STEP_S, MARGIN, STRETCHES_KEPT, TARGETS_MAX, age_s, retention_s

SOURCE = Path(__file__).parent.parent.parent / "bench" / "mixed" / "load.c"


def test_a_quantile_is_of_all_kinds_together() -> None:
    histograms = [[(100, 90), (900, 1)], [(200, 8)], [(5000, 1)]]
    assert [quantile_ns(histograms, share) for share in (0.5, 0.98, 0.99, 0.999)] == [100, 200, 900, 5000]
    assert quantile_ns([], 0.5) == 0


@pytest.mark.parametrize("number", range(TARGETS_MAX))
def test_a_rounds_retention_makes_its_target_due_and_no_younger_one(number: int) -> None:
    due_s = retention_s(number) / STRETCHES_KEPT * MARGIN
    assert age_s(number) - AGE_STEP_S < due_s < age_s(number)
    assert retention_s(number) > 2 * age_s(0)  # nothing is deleted


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(404 if self.path == "/file" else 200)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "1024")
        self.end_headers()
        self.wfile.write(b"x" * 1024)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
@pytest.mark.parametrize("rate", [100, 0])
def test_the_generator_sends_all_that_is_due_and_counts_what_failed(port: int, tmp_path: Path, rate: int) -> None:
    program = tmp_path / "load"
    subprocess.run(["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(SOURCE)], check=True)
    command = [str(program), str(port), str(rate), "1", "4", "7"]
    told = subprocess.run(command, input=requests(), capture_output=True, check=True, timeout=30).stdout
    run = parse(told.decode())
    counts = {kind: sum(count for _, count in histogram) for kind, histogram in run.histograms.items()}
    assert sum(counts.values()) == run.done
    assert run.done == 100 if rate else run.done > 4
    assert run.failed == counts["large"]  # those are answered by a 404 here
    assert run.dialled >= 4 + counts["new_connection"] + run.retried
    assert json.loads(told)["seconds"] >= 1.0
