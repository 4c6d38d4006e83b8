"""`flyproxy demo`: a front door with four regions, small apps behind it, gentle traffic, and a live table.

Everything it starts ends with it: the apps and the front door are children that also die with their parent.
"""

import asyncio
import ctypes
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO

import click
import yaml

from flyproxy.cli.demo_table import Watch
from flyproxy.cli.demo_traffic import Traffic
from flyproxy.errors import FlyproxyError

REGIONS = ("ord", "fra", "sin", "syd")
INSTANCES_PER_REGION = 2
"""Of the first app; every other one has one instance in each of OTHER_REGIONS."""
OTHER_REGIONS = REGIONS[:2]
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
  flyproxy demo --app examples/flask/app.py
  flyproxy demo --app hello=examples/flask/app.py --app express=examples/express/app.js"""
)
@click.option(
    "--app",
    "apps",
    metavar="[NAME=]PROGRAM",
    multiple=True,
    help="A program that takes --port (.py: Python, .js: Node), once for each app; default: a built-in app.",
)
@click.option("--seconds", type=click.FloatRange(min=1), help="Stop after so long.")
@click.option(
    "--rate", type=click.FloatRange(1, 200), default=30.0, show_default=True, help="Requests a second, all in all."
)
def demo(apps: tuple[str, ...], seconds: float | None, rate: float) -> None:
    """Show a real app served in four regions, with traffic and its numbers."""
    with ExitStack() as stack:
        run_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flyproxy-demo-")))
        try:
            stage = Stage(run_dir, [program_of(text) for text in apps] or [BUILT_IN])
            stack.callback(stage.stop)
            stage.start()
            asyncio.run(show(stage, seconds, rate))
        except FlyproxyError as fault:
            raise click.ClickException(str(fault)) from None
        finally:
            click.echo("\nstopping the apps and the front door", err=True)


class DemoError(FlyproxyError):
    """The demo cannot go on."""


@dataclass(frozen=True, slots=True)
class Program:
    """An app of the demo: its name, and what starts an instance, but for `--port`."""

    name: str
    command: tuple[str, ...]


BUILT_IN = Program("hello", (sys.executable, "-m", "flyproxy.cli.demo_app"))


def program_of(text: str) -> Program:
    """`[NAME=]PROGRAM`; without a name it is `hello`. Raises DemoError."""
    name, equals, path = text.rpartition("=")
    if not Path(path).is_file():
        raise DemoError(f"--app {text}: there is no file {path!r}")
    absolute = os.path.abspath(path)
    if path.endswith(".py"):
        return Program(name if equals else "hello", (sys.executable, absolute))
    if path.endswith(".js"):
        node = shutil.which("node")
        if node is None:
            raise DemoError(f"--app {text}: Node.js is needed to run it, and there is no `node` on the PATH")
        return Program(name if equals else "hello", (node, absolute))
    if not os.access(path, os.X_OK):
        raise DemoError(f"--app {text}: it is neither .py, .js nor an executable file")
    return Program(name if equals else "hello", (absolute,))


@dataclass(frozen=True, slots=True)
class Ports:
    """Where everything listens."""

    doors: dict[str, int]
    instances: dict[str, list[tuple[str, int]]]
    """(region, port) of each instance, by app."""
    telemetry: int


def choose_ports(apps: Sequence[str]) -> Ports:
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
    wanted = count(FIRST_APP)
    instances = {
        app: [(region, choose(next(wanted))) for region in (OTHER_REGIONS if place else REGIONS * INSTANCES_PER_REGION)]
        for place, app in enumerate(apps)
    }
    return Ports(doors, instances, choose(TELEMETRY_PORT))


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
                "name": app,
                "hostnames": [f"{app}.localhost", *([] if place else ["localhost"])],
                "metrics": {"path": "/metrics"},
                "instances": [{"address": f"127.0.0.1:{port}", "region": region} for region, port in instances],
            }
            for place, (app, instances) in enumerate(ports.instances.items())
        ],
        "timeouts": {"drain": "2s"},
    }


class Stage:
    """The processes of one demo."""

    def __init__(self, run_dir: Path, programs: Sequence[Program]) -> None:
        if len({program.name for program in programs}) < len(programs):
            raise DemoError("two apps have one name; give each of them its own: --app NAME=PROGRAM")
        self.ports = choose_ports([program.name for program in programs])
        self.data_dir = run_dir / "data"
        self.config = run_dir / "flyproxy.yaml"
        self._log = run_dir / "flyproxy.log"
        self._programs = programs
        self._apps: list[subprocess.Popen[bytes]] = []
        self._front_door: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Apps, then the front door; raises DemoError with the front door's own words when it does not come up."""
        self.config.write_text(yaml.safe_dump(configuration(self.ports, self.data_dir), sort_keys=False))
        started = time.monotonic()
        for program in self._programs:
            for _, port in self.ports.instances[program.name]:
                self._apps.append(start_process([*program.command, "--port", str(port)], subprocess.DEVNULL))
        with self._log.open("wb") as log:
            self._front_door = start_process([sys.executable, "-m", "flyproxy", "run", "-c", str(self.config)], log)
        waiting = [port for instances in self.ports.instances.values() for _, port in instances]
        waiting += [*self.ports.doors.values(), self.ports.telemetry]
        while waiting:
            waiting = [port for port in waiting if not listens(port)]
            if self._front_door.poll() is not None or time.monotonic() - started > READY_TIMEOUT_S:
                raise DemoError(f"the front door did not come up:\n{self._log.read_text()}")
            for process in self._apps:
                if process.poll() is not None:
                    raise DemoError(f"an app ended with {process.returncode}: {process.args!r}")
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
    async with Traffic(stage.ports.doors, list(stage.ports.instances), rate) as traffic, watch:
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


def own_name() -> str:
    """How this program was called, so that what is printed can be pasted outside of its virtual environment too."""
    called = Path(sys.argv[0])
    return shlex.quote(str(called)) if called.name == "flyproxy" and called.is_file() else "flyproxy"


def invitation(stage: Stage, base: str, token: str) -> str:
    """What to try, ready to paste."""
    query = "sum by (region, status) (rate(fly_edge_http_responses_count[1m]))"
    apps = ", ".join(f"{app} ({len(instances)} instances)" for app, instances in stage.ports.instances.items())
    doors = "\n".join(
        f"  {region}   http://hello.localhost:{port}/hello/signup" for region, port in stage.ports.doors.items()
    )
    return f"""\
flyproxy demo: {apps} in {len(REGIONS)} regions; ^C stops everything

The doors (any path: /, /slow, /broken):
{doors}

Ask in PromQL, over Fly's own API:
  curl -s -H 'Authorization: Bearer {token}' \\
    {base}/prometheus/personal/api/v1/query \\
    --data-urlencode 'query={query}'
The apps' own metrics are kept beside them: try query=up
Or from a terminal, as every verb that takes -c (the folder is gone when the demo ends):
  {own_name()} query 'sum by (app, region) (up)' -c {shlex.quote(str(stage.config))}

Grafana: data source Prometheus, URL {base}/prometheus/personal,
  header Authorization: Bearer {token}
This front door's own metrics: {base}/metrics
"""
