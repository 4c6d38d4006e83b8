"""Short-lived frames become one: nothing of them is lost, and a reader that is open sees every sample once."""

import sqlite3
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from flyproxy.series.frame import ABSENT, Frame
from flyproxy.series.labels import Labels
from flyproxy.series.samples import Batch, Layout
from flyproxy.tsdb import merging
from flyproxy.tsdb.db import Reader, StoreError, Writer
from flyproxy.tsdb.merging import MERGE_FRAMES_MIN

OpenReader = Callable[..., Reader]
MakeLayout = Callable[..., Layout]
MakeBatch = Callable[..., Batch]
Collect = Callable[[Sequence[Frame]], dict[Labels, dict[int, int]]]
STRETCH_MS = 600_000
LATER_MS = 10**9
FOREVER = (0, 2**60)
DEPLOYS = 20


@pytest.fixture
def deployed(
    open_writer: Callable[..., Writer], layout: MakeLayout, batch: MakeBatch, seal_all: Callable[..., int]
) -> Writer:
    """20 instances after one another, each for 10 beats, half of them with a series of their own; a target that lives;
    and one of another organization. All that is over is sealed."""
    writer = open_writer()
    random = np.random.default_rng(1)
    for deploy in range(DEPLOYS):
        own = layout("up", *([f"own{deploy}"] if deploy % 2 else []), gauges=["heap"])
        begin_ms = deploy * 100_000
        for beat in range(10):
            values = random.integers(0, 10**6, len(own.series)).astype(np.float64)
            values[-1:] = ABSENT[0] if beat == 3 else values[-1:] / 8
            writer.append([
                batch(begin_ms + beat * 15_000, own, values, target=f"instance{deploy}"),
                batch(begin_ms + beat * 15_000, layout("steady"), [beat], target="steady"),
                batch(begin_ms + beat * 15_000, layout("foreign"), [beat], organization="shop"),
            ]) if beat < 6 else writer.append(
                [batch(begin_ms + beat * 15_000, own, values, target=f"instance{deploy}")]
            )  # fmt: skip
        writer.end_target("personal", f"instance{deploy}", begin_ms + 150_000)
    seal_all(writer, LATER_MS, STRETCH_MS)
    writer.append([batch(LATER_MS, layout("steady"), [1], target="steady")])
    return writer


@pytest.mark.parametrize("head_bytes", [0, 1 << 24])
def test_many_short_lived_frames_become_one_with_every_sample(
    deployed: Writer, open_reader: OpenReader, samples: Collect, head_bytes: int, sentences: list[str]
) -> None:
    reader = open_reader(head_bytes)
    views = [reader.organization(name) for name in ("personal", "shop")]
    before = [samples(view.select((), *FOREVER)) for view in views]
    listed = [view.series(None, *FOREVER) for view in views]
    assert reader.statistics()["frames"] == DEPLOYS + 2
    assert deployed.merge(LATER_MS, STRETCH_MS) == DEPLOYS - 1
    assert deployed.merge(LATER_MS, STRETCH_MS) == 0
    for each in (reader, open_reader(head_bytes)):  # the first was not told to refresh
        views = [each.organization(name) for name in ("personal", "shop")]
        assert [samples(view.select((), *FOREVER)) for view in views] == before
        assert [view.series(None, *FOREVER) for view in views] == listed
        assert each.statistics()["frames"] == 3
    reader.refresh()
    assert samples(reader.organization("personal").select((), *FOREVER)) == before[0]
    assert deployed.live_targets() == [("personal", "steady"), ("shop", "own")]
    assert deployed.statistics()["frames_merged"] == DEPLOYS
    assert not sentences


@pytest.mark.parametrize("first", ["ends", "begins"])
def test_a_series_that_ends_in_one_frame_where_it_goes_on_in_another_keeps_the_sample(
    open_writer: Callable[..., Writer],
    open_reader: OpenReader,
    layout: MakeLayout,
    batch: MakeBatch,
    seal_all: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    first: str,
) -> None:
    monkeypatch.setattr(merging, "MERGE_FRAMES_MIN", 2)
    writer, one = open_writer(), layout(gauges=["a"])
    begun_ms = {"ends": (0, 10), "begins": (10, 0)}[first]
    writer.append([batch(begun_ms[0], one, [1], target="ends"), batch(begun_ms[1], one, [2], target="goes on")])
    writer.append([batch(20, one, [3], target="goes on")])
    writer.end_target("personal", "ends", 20)
    writer.end_target("personal", "goes on", 30)
    seal_all(writer, LATER_MS, STRETCH_MS)
    assert writer.merge(LATER_MS, STRETCH_MS) == 1
    (frame,) = open_reader().organization("personal").select((), *FOREVER)
    assert frame.timestamps_ms.tolist() == [0, 10, 20, 30]
    assert sorted(frame.values[0, :2].tolist()) == [1, 2]
    assert frame.values[0, 2] == 3


def test_a_chunk_of_a_merged_frame_is_no_longer_than_a_stretch(deployed: Writer, open_reader: OpenReader) -> None:
    deployed.merge(LATER_MS, STRETCH_MS)
    (merged,) = [frame for frame in open_reader()._frames.values() if frame.target == "merged"]
    assert len(merged.chunks) > 2
    assert max(chunk.last_ms - chunk.first_ms for chunk in merged.chunks) < STRETCH_MS


