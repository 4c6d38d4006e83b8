"""The front door's own beat: where it begins, what a killed telemetry must not begin again, clocks that step."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from flyproxy.clock import ManualClock
from flyproxy.instrument.cells import Segment
from flyproxy.instrument.instance_metrics import InstanceMetrics, LocalInstance
from flyproxy.instrument.own_metrics import ProcessRecorder
from flyproxy.instrument.procfs import Reading
from flyproxy.instrument.recorder import Recorder
from flyproxy.instrument.snapshot import Snapshot
from flyproxy.runtime.host_beat import HostBeat
from flyproxy.runtime.own_beat import OwnBeat
from flyproxy.runtime.store_thread import StoreThread
from flyproxy.series.frame import is_absent, is_stale
from flyproxy.series.matchers import Matcher, MatchOp
from flyproxy.tsdb.db import Reader

INTERVAL_MS = 1000
BYTES = [Matcher("__name__", MatchOp.EQUAL, "fly_edge_data_in")]
CPU = [Matcher("__name__", MatchOp.EQUAL, "fly_instance_cpu")]


class Boot:
    """A worker that counts, and telemetry processes that come and go over it."""

    def __init__(self, run_dir: Path, store_path: str, own: ProcessRecorder, clock: ManualClock) -> None:
        self.run_dir = run_dir
        self.store_path = store_path
        self.own = own
        self.clock = clock
        self.worker = Recorder(Segment.create(str(run_dir / "edge-0-1.cells"), 0), proxy_id="blue")
        self.edge = self.worker.edge("hello", "personal", "ord", "0000")
        self.worker.fold()
        self.stores: list[StoreThread] = []

    async def telemetry(self, host: HostBeat | None = None) -> OwnBeat:
        """A new one; whoever was there before let go of the store."""
        for store in self.stores:
            await store.close()
        store = StoreThread(self.own)
        self.stores.append(store)
        await store.open(self.store_path, first_zero=True, retention_s=86_400.0)
        snapshot = Snapshot(str(self.run_dir), interval_ms=INTERVAL_MS)
        return OwnBeat(snapshot, store, self.run_dir, "boot", self.clock, host)

    def count(self, requests: int) -> None:
        self.edge.transferred(requests, 0)
        self.worker.fold()

    def stored(self, matchers: list[Matcher] = BYTES) -> dict[int, float]:
        """Samples of the one counter, by time since the clock's start."""
        reader = Reader.open(self.store_path)
        found: dict[int, float] = {}
        for frame in reader.organization("personal").select(matchers, 0, 2**60):
            for at, value in zip(frame.timestamps_ms.tolist(), frame.values[0].tolist(), strict=True):
                found[at - START_MS] = value
            assert not is_absent(frame.values).any()
        reader.close()
        return found


START_MS = ManualClock().now_ms()


@pytest.fixture
async def boot(run_dir: Path, tmp_path: Path, own: ProcessRecorder, clock: ManualClock) -> AsyncIterator[Boot]:
    made = Boot(run_dir, str(tmp_path / "store.db"), own, clock)
    yield made
    for store in made.stores:
        await store.close()


async def test_the_first_row_follows_a_row_of_zeros_one_beat_earlier(boot: Boot) -> None:
    beat = await boot.telemetry()
    boot.count(5)
    assert await beat.sample(START_MS)
    boot.count(2)
    assert await beat.sample(START_MS + 1000)
    assert boot.stored() == {-1000: 0.0, 0: 5.0, 1000: 7.0}


async def test_a_telemetry_that_was_killed_goes_on_instead_of_beginning_again(boot: Boot) -> None:
    beat = await boot.telemetry()
    boot.count(5)
    await beat.sample(START_MS)
    beat = await boot.telemetry()
    boot.count(2)
    await beat.sample(START_MS + 10_000)
    assert boot.stored() == {-1000: 0.0, 0: 5.0, 10_000: 7.0}


