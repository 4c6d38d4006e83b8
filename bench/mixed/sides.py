"""The two sides: flyproxy, and HAProxy beside a Prometheus that scrapes it. Each reloads and is asked its own way.

What carries traffic has CPU 0: HAProxy's processes, and flyproxy's edge worker. What does not (telemetry, query
workers, supervisor; Prometheus) may run on either CPU, where the kernel wants it, on both sides alike: that is how they
would be run, and a Prometheus shares its machine with the proxy no less than telemetry does. Load and upstream have CPU
1 and, where this is allowed, a nice value of -15, so that neither side's queries delay the clock that measures them.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from bench.edge.peers import Haproxy, Place, Scene, said
from bench.edge.processes import Processes, free_ports, tree, wait_for
from bench.mixed import panels
from bench.mixed.panels import Dashboard
from bench.mixed.preload import ORGANIZATION, preload, retention_s

HOST = "hello.test"
SCRAPE_S = 5
READY_S = 30.0


class Side:
    """One proxy and what stands beside it."""

    name = ""
    port = 0

    def dashboard(self) -> Dashboard:
        raise NotImplementedError

    def reload(self, number: int) -> None:
        """The reload of one round."""
        raise NotImplementedError

    def exposed(self) -> dict[str, float]:
        """What its own metrics say now; empty where it has none that are looked at."""
        return {}


class HaproxySide(Side):
    """Master and worker; a reload is SIGUSR2 to the master, which hands the listening sockets on."""

    name = "haproxy"

    def __init__(self, processes: Processes, folder: Path, origins: tuple[int, ...], cpus: tuple[int, int]) -> None:
        folder.mkdir()
        self.port, self._prometheus = free_ports(2)
        place = Place(folder, self.port, origins)
        Haproxy().command(Scene(), place)
        config = folder / "haproxy.cfg"
        text = config.read_text()
        socket = f"  stats socket {folder}/haproxy.sock mode 600 level admin expose-fd listeners\n"
        config.write_text(text.replace("global\n", f"global\n{socket}", 1))
        metrics = int(text.partition("frontend metrics")[2].partition("bind 127.0.0.1:")[2].split()[0])
        log = folder / "log"
        self._master = processes.start(cpus[0], ["haproxy", "-W", "-db", "-f", str(config)], log)
        wait_for(self.port, self._master, log, HOST)
        scrape = {"scrape_interval": f"{SCRAPE_S}s", "static_configs": [{"targets": [f"127.0.0.1:{metrics}"]}]}
        (folder / "prometheus.yml").write_text(
            json.dumps({"scrape_configs": [{"job_name": "haproxy", "scrape_timeout": f"{SCRAPE_S}s", **scrape}]})
        )
        beside = processes.start(
            cpus[1],
            [
                "taskset", "-c", ",".join(map(str, cpus)), "prometheus", f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/prometheus", f"--web.listen-address=127.0.0.1:{self._prometheus}",
                "--log.level=error",
            ],
            folder / "prometheus.log",
        )  # fmt: skip
        until_ready(f"http://127.0.0.1:{self._prometheus}/-/ready", beside)

    def dashboard(self) -> Dashboard:
        return Dashboard(self._prometheus, "/api/v1/query_range", panels.HAPROXY, {})

    def reload(self, number: int) -> None:
        self._master.send_signal(signal.SIGUSR2)


class FlyproxySide(Side):
    """All of `flyproxy run` over a preloaded store; a reload makes one target's log due for sealing."""

    name = "flyproxy"

    def __init__(
        self, processes: Processes, folder: Path, origins: tuple[int, ...], cpus: tuple[int, int], reloads: int
    ) -> None:
        folder.mkdir()
        self.port, self._telemetry = free_ports(2)
        self._config, self._origin = folder / "flyproxy.yaml", origins[0]
        self._data = folder / "data"
        self._write(None)
        self.preloaded_samples = preload(self._data / "store.db", reloads)
        log = folder / "log"
        self.process = processes.start(
            cpus[1],
            [
                "taskset",
                "-c",
                ",".join(map(str, cpus)),
                sys.executable,
                "-m",
                "flyproxy",
                "run",
                "-c",
                str(self._config),
            ],
            log,
        )
        until_ready(f"http://127.0.0.1:{self._telemetry}/-/ready", self.process)
        wait_for(self.port, self.process, log, HOST)
        for pid in self.edge_workers():
            for thread in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(thread), {cpus[0]})
        command = [sys.executable, "-m", "flyproxy", "auth", "token", "--org", ORGANIZATION, "-c", str(self._config)]
        self._token = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def edge_workers(self) -> list[int]:
        return [pid for pid in tree(self.process.pid) if b"edge_worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def dashboard(self) -> Dashboard:
        path = f"/prometheus/{ORGANIZATION}/api/v1/query_range"
        return Dashboard(self._telemetry, path, panels.FLYPROXY, {"Authorization": f"Bearer {self._token}"})

    def reload(self, number: int) -> None:
        self._write(number)
        request = urllib.request.Request(f"http://127.0.0.1:{self._telemetry}/-/reload", method="POST")
        with urllib.request.urlopen(request, timeout=READY_S) as answer:
            answer.read()

    def exposed(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._telemetry}/metrics", timeout=READY_S) as answer:
            lines = answer.read().decode().splitlines()
        return {
            line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line.startswith("flyproxy_")
        }

    def _write(self, number: int | None) -> None:
        telemetry: dict[str, object] = {"bind": f"127.0.0.1:{self._telemetry}", "data_dir": str(self._data)}
        if number is not None:
            telemetry["retention"] = f"{retention_s(number)}s"
        names = [HOST] if number is None else [HOST, f"round-{number}.test"]
        instances = [{"address": f"127.0.0.1:{self._origin}"}]
        config = {
            "edge": {"workers": 1, "access_log": "off"},
            "listeners": [{"bind": f"127.0.0.1:{self.port}"}],
            "telemetry": telemetry,
            "apps": [{"name": "hello", "hostnames": names, "instances": instances}],
        }
        self._config.write_text(json.dumps(config))  # JSON is YAML


def until_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    """Until it answers with a 200; SystemExit when it does not."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except (OSError, urllib.error.HTTPError):
            time.sleep(0.1)
    raise SystemExit(f"{process.args!r}: {url} is not ready")


def versions() -> dict[str, str]:
    """Of what is beside us."""
    return {"haproxy": Haproxy().version(), "prometheus": said("prometheus", "--version").splitlines()[0]}
