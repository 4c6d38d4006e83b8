"""A store is looked over: sound ones have no fault, and every damaged place of the others is named."""

import hashlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flyproxy.series.frame import ABSENT
from flyproxy.series.samples import Batch, Layout
from flyproxy.tsdb.check import Checked, check
from flyproxy.tsdb.db import StoreError, StoreForeignError, StoreMissingError, Writer
from flyproxy.tsdb.log import KEY_ROWS

OpenWriter = Callable[..., Writer]
MakeLayout = Callable[..., Layout]
MakeBatch = Callable[..., Batch]
Break = Callable[..., tuple[Checked, list[str]]]

BEAT_MS = 15_000
ROWS = 6 * KEY_ROWS
FLIPPED = "substr({0}, 1, 20) || CASE substr({0}, 21, 1) WHEN x'5a' THEN x'00' ELSE x'5a' END || substr({0}, 22)"


@pytest.fixture
def filled(open_writer: OpenWriter, layout: MakeLayout, batch: MakeBatch, seal_all: Callable[..., int]) -> Writer:
    """Two frames; the first half of the first one is in chunks."""
    writer = open_writer()
    names = layout(*(f"s{place}" for place in range(100)))
    random = np.random.default_rng(1)
    values = np.cumsum(random.poisson(3.0, (ROWS, 100)), axis=0).astype(np.float64)
    writer.append([batch(beat * BEAT_MS, names, values[beat]) for beat in range(ROWS)])
    assert seal_all(writer, ROWS * BEAT_MS, 2 * KEY_ROWS * BEAT_MS)
    start = ROWS * BEAT_MS
    writer.append([batch(start + beat * BEAT_MS, layout("b"), [beat], target="other") for beat in range(4)])
    return writer


@pytest.fixture
def looked_over(filled: Writer, store_path: str) -> Break:
    """looked_over(statement, ...): what is found after those statements broke the file."""

    def look(*statements: str) -> tuple[Checked, list[str]]:
        filled.close()
        connection = sqlite3.connect(store_path, isolation_level=None)
        for statement in statements:
            assert connection.execute(statement).rowcount != 0
        connection.close()
        said: list[str] = []
        found = check(store_path, said.append)
        assert found.faults == len(said)
        return found, said

    return look


def test_a_sound_store_has_no_fault_while_it_is_written_to(filled: Writer, store_path: str) -> None:
    said: list[str] = []
    found = check(store_path, said.append)
    assert said == []
    assert (found.frames, found.faults) == (2, 0)
    assert found.chunks >= 1
    assert 4 < found.rows < ROWS
    assert found.samples == ROWS * 100 + 4


def test_the_file_is_not_changed(filled: Writer, store_path: str) -> None:
    filled.close()
    before = hashlib.sha256(Path(store_path).read_bytes()).digest()
    check(store_path, print)
    assert hashlib.sha256(Path(store_path).read_bytes()).digest() == before


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        (f"UPDATE blocks SET blob = {FLIPPED.format('blob')} WHERE block = 0", "64 series in block 0 of chunk 1"),
        ("DELETE FROM blocks WHERE block = 1", "block 1 of chunk 1 of frame 1 ('own' of 'personal')"),
        ("UPDATE blocks SET block = 5 WHERE block = 1", "more than the 2 its head tells of"),
        (f"UPDATE chunks SET head = {FLIPPED.format('head')}", "all samples of chunk 1 of frame 1"),
        ("UPDATE chunks SET first_ms = first_ms + 1", "all samples of chunk 1 of frame 1"),
        ("INSERT INTO chunks (frame, first_ms, last_ms, head) SELECT frame, first_ms, last_ms, head FROM chunks",
         "begins before the chunk before it ends"),
        ("UPDATE chunks SET frame = 9", "chunks: 2 of frame 9, which is not there"),
        ("INSERT INTO blocks VALUES (99, 0, x'00')", "blocks: 1 of chunk 99, which is not there"),
        ("INSERT INTO log (frame, ts_ms, key_ms, blob) SELECT 1, 0, 0, blob FROM log LIMIT 1",
         "at 0 ms is not later than the chunks of its frame"),
        ("INSERT INTO log (frame, ts_ms, key_ms, blob) SELECT 7, ts_ms, key_ms, blob FROM log LIMIT 3",
         "log: 3 of frame 7, which is not there"),
        (f"UPDATE layouts SET blob = {FLIPPED.format('blob')} WHERE frame = 1",
         "layouts: 100 series of frame 1 ('own' of 'personal') have no labels"),
        ("DELETE FROM layouts WHERE frame = 2", "it is of 1 series where the frame has 0"),
        ("UPDATE presence SET blob = x'00' WHERE frame = 2", "when the series of frame 2 ('other' of 'personal')"),
        ("DELETE FROM presence WHERE frame = 2", "presence: when the series of frame 2"),
        ("UPDATE frames SET target = 'mine' WHERE id = 2", "frame 2 ('mine' of 'personal') fails its checksum"),
        ("DELETE FROM frames WHERE id = 2", "log: 4 of frame 2, which is not there"),
        ("UPDATE counts SET value = 0 WHERE name = 'presence_version'", "counts: presence_version is 0"),
        ("DELETE FROM counts WHERE name = 'deletions'", "counts: deletions is not there"),
    ],
)  # fmt: skip
def test_each_damaged_place_is_named(looked_over: Break, statement: str, sentence: str) -> None:
    _, said = looked_over(statement)
    assert any(sentence in one for one in said), said