async def test_killed_between_its_append_and_its_note_it_still_does_not_begin_again(boot: Boot) -> None:
    """A second row of zeros would make increase() count everything twice."""
    beat = await boot.telemetry()
    boot.count(5)
    await beat.sample(START_MS)
    for note in boot.run_dir.glob("begun-*"):
        note.unlink()
    beat = await boot.telemetry()
    boot.count(2)
    await beat.sample(START_MS + 10_000)
    assert boot.stored() == {-1000: 0.0, 0: 5.0, 10_000: 7.0}


async def test_zeros_stand_where_the_first_beat_was_due_though_the_store_came_later(
    boot: Boot, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, boot.store_path = boot.store_path, str(boot.run_dir / "nowhere" / "store.db")
    beat = await boot.telemetry()
    boot.count(5)
    assert not await beat.sample(START_MS)
    (boot.run_dir / "nowhere").mkdir()
    assert await beat.sample(START_MS + 60_000)
    assert boot.stored() == {-1000: 0.0, 60_000: 5.0}
    boot.store_path = path


async def test_a_clock_that_was_set_back_leaves_beats_out_until_it_has_caught_up(
    boot: Boot, caplog: pytest.LogCaptureFixture
) -> None:
    beat = await boot.telemetry()
    assert await beat.sample(START_MS)
    for due_ms in (-3000, -2000, -1000, 0):
        assert not await beat.sample(START_MS + due_ms)
    boot.count(3)
    assert await beat.sample(START_MS + 1000)
    assert boot.stored() == {-1000: 0.0, 0: 0.0, 1000: 3.0}
    assert caplog.text.count("the clock was set back: no own samples for 3 s") == 1


async def test_a_clock_that_jumps_forward_leaves_a_gap_and_nothing_else(boot: Boot) -> None:
    beat = await boot.telemetry()
    await beat.sample(START_MS)
    boot.count(4)
    assert await beat.sample(START_MS + 7_200_000)
    assert boot.stored() == {-1000: 0.0, 0: 0.0, 7_200_000: 4.0}


async def test_a_sample_that_was_asked_for_by_itself_is_kept_whatever_the_clock_says(boot: Boot) -> None:
    beat = await boot.telemetry()
    await beat.sample(START_MS + 5000)  # the clock stands at 0
    boot.count(1)
    assert await beat.sample()
    assert boot.stored()[5001] == 1.0


async def test_an_organization_that_comes_later_begins_then(boot: Boot) -> None:
    beat = await boot.telemetry()
    await beat.sample(START_MS)
    late = boot.worker.edge("shop", "acme", "ord", "0000")
    late.transferred(9, 0)
    boot.worker.fold()
    await beat.sample(START_MS + 5000)
    reader = Reader.open(boot.store_path)
    (frame,) = reader.organization("acme").select(BYTES, 0, 2**60)
    assert (frame.timestamps_ms - START_MS).tolist() == [4000, 5000]
    assert frame.values.tolist() == [[0.0, 9.0]]
    reader.close()


async def test_what_the_machine_says_is_in_the_same_transaction_and_never_born_at_zero(boot: Boot) -> None:
    """A kernel's counter is old when we first see it: a 0 before it would be a jump."""
    metrics = InstanceMetrics(lambda limit: None)
    host = HostBeat(metrics, lambda: [Reading("fly_instance_cpu", (("cpu_id", "0"), ("mode", "user")), 123_456_789.0)])
    beat = await boot.telemetry(host)
    one = LocalInstance("personal", "hello", "ord", "0000", "3d8d9e27b24e89")
    host.keep([one], INTERVAL_MS)
    await beat.sample(START_MS)
    rows = boot.stored(CPU)
    host.keep([one, one._replace(instance="4d8d9e27b24e89")], INTERVAL_MS)
    await beat.sample(START_MS + 1000)
    host.keep([one], INTERVAL_MS)
    await beat.sample(START_MS + 2000)
    assert rows == {0: 123_456_789.0}
    reader = Reader.open(boot.store_path)
    (frame,) = reader.organization("personal").select(CPU, 0, 2**60)
    reader.close()
    assert (frame.timestamps_ms - START_MS).tolist() == [0, 1000, 2000]
    assert is_absent(frame.values).tolist() == [[False, False, False], [True, False, False]]
    assert is_stale(frame.values).tolist() == [[False, False, False], [False, False, True]]
