"""Samples out as text and in again: nothing is lost that text can say, and the same samples are the same bytes."""

import io
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flyproxy.promql.parse import parse_selector
from flyproxy.series.frame import ABSENT, STALE
from flyproxy.tsdb import openmetrics_export, openmetrics_import
from flyproxy.tsdb.db import Reader, Writer
from flyproxy.tsdb.openmetrics_export import export, stamp_text
from flyproxy.tsdb.openmetrics_import import Imported, import_samples
from flyproxy.tsdb.openmetrics_lines import ImportFault

BEGIN_MS = 1_700_000_000_123
Open = Callable[..., Any]


@pytest.fixture
def exported(open_reader: Open) -> Callable[..., str]:
    """exported(organization=..., selectors=..., start_ms=...): the text."""

    def run(*, organization: str = "personal", selectors: Sequence[str] = (), **bounds: int) -> str:
        written: list[bytes] = []
        sets = [parse_selector(each) for each in selectors]
        view = open_reader().organization(organization)
        done = export(view, written.append, types={"g": "gauge", "req_count": "counter"}, matcher_sets=sets, **bounds)
        text = b"".join(written).decode()
        samples = [line for line in text.splitlines() if not line.startswith("#")]
        assert done.samples == len(samples)
        assert done.series == len({line.rsplit(" ", 2)[0] for line in samples})
        assert done.families == text.count("# TYPE")
        return text

    return run


@pytest.fixture
def imported(tmp_path: Path) -> Callable[..., tuple[Imported, str]]:
    """imported(text): what it did to a fresh store (`name`), and that store's export."""

    def run(text: str, *, oldest_ms: int = 0, name: str = "fresh") -> tuple[Imported, str]:
        path = str(tmp_path / f"{name}.db")
        writer = Writer.open(path, first_zero=False)
        try:
            done = import_samples(io.BytesIO(text.encode()), writer, "personal", oldest_ms=oldest_ms)
        finally:
            writer.close()
        reader = Reader.open(path)
        written: list[bytes] = []
        try:
            export(reader.organization("personal"), written.append, types={"g": "gauge"})
        finally:
            reader.close()
        return done, b"".join(written).decode()

    return run


def fill(open_writer: Open, layout: Open, batch: Open, *, beats: int = 10) -> Writer:
    """Two targets: counters of which one is born later and one ends, a gauge with every kind of number; a gap."""
    writer: Writer = open_writer()
    early, late = layout("req_count", "gone_total", gauges=["g"]), layout("req_count", "born_total", gauges=["g"])
    numbers = [0.1, -0.0, np.nan, np.inf, -np.inf, 1e300, 5e-324, 2.0**53, -3.0, 1e15]
    for beat in range(beats):
        chosen = early if beat < beats // 2 else late
        values = np.array([beat * 7.0, beat, numbers[beat % len(numbers)]])
        if beat == 2:
            values[0:1] = ABSENT
        other = batch(BEGIN_MS + 7_001 + beat * 15_000, layout("req_count"), [beat], organization="other", target="x")
        assert writer.append([batch(BEGIN_MS + beat * 15_000, chosen, values), other]) == []
    return writer


def test_it_is_grouped_typed_and_in_the_order_of_time(
    open_writer: Open, layout: Open, batch: Open, exported: Callable[..., str]
) -> None:
    fill(open_writer, layout, batch, beats=4)
    assert exported().splitlines() == [
        "# TYPE born counter",
        "born_total 0 1700000015.123",
        "born_total 2 1700000030.123",
        "born_total 3 1700000045.123",
        "# TYPE g gauge",
        "g 0.1 1700000000.123",
        "g -0.0 1700000015.123",
        "g NaN 1700000030.123",
        "g +Inf 1700000045.123",
        "# TYPE gone counter",
        "gone_total 0 1700000000.123",
        "gone_total 1 1700000015.123",
        "# TYPE req_count unknown",
        "req_count 0 1700000000.123",
        "req_count 7 1700000015.123",
        "req_count 21 1700000045.123",
        "# EOF",
    ]


