"""A segment is whole for its readers, whatever its writer is doing or was killed at."""

import random
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from flyproxy.instrument.base import segment_cells
from flyproxy.instrument.catalog import FAMILIES, OPERATOR
from flyproxy.instrument.cells import HEADER_BYTES, CellsError, Record, Segment, SegmentReader

DATA = (FAMILIES["fly_edge_data_in"], FAMILIES["fly_edge_data_out"])
LABELS = {"app": "hello", "region": "ord"}


@pytest.fixture
def segment(run_dir: Path) -> Segment:
    return Segment.create(str(run_dir / "edge-3.cells"), 3, cells_max=100, records_bytes_max=4096)


def test_a_reader_finds_the_label_sets_and_their_cells(segment: Segment) -> None:
    first = segment.append(DATA, "personal", LABELS)
    second = segment.append((FAMILIES["fly_edge_http_response_time_seconds"],), "personal", {**LABELS, "status": "200"})
    assert (first, second, segment.used) == (0, 2, 16)
    segment.cells[1] = 7_000_000_000
    reader = Segment.open_readonly(segment.path)
    assert reader.new_records() == [
        Record((("fly_edge_data_in", 1), ("fly_edge_data_out", 1)), "personal", tuple(sorted(LABELS.items())), 0, 2),
        Record(
            (("fly_edge_http_response_time_seconds", 14),),
            "personal",
            (("app", "hello"), ("region", "ord"), ("status", "200")),
            2,
            14,
        ),
    ]
    assert segment_cells(reader).tolist() == [0, 7_000_000_000, *[0] * 14]
    reader.close()


def test_a_reader_sees_what_is_written_after_it_opened_and_each_record_once(segment: Segment) -> None:
    reader = Segment.open_readonly(segment.path)
    assert reader.new_records() == []
    assert segment_cells(reader).tolist() == []
    segment.append(DATA, "personal", LABELS)
    segment.cells[0] = 5
    assert len(reader.new_records()) == 1
    assert reader.new_records() == []
    assert segment_cells(reader).tolist() == [5, 0]


def test_the_header_says_who_writes(segment: Segment) -> None:
    reader = SegmentReader(segment.path)
    assert (reader.worker, reader.process, reader.capacity, reader.identity) == (3, "edge", 100, segment.identity)
    assert reader.cells_offset % 8 == 0


def test_two_segments_of_one_name_are_told_apart(segment: Segment) -> None:
    Path(segment.path).unlink()
    assert Segment.create(segment.path, 3).identity != segment.identity


def test_a_process_that_is_no_worker_has_no_number(run_dir: Path) -> None:
    segment = Segment.create(str(run_dir / "telemetry.cells"), process="telemetry")
    reader = SegmentReader(segment.path)
    assert (segment.worker, reader.worker, reader.process) == (None, None, "telemetry")


def test_a_name_is_never_taken_over(segment: Segment) -> None:
    with pytest.raises(CellsError, match="File exists"):
        Segment.create(segment.path, 3)
    assert SegmentReader(segment.path).identity == segment.identity
    assert [path.name for path in Path(segment.path).parent.iterdir()] == ["edge-3.cells"]


def test_a_directory_that_is_not_there_is_said(run_dir: Path) -> None:
    with pytest.raises(CellsError, match="No such file or directory"):
        Segment.create(str(run_dir / "gone" / "edge-0.cells"), 0)


def test_a_full_segment_refuses_and_stays_as_it_is(segment: Segment) -> None:
    histogram = (FAMILIES["fly_app_connect_time_seconds"],)
    firsts = [segment.append(histogram, "personal", {"app": str(number)}) for number in range(9)]
    assert firsts == [0, 14, 28, 42, 56, 70, 84, None, None]
    assert segment.append(DATA, "personal", LABELS) == 98
    assert len(SegmentReader(segment.path).new_records()) == 8


def test_a_full_records_area_refuses_too(segment: Segment) -> None:
    refused = [segment.append(DATA, "personal", {"app": "x" * 1000, "n": str(number)}) for number in range(5)]
    assert refused == [0, 2, 4, None, None]


def test_a_record_that_is_not_whole_yet_is_tried_again(segment: Segment) -> None:
    segment.append(DATA, "personal", LABELS)
    segment.append(DATA, "personal", {"app": "other"})
    whole = Path(segment.path).read_bytes()
    at = whole.index(b"other")
    with open(segment.path, "r+b") as file:
        file.seek(at)
        file.write(b"\0\0\0\0\0")
    reader = SegmentReader(segment.path)
    assert len(reader.new_records()) == 1
    assert reader.new_records() == []
    with open(segment.path, "r+b") as file:
        file.seek(at)
        file.write(b"other")
    assert [record.labels for record in reader.new_records()] == [(("app", "other"),)]


