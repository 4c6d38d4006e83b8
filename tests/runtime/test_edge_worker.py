"""An edge worker over generations of the configuration: what it leaves behind."""

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from flyproxy.config.resolved import Instance, Resolved
from flyproxy.instrument import recorder
from flyproxy.instrument.snapshot import Snapshot
from flyproxy.runtime.edge_worker import EdgeWorker
from flyproxy.runtime.messages import Open, Start


def with_instances(resolved: Resolved, count: int) -> Resolved:
    (app,) = resolved.edge.apps
    instances = tuple(Instance(f"{number:014x}", "127.0.0.1", 9, "local", "2bc3") for number in range(count))
    return replace(resolved, edge=replace(resolved.edge, apps=(replace(app, instances=instances),)))


def segments(run_dir: Path) -> list[str]:
    return sorted(path.name for path in run_dir.glob("*.cells"))


async def test_it_goes_on_in_a_fresh_segment_once_most_of_a_well_filled_one_is_gone(
    resolved: Resolved, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "FULL_ENOUGH", 0.0)
    many, few = with_instances(resolved, 10), with_instances(resolved, 4)
    worker = EdgeWorker()
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen()
        door.setblocking(False)
        start = Start("edge", 0, "edge-0-1", 1, many, str(run_dir), "blue", "boot", threaded=True)
        await worker.start(start, [door.dup()])
        await worker.other(Open())
        snapshot = Snapshot(str(run_dir), interval_ms=1000)
        for generation, expected in ((many, "edge-0-1.cells"), (few, "edge-0-1.1.cells"), (few, "edge-0-1.1.cells")):
            await worker.prepare(generation)
            await worker.commit(generation, [door.dup()])
            snapshot.take(1000)
            assert segments(run_dir) == [expected]
        await worker.drain(0.0)