def test_one_organization_and_the_series_and_times_asked_for(
    open_writer: Open, layout: Open, batch: Open, exported: Callable[..., str]
) -> None:
    fill(open_writer, layout, batch)
    assert exported(organization="nobody") == "# EOF\n"
    assert set(exported(organization="other").split("\n")[1].split()[0:1]) == {"req_count"}
    names = {line.split(" ")[0] for line in exported(selectors=["g", '{__name__=~"g|born.*"}']).splitlines()}
    assert names == {"#", "g", "born_total"}
    some = exported(selectors=["g"], start_ms=BEGIN_MS + 15_000, end_ms=BEGIN_MS + 30_000)
    assert [line.split(" ")[2] for line in some.splitlines()[1:-1]] == ["1700000015.123", "1700000030.123"]
    assert exported(start_ms=5, end_ms=4) == "# EOF\n"


def test_what_was_exported_is_imported_and_exported_again_byte_by_byte(
    open_writer: Open,
    layout: Open,
    batch: Open,
    exported: Callable[..., str],
    imported: Callable[..., tuple[Imported, str]],
) -> None:
    fill(open_writer, layout, batch, beats=30)
    text = exported()
    done, again = imported(text)
    assert again == text
    assert done.samples == text.count("\n") - text.count("#")
    assert (done.series, done.targets, done.too_old, done.repeated, done.already_there) == (4, 1, 0, 0, 0)
    assert (done.first_ms, done.last_ms) == (BEGIN_MS, BEGIN_MS + 29 * 15_000)


def test_sealed_samples_are_exported_alike(
    open_writer: Open, layout: Open, batch: Open, exported: Callable[..., str], seal_all: Callable[..., int]
) -> None:
    writer = fill(open_writer, layout, batch, beats=40)
    before = exported()
    assert seal_all(writer, BEGIN_MS + 10_000_000, 60_000)
    assert exported() == before


