"""All targets on one beat. `peer` and `own` are conftest's."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from flyproxy.clock import ManualClock
from flyproxy.config.resolved import Telemetry
from flyproxy.discovery.static import Generation, Target
from flyproxy.scrape.manager import ScrapeManager
from flyproxy.series.frame import is_stale
from flyproxy.series.samples import Batch


class Telling:
    """A manager, and every list of batches it handed over."""

    def __init__(self, own: Any) -> None:
        self.clock = ManualClock(1_700_000_000_000)
        self.handed: list[Sequence[Batch]] = []
        self.manager = ScrapeManager(self.clock, self.append, own)

    async def append(self, batches: Sequence[Batch]) -> None:
        self.handed.append(batches)

    async def update(self, *targets: Target, interval_s: float = 15.0, first_zero: bool = True) -> None:
        telemetry = Telemetry(
            host="",
            port=0,
            data_dir="",
            retention_s=1,
            own_interval_s=5,
            scrape_interval_s=interval_s,
            query_workers=1,
            query_timeout_s=5,
            query_memory_bytes=1,
            query_samples=1,
            query_concurrency=1,
            first_zero=first_zero,
            promql_mode="prometheus3",
            metricsql=True,
            organizations=("personal",),
            regions=(),
        )
        apps = tuple({target.app.name: target.app for target in targets}.values())
        await self.manager.update(Generation(1, apps, targets), telemetry)


@pytest.fixture
async def telling(own: Any) -> AsyncIterator[Telling]:
    telling = Telling(own)
    yield telling
    await telling.manager.stop()


async def test_all_targets_share_the_beats_time_and_one_list(telling: Telling, peer: Any) -> None:
    peer.page("a 1\n")
    await telling.update(peer.target(), peer.target(app="other"))
    await telling.manager.beat(1_700_000_010_000)
    (batches,) = telling.handed
    assert {batch.timestamp_ms for batch in batches} == {1_700_000_010_000}
    assert {batch.target for batch in batches} == {"scrape/hello/3d8d9e27b24e89", "scrape/other/3d8d9e27b24e89"}


async def test_a_target_that_is_gone_ends_in_the_store(telling: Telling, peer: Any) -> None:
    peer.page("a 1\n")
    await telling.update(peer.target(), peer.target(app="other"))
    await telling.manager.beat(1_700_000_000_000)
    telling.clock.advance(1)
    await telling.update(peer.target())
    (ended,) = telling.handed[1]
    assert ended.target == "scrape/other/3d8d9e27b24e89"
    assert ended.timestamp_ms == 1_700_000_001_000
    assert is_stale(ended.values).all()
    assert [state.app for state in telling.manager.targets()] == ["hello"]


async def test_a_target_that_stays_keeps_its_layout(telling: Telling, peer: Any) -> None:
    peer.page("a 1\n")
    target = peer.target()
    await telling.update(target)
    await telling.manager.beat(1_700_000_000_000)
    await telling.update(replace(target, app=replace(target.app, hostnames=("new.example",))))
    await telling.manager.beat(1_700_000_015_000)
    first, second = (batches[0] for batches in telling.handed)
    assert second.layout is first.layout


async def test_a_target_that_moves_ends_and_begins_anew(telling: Telling, peer: Any) -> None:
    peer.page("a 1\n")
    target = peer.target()
    await telling.update(target)
    await telling.manager.beat(1_700_000_000_000)
    moved = replace(target.instance, region="fra")
    await telling.update(Target(replace(target.app, instances=(moved,)), moved, target.endpoint))
    assert is_stale(telling.handed[1][0].values).all()
    await telling.manager.beat(1_700_000_015_000)
    assert ("region", "fra") in telling.handed[2][0].layout.series[0]


async def test_a_stop_ends_everything(telling: Telling, peer: Any) -> None:
    peer.page("a 1\n")
    await telling.update(peer.target())
    await telling.manager.beat(1_700_000_000_000)
    await telling.manager.stop()
    assert is_stale(telling.handed[1][0].values).all()
    assert telling.manager.targets() == []
    await telling.manager.stop()
    assert len(telling.handed) == 2


async def test_a_target_that_hangs_holds_up_nobody(telling: Telling, peer: Any, own: Any) -> None:
    peer.answer = None
    await telling.update(peer.target(), interval_s=0.05)
    await telling.manager.beat(1_700_000_000_000)
    (state,) = telling.manager.targets("personal")
    assert (state.health, state.last_error) == ("down", "no complete answer within 0.05 s")
    assert own.gauges["flyproxy_scrape_targets", (("state", "down"),)] == 1
    assert telling.manager.targets("shop") == []


async def test_a_bug_in_one_target_spares_the_others(
    telling: Telling, peer: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    peer.page("a 1\n")
    await telling.update(peer.target(), peer.target(app="other"))
    (broken,) = [target for target in telling.manager._targets.values() if target.name.startswith("scrape/other")]
    monkeypatch.setattr(broken, "_succeeded", None)
    await telling.manager.beat(1_700_000_000_000)
    assert [batch.target for batch in telling.handed[0]] == ["scrape/hello/3d8d9e27b24e89"]
    assert "scrape/other/3d8d9e27b24e89 failed" in caplog.text


async def test_the_beat_comes_by_itself_at_multiples_of_the_interval(own: Any, peer: Any) -> None:
    import asyncio

    from flyproxy.clock import SystemClock

    seen: asyncio.Queue[Batch] = asyncio.Queue()

    async def append(batches: Sequence[Batch]) -> None:
        for batch in batches:
            seen.put_nowait(batch)

    telling = Telling(own)
    telling.manager = ScrapeManager(SystemClock(), append, own)
    peer.page("a 1\n")
    await telling.update(peer.target(), interval_s=3600)
    await telling.update(peer.target(), interval_s=0.02)
    async with asyncio.timeout(10):
        first, second = await seen.get(), await seen.get()
    await telling.manager.stop()
    assert first.timestamp_ms % 20 == second.timestamp_ms % 20 == 0
    assert second.timestamp_ms > first.timestamp_ms


@pytest.mark.parametrize("first_zero", [True, False])
async def test_the_zeros_of_a_first_page_go_before_it_unless_switched_off(
    telling: Telling, peer: Any, first_zero: bool
) -> None:
    await telling.update(peer.target(), first_zero=first_zero)
    beat_ms = telling.clock.now_ms() + 15_000
    peer.page(f"# TYPE a counter\na_total 3\na_created {beat_ms / 1000 - 5}\n")
    await telling.manager.beat(beat_ms)
    times = [batch.timestamp_ms for batch in telling.handed[0]]
    assert times == ([beat_ms - 15_000, beat_ms] if first_zero else [beat_ms])
