"""An API over a runtime made of plain values, on a real loopback socket."""

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from aiohttp import ClientSession, web

from flyproxy.api.application import build_application, build_runner
from flyproxy.api.ports import LIMITS, REFUSALS, Ports, QueryAnswer, QueryRequest
from flyproxy.api.tokens import Scope, TokenFile
from flyproxy.clock import ManualClock
from flyproxy.config.resolved import Region, Telemetry
from flyproxy.scrape.target import TargetState
from flyproxy.series.exposition_writer import ExposedFamily, ExposedSample
from flyproxy.series.metadata import Metadata

Answer = Callable[[QueryRequest], Awaitable[QueryAnswer]]


async def empty_answer(request: QueryRequest) -> QueryAnswer:
    return QueryAnswer(200, b'{"status":"success","data":[]}')


@dataclass
class Runtime:
    """What stands behind the API; a test sets what it needs."""

    answer: Answer = empty_answer
    asked: list[QueryRequest] = field(default_factory=list)
    ready_now: tuple[bool, str] = (True, "")
    trouble_now: str = ""
    targets_now: list[TargetState] = field(default_factory=list)
    metadata_now: dict[str, dict[str, Metadata]] = field(default_factory=dict)
    reload_result: tuple[bool, str] = (True, "generation 2 is in force")
    reloads: int = 0
    limits: list[str] = field(default_factory=list)
    refusals: list[int] = field(default_factory=list)

    async def ask(self, request: QueryRequest) -> QueryAnswer:
        self.asked.append(replace(request, timeout_s=math.ceil(request.timeout_s)))  # less what it waited
        return await self.answer(request)

    def families(self) -> Iterable[ExposedFamily]:
        sample = ExposedSample("fly_edge_data_out", (("app", "hello"),), 7.0)
        yield ExposedFamily("fly_edge_data_out", "counter", "Bytes to clients.", "", [sample])

    def ready(self) -> tuple[bool, str]:
        return self.ready_now

    async def reload(self) -> tuple[bool, str]:
        self.reloads += 1
        return self.reload_result

    def trouble(self) -> str:
        return self.trouble_now

    def targets(self, organization: str | None = None) -> Sequence[TargetState]:
        return [state for state in self.targets_now if organization in (None, state.organization)]

    def metadata(self, organization: str) -> Mapping[str, Metadata]:
        return self.metadata_now.get(organization, {})

    def yaml(self, organization: str | None) -> str:
        return f"of: {organization}\n"

    def refused(self, status: int) -> None:
        assert status in REFUSALS
        self.refusals.append(status)

    def limit_reached(self, limit: str) -> None:
        assert limit in LIMITS
        self.limits.append(limit)


def telemetry_of(data_dir: Path) -> Telemetry:
    return Telemetry(
        host="127.0.0.1",
        port=0,
        data_dir=str(data_dir),
        retention_s=3600,
        own_interval_s=5,
        scrape_interval_s=15,
        query_workers=2,
        query_timeout_s=5,
        query_memory_bytes=1 << 30,
        query_samples=1000,
        query_concurrency=2,
        first_zero=True,
        promql_mode="prometheus3",
        metricsql=True,
        organizations=("personal", "shop"),
        regions=(
            Region("zero", 0.0, 10.0, "On the equator", ""),
            Region("ams", 52.37, 4.89, "Amsterdam, Netherlands", "europe"),
            Region("bog", 4.7, -74.1, "Bogotá, Colombia", "south_america"),
        ),
    )


@dataclass
class Api:
    """A running API and a client for it."""

    url: str
    client: ClientSession
    runtime: Runtime
    tokens: TokenFile

    def headers(self, organization: str = "personal", scope: Scope = Scope.READ) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens.mint(organization, scope)}"}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    clock, runtime, telemetry = ManualClock(), Runtime(), telemetry_of(tmp_path)
    application = build_application(Ports(runtime, runtime, runtime, runtime, runtime), lambda: telemetry, clock)
    runner = build_runner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    async with ClientSession(auto_decompress=True) as client:
        yield Api(f"http://127.0.0.1:{port}", client, runtime, TokenFile(tmp_path / "tokens", clock))
    await runner.cleanup()
