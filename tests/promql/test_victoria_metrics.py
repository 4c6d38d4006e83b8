"""MetricsQL's functions against VictoriaMetrics, on the same samples: gauges with a sample at every step, so that the
two windows (which differ by design) cannot matter."""

import json
import math
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flyproxy.promql.engine import Engine, Options, Result
from flyproxy.series.frame import Frame, Storage
from flyproxy.series.labels import Labels, labels_from

StorageOf = Callable[[Sequence[Frame]], Storage]
START_MS = 1_700_000_040_000
STEP_MS = 60_000
STEPS = 20
WAIT_S = 20.0
REGIONS = ["ord", "fra", "sin", "syd", "ams", "Gru"]


def frames() -> list[Frame]:
    """g: floats, all different, by region and host. whole: few different values. b: the buckets of two histograms."""
    dice = np.random.default_rng(3)
    times = START_MS + STEP_MS * np.arange(STEPS, dtype=np.int64)
    g = [
        labels_from({"__name__": "g", "app": "hello", "region": region, "host": host})
        for region in REGIONS
        for host in "ab"
    ]
    whole = [labels_from({"__name__": "whole", "app": "hello", "n": str(n), "half": str(n % 2)}) for n in range(9)]
    h = [labels_from({"__name__": "h", "app": "hello", "region": region}) for region in REGIONS]
    bounds = ["0.1", "0.5", "1", "5", "+Inf"]
    b = [labels_from({"__name__": "b", "app": app, "le": le}) for app in ("one", "two") for le in bounds]
    counts = dice.integers(0, 30, (2, len(bounds), STEPS)).cumsum(axis=1).reshape(-1, STEPS)
    return [
        Frame(g, times, dice.random((len(g), STEPS)) * 10),
        Frame(whole, times, dice.integers(0, 4, (len(whole), STEPS)).astype(np.float64)),
        Frame(h, times, dice.random((len(h), STEPS))),
        Frame(b, times, counts.astype(np.float64)),
    ]


def exposition() -> bytes:
    lines = []
    for frame in frames():
        for labels, row in zip(frame.labels, frame.values, strict=True):
            pairs = ",".join(f'{name}="{value}"' for name, value in labels if name != "__name__")
            metric = f"{dict(labels)['__name__']}{{{pairs}}}"
            lines += [f"{metric} {value!r} {at}" for value, at in zip(row.tolist(), frame.timestamps_ms, strict=True)]
    return "\n".join([*lines, ""]).encode()


