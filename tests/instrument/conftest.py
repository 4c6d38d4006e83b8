"""A run directory, and workers that count into it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flyproxy.instrument.cells import CELLS_MAX, Segment
from flyproxy.instrument.recorder import Recorder

MakeWorker = Callable[..., Recorder]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def make_worker(run_dir: Path) -> Iterator[MakeWorker]:
    """make_worker("edge-0.cells", 0): a recorder over a new segment of the run directory."""
    made: list[Segment] = []

    def make(
        name: str = "edge-0.cells", worker: int | None = 0, *, proxy_id: str = "blue", cells_max: int = CELLS_MAX
    ) -> Recorder:
        made.append(Segment.create(str(run_dir / name), worker, cells_max=cells_max))
        return Recorder(made[-1], proxy_id=proxy_id)

    yield make
    for segment in made:
        segment.close()
