"""Every hostile target at once, beside a good one: each has its reason, and the good one notices nothing.

`hostile_targets`, `peer` and `own` are fixtures; what each target does stands in tests/targets/hostile.py.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from flyproxy.clock import SystemClock
from flyproxy.config.resolved import App, Instance, MetricsEndpoint
from flyproxy.discovery.static import Generation, Target
from flyproxy.scrape.manager import ScrapeManager
from flyproxy.series.labels import label_value
from flyproxy.series.samples import Batch

BEATS = 3


def target(name: str, port: int, https: bool) -> Target:
    instance = Instance("3d8d9e27b24e89", "127.0.0.1", port, "ord", "2bc3")
    endpoint = MetricsEndpoint(None, "/metrics", https=https)
    return Target(App(name, "personal", (), (instance,), (endpoint,)), instance, endpoint)


async def test_each_has_its_reason_and_the_good_one_is_scraped_on_every_beat(
    hostile_targets: dict[str, dict[str, Any]],
    peer: Any,
    own: Any,
    telemetry: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    handed: list[Batch] = []

    async def append(batches: Sequence[Batch]) -> None:
        handed.extend(batches)

    peer.page("good 1\n" * 1)
    targets = tuple(target(name, told["port"], told["https"]) for name, told in hostile_targets.items())
    good = target("good", peer.port, False)
    clock = SystemClock()
    manager = ScrapeManager(clock, append, own)
    await manager.update(Generation(1, (), (*targets, good)), replace(telemetry, scrape_interval_s=2.0))
    wrong: dict[str, str] = {}
    try:
        for _ in range(BEATS):
            await manager.beat(clock.now_ms())
            for state in manager.targets():
                told = hostile_targets.get(state.app, {"up": True, "reason": "", "large": False})
                said = state.last_error or state.last_warning
                as_told = (state.health == "up") == told["up"] and re.search(told["reason"] or "^$", said)
                slow = told["large"] and re.search(told["slow"], said)
                if not as_told and not slow and state.app != "flapping":
                    wrong[state.app] = f"{state.health}: {said}"
    finally:
        await manager.stop()
    assert wrong == {}, "\n".join(f"{k}: {v}" for k, v in wrong.items())
    assert caplog.text == ""
    ours = [batch for batch in handed if batch.target == "scrape/good/3d8d9e27b24e89"]
    assert [batch.values[0] for batch in ours[:-1]] == [1.0] * len(ours[:-1])
    assert len(ours) >= BEATS + 1
    for batch in handed:
        app = batch.target.split("/")[1]
        for labels in batch.layout.series:
            assert label_value(labels, "app") == app
            assert label_value(labels, "instance") == "3d8d9e27b24e89"
