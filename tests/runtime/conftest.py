"""A resolved configuration, and places for what it needs."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from flyproxy.clock import ManualClock
from flyproxy.config.load import from_flags
from flyproxy.config.resolve import resolve
from flyproxy.config.resolved import Resolved
from flyproxy.instrument.cells import Segment
from flyproxy.instrument.own_metrics import ProcessRecorder

Until = Callable[..., object]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def resolved(tmp_path: Path) -> Resolved:
    """One app, one door at a port of the kernel's choice, two workers."""
    overrides = {
        "listeners": [{"bind": "127.0.0.1:0"}],
        "edge.workers": 2,
        "telemetry.data_dir": str(tmp_path / "data"),
        "telemetry.bind": "127.0.0.1:0",
    }
    return resolve(from_flags(["127.0.0.1:9"], overrides, {}))


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


@pytest.fixture
def own(run_dir: Path) -> ProcessRecorder:
    return ProcessRecorder(Segment.create(str(run_dir / "telemetry-0-1.cells"), process="telemetry"))


@pytest.fixture
def until() -> Callable[[Callable[[], object]], object]:
    """await until(condition): turns of the loop until it holds."""

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110  # whatever it is, in turns of the loop
                await asyncio.sleep(0.001)

    return wait
