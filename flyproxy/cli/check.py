"""`flyproxy check FILE`: every fault and every warning of a configuration at once, each with its line."""

from __future__ import annotations

import json

import click

from flyproxy.config.faults import ConfigError, render_faults
from flyproxy.config.load import load_file
from flyproxy.config.models import Configuration

_EXAMPLES = """\b
Examples:
  flyproxy check flyproxy.yaml
  flyproxy check fly.toml
  flyproxy check --json flyproxy.yaml | jq '.faults[].line'
"""


@click.command(epilog=_EXAMPLES, short_help="Name every fault of a configuration file, with its line.")
@click.argument("file", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def check(file: str, as_json: bool) -> int:
    """Read FILE (a flyproxy.yaml, or a fly.toml) as `flyproxy run` would, without starting anything; names are not
    looked up.

    Exit code 0 when it is fine, 1 when it has faults. A warning is no fault: it says what is not done as written.
    """
    try:
        loaded = load_file(file)
    except ConfigError as error:
        if as_json:
            click.echo(json.dumps({"ok": False, "faults": [fault.as_json() for fault in error.faults]}, indent=2))
        else:
            click.echo(render_faults(error.faults), err=True)
        return 1
    if as_json:
        warnings = [warning.as_json() for warning in loaded.warnings]
        click.echo(json.dumps({"ok": True, "faults": [], "warnings": warnings}, indent=2 if warnings else None))
    else:
        if loaded.warnings:
            click.echo(render_faults(loaded.warnings), err=True)
        click.echo(f"ok: {summary(loaded.configuration)}")
    return 0


def summary(configuration: Configuration) -> str:
    """`2 apps, 1 organization, 3 listeners`."""
    counts = (
        (len(configuration.apps), "app"),
        (len(configuration.organizations), "organization"),
        (len(configuration.listeners), "listener"),
    )
    return ", ".join(f"{count} {word}" if count == 1 else f"{count} {word}s" for count, word in counts)
