"""`flyproxy tsdb stats`, `check` and `backup`: what a store costs, whether it is sound, a copy of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from flyproxy.cli.tsdb_place import StorePlace, find_store

if TYPE_CHECKING:
    from flyproxy.tsdb.stats import Organization, Stats

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def show_stats(org: str | None, as_json: bool, data: str | None, config: str | None) -> None:
    """The whole verb; raises click's exceptions and StoreError."""
    from flyproxy.tsdb.stats import stats

    place = find_store(data, config)
    with _there(place):
        found = stats(place.path, org)
    if org is not None and not found.organizations:
        click.echo(f"note: the store has nothing of {org!r}", err=True)
    click.echo(json.dumps(asdict(found)) + "\n" if as_json else stats_text(found), nl=False)


def show_check(as_json: bool, data: str | None, config: str | None) -> int:
    """The whole verb and its exit code: 1 when something is wrong."""
    from flyproxy.tsdb.check import check

    place = find_store(data, config)
    sentences: list[str] = []
    with _there(place):
        found = check(place.path, sentences.append if as_json else click.echo)
    if as_json:
        click.echo(json.dumps({"ok": not found.faults, **asdict(found), "sentences": sentences}))
    else:
        verdict = "sound" if not found.faults else f"{_counted(found.faults, 'fault')} in it"
        click.echo(
            f"{place.path}: {verdict}; {_counted(found.frames, 'frame')}, {_counted(found.rows, 'row')} in the log, "
            f"{_counted(found.chunks, 'chunk')}, {_counted(found.samples, 'sample')}",
            err=True,
        )
    return 1 if found.faults else 0


def make_backup(file: str, data: str | None, config: str | None) -> None:
    """The whole verb; raises click's exceptions and StoreError."""
    from flyproxy.tsdb.backup import backup

    place = find_store(data, config)
    with _there(place):
        size = backup(place.path, file)
    click.echo(f"{file}: {_size(size)}", err=True)


def stats_text(found: Stats) -> str:
    """A table of organizations, the sum when there are several, and the file's own sizes below it."""
    from flyproxy.cli.table import table_text

    header = ["organization", "targets", "frames", "series", "samples", "from", "to", "log", "chunks", "bytes/sample"]
    several = len(found.organizations) > 1
    rows = [_row(each, each.name) for each in found.organizations] + ([_row(found.total, "all")] if several else [])
    lines = [
        f"{found.path}: {_size(found.file_bytes)}, of which {_size(found.free_bytes)} free; "
        f"{_size(found.wal_bytes)} write-ahead log; format {found.format}",
    ]
    if found.heads_damaged:
        lines.append(f"{_counted(found.heads_damaged, 'place')} could not be counted; flyproxy tsdb check names them")
    return (table_text(header, rows) if rows else "") + "\n".join([*lines, ""])


def _row(one: Organization, name: str) -> list[str]:
    samples = one.log.samples + one.chunks.samples
    size = one.log.bytes + one.chunks.bytes
    return [
        name,
        f"{one.targets:,}",
        f"{one.frames:,}",
        f"{one.series:,}",
        f"{samples:,}",
        _moment(one.first_ms),
        _moment(one.last_ms),
        _size(one.log.bytes),
        _size(one.chunks.bytes),
        f"{size / samples:.2f}" if samples else "-",
    ]


@contextmanager
def _there(place: StorePlace) -> Iterator[None]:
    from flyproxy.tsdb.db import StoreMissingError

    try:
        yield
    except StoreMissingError:
        raise click.ClickException(f"there is no store at {place.path}; use --data DIR or -c FILE") from None


def _moment(time_ms: int | None) -> str:
    if time_ms is None:
        return "-"
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return f"{time_ms / 1000:.0f}"


def _size(count: int) -> str:
    """Bytes as 512 B, 1.5 MiB."""
    size, unit = float(count), _UNITS[0]
    for larger in _UNITS[1:]:
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"


def _counted(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"
