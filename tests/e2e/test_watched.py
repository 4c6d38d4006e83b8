"""Every process says how late its loop is and how long its garbage collector stopped it."""

from typing import Any

import pytest

EVERY = {("supervisor", ""), ("telemetry", ""), ("query", "0"), ("query", "1"), ("edge", "0"), ("edge", "1")}


@pytest.mark.parametrize("workers", [2, 0])
def test_the_lag_of_every_loop_and_the_pauses_of_every_process(
    toolbox: dict[str, Any], start_front_door: Any, workers: int
) -> None:
    door = start_front_door(
        {
            "edge": {"workers": workers},
            "listeners": [{"bind": f"127.0.0.1:{toolbox['free_port']()}"}],
            "telemetry": {"query_workers": 1},
            "apps": [{"name": "hello", "instances": [{"address": "127.0.0.1:9"}]}],
        }
    )

    loops = EVERY if workers else EVERY - {("edge", "1")}
    processes = EVERY if workers else {("supervisor", "")}

    def watched() -> bool:
        lag = door.exposed_sum("flyproxy_event_loop_lag_seconds_count", "process", "worker")
        pauses = door.exposed_sum("flyproxy_gc_pause_seconds_count", "process", "worker")
        return {who for who, count in lag.items() if count} == loops and set(pauses) == processes

    toolbox["eventually"](watched)
