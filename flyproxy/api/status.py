"""/prometheus/<org>/api/v1/status/: what answers here and how it is set up.

A tenant sees what concerns its organization and what every client needs to know (versions, bounds). Where this front
door lives, how it is doing and how others are set up is for an operator's token.
"""

import asyncio
import os
import platform
from datetime import UTC, datetime

from aiohttp import web

import flyproxy
from flyproxy.api.asking import Asking
from flyproxy.api.faults import bad_data
from flyproxy.api.ports import QueryRequest
from flyproxy.api.tokens import OPERATOR_ORGANIZATION
from flyproxy.api.tsdb_status import LIMIT_DEFAULT, LIMIT_MAX
from flyproxy.config.resolved import Telemetry
from flyproxy.series.durations import format_duration

COMPATIBLE_VERSION = "2.55.0"
"""The Prometheus whose API this is, for clients that decide by a version."""


class StatusHandlers:
    """The handlers of every organization."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking
        self._started_ms = asking.clock.now_ms()

    def routes(self) -> list[web.RouteDef]:
        base = "/prometheus/{organization}/api/v1/status"
        return [
            web.get(f"{base}/buildinfo", self.buildinfo),
            web.get(f"{base}/config", self.config),
            web.get(f"{base}/flags", self.flags),
            web.get(f"{base}/runtimeinfo", self.runtimeinfo),
            web.get(f"{base}/tsdb", self.tsdb),
        ]

    async def buildinfo(self, request: web.Request) -> web.StreamResponse:
        """Which API this is. No `features`: with them Grafana takes it for Mimir."""
        self._asking.organization(request)
        build = {
            "version": COMPATIBLE_VERSION,
            "revision": flyproxy.__version__,
            "branch": f"flyproxy-{flyproxy.__version__}",
            "buildUser": "",
            "buildDate": "",
            "goVersion": f"python{platform.python_version()}",
        }
        return await self._asking.data(request, build)

    async def config(self, request: web.Request) -> web.StreamResponse:
        """The configuration in force, as YAML: an organization's own part; all of it for an operator who asks as
        `_operator`."""
        asked = await self._asking.asked(request)
        whole = asked.by_operator and asked.organization == OPERATOR_ORGANIZATION
        organization = None if whole else asked.organization
        yaml = await asyncio.to_thread(self._asking.ports.configuration.yaml, organization)
        return await self._asking.data(request, {"yaml": yaml})

    async def flags(self, request: web.Request) -> web.StreamResponse:
        """By Prometheus' names, as far as they mean something here."""
        self._asking.organization(request)
        return await self._asking.data(request, flags(self._asking.telemetry()))

    async def runtimeinfo(self, request: web.Request) -> web.StreamResponse:
        """Since when it runs and how long it keeps samples; to an operator also where."""
        asked = await self._asking.asked(request)
        now_ms = self._asking.clock.now_ms()
        info: dict[str, object] = {
            "startTime": time_text(self._started_ms),
            "serverTime": time_text(now_ms),
            "storageRetention": duration_text(self._asking.telemetry().retention_s),
            "CWD": "",
            "hostname": "",
            "reloadConfigSuccess": True,
            "lastConfigTime": time_text(self._started_ms),
            "corruptionCount": 0,
            "goroutineCount": 0,
            "GOMAXPROCS": 0,
            "GOMEMLIMIT": 0,
            "GOGC": "",
            "GODEBUG": "",
        }
        if asked.by_operator:
            info |= {
                "CWD": os.getcwd(),
                "hostname": platform.node(),
                "GOMAXPROCS": len(os.sched_getaffinity(0)),
                "trouble": self._asking.ports.status.trouble(),
            }
        return await self._asking.data(request, info)

    async def tsdb(self, request: web.Request) -> web.StreamResponse:
        """The organization's largest metrics and labels."""
        asked = await self._asking.asked(request)
        parameters = asked.parameters
        limit = parameters.limit() if parameters.text("limit") else LIMIT_DEFAULT
        if not 1 <= limit <= LIMIT_MAX:
            raise bad_data(f"limit must be a positive number, at most {LIMIT_MAX}")
        return await self._asking.answer(
            request,
            QueryRequest(
                "status_tsdb",
                asked.organization,
                time_ms=self._asking.clock.now_ms(),
                limit=limit,
                timeout_s=self._asking.timeout_s(parameters),
            ),
        )


def flags(telemetry: Telemetry) -> dict[str, str]:
    """What Prometheus would have been started with. No addresses and no paths: every tenant reads it."""
    return {
        "enable-feature": "promql-experimental-functions",
        "query.lookback-delta": "5m",
        "query.max-concurrency": str(telemetry.query_concurrency),
        "query.max-samples": str(telemetry.query_samples),
        "query.timeout": duration_text(telemetry.query_timeout_s),
        "storage.tsdb.retention.time": duration_text(telemetry.retention_s),
        "web.enable-admin-api": "false",
        "web.enable-lifecycle": "true",
        "web.enable-otlp-receiver": "false",
        "web.enable-remote-write-receiver": "false",
    }


def duration_text(duration_s: float) -> str:
    """Seconds as Prometheus writes a duration."""
    return format_duration(round(duration_s * 1000))


def time_text(timestamp_ms: int) -> str:
    """RFC 3339, UTC."""
    moment = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