def test_a_published_length_that_cannot_be_ends_the_list(segment: Segment) -> None:
    segment.append(DATA, "personal", LABELS)
    with open(segment.path, "r+b") as file:
        file.seek(HEADER_BYTES)
        file.write(struct.pack("<I", 0xFFFFFFFF))
    assert SegmentReader(segment.path).new_records() == []


def test_a_record_that_makes_no_sense_is_skipped_and_counted(segment: Segment, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("flyproxy.instrument.cells.json.dumps", lambda *_, **__: '{"f": [["x", "y"]]}')
        segment.append(DATA, "personal", LABELS)
    segment.append(DATA, "personal", LABELS)
    reader = SegmentReader(segment.path)
    assert [record.organization for record in reader.new_records()] == ["personal"]
    assert reader.records_skipped == 1


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "0 bytes, a header has 4096"),
        (b"x" * HEADER_BYTES, "begins with b'xxxxxxxx', not b'FLYCELLS'"),
        (b"FLYCELLS" + struct.pack("<I", 2) + bytes(HEADER_BYTES), "of version 2, not 1"),
        (
            b"FLYCELLS" + struct.pack("<IIIiqQQQQQ", 1, 4096, 1, 0, 0, 0, 4096, 99, 4096, 8192) + bytes(HEADER_BYTES),
            "its areas do not fit into the file",
        ),
    ],
    ids=["empty", "foreign", "newer", "cut off"],
)
def test_what_is_not_a_segment_is_refused_with_its_reason(run_dir: Path, content: bytes, sentence: str) -> None:
    path = run_dir / "strange.cells"
    path.write_bytes(content)
    with pytest.raises(CellsError, match=re.escape(sentence)):
        SegmentReader(str(path))


def test_a_segment_that_is_gone_is_said(run_dir: Path) -> None:
    with pytest.raises(CellsError, match="No such file"):
        SegmentReader(str(run_dir / "gone.cells"))


def test_a_sparse_segment_takes_only_the_room_it_uses(run_dir: Path) -> None:
    segment = Segment.create(str(run_dir / "edge-0.cells"), 0)
    segment.append(DATA, OPERATOR, LABELS)
    assert Path(segment.path).stat().st_size > 10_000_000
    assert Path(segment.path).stat().st_blocks * 512 < 300_000


WRITER = """
import sys
from flyproxy.instrument.cells import Segment
from flyproxy.instrument.recorder import Recorder
recorder = Recorder(Segment.create(sys.argv[1], 0), proxy_id="blue")
turn = 0
while True:
    edge = recorder.edge(f"app-{turn}", "personal", "ord", "2bc3")
    for status in range(200, 220):
        edge.response(status, turn * 1000, 2, 3)
        edge.response(status, turn * 1_000_000, 2, 3)
    recorder.edge("app-0", "personal", "ord", "2bc3").transferred(1, 1)
    recorder.fold()
    sys.stdout.write(".")
    sys.stdout.flush()
    turn += 1
"""


@pytest.mark.parametrize("seed", range(8))
def test_a_writer_killed_anywhere_leaves_whole_records_and_cells_that_never_go_back(run_dir: Path, seed: int) -> None:
    path = str(run_dir / "edge-0.cells")
    with subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.read(random.Random(seed).randint(1, 60))
        reader = SegmentReader(path)
        records = reader.new_records()
        before = segment_cells(reader)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    records += reader.new_records()
    after = segment_cells(reader)
    assert (after[: len(before)] >= before).all()
    assert reader.records_skipped == 0
    at = 0
    for record in records:
        assert record.first == at, "no gap between published records"
        at += record.count
        if record.organization == "personal":
            labels = dict(record.labels)
            assert re.fullmatch(r"app-\d+", labels["app"])
            assert (labels["region"], labels["host"], labels["proxy_id"]) == ("ord", "2bc3", "blue")
            assert {name for name, _ in record.families} <= set(FAMILIES)
    assert at <= len(after)
    assert SegmentReader(path).new_records() == records
    histograms = [record for record in records if record.families[0][0] == "fly_edge_http_response_time_seconds"]
    counts = [int(after[record.first : record.first + 13].sum()) for record in histograms]
    assert set(counts) <= {0, 1, 2}, "a fold in flight is at most lost"
    assert counts.count(2) >= len(counts) - 21
