"""`flyproxy grafana`: what to paste into Grafana, the dashboards as files, and the files it provisions itself from."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flyproxy.errors import FlyproxyError

if TYPE_CHECKING:
    from flyproxy.cli.place import Place

_URL = re.compile(r"https?://(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z][0-9A-Za-z._-]*)(?::[0-9]{1,5})?(?:/[0-9A-Za-z._~/-]*)?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_CONFIG = click.option("-c", "--config", metavar="FILE", help="The proxy's configuration.")
_ORG = click.option("--org", metavar="SLUG", help="The organization (default: the configuration's first).")
_FORCE = click.option("--force", is_flag=True, help="Write over files that are not flyproxy's, too.")


@click.group(invoke_without_command=True)
@click.option("--url", metavar="URL", help="Where Grafana and your browser find the proxy (default: as configured).")
@_ORG
@_CONFIG
@click.pass_context
def grafana(context: click.Context, url: str | None, org: str | None, config: str | None) -> None:
    """Connect Grafana: the values to paste, dashboards, provisioning.

    \b
    Examples:
      flyproxy grafana
      flyproxy grafana dashboards ./dashboards --base-url https://metrics.example
      flyproxy grafana provision /etc/grafana/provisioning --url http://10.0.0.7:9290 --org personal
    """
    if context.invoked_subcommand is not None:
        given = [name for name, value in (("--url", url), ("--org", org), ("--config", config)) if value]
        if given:
            raise click.UsageError(
                f"{given[0]} goes after the subcommand: flyproxy grafana {context.invoked_subcommand}"
            )
        return
    from flyproxy.api.grafana_provisioning import datasource_url, token_command
    from flyproxy.cli.place import chosen_organization, find_place

    place = find_place(config)
    organization, base_url = chosen_organization(place, org), _base_url(url, place, "--url")
    click.echo(
        f"data source  Prometheus, URL  {datasource_url(base_url, organization)}\n"
        f"header name                   Authorization\n"
        f"header value                  Bearer <token from: {token_command(organization)}>\n"
        f"dashboard to import           {base_url}/grafana/fly.json"
    )


@grafana.command()
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False))
@click.option("--base-url", metavar="URL", help="Where your browser finds the proxy (default: as configured).")
@_FORCE
@_CONFIG
def dashboards(directory: str, base_url: str | None, force: bool, config: str | None) -> None:
    """Write every dashboard into DIR, as NAME.json.

    \b
    Example:
      flyproxy grafana dashboards ./dashboards --base-url https://metrics.example
    """
    from flyproxy.cli.place import find_place

    _write(_dashboard_files(Path(directory), _base_url(base_url, find_place(config), "--base-url")), force)


@grafana.command()
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False))
@click.option("--url", metavar="URL", help="Where Grafana's server finds the proxy (default: as configured).")
@click.option("--base-url", metavar="URL", help="Where your browser finds it, for the map (default: the same).")
@_ORG
@click.option(
    "--token-variable",
    metavar="NAME",
    default="FLYPROXY_TOKEN",
    show_default=True,
    help="The variable of Grafana's environment that has the token.",
)
@click.option("--dashboards-path", metavar="PATH", help="Where Grafana finds DIR/dashboards/flyproxy (default: there).")
@_FORCE
@_CONFIG
def provision(
    directory: str,
    url: str | None,
    base_url: str | None,
    org: str | None,
    token_variable: str,
    dashboards_path: str | None,
    force: bool,
    config: str | None,
) -> None:
    """Write a data source and the dashboards into DIR, as Grafana's provisioning folder has them.

    \b
    Examples:
      flyproxy grafana provision /etc/grafana/provisioning
      flyproxy grafana provision ./prov --url http://flyproxy:9290 --base-url http://localhost:9290 \\
        --dashboards-path /etc/grafana/provisioning/dashboards/flyproxy
    """
    from flyproxy.api.grafana_provisioning import datasource_uid, datasource_yaml, provider_yaml, token_command
    from flyproxy.cli.place import chosen_organization, find_place

    if not _VARIABLE.fullmatch(token_variable):
        raise click.UsageError("--token-variable is not a name of letters, digits and _ that begins with no digit")
    place = find_place(config)
    organization = chosen_organization(place, org)
    asked = _base_url(url, place, "--url")
    shown = _base_url(base_url, place, "--base-url") if base_url else asked
    folder = Path(directory)
    boards = folder / "dashboards" / "flyproxy"
    files = {
        folder / "datasources" / "flyproxy.yaml": datasource_yaml(asked, organization, token_variable).encode(),
        folder / "dashboards" / "flyproxy.yaml": provider_yaml(dashboards_path or str(boards.absolute())).encode(),
        **_dashboard_files(boards, shown, datasource_uid(organization)),
    }
    _write(files, force)
    click.echo(
        f"Grafana's environment needs {token_variable}: {token_variable}=$({token_command(organization)})",
        err=True,
    )


def _base_url(given: str | None, place: Place, option: str) -> str:
    """The URL without a slash at its end."""
    if given is None:
        return place.base_url
    if not _URL.fullmatch(given):
        raise click.UsageError(f"{option} is not a URL like http://10.0.0.7:9290 or https://metrics.example")
    return given.rstrip("/")


def _dashboard_files(folder: Path, base_url: str, datasource_uid: str = "") -> dict[Path, bytes]:
    from flyproxy.api.grafana_dashboards import DASHBOARDS, dashboard_json

    return {folder / f"{name}.json": dashboard_json(name, base_url, datasource_uid) for name in DASHBOARDS}


def _write(files: dict[Path, bytes], force: bool) -> None:
    """All of them or, if one would replace a file that is not ours, none."""
    try:
        foreign = [path for path in files if path.exists() and not _is_ours(path)]
        if foreign and not force:
            listed = ", ".join(map(str, foreign))
            raise click.ClickException(f"not written by flyproxy: {listed}; --force writes over it")
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_name(f".{path.name}.{os.getpid()}")
            unfinished.write_bytes(content)
            unfinished.replace(path)
            click.echo(f"wrote {path}")
    except OSError as fault:
        raise FlyproxyError(f"cannot write {fault.filename}: {fault.strerror}") from None


def _is_ours(path: Path) -> bool:
    from flyproxy.api.grafana_provisioning import MARK

    content = path.read_bytes()
    if path.suffix != ".json":
        return content.startswith(MARK.encode())
    try:
        model = json.loads(content)
    except ValueError:
        return False
    return isinstance(model, dict) and str(model.get("uid", "")).startswith("flyproxy-")
