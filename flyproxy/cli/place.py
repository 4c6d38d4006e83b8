"""Where the running proxy of a configuration is: its address, its data directory, its organizations."""

import os
from dataclasses import dataclass
from pathlib import Path

import click

DEFAULT_FILE = "flyproxy.yaml"
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True, slots=True)
class Place:
    """What the verbs that talk to a running proxy need to know of it."""

    base_url: str
    data_dir: Path
    organizations: tuple[str, ...]
    query_timeout_s: float

    @property
    def tokens_path(self) -> Path:
        return self.data_dir / "tokens"


def find_place(config: str | None) -> Place:
    """From the file, else from flyproxy.yaml in this folder, else from the defaults. Raises ConfigError with every
    fault of the file."""
    from flyproxy.config.load import from_flags, load_file
    from flyproxy.config.resolve import resolve

    path = config or (DEFAULT_FILE if os.path.exists(DEFAULT_FILE) else None)
    telemetry = resolve(load_file(path) if path else from_flags()).telemetry
    host = _ANY.get(telemetry.host, telemetry.host)
    authority = f"[{host}]" if ":" in host else host
    return Place(
        base_url=f"http://{authority}:{telemetry.port}",
        data_dir=Path(telemetry.data_dir),
        organizations=telemetry.organizations,
        query_timeout_s=telemetry.query_timeout_s,
    )


def chosen_organization(place: Place, asked: str | None) -> str:
    """The organization asked for, else the configuration's first. Raises click.UsageError for an unknown one."""
    from difflib import get_close_matches

    known = (*place.organizations, "_operator")
    if asked is None:
        return known[0]
    if asked not in known:
        close = get_close_matches(asked, known, 1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; there is {', '.join(place.organizations) or 'none'}"
        raise click.UsageError(f"no organization {asked!r} in the configuration{hint}")
    return asked
