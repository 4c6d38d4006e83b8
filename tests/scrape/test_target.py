"""One target over time: reports, stale markers, state. `peer` and `own` are conftest's."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import numpy as np
import pytest

from flyproxy.clock import ManualClock
from flyproxy.config.resolved import ScrapeLimits
from flyproxy.discovery.static import Target
from flyproxy.scrape.fetch import open_session
from flyproxy.scrape.large_pages import LargePages
from flyproxy.scrape.target import INLINE_BYTES, ScrapeTarget, described, forced_labels, target_name
from flyproxy.series.frame import is_absent, is_stale
from flyproxy.series.labels import label_value
from flyproxy.series.samples import Batch

INTERVAL_MS = 15_000


class Scraping:
    """A target, scraped on its beat."""

    def __init__(self, peer: Any, own: Any, session: aiohttp.ClientSession) -> None:
        self.clock = ManualClock()
        self.peer = peer
        self.target = ScrapeTarget(peer.target(), self.clock, own, LargePages())
        self.target.adjust(INTERVAL_MS, ScrapeLimits())
        self._session = session

    async def scrape(self, body: str | None = None, **keywords: Any) -> Batch:
        """One beat later; None: the page stays as it is."""
        self.clock.advance(INTERVAL_MS / 1000)
        if body is not None:
            self.peer.page(body, **keywords)
        return await self.target.scrape(self._session, self.clock.now_ms())


@pytest.fixture
async def scraping(peer: Any, own: Any) -> AsyncIterator[Scraping]:
    async with open_session() as session:
        yield Scraping(peer, own, session)


def told(batch: Batch) -> dict[str, float | str]:
    """Values by metric name; stale and absent by their words."""
    words = np.where(is_stale(batch.values), "stale", np.where(is_absent(batch.values), "absent", "")).tolist()
    names = [label_value(labels, "__name__") for labels in batch.layout.series]
    return {name: word or value for name, word, value in zip(names, words, batch.values.tolist(), strict=True)}


async def test_a_page_becomes_a_batch_with_its_report(scraping: Scraping) -> None:
    batch = await scraping.scrape("# TYPE a counter\na 1\nb 2.5\nup 7\n")
    assert told(batch) == {
        "up": 1.0,
        "scrape_duration_seconds": 0.0,
        "scrape_samples_scraped": 3.0,
        "scrape_samples_post_metric_relabeling": 2.0,
        "scrape_series_added": 2.0,
        "a": 1.0,
        "b": 2.5,
    }
    assert (batch.organization, batch.target) == ("personal", "scrape/hello/3d8d9e27b24e89")
    assert (batch.timestamp_ms, batch.interval_ms) == (scraping.clock.now_ms(), INTERVAL_MS)
    assert dict(batch.layout.series[5]) == {
        "__name__": "a",
        "app": "hello",
        "region": "ord",
        "host": "2bc3",
        "instance": "3d8d9e27b24e89",
    }


async def test_the_layout_stays_while_the_series_stay(scraping: Scraping) -> None:
    first = await scraping.scrape("a 1\n")
    second = await scraping.scrape("a 2\n")
    assert second.layout is first.layout
    assert told(second)["scrape_series_added"] == 0


async def test_a_series_that_vanished_is_not_in_the_layout(scraping: Scraping) -> None:
    await scraping.scrape("a 1\nb 1\n")
    batch = await scraping.scrape("b 2\nc 2\n")
    assert list(told(batch))[5:] == ["b", "c"]
    assert told(batch)["scrape_series_added"] == 1


async def test_a_failed_scrape_ends_every_series_once(scraping: Scraping) -> None:
    good = await scraping.scrape("a 1\nb NaN\n")
    failed = await scraping.scrape("no", status="500 Internal Server Error")
    again = await scraping.scrape()
    assert failed.layout is good.layout
    assert told(failed) == {
        "up": 0.0,
        "scrape_duration_seconds": 0.0,
        "scrape_samples_scraped": 0.0,
        "scrape_samples_post_metric_relabeling": 0.0,
        "scrape_series_added": 0.0,
        "a": "stale",
        "b": "stale",
    }
    assert (told(again)["up"], told(again)["a"]) == (0.0, "absent")
    back = await scraping.scrape("a 1\nb 2\n")
    assert back.layout is good.layout
    assert (told(back)["a"], told(back)["scrape_series_added"]) == (1.0, 0.0)


async def test_a_target_that_never_answered_has_its_report_alone(scraping: Scraping) -> None:
    batch = await scraping.scrape("no", status="503 Service Unavailable")
    assert told(batch)["up"] == 0.0
    assert len(batch.layout.series) == 5
    assert scraping.target.state.last_error == "HTTP status 503 Service Unavailable"


async def test_the_state_says_how_it_is_and_since_when(scraping: Scraping) -> None:
    assert (scraping.target.state.health, scraping.target.state.last_scrape_ms) == ("unknown", None)
    await scraping.scrape('a{region="x"} 1\na 2\nup 3\n')
    first_ms = scraping.clock.now_ms()
    await scraping.scrape()
    state = scraping.target.state
    assert (state.health, state.since_ms, state.last_scrape_ms) == ("up", first_ms, first_ms + INTERVAL_MS)
    assert (state.samples, state.refused, state.duplicates, state.last_error) == (3, 1, 1, "")
    await scraping.scrape("a\n")
    state = scraping.target.state
    assert (state.health, state.since_ms) == ("down", first_ms + 2 * INTERVAL_MS)
    assert state.last_error == "line 1: not `name{labels} value`: 'a'"


async def test_what_is_left_out_is_counted(scraping: Scraping, own: Any) -> None:
    await scraping.scrape('a{region="x"} 1\na 2\nup 3\nfly_x 1\n')
    assert own.counted == {
        ("flyproxy_scrape_samples_refused_total", (("reason", "reserved_name"),)): 2,
        ("flyproxy_scrape_samples_refused_total", (("reason", "duplicate"),)): 1,
    }


async def test_each_bound_is_told_and_counted(scraping: Scraping, own: Any) -> None:
    """With what was got, what is accepted, and which setting says so."""
    limits = ScrapeLimits(
        body_bytes=50, samples=2, labels=1, lines=5, label_name_characters=9, label_value_characters=6, series=2
    )
    scraping.target.adjust(INTERVAL_MS, limits)
    for page, reason in (
        ("a 1\nb 2\nc 3\n", "3 samples, at most 2 are accepted (scrape_limits.samples)"),
        ('a{b="1",c="2"} 1\n', "line 1: 2 labels, at most 1 are accepted (scrape_limits.labels)"),
        (
            'a{b="1234567"} 1\n',
            "line 1: the value of the label 'b' has 7 characters, at most 6 are accepted "
            "(scrape_limits.label_value_characters)",
        ),
        (
            'a{bcdefghijk="1"} 1\n',
            "line 1: the name of the label 'bcdefghijk' has 10 characters, at most 9 are accepted "
            "(scrape_limits.label_name_characters)",
        ),
        ("\n" * 6, "6 lines, at most 5 are accepted (scrape_limits.lines)"),
        ("#" * 51, "the page is larger than the 50 bytes of scrape_limits.body_bytes"),
    ):
        assert told(await scraping.scrape(page))["up"] == 0.0
        assert scraping.target.state.last_error == reason
    assert own.limits == {"scrape_samples": 1, "scrape_labels": 3, "scrape_lines": 1, "scrape_body_bytes": 1}


async def test_a_page_of_too_many_samples_still_says_how_many(scraping: Scraping) -> None:
    scraping.target.adjust(INTERVAL_MS, ScrapeLimits(samples=2))
    report = told(await scraping.scrape("a 1\nb 2\nc 3\n"))
    assert (report["up"], report["scrape_samples_scraped"]) == (0.0, 3.0)
    assert report["scrape_samples_post_metric_relabeling"] == 3.0


async def test_new_series_beyond_the_bound_are_left_out_and_told(scraping: Scraping, own: Any) -> None:
    scraping.target.adjust(INTERVAL_MS, ScrapeLimits(series=3))
    await scraping.scrape("a 1\nb 1\n")
    batch = await scraping.scrape("new 1\na 1\nb 1\nnewer 1\n")
    assert list(told(batch))[5:] == ["new", "a", "b"]
    assert (told(batch)["up"], told(batch)["scrape_series_added"]) == (1.0, 1.0)
    assert told(batch)["scrape_samples_post_metric_relabeling"] == 3.0
    state = scraping.target.state
    assert (state.health, state.last_error, state.samples, state.beyond) == ("up", "", 4, 1)
    assert state.last_warning == "1 samples left out: new series beyond the 3 an hour of scrape_limits.series"
    assert own.limits == {"scrape_series": 1}


async def test_settings_count_from_the_next_scrape_on(scraping: Scraping) -> None:
    await scraping.scrape("a 1\nb 1\n")
    scraping.target.adjust(INTERVAL_MS, ScrapeLimits(samples=1))
    assert told(await scraping.scrape())["up"] == 0.0
    scraping.target.adjust(INTERVAL_MS, ScrapeLimits())
    assert told(await scraping.scrape())["up"] == 1.0


@pytest.mark.parametrize(
    ("late_ms", "stamped_late"), [(0, False), (2, False), (300, False), (301, True), (9_000, True)]
)
async def test_a_scrape_is_of_its_beat_unless_it_began_much_later(
    scraping: Scraping, late_ms: int, stamped_late: bool
) -> None:
    scraping.peer.page("a 1\n")
    beat_ms = scraping.clock.now_ms()
    scraping.clock.advance(late_ms / 1000)
    async with open_session() as session:
        batch = await scraping.target.scrape(session, beat_ms)
    assert batch.timestamp_ms == (beat_ms + late_ms if stamped_late else beat_ms)


@pytest.mark.parametrize(("interval_ms", "timeout_s"), [(100, 0.09), (1000, 0.9), (10_000, 9.0), (60_000, 10.0)])
async def test_a_scrape_is_over_before_the_next(scraping: Scraping, interval_ms: int, timeout_s: float) -> None:
    scraping.target.adjust(interval_ms, ScrapeLimits())
    state = scraping.target.state
    assert (state.interval_s, state.timeout_s) == (interval_ms / 1000, timeout_s)


async def test_the_state_shows_the_labels_of_the_report(scraping: Scraping) -> None:
    batch = await scraping.scrape("a 1\n")
    assert {"__name__": "up", **dict(scraping.target.state.labels)} == dict(batch.layout.series[0])


async def test_the_metadata_is_the_last_pages(scraping: Scraping) -> None:
    await scraping.scrape("# TYPE a gauge\na 1\n")
    await scraping.scrape("no", status="500 Internal Server Error")
    assert described([scraping.target], 10)["a"].type == "gauge"
    await scraping.scrape("# TYPE a counter\n# TYPE up gauge\n# TYPE fly_x gauge\n# TYPE b gauge\n# HELP b B.\n")
    assert {name: metadata.type for name, metadata in described([scraping.target], 10).items()} == {
        "a": "counter",
        "b": "gauge",
    }
    assert list(described([scraping.target], 1)) == ["a"]


async def test_a_large_page_is_read_all_the_same(scraping: Scraping) -> None:
    count = INLINE_BYTES // 8
    batch = await scraping.scrape("".join(f"a{number} 1\n" for number in range(count)))
    assert told(batch)["scrape_samples_scraped"] == count


async def test_the_end_ends_everything(scraping: Scraping) -> None:
    assert scraping.target.end(scraping.clock.now_ms(), INTERVAL_MS) is None
    await scraping.scrape("a 1\n")
    batch = scraping.target.end(scraping.clock.now_ms(), INTERVAL_MS)
    assert batch is not None
    assert set(told(batch).values()) == {"stale"}
    assert batch.timestamp_ms == scraping.clock.now_ms() + 1
    assert scraping.target.ended


async def test_the_end_of_a_failed_target_ends_its_report(scraping: Scraping) -> None:
    await scraping.scrape("a 1\n")
    await scraping.scrape("no", status="500 Internal Server Error")
    batch = scraping.target.end(scraping.clock.now_ms() + 5, INTERVAL_MS)
    assert batch is not None
    assert (told(batch)["up"], told(batch)["a"]) == ("stale", "absent")


def test_several_endpoints_of_an_instance_are_told_apart(peer: Any) -> None:
    target = peer.target(endpoints=2)
    assert forced_labels(target)["endpoint"] == f":{peer.port}/metrics"
    assert target_name(target) == f"scrape/hello/3d8d9e27b24e89:{peer.port}/metrics"


def test_an_endpoint_of_another_process_group_tells_nothing_apart(peer: Any) -> None:
    target = peer.target(endpoints=2)
    here, other = target.app.metrics
    app = replace(target.app, metrics=(here, replace(other, processes=("worker",))))
    alone = Target(app, target.instance, here)
    assert "endpoint" not in forced_labels(alone)
    assert target_name(alone) == target_name(peer.target())


def counters(batch: Batch) -> list[str]:
    """The names of what the store may give a zero to."""
    names = [label_value(labels, "__name__") for labels in batch.layout.series]
    return [name for name, counter in zip(names, batch.layout.counters.tolist(), strict=True) if counter]


async def test_what_was_there_on_the_first_page_is_not_called_new(scraping: Scraping) -> None:
    """Nor is it after a scrape that failed: the app may have run for years, only its page was not there."""
    page = "# TYPE a counter\na 1000000\n"
    await scraping.scrape("no", status="500 Internal Server Error")
    first = await scraping.scrape(page)
    assert (counters(first), scraping.target.zeros) == ([], None)
    second = await scraping.scrape(page + 'a{code="500"} 1\n')
    assert counters(second) == ["a", "a"]


async def test_a_layout_is_the_same_object_from_the_second_page_on(scraping: Scraping) -> None:
    first, second, third = [await scraping.scrape("# TYPE a counter\na 1\n") for _ in range(3)]
    assert first.layout.series == second.layout.series
    assert (counters(first), counters(second)) == ([], ["a"])
    assert third.layout is second.layout


async def test_a_counter_created_since_the_beat_before_began_with_a_zero_there(scraping: Scraping) -> None:
    created = scraping.clock.now_ms() / 1000 + 5
    page = f"# TYPE a counter\na_total 3\n# TYPE b counter\nb_total 7\na_created {created}\n"
    batch = await scraping.scrape(page)
    zeros = scraping.target.zeros
    assert zeros is not None
    assert zeros.layout is batch.layout
    assert zeros.timestamp_ms == batch.timestamp_ms - INTERVAL_MS
    assert {name: value for name, value in told(zeros).items() if value != "absent"} == {"a_total": 0.0}
    assert counters(batch) == ["a_total"]
    await scraping.scrape(page)
    assert scraping.target.zeros is None


async def test_a_counter_created_while_the_target_was_down_is_new(scraping: Scraping) -> None:
    """The store has rows of this target, so it puts the zero there itself."""
    await scraping.scrape("no", status="503 Service Unavailable")
    created = scraping.clock.now_ms() / 1000 + 5
    await scraping.scrape()
    batch = await scraping.scrape(f"# TYPE a counter\na_total 3\na_created {created}\n")
    assert (counters(batch), scraping.target.zeros) == (["a_total"], None)


async def test_a_mistake_of_ours_is_a_failed_scrape_too(
    scraping: Scraping, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(scraping.target, "_read", None)
    assert told(await scraping.scrape("a 1\n"))["up"] == 0.0
    sentence = "a mistake of the front door's own (TypeError), which its log tells more of"
    assert scraping.target.state.last_error == sentence
    assert "scraping scrape/hello/3d8d9e27b24e89 failed" in caplog.text
