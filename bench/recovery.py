"""How long answers are missing when telemetry or a query worker is killed (kill -9), and how long a door is silent when
its only edge worker is.

    python bench/recovery.py [--rounds 5] [--json FILE]

A front door with one edge worker, one small app, on loopback; per round the process is killed by its pid, then the
same question is asked every 10 ms until it is answered again.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

WAIT_S = 30.0


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def until(check: Callable[[], bool]) -> float:
    """Seconds until `check` holds."""
    begun = time.monotonic()
    while True:
        try:
            if check():
                return time.monotonic() - begun
        except OSError:
            pass
        if time.monotonic() - begun > WAIT_S:
            raise SystemExit(f"no recovery within {WAIT_S} s")
        time.sleep(0.01)


def start(module: str, *arguments: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class FrontDoor:
    """One running front door and its app."""

    def __init__(self, folder: Path) -> None:
        app, self.door, self.telemetry = free_port(), free_port(), free_port()
        self.config = folder / "flyproxy.yaml"
        config = {
            "edge": {"workers": 1, "access_log": "off"},
            "listeners": [{"bind": f"127.0.0.1:{self.door}"}],
            "telemetry": {"bind": f"127.0.0.1:{self.telemetry}", "own_interval": "1s"},
            "apps": [{"name": "app", "hostnames": ["localhost"], "instances": [{"address": f"127.0.0.1:{app}"}]}],
        }
        self.config.write_text(json.dumps(config))
        self.app = start("flyproxy.cli.demo_app", "--port", str(app))
        self.process = start("flyproxy", "run", "-c", str(self.config))
        until(lambda: self.get(f"http://127.0.0.1:{self.telemetry}/-/ready"))
        until(lambda: self.get(f"http://localhost:{self.door}/"))
        done = subprocess.run(
            [sys.executable, "-m", "flyproxy", "auth", "token", "-c", str(self.config)],
            capture_output=True,
            text=True,
            check=True,
        )
        self.token = done.stdout.strip()

    def get(self, url: str, token: str = "") -> bool:
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
        try:
            with urllib.request.urlopen(request, timeout=WAIT_S) as reply:
                return bool(reply.status == 200 and reply.read())
        except urllib.error.HTTPError as fault:
            fault.close()
            return False

    def answers_query(self) -> bool:
        base = f"http://127.0.0.1:{self.telemetry}/prometheus/personal/api/v1/query"
        return self.get(f"{base}?query=sum(fly_edge_http_responses_count)", self.token)

    def answers_request(self) -> bool:
        return self.get(f"http://localhost:{self.door}/")

    def pid_of(self, module: str) -> int:
        """0 while there is none."""
        for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            if f"flyproxy.runtime.{module}" in Path(f"/proc/{pid}/cmdline").read_text():
                return int(pid)
        return 0

    def runs(self, module: str) -> bool:
        return self.pid_of(module) > 0

    def stop(self) -> None:
        for process in (self.process, self.app):
            process.terminate()
            process.wait(15)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--json", type=Path, help="write the raw rounds here")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        door = FrontDoor(Path(folder))
        try:
            kinds = {
                "telemetry": door.answers_query,
                "query_worker": door.answers_query,
                "edge_worker": door.answers_request,
            }
            seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
            for _ in range(options.rounds):
                for kind, answered in kinds.items():
                    until(partial(door.runs, kind))
                    until(answered)
                    time.sleep(1.0)
                    os.kill(door.pid_of(kind), signal.SIGKILL)
                    seconds[kind].append(until(answered))
        finally:
            door.stop()
    print(f"{'killed':14} {'median s':>9} {'worst s':>9}   until answers are back")
    for kind, rounds in seconds.items():
        print(f"{kind:14} {statistics.median(rounds):9.2f} {max(rounds):9.2f}")
    if options.json:
        options.json.write_text(json.dumps({"seconds": seconds}, indent=1))


if __name__ == "__main__":
    main()
