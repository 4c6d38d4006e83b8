"""The counts of workers that are gone: kept once, whatever instant telemetry is killed at."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flyproxy.instrument.base import NAME, Base, load, save
from flyproxy.instrument.cells import CellsError, Record
from flyproxy.instrument.recorder import Recorder
from flyproxy.instrument.snapshot import Snapshot

MakeWorker = Callable[..., Recorder]

COUNTER = Record((("fly_edge_data_in", 1), ("fly_edge_data_out", 1)), "personal", (("app", "hello"),), 2, 2)
GAUGE = Record((("fly_app_concurrency", 1), ("flyproxy_cells_used", 1)), "personal", (("app", "hello"),), 0, 2)


def always(_: object) -> bool:
    return True


def test_counters_add_up_and_gauges_are_dropped_or_rest_at_zero() -> None:
    base = Base((), {}).plus("a", [GAUGE, COUNTER], [7, 8, 10, 20], always)
    base = base.plus("b", [COUNTER], [0, 0, 1, 2], always)
    assert base.folded == ("a", "b")
    assert base.cells == {
        ("fly_app_concurrency", "personal", (("app", "hello"),)): (0,),
        ("fly_edge_data_in", "personal", (("app", "hello"),)): (11,),
        ("fly_edge_data_out", "personal", (("app", "hello"),)): (22,),
    }


def test_what_this_version_does_not_know_is_left_out() -> None:
    strange = Record((("fly_made_up", 1), ("fly_edge_data_in", 1)), "personal", (), 0, 2)
    other_shape = Record((("fly_app_connect_time_seconds", 3),), "personal", (), 2, 3)
    base = Base((), {}).plus("a", [strange, other_shape], [5, 6, 0, 0, 0], always)
    assert base.cells == {("fly_edge_data_in", "personal", ()): (6,)}


def test_what_is_not_wanted_any_more_is_left_out() -> None:
    base = Base((), {}).plus("a", [COUNTER], [0, 0, 1, 2], always)
    assert base.plus("b", [], [], lambda key: key[0] != "fly_edge_data_in").cells == {
        ("fly_edge_data_out", "personal", (("app", "hello"),)): (2,)
    }


def test_it_reads_back_as_it_was_written(run_dir: Path) -> None:
    base = Base(("a", "b"), {("fly_edge_data_in", "personal", (("app", 'he"llo\n'), ("region", "ørd"))): (1 << 62,)})
    save(str(run_dir), base)
    assert load(str(run_dir)) == base
    assert load(str(run_dir / "elsewhere")) == Base((), {})


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "move it away and the counters begin again"),
        ('{"version": 1}', "move it away and the counters begin again"),
        ("[1]", "move it away and the counters begin again"),
        ('{"version": 2, "folded": [], "series": []}', "is of version 2, this flyproxy reads 1"),
    ],
)
def test_a_base_that_cannot_be_read_is_said_with_its_mend(run_dir: Path, content: str, sentence: str) -> None:
    (run_dir / NAME).write_text(content)
    with pytest.raises(CellsError, match=sentence):
        load(str(run_dir))


def test_a_base_that_cannot_be_written_leaves_the_segment_counting(run_dir: Path, make_worker: MakeWorker) -> None:
    recorder = make_worker()
    recorder.edge("hello", "personal", "ord", "2bc3").transferred(5, 0)
    recorder.fold()
    snapshot = Snapshot(str(run_dir), interval_ms=5000)
    (run_dir / f"{NAME}.new").mkdir()
    with pytest.raises(CellsError, match=r"cannot write .*Is a directory"):
        snapshot.retire(recorder.segment.path)
    assert total(snapshot) == 5
    (run_dir / f"{NAME}.new").rmdir()
    snapshot.retire(recorder.segment.path)
    assert total(snapshot) == 5


def total(snapshot: Snapshot) -> float:
    families = {family.name: family for family in snapshot.families()}
    return sum(sample.value for sample in families["fly_edge_data_in"].samples)


def killed_before(step: int, run_dir: Path, work: Callable[[], None]) -> bool:
    """Run `work` in a child that is killed before its `step`-th operation on a file of the run directory; whether
    it was (False: it was done before)."""
    child = os.fork()
    if child == 0:
        left = step

        def audit(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            if event in ("open", "os.rename", "os.remove", "os.truncate") and str(run_dir) in str(arguments[0]):
                left -= 1
                if left < 0:
                    os._exit(9)

        try:
            sys.addaudithook(audit)
            work()
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


def test_a_telemetry_killed_at_any_step_of_folding_counts_everything_once(
    run_dir: Path, make_worker: MakeWorker
) -> None:
    steps = 0
    while True:
        name = f"edge-{steps}.cells"
        recorder = make_worker(name)
        recorder.edge("hello", "personal", "ord", "2bc3").transferred(1000, 0)
        recorder.fold()
        expected = 1000.0 * (steps + 1)

        def fold(path: str = recorder.segment.path) -> None:
            Snapshot(str(run_dir), interval_ms=5000).retire(path)

        killed = killed_before(steps, run_dir, fold)
        assert total(Snapshot(str(run_dir), interval_ms=5000)) == expected
        fold()
        assert total(Snapshot(str(run_dir), interval_ms=5000)) == expected
        assert not (run_dir / name).exists()
        if not killed:
            break
        steps += 1
    assert steps >= 5, "reading the base and the segment, writing, renaming, removing"


def test_half_a_base_left_by_a_kill_is_written_over(run_dir: Path, make_worker: MakeWorker) -> None:
    recorder = make_worker()
    recorder.edge("hello", "personal", "ord", "2bc3").transferred(5, 0)
    recorder.fold()
    (run_dir / f"{NAME}.new").write_text('{"version": 1, "fol')
    snapshot = Snapshot(str(run_dir), interval_ms=5000)
    assert total(snapshot) == 5
    snapshot.retire(recorder.segment.path)
    assert total(Snapshot(str(run_dir), interval_ms=5000)) == 5
