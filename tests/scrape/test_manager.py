"""All targets on one beat. `peer` and `own` are conftest's."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from flyproxy.clock import ManualClock, SystemClock
from flyproxy.config.resolved import ScrapeLimits, Telemetry
from flyproxy.discovery.static import Generation, Target
from flyproxy.scrape.manager import ScrapeManager
from flyproxy.series.frame import is_stale
from flyproxy.series.metadata import Metadata
from flyproxy.series.samples import Batch


async def eventually(check: Callable[[], Any]) -> None:
    """Let the loop run until it is so."""
    async with asyncio.timeout(10):
        while not check():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


class Telling:
    """A manager, and every list of batches it handed over."""

    def __init__(self, own: Any, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self.clock = ManualClock(1_700_000_000_000)
        self.handed: list[Sequence[Batch]] = []
        self.stuck: asyncio.Event | None = None
        self.manager = ScrapeManager(self.clock, self.append, own)

    async def append(self, batches: Sequence[Batch]) -> None:
        self.handed.append(batches)
        if self.stuck is not None:
            await self.stuck.wait()

    async def update(
        self,
        *targets: Target,
        interval_s: float = 15.0,
        first_zero: bool = True,
        scrape_limits: ScrapeLimits | None = None,
    ) -> None:
        telemetry = replace(
            self._telemetry,
            scrape_interval_s=interval_s,
            first_zero=first_zero,
            scrape_limits=scrape_limits or ScrapeLimits(),
        )
        apps = tuple({target.app.name: target.app for target in targets}.values())
        await self.manager.update(Generation(1, apps, targets), telemetry)


@pytest.fixture
async def telling(own: Any, telemetry: Telemetry) -> AsyncIterator[Telling]:
    telling = Telling(own, telemetry)
    yield telling
    await telling.manager.stop()


async def test_all_targets_share_the_beats_time_and_one_list(telling: Telling, peer: Any) -> None:
    peer.page("a 1\n")
    await telling.update(peer.target(), peer.target(app="other"))
    telling.clock.advance(10)
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
    assert (state.health, state.last_error) == ("down", "connected, but no answer within 0.045 s")
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


async def test_the_beats_come_by_themselves(own: Any, peer: Any, telemetry: Telemetry) -> None:
    seen: asyncio.Queue[Batch] = asyncio.Queue()

    async def append(batches: Sequence[Batch]) -> None:
        for batch in batches:
            seen.put_nowait(batch)

    telling = Telling(own, telemetry)
    telling.manager = ScrapeManager(SystemClock(), append, own)
    peer.page("a 1\n")
    await telling.update(peer.target(), interval_s=3600)
    await telling.update(peer.target(), interval_s=0.02)
    async with asyncio.timeout(10):
        first, second = await seen.get(), await seen.get()
    await telling.manager.stop()
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


async def test_a_target_that_is_not_done_misses_its_own_beat_alone(telling: Telling, peer: Any) -> None:
    silent = peer.target(app="silent")
    peer.answer = None
    await telling.update(silent, interval_s=3600)
    first = asyncio.create_task(telling.manager.beat(1_700_000_000_000))
    await eventually(lambda: peer.requests)
    peer.page("a 1\n")
    await telling.update(silent, peer.target(), interval_s=3600)
    await telling.manager.beat(1_700_000_001_000)
    assert [[batch.target for batch in batches] for batches in telling.handed] == [["scrape/hello/3d8d9e27b24e89"]]
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await telling.manager.beat(1_700_000_002_000)
    assert len(telling.handed[1]) == 2


async def test_a_store_that_stands_still_is_not_buried(telling: Telling, peer: Any) -> None:
    """A target whose batch is not stored yet is not asked again."""
    peer.page("a 1\n")
    await telling.update(peer.target())
    telling.stuck = asyncio.Event()
    first = asyncio.create_task(telling.manager.beat(1_700_000_000_000))
    await eventually(lambda: telling.handed)
    await telling.manager.beat(1_700_000_015_000)
    assert (len(peer.requests), len(telling.handed)) == (1, 1)
    telling.stuck.set()
    await first
    await telling.manager.beat(1_700_000_030_000)
    assert (len(peer.requests), len(telling.handed)) == (2, 2)


async def test_missed_beats_are_counted(own: Any, peer: Any, telemetry: Telemetry) -> None:
    """At an interval that the store does not keep up with."""
    stuck = asyncio.Event()

    async def append(batches: Sequence[Batch]) -> None:
        await stuck.wait()

    manager = ScrapeManager(SystemClock(), append, own)
    peer.page("a 1\n")
    target = peer.target()
    await manager.update(Generation(1, (target.app,), (target,)), replace(telemetry, scrape_interval_s=0.02))
    await eventually(lambda: own.counted["flyproxy_scrapes_missed_total", ()] > 1)
    stuck.set()
    await manager.stop()
    assert len(peer.requests) == 1


async def test_many_targets_are_not_all_asked_at_once(own: Any, peer: Any, telemetry: Telemetry) -> None:
    """Each cohort's batches have one time, and the cohorts' times differ."""
    seen: dict[str, set[int]] = {}

    async def append(batches: Sequence[Batch]) -> None:
        for batch in batches:
            seen.setdefault(batch.target, set()).add(batch.timestamp_ms % 2000)

    peer.page("a 1\n")
    targets = tuple(peer.target(app=f"app{number}") for number in range(100))
    manager = ScrapeManager(SystemClock(), append, own)
    await manager.update(Generation(1, (), targets), replace(telemetry, scrape_interval_s=2.0))
    await eventually(lambda: len(seen) == len(targets))
    await manager.stop()
    on_beat = {place for places in seen.values() for place in places} & {125, 625, 1125, 1625}
    assert len(on_beat) == 4


async def test_the_metadata_of_an_organization_is_its_own_targets(telling: Telling, peer: Any) -> None:
    peer.page("# TYPE a counter\n# HELP a Words.\na 1\n")
    other = peer.target(app="other")
    await telling.update(peer.target(), replace(other, app=replace(other.app, organization="shop")))
    await telling.manager.beat(1_700_000_000_000)
    for organization in ("personal", "shop"):
        assert telling.manager.metadata(organization) == {"a": Metadata("counter", "Words.", "")}
    assert telling.manager.metadata("nobody") == {}


async def test_limits_of_a_reload_count_for_targets_that_stay(telling: Telling, peer: Any) -> None:
    peer.page("a 1\nb 1\n")
    await telling.update(peer.target())
    await telling.manager.beat(1_700_000_000_000)
    await telling.update(peer.target(), scrape_limits=ScrapeLimits(samples=1))
    await telling.manager.beat(1_700_000_015_000)
    (state,) = telling.manager.targets()
    assert state.last_error == "2 samples, at most 1 are accepted (scrape_limits.samples)"
