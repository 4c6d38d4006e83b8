"""`flyproxy tsdb export` and `import`: files and sentences around the store's own text."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import click

from flyproxy.cli.tsdb_place import StorePlace, find_store, organization_to_read, organization_to_write

if TYPE_CHECKING:
    from flyproxy.series.matchers import Matcher
    from flyproxy.tsdb.openmetrics_import import Imported

READER_BYTES = 64 << 20
"""Decoded samples an export keeps in memory beside the slice it writes."""


def write_export(
    selectors: Sequence[str],
    start: str | None,
    end: str | None,
    output: str | None,
    org: str | None,
    data: str | None,
    config: str | None,
) -> None:
    """The whole verb; raises click's exceptions, and the errors of the rooms below."""
    from flyproxy.instrument.catalog import FAMILIES
    from flyproxy.tsdb.db import Reader, StoreMissingError
    from flyproxy.tsdb.openmetrics_export import EARLIEST_MS, LATEST_MS, export

    matcher_sets = _matcher_sets(selectors)
    start_ms, end_ms = _moment_ms("--start", start, EARLIEST_MS), _moment_ms("--end", end, LATEST_MS)
    place = find_store(data, config)
    types = {family.name: family.type for family in FAMILIES.values()}
    try:
        reader = Reader.open(place.path, head_bytes=READER_BYTES, report=_note)
    except StoreMissingError:
        raise click.ClickException(f"there is no store at {place.path}; use --data DIR or -c FILE") from None
    try:
        view = reader.organization(organization_to_read(place, org, reader.organizations()))
        with _written(output) as write:
            done = export(view, write, types=types, matcher_sets=matcher_sets, start_ms=start_ms, end_ms=end_ms)
    finally:
        reader.close()
    click.echo(f"{_counted(done.samples, 'sample')} of {done.series:,} series in {done.families:,} families", err=True)


def read_import(file: str, org: str | None, data: str | None, config: str | None) -> None:
    """The whole verb; raises click's exceptions, and the errors of the rooms below."""
    from flyproxy.clock import SystemClock
    from flyproxy.tsdb.db import StoreBusyError, Writer
    from flyproxy.tsdb.openmetrics_import import import_samples

    place = find_store(data, config)
    organization = organization_to_write(place, org)
    oldest_ms = SystemClock().now_ms() - int(place.retention_s * 1000)
    with _seekable(file) as text:
        _make_folder(place)
        try:
            writer = Writer.open(place.path, first_zero=False, report=_note)
        except StoreBusyError:
            raise click.ClickException(
                f"a front door that is running writes {place.path}; stop it first, or import into another --data DIR"
            ) from None
        try:
            done = import_samples(text, writer, organization, oldest_ms=oldest_ms)
        finally:
            writer.close()
    for sentence in _told(done, organization, place.retention_s):
        click.echo(sentence, err=True)


def _told(done: Imported, organization: str, retention_s: float) -> Iterator[str]:
    from flyproxy.series.durations import format_duration

    if done.samples:
        assert done.first_ms is not None
        assert done.last_ms is not None
        yield (
            f"{_counted(done.samples, 'sample')} of {done.series:,} series into {organization}, "
            f"from {_shown(done.first_ms)} to {_shown(done.last_ms)}, as import/{done.id}"
        )
    elif not done.already_there:
        yield "nothing was imported"
    if done.already_there:
        yield f"{_counted(done.already_there, 'sample')} left out: there already, from an import of this file"
    if done.too_old:
        retention = format_duration(int(retention_s * 1000))
        yield f"{_counted(done.too_old, 'sample')} left out: older than the retention of {retention}"
    if done.repeated:
        yield f"{_counted(done.repeated, 'sample')} left out: the same series and time came again, and the last counts"


def _matcher_sets(selectors: Sequence[str]) -> list[tuple[Matcher, ...]]:
    from flyproxy.promql.parse import ParseError, parse_selector

    found = []
    for selector in selectors:
        try:
            found.append(parse_selector(selector))
        except ParseError as fault:
            raise click.UsageError(f"--match: {fault}") from None
    return found


def _moment_ms(name: str, text: str | None, otherwise: int) -> int:
    from flyproxy.api.faults import ApiFault
    from flyproxy.api.parameters import parsed_time_ms

    if text is None:
        return otherwise
    try:
        return parsed_time_ms(name, text)
    except ApiFault as fault:
        raise click.UsageError(str(fault).removeprefix("invalid parameter ")) from None


@contextmanager
def _written(output: str | None) -> Iterator[Callable[[bytes], object]]:
    """Standard output, or a file that is there only when it is whole."""
    if output is None or output == "-":
        yield sys.stdout.buffer.write
        sys.stdout.buffer.flush()
        return
    target = Path(output)
    try:
        file = tempfile.NamedTemporaryFile(  # noqa: SIM115 (closed and renamed below)
            dir=target.parent, prefix=f".{target.name}.", delete=False
        )
    except OSError as fault:
        raise click.ClickException(f"cannot write {output}: {fault.strerror}") from None
    try:
        with file:
            yield file.write
            os.fchmod(file.fileno(), 0o644 & ~_umask())
        os.replace(file.name, target)
    except BaseException as fault:
        Path(file.name).unlink(missing_ok=True)
        if isinstance(fault, OSError):
            raise click.ClickException(f"cannot write {output}: {fault.strerror}") from None
        raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


@contextmanager
def _seekable(file: str) -> Iterator[IO[bytes]]:
    """The file, or what standard input holds (`-`), which is read twice."""
    if file == "-":
        with tempfile.TemporaryFile() as spool:
            shutil.copyfileobj(sys.stdin.buffer, spool)
            yield cast("IO[bytes]", spool)
        return
    try:
        opened = Path(file).open("rb")  # noqa: SIM115 (closed below)
    except OSError as fault:
        raise click.ClickException(f"cannot read {file}: {fault.strerror}") from None
    with opened:
        if not opened.seekable():
            raise click.ClickException(f"{file} cannot be read twice; use: flyproxy tsdb import - < {file}")
        yield opened


def _make_folder(place: StorePlace) -> None:
    folder = Path(place.path).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise click.ClickException(f"cannot make {folder}: {fault.strerror}") from None


def _note(sentence: str) -> None:
    click.echo(f"note: {sentence}", err=True)


def _counted(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _shown(time_ms: int) -> str:
    try:
        moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{time_ms / 1000:.3f}"
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
