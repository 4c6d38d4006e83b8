"""Every hostile scrape target at once, through the front door: each has its reason on `targets`, none costs memory, and
the good ones beside them miss nothing. What each does stands in tests/targets/hostile.py."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

INTERVAL_S = 2
SETTLED_S = 6
WATCHED_S = 16
BEATS = WATCHED_S // INTERVAL_S - 1
"""At least: a beat that comes late is stamped so, and may fall out of the time that is looked at."""
GROWTH_KIB_MAX = 128 * 1024
LARGE_SERIES = 10_000
"""About a megabyte: among the pages that need a place of their own."""


class GoodApp:
    """Counts how often it is asked; its page is `a_total` and some more."""

    def __init__(self, series: int, openmetrics: bool) -> None:
        self.scrapes = 0
        self.port = 0
        self._more = "".join(f'more{{a_label_of_some_length="{n}",another="value"}} {n}\n' for n in range(series))
        self._openmetrics = openmetrics
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self) -> asyncio.Server:
        server = await asyncio.start_server(self.converse, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    def leave(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.scrapes += 1
                name, kind, end = ("a", "application/openmetrics-text", "# EOF\n") if self._openmetrics else (
                    "a_total", "text/plain", ""
                )  # fmt: skip
                body = f"# TYPE {name} counter\na_total {self.scrapes}\n{self._more}{end}".encode()
                head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
                writer.write(head.encode() + body)
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def serving(*apps: GoodApp) -> AsyncIterator[None]:
    servers = [await app.serve() for app in apps]
    try:
        yield
    finally:
        for server in servers:
            server.close()
        for app in apps:
            app.leave()
        await asyncio.sleep(0)  # aborted transports close in the next turn


def memory_kib(pid: int, what: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"^{what}:\s+(\d+) kB", status, re.MULTILINE)[1])  # type: ignore[index]


def app(name: str, port: int, https: bool = False) -> dict[str, Any]:
    return {
        "name": name.replace("_", "-"),
        "hostnames": [f"{name.replace('_', '-')}.localhost"],
        "instances": [{"address": f"127.0.0.1:{port}", "region": "ord"}],
        "metrics": {"port": port, "path": "/metrics", "https": https},
    }


@pytest.mark.timeout(150)
async def test_all_are_held_and_good_targets_miss_nothing(
    toolbox: dict[str, Any], start_front_door: Any, hostile_targets: dict[str, dict[str, Any]]
) -> None:
    good = {"good-small": GoodApp(3, False), "good-large": GoodApp(LARGE_SERIES, False), "good-open": GoodApp(5, True)}
    async with serving(*good.values()):
        configuration = {
            "edge": {"workers": 1, "region": "ord"},
            "telemetry": {"scrape_interval": f"{INTERVAL_S}s"},
            "listeners": [{"bind": f"127.0.0.1:{toolbox['free_port']()}"}],
            "apps": [
                *(app(name, one.port) for name, one in good.items()),
                *(app(name, told["port"], told["https"]) for name, told in hostile_targets.items()),
            ],
        }
        door = await asyncio.to_thread(start_front_door, configuration)
        (telemetry,) = door.children("telemetry")
        before_kib = memory_kib(telemetry, "VmRSS")
        token = await asyncio.to_thread(door.token)

        async def targets() -> dict[str, dict[str, Any]]:
            answer = await asyncio.to_thread(door.fetch, "/prometheus/personal/api/v1/targets", token=token)
            return {target["scrapePool"]: target for target in answer.json()["data"]["activeTargets"]}

        await asyncio.sleep(SETTLED_S)
        scraped_before = {name: one.scrapes for name, one in good.items()}
        begun = time.time()
        await asyncio.sleep(WATCHED_S + 1)
        scraped = {name: one.scrapes - scraped_before[name] for name, one in good.items()}

        wrong: dict[str, str] = {}
        shown = await targets()
        for name, told in hostile_targets.items():
            target = shown[name.replace("_", "-")]
            reason = told["reason"] if not told["up"] else ""
            as_told = (target["health"] == "up") == told["up"] and re.search(reason or "^$", target["lastError"])
            slow = told["large"] and re.search(told["slow"], target["lastError"])
            if not as_told and not slow and name != "flapping":
                wrong[name] = f"{target['health']}: {target['lastError']}"
        assert wrong == {}
        assert min(scraped.values()) >= BEATS, scraped

        for name in good:
            selector = f'up{{app="{name}"}}[{WATCHED_S}s]'
            at = str(begun + WATCHED_S + 0.5)
            counted = await asyncio.to_thread(door.query, f"count_over_time({selector})", time=at)
            worst = await asyncio.to_thread(door.query, f"min_over_time({selector})", time=at)
            assert float(counted["result"][0]["value"][1]) >= BEATS, name
            assert float(worst["result"][0]["value"][1]) == 1.0, name

        growth_kib = memory_kib(telemetry, "VmHWM") - before_kib
        lag = await asyncio.to_thread(door.exposed_sum, "flyproxy_event_loop_lag_seconds_bucket", "process", "le")
        print({le: count for (process, le), count in lag.items() if process.startswith("telemetry")})
        print(f"telemetry: {before_kib} KiB at first, at most {growth_kib} KiB more")
        assert growth_kib < GROWTH_KIB_MAX
