"""`flyproxy run`: the front door, until it is told to stop."""

import logging
import os
import socket
import sys
from collections.abc import Callable

import click

from flyproxy import __version__, extension
from flyproxy.config.faults import FAULTS_SHOWN_MAX, render_line
from flyproxy.config.load import Loaded, from_flags, load_file
from flyproxy.config.quantities import written_seconds
from flyproxy.config.resolve import resolve
from flyproxy.config.resolved import Resolved
from flyproxy.errors import FlyproxyError
from flyproxy.runtime.entry import LOG_FORMAT
from flyproxy.runtime.supervisor import supervise

log = logging.getLogger("flyproxy.config")

DEFAULT_FILE = "flyproxy.yaml"
FLY_FILE = "fly.toml"
PROBE_TIMEOUT_S = 0.3
INSTANCES_SHOWN_MAX = 10
EXIT_INTERRUPTED = 130


@click.command(
    epilog="""\b
Examples:
  flyproxy run --to 5000                       the app on this machine's port 5000, no file needed
  flyproxy run --to 10.0.0.5:80 --to 10.0.0.6:80
  flyproxy run -c flyproxy.yaml
  flyproxy run fly.toml                        an app's fly.toml as it is: every host, this machine's internal_port
  FLY_REGION=fra flyproxy run -c flyproxy.yaml"""
)
@click.argument("file", required=False, type=click.Path())
@click.option(
    "-c", "--config", type=click.Path(), help=f"The configuration; default {DEFAULT_FILE} where there is one."
)
@click.option(
    "--to", multiple=True, metavar="HOST:PORT", help="An instance of one app that gets every host; repeat it."
)
@click.option("--bind", multiple=True, metavar="HOST:PORT", help="Where to listen for HTTP; repeat it.")
@click.option("--region", help="The region this front door stands in.")
@click.option("--workers", help="Edge processes: auto, or a number; 0 runs everything in one process.")
@click.option("--data-dir", type=click.Path(), help="Where samples and tokens are kept.")
@click.option("--telemetry", metavar="HOST:PORT", help="Where the API and /metrics are served.")
def run(
    file: str | None,
    config: str | None,
    to: tuple[str, ...],
    bind: tuple[str, ...],
    region: str | None,
    workers: str | None,
    data_dir: str | None,
    telemetry: str | None,
) -> None:
    """Serve apps through the front door."""
    if file and config:
        raise click.UsageError("give the file once: either FILE or -c FILE")
    if to and (file or config):
        raise click.UsageError("--to needs no file: write the instances into the file, or leave the file out")
    overrides: dict[str, object] = {
        name: value
        for name, value in {
            "listeners": [{"bind": address} for address in bind] or None,
            "edge.region": region,
            "edge.workers": workers,
            "telemetry.data_dir": os.path.abspath(data_dir) if data_dir else None,
            "telemetry.bind": telemetry,
        }.items()
        if value is not None
    }
    read = reader(file or config, to, overrides)

    def load() -> Resolved:
        loaded = read()
        for warning in loaded.warnings[:FAULTS_SHOWN_MAX]:
            log.warning("%s", render_line(warning))
        return resolve(loaded)

    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, stream=sys.stderr)
    try:
        interrupted = supervise(load(), load, announce)
    except FlyproxyError as fault:
        click.echo(str(fault), err=True)
        sys.exit(1)
    sys.exit(EXIT_INTERRUPTED if interrupted else 0)


def reader(path: str | None, to: tuple[str, ...], overrides: dict[str, object]) -> Callable[[], Loaded]:
    """How the configuration is read, now and at each reload; raises UsageError when there is none to read."""
    if to:
        return lambda: from_flags(to, overrides)
    if path is None and os.path.exists(DEFAULT_FILE):
        path = DEFAULT_FILE
    if path is None:
        here = f"; there is a {FLY_FILE} here: flyproxy run {FLY_FILE}" if os.path.exists(FLY_FILE) else ""
        raise click.UsageError(f"nothing to serve: give --to HOST:PORT, or -c FILE, or write ./{DEFAULT_FILE}{here}")
    found = path
    return lambda: load_file(found, overrides)


def announce(resolved: Resolved) -> None:
    """The lines a user sees once the doors are open."""
    edge, telemetry = resolved.edge, resolved.telemetry
    version = f"{__version__} ({extension.words()})"
    lines = [f"flyproxy {version}  region {edge.region}  host {edge.host}  workers {resolved.workers}"]
    for door in edge.listeners:
        scheme = "http" if door.http else "tcp"
        behind = f"  ->  {door.app}" if door.app else ""
        lines.append(f"  {scheme:10} {scheme}://{shown(door.host)}:{door.port}  region {door.region}{behind}")
    for app in edge.apps:
        hosts = "every host" if edge.any_host else ", ".join(app.hostnames) or "no hostname"
        lines.append(f"  {'app':10} {app.name} ({app.organization}): {hosts}")
        for instance in app.instances[:INSTANCES_SHOWN_MAX]:
            state = "" if answers(instance.host, instance.port) else "  nothing answers there yet"
            lines.append(f"  {'':10}   {instance.host}:{instance.port}  region {instance.region}{state}")
        if len(app.instances) > INSTANCES_SHOWN_MAX:
            lines.append(f"  {'':10}   and {len(app.instances) - INSTANCES_SHOWN_MAX} more")
    base = f"http://{shown(telemetry.host)}:{telemetry.port}"
    lines.append(f"  {'metrics':10} {base}/metrics")
    organization = telemetry.organizations[0] if telemetry.organizations else "personal"
    lines.append(f"  {'prometheus':10} {base}/prometheus/{organization}  (a token: flyproxy auth token)")
    lines.append(f"  {'store':10} {telemetry.data_dir}  (keeps {written_seconds(telemetry.retention_s)})   ^C stops")
    click.echo("\n".join(lines), err=True)


def shown(host: str) -> str:
    """An address as one would type it into a browser."""
    if host in ("0.0.0.0", "::"):
        return "localhost"
    return f"[{host}]" if ":" in host else host


def answers(host: str, port: int) -> bool:
    """Whether something listens there now."""
    try:
        socket.create_connection((host, port), PROBE_TIMEOUT_S).close()
    except OSError:
        return False
    return True