def test_a_damaged_row_is_named_with_what_it_takes_along(looked_over: Break, store_path: str) -> None:
    connection = sqlite3.connect(store_path)
    (key_ms,) = connection.execute("SELECT max(key_ms) FROM log WHERE frame = 1").fetchone()
    connection.close()
    sound = ROWS * 100 + 4
    at_ms = key_ms + 2 * BEAT_MS
    broken = f"UPDATE log SET blob = {FLIPPED.format('blob')} WHERE frame = 1 AND ts_ms = {at_ms}"
    found, said = looked_over(broken)
    assert len(said) == 2
    assert f"the row of frame 1 ('own' of 'personal') at {at_ms} ms is lost: its checksum" in said[0]
    rows = KEY_ROWS - 3
    assert f"{rows} rows of frame 1 ('own' of 'personal') from {at_ms + BEAT_MS} to" in said[1]
    assert found.samples == sound - (rows + 1) * 100


def test_a_page_that_cannot_be_read_costs_what_stands_on_it(filled: Writer, store_path: str) -> None:
    filled.close()
    whole = Path(store_path).read_bytes()
    page_bytes = 4096
    for page in range(2, len(whole) // page_bytes, 3):
        broken = bytearray(whole)
        broken[page * page_bytes : (page + 1) * page_bytes] = b"\xa5" * page_bytes
        Path(store_path).write_bytes(broken)
        said: list[str] = []
        found = check(store_path, said.append)
        assert found.faults == len(said)
        assert said or found.samples == ROWS * 100 + 4, page  # a page that was free costs nothing
        assert Path(store_path).read_bytes() == bytes(broken)


def test_a_file_cut_short_is_a_fault_or_refused(filled: Writer, store_path: str) -> None:
    filled.close()
    whole = Path(store_path).read_bytes()
    for length in (len(whole) // 2, 4096, 200, 50):
        Path(store_path).write_bytes(whole[:length])
        try:
            assert check(store_path, print).faults > 0
        except StoreError:
            assert length <= 200


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreMissingError):
        check(str(tmp_path / "none.db"), print)
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE mine (x)")
    connection.commit()
    connection.close()
    with pytest.raises(StoreForeignError, match="not a flyproxy store"):
        check(str(other), print)


def test_a_file_of_format_1_says_so(filled: Writer, store_path: str) -> None:
    filled.close()
    connection = sqlite3.connect(store_path)
    connection.execute("PRAGMA user_version=1")
    connection.close()
    with pytest.raises(StoreForeignError, match="still in format 1"):
        check(store_path, print)


def test_an_empty_store_is_sound(open_writer: OpenWriter, store_path: str) -> None:
    open_writer()
    assert check(store_path, print) == Checked()


def test_series_that_had_no_sample_yet_are_sound(
    open_writer: Callable[..., Writer],
    store_path: str,
    sentences: list[str],
    layout: Callable[..., Layout],
    batch: Callable[..., Batch],
) -> None:
    writer, nothing = open_writer(), ABSENT[0]
    writer.append([batch(0, layout("a"), [nothing]), batch(0, layout(), [], target="without a series")])
    assert check(store_path, sentences.append).faults == 0
    writer.append([batch(1, layout("a"), [1])])
    writer.append([batch(2, layout("a", "b"), [1, nothing])])
    assert check(store_path, sentences.append).faults == 0
    writer.close()
    open_writer().append([batch(3, layout("a", "b"), [1, 2])])
    assert check(store_path, sentences.append).frames == 2
    assert not sentences
