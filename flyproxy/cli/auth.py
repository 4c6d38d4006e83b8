"""`flyproxy auth`: tokens for the API. Works on the data directory; a running proxy sees the change at once."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from flyproxy.api.tokens import Grant, TokenFile
    from flyproxy.cli.place import Place

_CONFIG = click.option("-c", "--config", metavar="FILE", help="The proxy's configuration; its data_dir has the tokens.")


@click.group()
def auth() -> None:
    """Mint, list and revoke tokens for the API.

    \b
    Examples:
      flyproxy auth token
      flyproxy auth token --org work --write
      curl -H "Authorization: Bearer $(flyproxy auth token)" localhost:9290/prometheus/personal/api/v1/labels
      flyproxy auth revoke 3f9a01bc
    """


@auth.command()
@click.option("--org", metavar="SLUG", help="The organization it is for (default: the configuration's first).")
@click.option("--read-only", "scope", flag_value="read", default="read", help="It may query (the default).")
@click.option("--write", "scope", flag_value="write", help="It may query and write.")
@click.option("--operator", "scope", flag_value="operator", help="It may do everything, for every organization.")
@_CONFIG
def token(org: str | None, scope: str, config: str | None) -> None:
    """Print a new token, and only that. It is shown once: the file keeps its hash."""
    from flyproxy.api.tokens import OPERATOR_ORGANIZATION, Scope
    from flyproxy.cli.place import chosen_organization, find_place

    if scope == "operator" and org not in (None, OPERATOR_ORGANIZATION):
        raise click.UsageError("an operator's token is for every organization; leave out --org or --operator")
    place = find_place(config)
    organization = OPERATOR_ORGANIZATION if scope == "operator" else chosen_organization(place, org)
    click.echo(_file(place).mint(organization, Scope(scope)))


@auth.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
@_CONFIG
def list_tokens(as_json: bool, config: str | None) -> None:
    """The tokens in force: id, organization, scope, when they were made. Never the tokens themselves."""
    from flyproxy.cli.place import find_place
    from flyproxy.cli.table import table_text

    grants = _file(find_place(config)).list()
    rows = [_row(grant) for grant in grants]
    if as_json:
        click.echo(json.dumps(rows))
    elif rows:
        click.echo(table_text(list(rows[0]), [list(row.values()) for row in rows]), nl=False)
    else:
        click.echo("no tokens; `flyproxy auth token` makes one", err=True)


@auth.command()
@click.argument("id_or_token")
@_CONFIG
def revoke(id_or_token: str, config: str | None) -> None:
    """End a token, named by its id (`flyproxy auth list`) or by itself."""
    from flyproxy.cli.place import find_place

    gone = _file(find_place(config)).revoke(id_or_token)
    if gone is None:
        raise click.ClickException("no such token; `flyproxy auth list` shows their ids")
    click.echo(f"revoked {gone.id} ({gone.scope.value}, {gone.organization})", err=True)


def _file(place: Place) -> TokenFile:
    from flyproxy.api.tokens import TokenFile
    from flyproxy.clock import SystemClock

    return TokenFile(place.tokens_path, SystemClock())


def _row(grant: Grant) -> dict[str, str]:
    return {
        "id": grant.id,
        "organization": grant.organization,
        "scope": grant.scope.value,
        "created": _moment(grant.created_ms),
        "expires": "never" if grant.expires_ms is None else _moment(grant.expires_ms),
    }


def _moment(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
