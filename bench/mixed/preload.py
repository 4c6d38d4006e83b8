"""A store with unsealed targets of several ages, so that the benchmark can say when one is sealed.

A target's log is sealed when its oldest rows are a stretch and a quarter old, and a stretch is a tenth of the
retention, two hours at most. So target `i` is `age_s(i)` old, and a reload that shortens the retention to just
below what that needs makes it due, and no younger one, at the next look (10 s at most).
"""

import time
from pathlib import Path

import numpy as np

from flyproxy.series.labels import labels_from
from flyproxy.series.samples import Batch, Layout
from flyproxy.tsdb.writer import Writer

SERIES = 1000
"""Of a target."""
INTERVAL_S = 15
OLDEST_S, AGE_STEP_S = 8400, 300
"""The oldest is 140 minutes old: not due with a stretch of two hours."""
STRETCHES_KEPT, MARGIN = 10, 1.25
SLACK_S = 60
"""By so much a target is older than what the retention of its round asks for; less than AGE_STEP_S lies between two."""
TARGETS_MAX = 20
ORGANIZATION = "personal"


def age_s(number: int) -> int:
    """How old the oldest row of a target is when the store is made."""
    return OLDEST_S - number * AGE_STEP_S


def retention_s(number: int) -> int:
    """The retention under which targets up to this one are due, and none that is younger."""
    return int((age_s(number) - SLACK_S) / MARGIN * STRETCHES_KEPT)


def preload(path: Path, targets: int) -> int:
    """Write the store; how many samples are in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = Writer.open(str(path))
    layouts = [layout(number) for number in range(targets)]
    now_ms = int(time.time() * 1000)
    randomness = np.random.default_rng(1)
    values = np.zeros(SERIES)
    samples = 0
    try:
        for back_s in range(OLDEST_S, 0, -INTERVAL_S):
            values = values + randomness.integers(0, 50, SERIES)
            batches = [
                Batch(
                    ORGANIZATION, f"scrape/preloaded/{number}", now_ms - back_s * 1000, one, values, INTERVAL_S * 1000
                )
                for number, one in enumerate(layouts)
                if back_s <= age_s(number)
            ]
            writer.append(batches)
            samples += len(batches) * SERIES
    finally:
        writer.close()
    return samples


def layout(number: int) -> Layout:
    names = (
        {"__name__": "work_total", "app": "preloaded", "instance": str(number), "item": f"{one}"}
        for one in range(SERIES)
    )
    return Layout(tuple(labels_from(labels) for labels in names), np.ones(SERIES, dtype=np.bool_))
