"""`flyproxy demo`: a front door with four regions, eight small apps behind it, gentle traffic, and a live table.

Everything it starts ends with it: the apps and the front door are children that also die with their parent.
"""

import asyncio
import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import click
import yaml

from flyproxy.cli.demo_table import Watch
from flyproxy.cli.demo_traffic import Traffic
from flyproxy.errors import FlyproxyError

REGIONS = ("ord", "fra", "sin", "syd")
INSTANCES_PER_REGION = 2
FIRST_DOOR = 8080
FIRST_APP = 18081
TELEMETRY_PORT = 9290
READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 4.0
REFRESH_S = 2.0
PR_SET_PDEATHSIG = 1


@click.command(
    epilog="""\b
Examples:
  flyproxy demo                          until ^C
  flyproxy demo --seconds 60             and then stop by itself
  flyproxy demo --app examples/flask/app.py"""
)
@click.option(
    "--app", type=click.Path(exists=True), help="A Python program that takes --port; default: a built-in app."
)
@click.option("--seconds", type=click.FloatRange(min=1), help="Stop after so long.")
@click.option(
    "--rate", type=click.FloatRange(1, 200), default=30.0, show_default=True, help="Requests a second, all in all."
)
def demo(app: str | None, seconds: float | None, rate: float) -> None:
    """Show a real app served in four regions, with traffic and its numbers."""
    with ExitStack() as stack:
        run_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flyproxy-demo-")))
        stage = Stage(run_dir, app)
        stack.callback(stage.stop)
        try:
            stage.start()
            asyncio.run(show(stage, seconds, rate))
        except FlyproxyError as fault:
            raise click.ClickException(str(fault)) from None
        finally:
            click.echo("\nstopping the apps and the front door", err=True)


class DemoError(FlyproxyError):
    """The demo cannot go on."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where everything listens."""

    doors: dict[str, int]
    apps: list[tuple[str, int]]
    """(region, port) of each instance."""
    telemetry: int


def choose_ports() -> Ports:
    """The well-known ones where they are free, others where they are not."""
    taken: set[int] = set()

    def choose(wanted: int) -> int:
        for port in (wanted, 0):
            with socket.socket() as sock:
                try:
                    sock.bind(("127.0.0.1", port))
                except OSError:
                    continue
                found = int(sock.getsockname()[1])
                if found not in taken:
                    taken.add(found)
                    return found
        raise DemoError("no free port on 127.0.0.1")

    doors = {region: choose(FIRST_DOOR + index) for index, region in enumerate(REGIONS)}
    instances = [region for region in REGIONS for _ in range(INSTANCES_PER_REGION)]
    apps = [(region, choose(FIRST_APP + index)) for index, region in enumerate(instances)]
    return Ports(doors, apps, choose(TELEMETRY_PORT))


def configuration(ports: Ports, data_dir: Path) -> dict[str, object]:
    """The demo's own flyproxy.yaml."""
    return {
        "edge": {"region": REGIONS[0], "access_log": "off"},
        "listeners": [{"bind": f"127.0.0.1:{port}", "region": region} for region, port in ports.doors.items()],
        "telemetry": {
            "bind": f"127.0.0.1:{ports.telemetry}",
            "data_dir": str(data_dir),
            "own_interval": "2s",
            "scrape_interval": "5s",
        },
        "organizations": [{"slug": "personal"}],
        "apps": [
            {
                "name": "hello",
                "hostnames": ["hello.localhost", "localhost"],
                "metrics": {"path": "/metrics"},
                "instances": [{"address": f"127.0.0.1:{port}", "region": region} for region, port in ports.apps],
            }
        ],
        "timeouts": {"drain": "2s"},
    }


class Stage:
    """The processes of one demo."""

    def __init__(self, run_dir: Path, app: str | None) -> None:
        self.ports = choose_ports()
        self.data_dir = run_dir / "data"
        self.config = run_dir / "flyproxy.yaml"
        self._log = run_dir / "flyproxy.log"
        self._app = [sys.executable, app] if app else [sys.executable, "-m", "flyproxy.cli.demo_app"]
        self._apps: list[subprocess.Popen[bytes]] = []
        self._front_door: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Apps, then the front door; raises DemoError with the front door's own words when it does not come up."""
        self.config.write_text(yaml.safe_dump(configuration(self.ports, self.data_dir), sort_keys=False))
        started = time.monotonic()
        for _, port in self.ports.apps:
            self._apps.append(start_process([*self._app, "--port", str(port)], subprocess.DEVNULL))
        with self._log.open("wb") as log:
            self._front_door = start_process([sys.executable, "-m", "flyproxy", "run", "-c", str(self.config)], log)
        waiting = [port for _, port in self.ports.apps] + [*self.ports.doors.values(), self.ports.telemetry]
        while waiting:
            waiting = [port for port in waiting if not listens(port)]
            if self._front_door.poll() is not None or time.monotonic() - started > READY_TIMEOUT_S:
                raise DemoError(f"the front door did not come up:\n{self._log.read_text()}")
            if any(process.poll() is not None for process in self._apps):
                raise DemoError(f"an app ended: {' '.join(self._app)}")
            time.sleep(0.05)

    def alive(self) -> bool:
        return self._front_door is not None and self._front_door.poll() is None

    def stop(self) -> None:
        """End everything, gently first."""
        processes = [*self._apps, *([self._front_door] if self._front_door else [])]
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for process in processes:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def start_process(command: Sequence[str], output: int | IO[bytes]) -> subprocess.Popen[bytes]:
    """In a session of its own (^C is ours to pass on), and dead when we are."""
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def die_with_parent() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)

    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
    except OSError:
        return False
    return True


async def show(stage: Stage, seconds: float | None, rate: float) -> None:
    """Traffic and table until the time is up; raises DemoError when the front door ends first."""
    token = mint_token(stage.data_dir)
    base = f"http://127.0.0.1:{stage.ports.telemetry}"
    click.echo(invitation(stage, base, token))
    watch = Watch(base, "personal", token, terminal=sys.stdout.isatty())
    async with Traffic(stage.ports.doors, rate) as traffic, watch:
        deadline = time.monotonic() + seconds if seconds else float("inf")
        while time.monotonic() < deadline:
            await asyncio.sleep(REFRESH_S)
            if not stage.alive():
                raise DemoError("the front door ended")
            click.echo(await watch.text(traffic), nl=False)


def mint_token(data_dir: Path) -> str:
    """A token of the demo's own organization."""
    from flyproxy.api.tokens import Scope, TokenFile
    from flyproxy.clock import SystemClock

    return TokenFile(data_dir / "tokens", SystemClock()).mint("personal", Scope.READ)


def invitation(stage: Stage, base: str, token: str) -> str:
    """What to try, ready to paste."""
    query = "sum by (region, status) (rate(fly_edge_http_responses_count[1m]))"
    doors = "\n".join(
        f"  {region}   http://hello.localhost:{port}/hello/signup" for region, port in stage.ports.doors.items()
    )
    return f"""\
flyproxy demo: one app, {len(stage.ports.apps)} instances in {len(REGIONS)} regions; ^C stops everything

The doors (any path: /, /slow, /broken):
{doors}

Ask in PromQL, over Fly's own API:
  curl -s -H 'Authorization: Bearer {token}' \\
    {base}/prometheus/personal/api/v1/query \\
    --data-urlencode 'query={query}'

Grafana: data source Prometheus, URL {base}/prometheus/personal,
  header Authorization: Bearer {token}
This front door's own metrics: {base}/metrics
"""