@pytest.fixture(scope="module")
def victoria_metrics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of one that has the samples."""
    program = shutil.which("victoria-metrics")
    if program is None:
        pytest.skip("victoria-metrics (Debian: victoria-metrics) is not installed")
    folder = tmp_path_factory.mktemp("victoria")
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    options = [f"-httpListenAddr=127.0.0.1:{port}", f"-storageDataPath={folder}", "-retentionPeriod=100y"]
    with (
        Path(folder / "log").open("wb") as log,
        subprocess.Popen([program, *options], stdout=log, stderr=log) as process,
    ):
        try:
            _until_there(url, process)
            _fetch(f"{url}/api/v1/import/prometheus", exposition())
            _fetch(f"{url}/internal/force_flush")
            yield url
        finally:
            process.terminate()
            process.wait(WAIT_S)


def _until_there(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            _fetch(f"{url}/health")
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def _fetch(url: str, data: bytes | None = None) -> bytes:
    with urllib.request.urlopen(url, data=data, timeout=WAIT_S) as reply:
        body: bytes = reply.read()
        return body


Answers = dict[Labels, dict[int, float]]


def theirs(url: str, expression: str) -> Answers:
    parameters = {
        "query": expression,
        "start": START_MS / 1000,
        "end": (START_MS + STEP_MS * (STEPS - 1)) / 1000,
        "step": STEP_MS / 1000,
        "nocache": 1,
    }
    data: Any = json.loads(_fetch(f"{url}/api/v1/query_range?{urllib.parse.urlencode(parameters)}"))["data"]
    return {
        labels_from(each["metric"]): {round(at * 1000): float(value) for at, value in each["values"]}
        for each in data["result"]
    }


def ours(result: Result) -> Answers:
    """Without NaN, which VictoriaMetrics never answers."""
    rows = {
        labels: {
            int(at): float(value)
            for at, value, here in zip(result.timestamps_ms, values, present, strict=True)
            if here and not math.isnan(value)
        }
        for labels, values, present in zip(result.labels, result.values, result.present, strict=True)
    }
    return {labels: row for labels, row in rows.items() if row}


def asked(storage: Storage, expression: str) -> Result:
    end_ms = START_MS + STEP_MS * (STEPS - 1)
    return Engine(Options(metricsql=True)).query_range(expression, storage, START_MS, end_ms, STEP_MS)


RANKINGS = [
    f"{order}_{measure}({arguments}){grouping}"
    for order in ("topk", "bottomk")
    for measure in ("avg", "max", "min", "median", "last")
    for arguments, grouping in [
        ("3, g", ""),
        ('2, g, "host=rest"', " by (region)"),
        ('3, sum(g > 5) by (region), "region=other"', ""),
        ('2, h > 0.4, "other"', ""),
        ('1, g, "region=other"', " without (host, region)"),
    ]
]


@pytest.mark.peer("victoria-metrics")
@pytest.mark.parametrize(
    "expression",
    [
        *RANKINGS,
        "mode(whole)",
        "mode(whole) by (half)",
        "mode without (n) (whole)",
        "mode(whole > 1)",
        "mode(round(g)) by (region)",
        "max(0, g - 5)",
        "max(0, g > 9)",
        "min(5, g) by (region)",
        "sum(g, h)",
        "sum(g, h, 1) by (region)",
        "count(g, g)",
        "avg without (host) (g, h)",
        'histogram_quantiles("p", 0.5, 0.9, 0.99, b)',
        'histogram_quantiles("phi", 0.1, sum(b) by (le))',
        'label_uppercase(sum(g) by (region), "region")',
        'label_lowercase(g, "region")',
        'label_uppercase(g, "region", "host", "nothing")',
        'label_set(sum(g), "app", "all", "region", "any")',
        'label_set(h, "region2", "x", "app", "", "__name__", "i")',
        'label_del(h, "app")',
        'label_keep(h, "region")',
        'label_keep(h, "region", "__name__")',
        "drop_common_labels(g)",
        "drop_common_labels(g, h)",
        "drop_common_labels(g > 9.5)",
        'drop_common_labels(h{region="ord"})',
        'sort_by_label(h, "region")',
        "g / max(g)",
        "sum(g) by (region) / max(sum(g) by (region))",
        "max(g) - h",
        "h > avg(h)",
        "h > bool avg(h)",
        "avg(h) < h",
        "avg(h) < bool h",
        "(h > 0.5) * count(h > 0.9)",
        "g[5m] == g",
        "sum(g[3m]) by (region)",
        "sum(last_over_time(h)[2m])",
        "g{region!=\"ord\",region!='fra'}",
    ],
)
def test_it_answers_as_victoria_metrics(victoria_metrics: str, storage_of: StorageOf, expression: str) -> None:
    wanted = theirs(victoria_metrics, expression)
    got = ours(asked(storage_of(frames()), expression))
    assert got.keys() == wanted.keys()
    for labels, row in wanted.items():
        assert got[labels].keys() == row.keys(), labels
        assert all(math.isclose(got[labels][at], value, rel_tol=1e-9) for at, value in row.items()), labels
    assert wanted


@pytest.mark.peer("victoria-metrics")
@pytest.mark.parametrize("expression", ['sort_by_label(h, "region")', 'sort_by_label_desc(g, "host", "region")'])
def test_an_order_by_label_is_kept_over_a_range(victoria_metrics: str, storage_of: StorageOf, expression: str) -> None:
    assert list(ours(asked(storage_of(frames()), expression))) == list(theirs(victoria_metrics, expression))
