"""A store of an older format is brought to this one when it is written to, and nothing in it is lost."""

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from flyproxy.series.frame import STALE_BITS, Frame
from flyproxy.series.labels import Labels, labels_from
from flyproxy.series.samples import Batch, Layout
from flyproxy.tsdb import schema
from flyproxy.tsdb.db import Reader, StoreError, StoreForeignError, Writer
from flyproxy.tsdb.schema import FORMAT_VERSION

OpenWriter = Callable[..., Writer]
OpenReader = Callable[..., Reader]
A, B = (labels_from({"__name__": name, "app": "hello"}) for name in "ab")


@pytest.fixture
def format_1(store_path: str) -> str:
    """The store that format_1.sql tells of; its beats are 15 s apart, from 0."""
    connection = sqlite3.connect(store_path)
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
    connection.execute("PRAGMA journal_mode=WAL").fetchall()
    connection.executescript((Path(__file__).parent / "format_1.sql").read_text())
    connection.close()
    return store_path


def bits(value: float) -> int:
    return int(np.float64(value).view(np.uint64))


def what_was_written() -> dict[str, dict[Labels, dict[int, int]]]:
    a = {beat * 15_000: bits(beat * 3.0) for beat in range(30) if beat != 21}
    a |= {20 * 15_000: bits(-0.0), 22 * 15_000: 0x7FF80000DEADBEEF, 30 * 15_000: STALE_BITS}
    b = {9 * 15_000: 0} | {beat * 15_000: bits(beat / 8) for beat in range(10, 40)}
    b[22 * 15_000] = 0x7FF0000000000000
    scraped = {beat * 15_000 + 7: bits(beat + 0.5) for beat in range(40)} | {600_000: STALE_BITS}
    return {"personal": {A: a, B: b}, "shop": {A: scraped}}


def test_a_store_of_format_1_is_brought_up_with_every_bit_of_it(
    format_1: str,
    open_writer: OpenWriter,
    open_reader: OpenReader,
    layout: Callable[..., Layout],
    batch: Callable[..., Batch],
    sentences: list[str],
    samples: Callable[[Sequence[Frame]], dict[Labels, dict[int, int]]],
) -> None:
    writer = open_writer()
    reader = open_reader()
    for organization, wanted in what_was_written().items():
        assert samples(reader.organization(organization).select((), -(2**60), 2**60)) == wanted
    assert writer.live_targets() == [("personal", "own")]
    both = layout({"__name__": "a", "app": "hello"}, {"__name__": "b", "app": "hello"})
    assert writer.append([batch(40 * 15_000, both, [1, 2])]) == []
    writer.close()
    again = open_writer()
    assert again._connection.execute("PRAGMA user_version").fetchone() == (FORMAT_VERSION,)
    reader.refresh()
    (frame,) = reader.organization("personal").select((), 40 * 15_000, 40 * 15_000)
    assert frame.values.tolist() == [[1], [2]]
    assert not sentences


def test_a_reader_of_an_older_store_says_who_brings_it_up(format_1: str) -> None:
    with pytest.raises(StoreForeignError, match=r"still in format 1; telemetry brings it to format \d+ when it starts"):
        Reader.open(format_1)


def test_a_migration_that_fails_leaves_the_file_as_it_was(
    format_1: str, open_writer: OpenWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(schema, "FORMATS", (*schema.FORMATS, "CREATE TABLE log (id)"))
        patched.setattr(schema, "FORMAT_VERSION", schema.FORMAT_VERSION + 1)
        with pytest.raises(StoreError, match="table log already exists while opening it"):
            Writer.open(format_1)
    connection = sqlite3.connect(format_1)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'chunks'").fetchone() == (0,)
    connection.close()
    open_writer()
