"""What was acknowledged survives kill -9, while it is sealed and merged too, and whatever is left of the write-ahead
log opens."""

import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flyproxy.series.matchers import Matcher, MatchOp
from flyproxy.series.samples import Batch, Layout
from flyproxy.tsdb.db import Reader, Writer

OpenWriter = Callable[..., Writer]
OpenReader = Callable[..., Reader]


SERIES = 50
CHILD = """
import sys
import numpy as np
from flyproxy.series.samples import Batch, Layout
from flyproxy.tsdb.db import Writer

path, start, series = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
writer = Writer.open(path)
every = tuple((("__name__", "n"), ("row", f"{row:03}")) for row in range(series + 1))
brief = Layout(((("__name__", "brief"),),), np.zeros(1, bool))
layouts = [Layout(every[:count], np.ones(count, bool)) for count in (series, series + 1)]
for beat in range(start, start + 10_000):
    layout = layouts[beat % 7 == 0]
    values = np.arange(len(layout.series)) + 1.0 * beat
    writer.append([Batch("personal", f"t{target}", beat, layout, values, 1) for target in range(3)])
    writer.append([Batch("personal", f"brief{beat}", beat, brief, np.array([beat * 1.0]), 1)])
    writer.end_target("personal", f"brief{beat}", beat + 1)
    print(beat, flush=True)
    for _ in range(3):
        writer.seal(beat, 32)
    writer.merge(beat, 32)
"""


def killed_after(path: str, start: int, beats: int) -> int:
    """Run a writer and kill it in the middle of what follows its `beats`th beat; the last beat it acknowledged."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, path, str(start), str(SERIES)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout:
        for _ in range(beats):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        said = child.stdout.read().split()
    child.wait()
    return int(said[-1]) if said else start + beats - 1


def intact(path: str) -> bool:
    """Every block has its chunk, every chunk its frame, and SQLite's own structure is right."""
    connection = sqlite3.connect(path)
    questions = (
        "SELECT count(*) FROM blocks WHERE chunk NOT IN (SELECT id FROM chunks)",
        "SELECT count(*) FROM chunks WHERE id NOT IN (SELECT chunk FROM blocks)",
        "SELECT count(*) FROM chunks WHERE frame NOT IN (SELECT id FROM frames)",
        "SELECT count(*) FROM log JOIN chunks USING (frame) WHERE ts_ms <= last_ms",
    )
    wrong = [question for question in questions if connection.execute(question).fetchone() != (0,)]
    (said,) = connection.execute("PRAGMA integrity_check").fetchone()
    connection.close()
    return not wrong and bool(said == "ok")


def test_nothing_acknowledged_is_lost_to_kill_9(
    open_reader: OpenReader,
    store_path: str,
    sentences: list[str],
) -> None:
    chosen = random.Random(2)
    acknowledged: set[int] = set()
    start = 0
    for _ in range(5):
        last = killed_after(store_path, start, chosen.randint(1, 90))
        acknowledged |= set(range(start, last + 1))
        reader = open_reader()
        view = reader.organization("personal")
        briefly = view.select([Matcher("__name__", MatchOp.EQUAL, "brief")], 0, 2**60)
        assert acknowledged <= {value for frame in briefly for value in frame.values[0].tolist()}
        frames = view.select([Matcher("__name__", MatchOp.EQUAL, "n")], 0, 2**60)
        assert len(frames) == 3
        for frame in frames:
            rows = dict(zip(frame.timestamps_ms.tolist(), frame.values[:SERIES].T.tolist(), strict=True))
            assert acknowledged <= rows.keys()
            for beat in acknowledged:
                assert rows[beat] == [row + 1.0 * beat for row in range(SERIES)]
        start = max(rows) + 1
    assert not sentences
    assert reader.statistics()["rows_damaged"] == 0
    assert reader.statistics()["chunks"] > 10
    assert "merged" in {frame.target for frame in reader._frames.values()}
    Writer.open(store_path).close()
    assert intact(store_path)


@pytest.mark.parametrize("seed", range(8))
def test_a_torn_tail_of_the_write_ahead_log_is_a_shorter_history(
    open_writer: OpenWriter,
    store_path: str,
    tmp_path: Path,
    layout: Callable[..., Layout],
    batch: Callable[..., Batch],
    seed: int,
) -> None:
    writer = open_writer()
    one = layout(*(f"s{place}" for place in range(20)))
    for beat in range(30):
        writer.append([batch(beat, one, [beat * place for place in range(20)])])
    torn = tmp_path / "torn.db"
    shutil.copy(store_path, torn)
    wal = bytearray(Path(store_path + "-wal").read_bytes())
    chosen = random.Random(seed)
    at = chosen.randrange(len(wal) // 2, len(wal))
    if seed % 2:
        del wal[at:]
    else:
        wal[at : at + 64] = chosen.randbytes(len(wal[at : at + 64]))
    Path(f"{torn}-wal").write_bytes(wal)
    again = Writer.open(str(torn))
    reader = Reader.open(str(torn))
    (frame,) = reader.organization("personal").select((), 0, 2**60)
    beats = frame.timestamps_ms.tolist()
    assert beats == list(range(len(beats)))
    assert frame.values.tolist() == [[beat * place for beat in beats] for place in range(20)]
    assert again.append([batch(30, one, range(20))]) == []
    reader.refresh()
    assert reader.organization("personal").select((), 30, 30)[0].values.tolist() == [[place] for place in range(20)]
    reader.close()
    again.close()