def test_slices_do_not_show(
    open_writer: Open, layout: Open, batch: Open, exported: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(open_writer, layout, batch, beats=30)
    whole = exported()
    monkeypatch.setattr(openmetrics_export, "SLICE_SAMPLES", 20)
    monkeypatch.setattr(openmetrics_export, "SPOOL_BYTES", 100)
    assert exported() == whole


def test_what_is_written_and_sealed_meanwhile_does_not_show(
    open_writer: Open, open_reader: Open, layout: Open, batch: Open, seal_all: Callable[..., int]
) -> None:
    writer = fill(open_writer, layout, batch, beats=40)
    reader = open_reader()
    written: list[bytes] = []
    whole: list[bytes] = []
    export(reader.organization("personal"), whole.append, types={})

    def write(text: bytes) -> None:
        """At the first line the writer goes on: a beat with a newborn counter, and everything before is sealed."""
        if not written:
            at_ms = BEGIN_MS + 40 * 15_000
            writer.append([batch(at_ms, layout("req_count", "new_total", gauges=["g"]), [1000, 5, 1])])
            assert seal_all(writer, BEGIN_MS + 10_000_000, 60_000)
        written.append(text)

    export(reader.organization("personal"), write, types={})
    assert b"".join(written) == b"".join(whole)


def test_a_series_that_lies_in_several_frames_comes_once(
    open_writer: Open, layout: Open, batch: Open, exported: Callable[..., str]
) -> None:
    writer = open_writer()
    for at_ms, target in ((1000, "a"), (2000, "b"), (3000, "a"), (4000, "b")):
        writer.append([batch(at_ms, layout(gauges=["g"]), [at_ms], target=target)])
    assert exported().splitlines()[1:-1] == ["g 1000 1", "g 2000 2", "g 3000 3", "g 4000 4"]


def test_a_stale_marker_has_no_line(open_writer: Open, layout: Open, batch: Open, exported: Callable[..., str]) -> None:
    writer = open_writer()
    one = layout(gauges=["g", "h"])
    writer.append([batch(1000, one, [1, 2])])
    writer.append([batch(2000, one, np.concatenate([STALE, [3]]))])
    writer.append([batch(3000, one, [4, 5])])
    assert [line for line in exported().splitlines() if line[0] == "g"] == ["g 1 1", "g 4 3"]


def test_buckets_ascend_and_names_outside_of_the_old_grammar_are_quoted(
    open_writer: Open, layout: Open, batch: Open, exported: Callable[..., str],
    imported: Callable[..., tuple[Imported, str]],
) -> None:  # fmt: skip
    writer = open_writer()
    buckets = [{"__name__": "h_bucket", "app": app, "le": le} for app in "ab" for le in ("+Inf", "5", "0.5", "15")]
    odd = {"__name__": "a b", "c.d": 'q"\\\n', "e": "é"}
    writer.append([batch(1000, layout(gauges=[*buckets, odd]), np.arange(9))])
    text = exported()
    assert text.splitlines()[:3] == [
        '# TYPE "a b" unknown',
        '{"a b","c.d"="q\\"\\\\\\n",e="é"} 8 1',
        "# TYPE h histogram",
    ]
    assert [line.split('"')[3] for line in text.splitlines() if line.startswith('h_bucket{app="b"')] == [
        "0.5",
        "5",
        "15",
        "+Inf",
    ]
    assert imported(text)[1] == text


@pytest.mark.parametrize("time_ms", [0, 1, 999, 1000, -1, -1500, *range(1_700_000_000_000, 1_700_000_001_000, 7)])
def test_a_time_stamp_is_its_millisecond_whether_it_is_cut_or_rounded(time_ms: int) -> None:
    seconds = float(stamp_text(time_ms))
    assert int(seconds * 1000) == round(seconds * 1000) == time_ms


# ---- import ----------------------------------------------------------------------------------------------------------


def test_lines_in_any_order_are_sorted(imported: Callable[..., tuple[Imported, str]]) -> None:
    _, text = imported("b 3 3000\na 2 2000\nb 1 1000\na 1 1000\nb 2 2000\n")
    assert [line for line in text.splitlines() if line[0] != "#"] == ["a 1 1", "a 2 2", "b 1 1", "b 2 2", "b 3 3"]


def test_of_a_place_given_twice_the_last_line_counts(imported: Callable[..., tuple[Imported, str]]) -> None:
    done, text = imported("a 1 1000\na 5 2000\na 2 1000\n")
    assert (done.samples, done.repeated) == (2, 1)
    assert "a 2 1\na 5 2\n" in text


def test_what_is_too_old_is_left_out_and_counted(imported: Callable[..., tuple[Imported, str]]) -> None:
    done, text = imported("a 1 1000\na 2 2000\nb 1 1000\n", oldest_ms=2000)
    assert (done.samples, done.series, done.too_old) == (1, 1, 2)
    assert text == "# TYPE a unknown\na 2 2\n# EOF\n"
    done, text = imported("a 1 1000\n", oldest_ms=2000, name="empty")
    assert (done.samples, done.too_old, text) == (0, 1, "# EOF\n")


def test_a_fault_in_the_last_line_stores_nothing(tmp_path: Path) -> None:
    writer = Writer.open(str(tmp_path / "x.db"), first_zero=False)
    with pytest.raises(ImportFault, match="line 1001: "):
        import_samples(io.BytesIO(b"a 1 1\n" * 1000 + b"a\n"), writer, "personal", oldest_ms=0)
    assert writer.statistics()["rows"] == 0
    writer.close()


def test_series_sampled_together_are_one_frame_and_no_zero_is_added(
    imported: Callable[..., tuple[Imported, str]],
) -> None:
    lines = [f"a {at} {at * 1000}" for at in range(20)]
    lines += [f"b_total {at} {at * 1000}" for at in range(10, 20)]
    lines += [f"c {at} {at * 1000 + 500}" for at in range(20)]
    done, text = imported("\n".join([*lines, ""]))
    assert (done.series, done.targets) == (3, 2)
    assert "# TYPE b counter\nb_total 10 10\n" in text


def test_the_same_file_twice_changes_nothing(imported: Callable[..., tuple[Imported, str]]) -> None:
    text = "".join(f'a{{n="{n}"}} {at} {at * 1000}\n' for at in range(600) for n in range(3))
    first, before = imported(text)
    second, after = imported(text)
    assert (first.samples, first.already_there) == (1800, 0)
    assert (second.samples, second.already_there) == (0, 1800)
    assert before == after


def test_the_same_file_twice_changes_nothing_after_short_lived_frames_were_merged(
    imported: Callable[..., tuple[Imported, str]], tmp_path: Path
) -> None:
    """Frames of an import are small and over, but their last rows are what tells the second import."""
    lines = [f'a{{n="{n}"}} {at} {at * 60_000 + n * 1000}' for n in range(20) for at in range(3)]
    text = "".join(f"{line}\n" for line in lines)
    first, before = imported(text)
    assert first.targets == 20
    writer = Writer.open(str(tmp_path / "fresh.db"))
    for _ in range(2):
        while writer.seal(10**12).more:
            pass
    while writer.merge(10**12):
        pass
    assert writer.statistics()["chunks"] >= 20
    assert writer.statistics()["log_rows"] == 0
    writer.close()
    second, after = imported(text)
    assert (second.samples, second.already_there) == (0, 60)
    assert before == after


def test_an_import_that_was_broken_off_goes_on(
    imported: Callable[..., tuple[Imported, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "".join(f"a {at} {at * 1000}\n" for at in range(2000))
    append, left = Writer.append, [2]

    def failing(writer: Writer, batches: Any) -> list[str]:
        left[0] -= 1
        if left[0] < 0:
            raise OSError("the power went")
        return append(writer, batches)

    with monkeypatch.context() as patched:
        patched.setattr(Writer, "append", failing)
        with pytest.raises(OSError, match="power"):
            imported(text)
    done, after = imported(text)
    assert (done.already_there, done.samples) == (1024, 976)
    assert after == imported(text, name="whole")[1]


def test_a_file_larger_than_memory_is_placed_in_stretches_with_the_same_result(
    imported: Callable[..., tuple[Imported, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f'a{{n="{n}"}} {at} {at * 15_000 + n // 2}\n' for n in range(6) for at in range(n, 100) if at % 17 != n]
    lines += [f"gap {at} {at * 15_000}\n" for at in (*range(10), *range(90, 100))]
    text = "".join(lines)
    _, whole = imported(text)
    monkeypatch.setattr(openmetrics_import, "SAMPLES_AT_ONCE", 60)
    done, sliced = imported(text, name="sliced")
    assert sliced == whole
    assert (done.series, done.targets, done.samples) == (7, 3, len(lines))


def test_a_file_whose_series_have_no_time_in_common_is_refused_before_it_makes_too_many_frames(
    imported: Callable[..., tuple[Imported, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "".join(f'a{{n="{n}"}} 1 {n * 1000 + at}\n' for n in range(8) for at in range(2))
    assert imported(text)[0].targets == 8
    monkeypatch.setattr(openmetrics_import, "TARGETS_MAX", 7)
    with pytest.raises(ImportFault, match="more than 7 groups of series"):
        imported(text, name="other")


def test_an_imported_series_lasts_as_long_as_prometheus_would_find_it(tmp_path: Path) -> None:
    path = str(tmp_path / "x.db")
    writer = Writer.open(path, first_zero=False)
    import_samples(io.BytesIO(b"a 1 1000\ngap 1 1000\na 2 900000\n"), writer, "personal", oldest_ms=0)
    assert writer.live_targets() == []
    writer.close()
    reader = Reader.open(path)
    view = reader.organization("personal")
    (frame,) = view.select(parse_selector("a"), 0, 10_000_000)
    assert frame.timestamps_ms.tolist() == [1000, 900_000, 1_200_001]
    reader.close()


@pytest.mark.peer("promtool")
def test_promtool_takes_it(
    open_writer: Open, layout: Open, batch: Open, exported: Callable[..., str], tmp_path: Path
) -> None:
    fill(open_writer, layout, batch, beats=30)
    file, blocks = tmp_path / "samples.txt", tmp_path / "blocks"
    file.write_text(exported())
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(file), str(blocks)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    (blocks / "wal").mkdir()  # dump wants a whole data directory
    done = subprocess.run(["promtool", "tsdb", "dump", str(blocks)], check=True, capture_output=True, timeout=60)
    moments = sorted(int(line.rsplit(" ", 1)[1]) for line in done.stdout.decode().splitlines() if '"g"' in line)
    assert moments == [BEGIN_MS + beat * 15_000 for beat in range(30)]
