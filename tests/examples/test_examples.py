"""Each example runs as its README says, on free ports."""

import re
import shutil
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
CLIENT_GOLANG = Path("/usr/share/gocode/src/github.com/prometheus/client_golang")
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

    def run(self, *command: str, program: str = sys.executable) -> None:
        self._processes.append(subprocess.Popen([program, *command], cwd=self.folder, stdout=subprocess.DEVNULL))

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

    def query(self, expression: str, *options: str) -> str:
        config = str(self.folder / "flyproxy.yaml")
        command = [sys.executable, "-m", "flyproxy", "query", expression, "-c", config, *options]
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


def serve_and_ask(stage: Stage, example: str, query: str) -> None:
    """Two signups by the first door and one by the second; then `query`, whose answers are told apart by app, region
    and instance, says so."""
    stage.front_door(example)
    for door in (8080, 8080, 8090):
        url = f"http://127.0.0.1:{stage.port(door)}/hello/signup"
        body = eventually(partial(fetch, url, f"{example}.localhost"))
        assert body == b"signup: you have been recorded.\n"

    def every_instance() -> bool:
        rows = {tuple(line.split()) for line in stage.query(query).splitlines()}
        found = {(row[0], row[2], row[3]) for row in rows if len(row) == 4 and re.fullmatch("[0-9a-f]{14}", row[1])}
        return {(example, "ord", "2"), (example, "fra", "1")} <= found

    eventually(every_instance)
    assert re.search(rf"{example}\s+2\n", stage.query(f'sum by (app) (up{{app="{example}"}})'))


@pytest.mark.peer("go")
@pytest.mark.timeout(240)
def test_the_go_app_is_served_and_its_own_metrics_are_found(stage: Stage) -> None:
    if not CLIENT_GOLANG.is_dir():
        pytest.skip("client_golang is missing (Debian: golang-github-prometheus-client-golang-dev)")
    for name in ("main.go", "go.mod", "build.sh"):
        shutil.copy(EXAMPLES / "go" / name, stage.folder)
    subprocess.run(["sh", "build.sh"], cwd=stage.folder, check=True)
    for port in (8081, 8082):
        stage.run("--port", str(stage.port(port)), program=str(stage.folder / "app"))
    serve_and_ask(stage, "go", 'sum by (app, region, instance) (someEvent_count{label="signup"})')


@pytest.mark.peer("node", "npm")
@pytest.mark.timeout(240)
def test_the_express_app_is_served_and_its_own_metrics_are_found(stage: Stage) -> None:
    for name in ("app.js", "package.json", "package-lock.json"):
        shutil.copy(EXAMPLES / "express" / name, stage.folder)
    subprocess.run(["npm", "ci", "--ignore-scripts", "--silent"], cwd=stage.folder, check=True)
    for port in (8081, 8082):
        stage.run("app.js", "--port", str(stage.port(port)), program="node")
    serve_and_ask(stage, "express", 'sum by (app, region, instance) (events_by_type_total{event_type="signup"})')
    assert '"0.08750000000000001"' in stage.query("http_request_duration_seconds_bucket", "--output", "json")


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
