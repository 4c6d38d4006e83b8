"""A store in a temporary directory, and short ways to say what goes in and what came out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from flyproxy.series.frame import Floats, Frame, is_absent
from flyproxy.series.labels import Labels, labels_from
from flyproxy.series.samples import Batch, Layout
from flyproxy.tsdb.db import Reader, Writer

Samples = dict[Labels, dict[int, int]]
"""Bits of every sample by series and time: what a test compares."""


@pytest.fixture
def store_path(tmp_path: Path) -> str:
    return str(tmp_path / "metrics.db")


@pytest.fixture
def sentences() -> list[str]:
    """What writers and readers reported."""
    return []


@pytest.fixture
def opened() -> Iterator[list[Writer | Reader]]:
    """Closed again when the test is over."""
    every: list[Writer | Reader] = []
    yield every
    for one in every:
        one.close()


@pytest.fixture
def open_writer(store_path: str, sentences: list[str], opened: list[Writer | Reader]) -> Callable[..., Writer]:
    """open_writer(first_zero=..., retention_s=...)"""

    def make(*, first_zero: bool = True, retention_s: float | None = None) -> Writer:
        writer = Writer.open(store_path, first_zero=first_zero, retention_s=retention_s, report=sentences.append)
        opened.append(writer)
        return writer

    return make


@pytest.fixture
def open_reader(store_path: str, sentences: list[str], opened: list[Writer | Reader]) -> Callable[..., Reader]:
    """open_reader(head_bytes)"""

    def make(head_bytes: int = 1 << 24) -> Reader:
        reader = Reader.open(store_path, head_bytes=head_bytes, report=sentences.append)
        opened.append(reader)
        return reader

    return make


@pytest.fixture
def seal_all() -> Callable[..., int]:
    """seal_all(writer, now_ms, stretch_ms): every stretch that is ready then; how many rows that were."""

    def seal(writer: Writer, now_ms: int, stretch_ms: int) -> int:
        before = writer.statistics()["rows_sealed"]
        for _ in range(2):  # the first round may have begun earlier
            while writer.seal(now_ms, stretch_ms).more:
                pass
        return writer.statistics()["rows_sealed"] - before

    return seal


@pytest.fixture
def layout() -> Callable[..., Layout]:
    """layout("a", "b") has counters a and b; layout(gauges=["c"]) a gauge."""

    def make(*counters: str | Mapping[str, str], gauges: Sequence[str] = ()) -> Layout:
        series = [labels_from({"__name__": name} if isinstance(name, str) else name) for name in (*counters, *gauges)]
        return Layout(tuple(series), np.array([True] * len(counters) + [False] * len(gauges)))

    return make


@pytest.fixture
def batch() -> Callable[..., Batch]:
    """batch(15_000, layout, [1.0, 2.0]) of organization "personal", target "own", every 15 s."""

    def make(
        timestamp_ms: int,
        layout: Layout,
        values: Sequence[float] | Floats,
        *,
        target: str = "own",
        organization: str = "personal",
        interval_ms: int = 15_000,
    ) -> Batch:
        return Batch(organization, target, timestamp_ms, layout, np.asarray(values, np.float64), interval_ms)

    return make


@pytest.fixture
def samples() -> Callable[[Sequence[Frame]], Samples]:
    """Every sample and stale marker of frames, as bits; a sample in two frames at one time is an error."""

    def collect(frames: Sequence[Frame]) -> Samples:
        found: Samples = {}
        for frame in frames:
            assert frame.values.shape == (len(frame.labels), frame.timestamps_ms.size)
            assert (np.diff(frame.timestamps_ms) > 0).all()
            for labels, row in zip(frame.labels, frame.values, strict=True):
                assert row.flags.c_contiguous
                bits, there = row.view(np.uint64).tolist(), ~is_absent(row)
                for time, value, present in zip(frame.timestamps_ms.tolist(), bits, there, strict=True):
                    if present:
                        assert time not in found.setdefault(labels, {})
                        found[labels][time] = value
        return found

    return collect
