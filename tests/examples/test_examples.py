"""Each example runs as its README says, on free ports."""

import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
WAIT_S = 30.0


def eventually(check: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            if found := check():
                return found
        except OSError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.1)


class Stage:
    """One example with its ports moved to free ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._ports: dict[str, int] = {}

    def port(self, written: int) -> int:
        """The free port that stands for the one in the example's files."""
        if str(written) not in self._ports:
            with socket.socket() as sock:
                sock.bind(("127.0.0.1", 0))
                self._ports[str(written)] = sock.getsockname()[1]
        return self._ports[str(written)]

    def run(self, *command: str) -> None:
        self._processes.append(subprocess.Popen([sys.executable, *command], cwd=self.folder, stdout=subprocess.DEVNULL))

    def front_door(self, example: str) -> Path:
        text = (EXAMPLES / example / "flyproxy.yaml").read_text()
        config = yaml.safe_load(re.sub(r"(127\.0\.0\.1:)(\d+)", lambda m: m[1] + str(self.port(int(m[2]))), text))
        config["telemetry"] = {
            "bind": f"127.0.0.1:{self.port(9290)}",
            "own_interval": "1s",
            "scrape_interval": "1s",
        }
        file = self.folder / "flyproxy.yaml"
        file.write_text(yaml.safe_dump(config))
        self.run("-m", "flyproxy", "run", "-c", str(file))
        eventually(lambda: fetch(f"http://127.0.0.1:{self.port(9290)}/-/ready"))
        return file

    def query(self, expression: str) -> str:
        command = [sys.executable, "-m", "flyproxy", "query", expression, "-c", str(self.folder / "flyproxy.yaml")]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            process.wait(15)


def fetch(url: str, host: str = "") -> bytes:
    request = urllib.request.Request(url, headers={"Host": host} if host else {})
    with urllib.request.urlopen(request, timeout=10) as reply:
        return bytes(reply.read())


def listens(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), 1):
        return True


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    staged = Stage(tmp_path)
    yield staged
    staged.stop()


@pytest.mark.timeout(90)
def test_the_flask_app_is_served_and_its_own_metrics_are_found(stage: Stage) -> None:
    for port in (8081, 8082):
        stage.run(str(EXAMPLES / "flask" / "app.py"), "--port", str(stage.port(port)))
    stage.front_door("flask")
    for door in (8080, 8080, 8090):
        url = f"http://127.0.0.1:{stage.port(door)}/hello/signup"
        body = eventually(partial(fetch, url, "hello.localhost"))
        assert body == b"signup: you have been recorded.\n"

    def both_regions() -> bool:
        text = stage.query("sum by (event_type, region) (events_by_type_total)")
        return bool(re.search(r"signup\s+ord\s+2\n", text) and re.search(r"signup\s+fra\s+1\n", text))

    eventually(both_regions)
    assert re.search(r"hello\s+2\n", stage.query('sum by (app) (up{app="hello"})'))


@pytest.mark.timeout(90)
def test_the_tcp_door_passes_bytes_and_counts_them(stage: Stage) -> None:
    stage.run(str(EXAMPLES / "tcp" / "echo.py"), "--port", str(stage.port(7001)))
    stage.front_door("tcp")
    eventually(partial(listens, stage.port(7001)))
    with socket.create_connection(("127.0.0.1", stage.port(7000)), 10) as sock:
        sock.sendall(b"hello\n")
        sock.shutdown(socket.SHUT_WR)
        received = b""
        while data := sock.recv(100):
            received += data
    assert received == b"hello\n"
    eventually(lambda: re.search(r"\s6\n", stage.query('sum by (app) (fly_edge_data_in{app="echo"})')))
