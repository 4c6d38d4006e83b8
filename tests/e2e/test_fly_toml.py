"""`flyproxy run fly.toml`, as a user of Fly would try it: the file as it is, the app beside it, nothing else."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

FLY_TOML = """\
app = "fly-hello"
primary_region = "ord"
kill_signal = "SIGINT"

[env]
  PORT = "{app}"

[[services]]
  internal_port = {app}
  protocol = "tcp"
  auto_stop_machines = "stop"

  [[services.ports]]
    port = {http}
    handlers = ["http"]
    force_https = true

  [[services.ports]]
    port = {tcp}

  [services.concurrency]
    type = "requests"
    soft_limit = 20
    hard_limit = 25

[metrics]
  port = {metrics}
  path = "/{page}"
"""


class App(ThreadingHTTPServer):
    """Answers everything, and has two pages of metrics."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        pages = {"/metrics": b"# TYPE jobs counter\njobs_total 5\n", "/other": b"# TYPE mails counter\nmails_total 7\n"}
        body = pages.get(self.path, b"hello from " + self.path.encode())
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """The test's output is for pytest."""


class Running:
    """A front door made from a fly.toml."""

    def __init__(self, folder: Path, free_port: Callable[[], int], app: App, metrics: App) -> None:
        self.ports = {"app": app.port, "http": free_port(), "tcp": free_port(), "metrics": metrics.port}
        self.telemetry = free_port()
        self.file = folder / "fly.toml"
        self.write("metrics")
        self.log = folder / "log.txt"
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("FLY", "PYTHON"))}
        self.environment = {
            **environment,
            "PYTHONWARNINGS": "error",
            "FLYPROXY_TELEMETRY_BIND": f"127.0.0.1:{self.telemetry}",
            "FLYPROXY_TELEMETRY_OWN_INTERVAL": "1s",
            "FLYPROXY_TELEMETRY_SCRAPE_INTERVAL": "1s",
            "FLYPROXY_EDGE_WORKERS": "1",
        }
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flyproxy", "run", "fly.toml"],
                cwd=folder,
                stdout=output,
                stderr=output,
                env=self.environment,
                start_new_session=True,
            )
        self.token = ""

    def write(self, page: str) -> None:
        self.file.write_text(FLY_TOML.format(page=page, **self.ports))

    def get(self, port: int, path: str, token: str = "") -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Host": "any.example"})
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=10) as reply:
            body: bytes = reply.read()
            return body

    def ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return bool(self.get(self.telemetry, "/-/ready"))

    def vector(self, expression: str) -> list[dict[str, Any]]:
        if not self.token:
            command = [sys.executable, "-m", "flyproxy", "auth", "token", "-c", "fly.toml"]
            done = subprocess.run(
                command, cwd=self.file.parent, env=self.environment, capture_output=True, text=True, check=True
            )
            self.token = done.stdout.strip()
        query = urllib.parse.urlencode({"query": expression})
        answer = self.get(self.telemetry, f"/prometheus/personal/api/v1/query?{query}", self.token)
        found: list[dict[str, Any]] = json.loads(answer)["data"]["result"]
        return found

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(15)
        text = self.log.read_text()
        assert "Traceback" not in text, text


@pytest.fixture
def running(tmp_path: Path, toolbox: dict[str, Any]) -> Iterator[Running]:
    with App() as app, App() as metrics:
        front_door = Running(tmp_path, toolbox["free_port"], app, metrics)
        try:
            toolbox["eventually"](front_door.ready, what=f"ready: {front_door.log.read_text()}")
            yield front_door
        finally:
            front_door.stop()
            app.shutdown()
            metrics.shutdown()


def test_a_fly_toml_runs_as_it_is(running: Running, toolbox: dict[str, Any]) -> None:
    eventually = toolbox["eventually"]

    assert running.get(running.ports["http"], "/x") == b"hello from /x"
    with socket.create_connection(("127.0.0.1", running.ports["tcp"]), 10) as raw:
        raw.sendall(b"GET /raw HTTP/1.0\r\n\r\n")
        assert raw.makefile("rb").read().endswith(b"hello from /raw")

    (up,) = eventually(lambda: running.vector('up{app="fly-hello"} == 1'), what="the app's own metrics are scraped")
    assert up["value"][1] == "1"
    (jobs,) = eventually(lambda: running.vector("jobs_total"))
    assert jobs["value"][1] == "5"
    for series in (up, jobs):
        labels = series["metric"]
        assert (labels["app"], labels["region"]) == ("fly-hello", "ord")
        assert re.fullmatch("[0-9a-f]{14}", labels["instance"])
        assert re.fullmatch("[0-9a-f]{4}", labels["host"])
    (answers,) = eventually(lambda: running.vector('fly_edge_http_responses_count{app="fly-hello",status="200"}'))
    assert answers["metric"]["region"] == "ord"
    assert answers["value"][1] == "1"


def test_what_is_not_done_is_said_at_the_start_and_at_each_reload(running: Running, toolbox: dict[str, Any]) -> None:
    eventually = toolbox["eventually"]
    eventually(lambda: running.vector("jobs_total"))

    def said() -> list[tuple[str, str]]:
        found = re.finditer(r"(fly\.toml:\S+) warning: (\S+):", running.log.read_text())
        return [(one[1], one[2]) for one in found]

    warned = [
        ("fly.toml:11:3:", "services[0].auto_stop_machines"),
        ("fly.toml:16:5:", "services[0].ports[0].force_https"),
        ("fly.toml:23:5:", "services[0].concurrency.soft_limit"),
    ]
    assert said() == warned

    running.write("other")
    running.reload()
    (mails,) = eventually(lambda: running.vector("mails_total"), what="the new page is scraped")
    assert mails["value"][1] == "7"
    assert said() == warned * 2

    running.file.write_text(running.file.read_text().replace("internal_port", "internal_prot"))
    running.reload()
    eventually(lambda: "did you mean 'internal_port'?" in running.log.read_text(), what="the reload is refused")
    assert running.get(running.ports["http"], "/still") == b"hello from /still"


def test_an_app_without_services_is_only_scraped_until_it_gets_one(running: Running, toolbox: dict[str, Any]) -> None:
    eventually = toolbox["eventually"]

    def refused() -> bool:
        try:
            running.get(running.ports["http"], "/")
        except OSError:
            return True
        return False

    running.file.write_text(f'app = "fly-hello"\n[metrics]\nport = {running.ports["metrics"]}\npath = "other"\n')
    running.reload()
    eventually(refused, what="the doors are closed")
    (mails,) = eventually(lambda: running.vector("mails_total"), what="the worker's page is scraped")
    assert mails["value"][1] == "7"
    assert "only metrics are scraped" in running.log.read_text()

    running.write("metrics")
    running.reload()
    eventually(lambda: not refused(), what="the doors are open again")