def test_what_is_not_quiet_for_a_stretch_yet_stays(deployed: Writer) -> None:
    last_ms = (DEPLOYS - 1) * 100_000 + 150_000
    assert deployed.merge(last_ms - 1_800_000 + STRETCH_MS, STRETCH_MS) == 0
    assert deployed.merge(last_ms + STRETCH_MS, STRETCH_MS) == DEPLOYS - 2  # all but the very last


def test_too_few_or_too_large_frames_stay(deployed: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "MERGE_CELLS_MAX", merging.SMALL_SHARE * 25)  # 2 series of 11 columns fit, 3 do not
    with monkeypatch.context() as patched:
        patched.setattr(merging, "MERGE_FRAMES_MIN", DEPLOYS + 1)
        assert deployed.merge(LATER_MS, STRETCH_MS) == 0
    monkeypatch.setattr(merging, "MERGE_FRAMES_MIN", 2)
    steps = []
    while merged := deployed.merge(LATER_MS, STRETCH_MS):
        steps.append(merged)
    assert sum(steps) < DEPLOYS // 2
    assert deployed.statistics()["frames"] >= DEPLOYS // 2


def test_a_damaged_frame_is_left_as_it_is_and_the_others_merge(
    deployed: Writer, open_reader: OpenReader, store_path: str, samples: Collect, sentences: list[str]
) -> None:
    connection = sqlite3.connect(store_path)
    connection.execute("UPDATE blocks SET blob = zeroblob(40) WHERE chunk = (SELECT min(chunk) FROM blocks)")
    connection.execute("UPDATE layouts SET blob = zeroblob(40) WHERE frame = (SELECT max(frame) FROM layouts)")
    connection.commit()
    connection.close()
    before = samples(open_reader().organization("personal").select((), *FOREVER))
    merged = deployed.merge(LATER_MS, STRETCH_MS)
    assert DEPLOYS - 4 < merged < DEPLOYS - 1
    assert samples(open_reader().organization("personal").select((), *FOREVER)) == before
    assert sentences


def test_a_merge_that_fails_changes_nothing(deployed: Writer, open_reader: OpenReader, samples: Collect) -> None:
    before = samples(open_reader().organization("personal").select((), *FOREVER))
    deployed._connection.set_authorizer(lambda action, *_: int(action == sqlite3.SQLITE_DELETE))
    with pytest.raises(StoreError, match="not authorized while merging"):
        deployed.merge(LATER_MS, STRETCH_MS)
    deployed._connection.set_authorizer(None)
    reader = open_reader()
    assert samples(reader.organization("personal").select((), *FOREVER)) == before
    assert reader.statistics()["frames"] == DEPLOYS + 2


def test_a_target_that_comes_back_after_its_frame_was_merged_begins_a_new_one(
    deployed: Writer, open_reader: OpenReader, layout: MakeLayout, batch: MakeBatch
) -> None:
    deployed.merge(LATER_MS, STRETCH_MS)
    assert deployed.append([batch(LATER_MS, layout("up"), [7], target="instance3")]) == []
    assert deployed.append([batch(LATER_MS + 15_000, layout("up"), [8], target="instance3")]) == []
    frames = open_reader().organization("personal").select((), LATER_MS, LATER_MS + 15_000)
    assert [7.0, 8.0] in [row for frame in frames for row in frame.values.tolist()]
    assert MERGE_FRAMES_MIN <= DEPLOYS


def test_frames_too_different_to_fit_together_merge_with_those_of_their_shape(
    open_writer: Callable[..., Writer],
    open_reader: OpenReader,
    layout: MakeLayout,
    batch: MakeBatch,
    samples: Collect,
    seal_all: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The oldest frame is wide, and no other one fits beside it."""
    monkeypatch.setattr(merging, "MERGE_CELLS_MAX", merging.SMALL_SHARE * 100)
    writer, wide = open_writer(), layout(gauges=[f"wide{place}" for place in range(90)])
    writer.append([batch(0, wide, range(90), target="wide")])
    writer.end_target("personal", "wide", 0)
    for deploy in range(3 * MERGE_FRAMES_MIN):
        brief = layout(gauges=[f"own{deploy}"])
        for beat in range(70):
            writer.append([batch(deploy * 1_000 + beat, brief, [beat], target=f"t{deploy}")])
        writer.end_target("personal", f"t{deploy}", deploy * 1_000 + 70)
    seal_all(writer, LATER_MS, STRETCH_MS)
    before = samples(open_reader().organization("personal").select((), *FOREVER))
    while writer.merge(LATER_MS, STRETCH_MS):
        pass
    assert writer.statistics()["frames"] <= 1 + MERGE_FRAMES_MIN
    assert samples(open_reader().organization("personal").select((), *FOREVER)) == before


def test_a_frame_that_was_quiet_while_it_lived_is_merged_once_it_ended(
    open_writer: Callable[..., Writer], layout: MakeLayout, batch: MakeBatch, seal_all: Callable[..., int]
) -> None:
    """As after a machine's long sleep."""
    writer, one = open_writer(), layout("a")
    targets = [f"t{number}" for number in range(MERGE_FRAMES_MIN)]
    writer.append([batch(0, one, [1], target=target) for target in targets])
    seal_all(writer, LATER_MS, STRETCH_MS)
    assert writer.merge(LATER_MS, STRETCH_MS) == 0
    for target in targets:
        writer.end_target("personal", target, LATER_MS)
    seal_all(writer, 2 * LATER_MS, STRETCH_MS)
    assert writer.merge(2 * LATER_MS, STRETCH_MS) == MERGE_FRAMES_MIN - 1
