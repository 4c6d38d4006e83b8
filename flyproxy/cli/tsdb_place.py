"""Which store a `flyproxy tsdb` verb means: a configuration's, or the one in a data directory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from flyproxy.config.resolved import Telemetry

OPERATOR_ORGANIZATION = "_operator"


@dataclass(frozen=True, slots=True)
class StorePlace:
    """A store on this machine, there or not."""

    path: str
    telemetry: Telemetry
    organizations: tuple[str, ...]
    """The configuration's; none where a data directory was named without a configuration."""

    @property
    def retention_s(self) -> float:
        return self.telemetry.retention_s


def in_store(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which store."""
    from_config = click.option("-c", "--config", metavar="FILE", help="The proxy's configuration.")
    from_folder = click.option("--data", metavar="DIR", help="A data directory (default: the configuration's).")
    return from_config(from_folder(command))


def find_store(data: str | None, config: str | None) -> StorePlace:
    """Of the file, else of flyproxy.yaml in this folder, else of the defaults; `data` names another directory, for
    which only a file that was named counts. Raises ConfigError with every fault of the file."""
    from flyproxy.cli.place import DEFAULT_FILE
    from flyproxy.config.load import from_flags, load_file
    from flyproxy.config.resolve import resolve
    from flyproxy.runtime.places import database_path

    implied = DEFAULT_FILE if data is None and Path(DEFAULT_FILE).exists() else None
    path = config or implied
    telemetry = resolve(load_file(path) if path else from_flags()).telemetry
    organizations = telemetry.organizations if data is None or config is not None else ()
    return StorePlace(database_path(data or telemetry.data_dir), telemetry, organizations)


def organization_to_read(place: StorePlace, asked: str | None, stored: Sequence[str]) -> str:
    """The one asked for, if it is configured or stored; else the configuration's first, else the only one stored.
    Raises click.UsageError."""
    known = dict.fromkeys([*place.organizations, *stored, OPERATOR_ORGANIZATION])
    if asked is not None:
        if asked not in known:
            raise click.UsageError(f"no organization {asked!r}{_near(asked, list(known))}")
        return asked
    if place.organizations:
        return place.organizations[0]
    tenants = [name for name in stored if name != OPERATOR_ORGANIZATION]
    if len(tenants) == 1:
        return tenants[0]
    there = ", ".join(tenants) or "none"
    raise click.UsageError(f"which organization? The store has: {there}; use --org")


def organization_to_write(place: StorePlace, asked: str | None) -> str:
    """The one asked for, which must be configured where there is a configuration; else the configuration's first, else
    `personal`. Raises click.UsageError."""
    from flyproxy.config.names import BadNameError, parse_slug

    if asked is None:
        return place.organizations[0] if place.organizations else "personal"
    if place.organizations and asked not in (*place.organizations, OPERATOR_ORGANIZATION):
        raise click.UsageError(f"no organization {asked!r} in the configuration{_near(asked, place.organizations)}")
    if asked != OPERATOR_ORGANIZATION:
        try:
            parse_slug(asked, "organization")
        except BadNameError as fault:
            raise click.UsageError(str(fault)) from None
    return asked


def _near(asked: str, known: Sequence[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(asked, known, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; there is {', '.join(known)}"
