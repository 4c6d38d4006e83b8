"""The soak's processes: the front door over two organizations, their apps, and a third app that comes and goes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.edge.processes import free_ports
from bench.soak_watch import processes

REGIONS = ("ord", "fra", "sin", "syd")
ORGANIZATIONS = {"hello": "personal", "shop": "acme"}
"""The accounted apps, and whose they are."""
INSTANCES = {"hello": 8, "shop": 2}
GUEST_ORGANIZATION = "acme"
WAIT_S = 30.0
SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


def until(check: Callable[[], object], what: str) -> None:
    """Wait until `check` holds; SystemExit when it does not within WAIT_S."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            if check():
                return
        except (OSError, ValueError, KeyError):
            pass
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {WAIT_S:.0f} s: {what}")
        time.sleep(0.05)


class Stage:
    """Everything that runs beside the soak itself; `stop` ends it."""

    def __init__(self, folder: Path, telemetry: dict[str, object], workers: int) -> None:
        """`telemetry`: more keys of that section."""
        self._folder = folder
        self._workers = workers
        self._config = folder / "flyproxy.yaml"
        self.database = folder / "data" / "store.db"
        doors = free_ports(len(REGIONS) + 1)
        self.doors = dict(zip(REGIONS, doors, strict=False))
        self._telemetry = {"bind": f"127.0.0.1:{doors[-1]}", "data_dir": str(folder / "data"), **telemetry}
        self._base = f"http://127.0.0.1:{doors[-1]}"
        self._ports = {app: free_ports(count) for app, count in INSTANCES.items()}
        self._guest = ""
        self._guests = 0
        self._apps = {app: self._start_app(ports) for app, ports in self._ports.items()}
        self._last_of_hello = self._start_last()
        self.supervisor = self._start_front_door()
        self._tokens = {organization: self._mint(organization) for organization in ORGANIZATIONS.values()}

    # What it does to the front door ----------------------------------------------------------------------------------

    def restart_app(self) -> None:
        """The last instance of `hello` leaves gently and comes back: its scrapes fail meanwhile."""
        self._last_of_hello.terminate()
        self._last_of_hello.wait(WAIT_S)
        time.sleep(1.0)
        self._last_of_hello = self._start_last()

    def kill_edge_worker(self) -> None:
        """With SIGKILL, by its pid; back when its successor serves. Nothing may be in flight."""
        time.sleep(0.5)  # what was counted is folded every 0.1 s
        victim = min(processes(self.supervisor.pid)["edge"])
        os.kill(victim, signal.SIGKILL)
        until(lambda: victim not in self._edges() and len(self._edges()) == self._workers, "a new edge worker")
        until(self._ready, "the front door is ready again")

    def change_guest(self) -> None:
        """An app nobody has seen comes, or the one that is there goes; both by a reload."""
        self._guests += not self._guest
        self._guest = "" if self._guest else f"guest-{self._guests}"
        self._write_config()
        status, body = self.fetch("/-/reload", data=b"")
        if status != 200:
            raise SystemExit(f"the reload was refused: {body.decode()}")

    # What it asks the front door -------------------------------------------------------------------------------------

    def fetch(self, path: str, *, token: str = "", data: bytes | None = None) -> tuple[int, bytes]:
        """(status, body)"""
        request = urllib.request.Request(self._base + path, data=data)
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=WAIT_S) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as fault:
            with fault:
                return fault.code, fault.read()

    def ask(self, organization: str, endpoint: str, **parameters: str) -> Any:
        """The data of an answer of the API, with the organization's own token. Raises ValueError for a refusal."""
        path = f"/prometheus/{organization}/api/v1/{endpoint}?{urllib.parse.urlencode(parameters)}"
        status, body = self.fetch(path, token=self._tokens[organization])
        if status != 200:
            raise ValueError(f"{path}: {status} {body.decode(errors='replace')}")
        return json.loads(body)["data"]

    def stored(self, app: str, family: str, *by: str) -> Counter[tuple[str, ...]]:
        """A family's sums by labels, as the API gives them now."""
        query = f'sum by ({", ".join(by)}) ({family}{{app="{app}"}})'
        result = self.ask(ORGANIZATIONS[app], "query", query=query)["result"]
        return Counter(
            {tuple(each["metric"].get(name, "") for name in by): int(float(each["value"][1])) for each in result}
        )

    def exposed(self, app: str, family: str, *by: str) -> Counter[tuple[str, ...]]:
        """The same from /metrics."""
        sums: Counter[tuple[str, ...]] = Counter()
        for line in self.fetch("/metrics")[1].decode().splitlines():
            found = SAMPLE.fullmatch(line)
            if found is not None and found[1] == family:
                labels = dict(LABEL.findall(found[2] or ""))
                if labels.get("app") == app:
                    sums[tuple(labels.get(name, "") for name in by)] += int(float(found[3]))
        return sums

    # Beginning and end -----------------------------------------------------------------------------------------------

    def alive(self) -> bool:
        return self.supervisor.poll() is None

    def log(self) -> str:
        """What the front door said."""
        return (self._folder / "flyproxy.log").read_text()

    def stop(self) -> None:
        """End everything, the front door first and gently."""
        for process in (self.supervisor, *self._apps.values(), self._last_of_hello):
            process.terminate()
            try:
                process.wait(WAIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _edges(self) -> list[int]:
        return processes(self.supervisor.pid).get("edge", [])

    def _ready(self) -> bool:
        return self.fetch("/-/ready")[0] == 200

    def _start_last(self) -> "subprocess.Popen[bytes]":
        return self._start_app(self._ports["hello"], last=True)

    def _start_app(self, ports: list[int], *, last: bool = False) -> "subprocess.Popen[bytes]":
        chosen = ports[-1:] if last else ports[:-1] if len(ports) == INSTANCES["hello"] else ports
        text = ",".join(map(str, chosen))
        command = [sys.executable, "-m", "bench.soak_app", "--ports", text]
        return subprocess.Popen(command, cwd=Path(__file__).parent.parent)

    def _start_front_door(self) -> "subprocess.Popen[bytes]":
        self._write_config()
        with (self._folder / "flyproxy.log").open("wb") as log:
            command = [sys.executable, "-m", "flyproxy", "run", "-c", str(self._config)]
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            until(lambda: process.poll() is not None or self._ready(), "the front door is ready")
            if process.poll() is not None:
                raise SystemExit("the front door did not start")
        except SystemExit as fault:
            process.terminate()
            for app in (*self._apps.values(), self._last_of_hello):
                app.terminate()
            raise SystemExit(f"{fault}\n{self.log()}") from None
        return process

    def _write_config(self) -> None:
        hello, shop = (self._app(app, ORGANIZATIONS[app], self._ports[app]) for app in ORGANIZATIONS)
        guests = [self._app(self._guest, GUEST_ORGANIZATION, self._ports["shop"][:1])] if self._guest else []
        config = {
            "edge": {"region": REGIONS[0], "workers": self._workers, "access_log": "off"},
            "listeners": [{"bind": f"127.0.0.1:{port}", "region": region} for region, port in self.doors.items()],
            "telemetry": self._telemetry,
            "organizations": [{"slug": organization} for organization in ORGANIZATIONS.values()],
            "apps": [hello, shop, *guests],
            "timeouts": {"drain": "2s"},
        }
        self._config.write_text(json.dumps(config, indent=1))  # YAML reads JSON

    def _app(self, name: str, organization: str, ports: list[int]) -> dict[str, object]:
        return {
            "name": name,
            "organization": organization,
            "hostnames": [f"{name}.localhost"],
            "metrics": {"path": "/metrics"},
            "instances": [
                {"address": f"127.0.0.1:{port}", "region": REGIONS[number % len(REGIONS)]}
                for number, port in enumerate(ports)
            ],
        }

    def _mint(self, organization: str) -> str:
        command = [sys.executable, "-m", "flyproxy", "auth", "token", "--org", organization, "-c", str(self._config)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
