"""/prometheus/<org>/api/v1/{targets,scrape_pools,metadata}: where an organization's samples come from, how the last
scrape of each target went, and what is known about its metrics. A scrape pool is an app.
"""

import re
from collections.abc import Sequence

from aiohttp import web

from flyproxy.api.asking import Asking
from flyproxy.api.faults import bad_data
from flyproxy.api.parameters import Parameters
from flyproxy.api.status import duration_text, time_text
from flyproxy.scrape.target import TargetState

_NEVER = "0001-01-01T00:00:00Z"
"""What Prometheus says of a target that was not scraped yet."""


class TargetsHandlers:
    """The handlers of every organization."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    def routes(self) -> list[web.RouteDef]:
        base = "/prometheus/{organization}/api/v1"
        return [
            web.get(f"{base}/targets", self.targets),
            web.get(f"{base}/scrape_pools", self.scrape_pools),
            web.get(f"{base}/metadata", self.metadata),
        ]

    async def targets(self, request: web.Request) -> web.StreamResponse:
        """Every target; none is ever dropped here, so `droppedTargets` is empty."""
        asked = await self._asking.asked(request)
        shown = asked.parameters.text("state").lower()
        pool = asked.parameters.text("scrapePool")
        states = self._asking.ports.targets.targets(asked.organization)
        active = [target_json(state) for state in states if shown in ("", "any", "active") and pool in ("", state.app)]
        data: dict[str, object] = {"activeTargets": active, "droppedTargets": []}
        if shown in ("", "any", "dropped"):
            data["droppedTargetCounts"] = {name: 0 for name in _pools(states) if pool in ("", name)}
        return await self._asking.data(request, data)

    async def scrape_pools(self, request: web.Request) -> web.StreamResponse:
        """The apps that are scraped."""
        organization, _ = self._asking.organization(request)
        states = self._asking.ports.targets.targets(organization)
        return await self._asking.data(request, {"scrapePools": _pools(states)})

    async def metadata(self, request: web.Request) -> web.StreamResponse:
        """Type, help and unit by family."""
        asked = await self._asking.asked(request)
        parameters = asked.parameters
        wanted = parameters.text("metric")
        limit = _count(parameters, "limit")
        _count(parameters, "limit_per_metric")  # there is one of each metric
        known = self._asking.ports.targets.metadata(asked.organization)
        names = [name for name in sorted(known) if wanted in ("", name)]
        if limit >= 0:
            names = names[:limit]
        data = {
            name: [{"type": known[name].type, "help": known[name].help, "unit": known[name].unit}] for name in names
        }
        return await self._asking.data(request, data)


def target_json(state: TargetState) -> dict[str, object]:
    """One active target as Prometheus shows it; what it has no word for stands beside."""
    labels = dict(state.labels)
    return {
        "discoveredLabels": {"__address__": state.url.partition("://")[2].partition("/")[0], **labels},
        "labels": labels,
        "scrapePool": state.app,
        "scrapeUrl": state.url,
        "globalUrl": state.url,
        "lastError": state.last_error,
        "lastScrape": _NEVER if state.last_scrape_ms is None else time_text(state.last_scrape_ms),
        "lastScrapeDuration": state.duration_s,
        "health": state.health,
        "scrapeInterval": duration_text(state.interval_s),
        "scrapeTimeout": duration_text(state.timeout_s),
        "since": time_text(state.since_ms),
        "lastWarning": state.last_warning,
        "samples": state.samples,
        "samplesRefused": state.refused,
        "samplesDuplicate": state.duplicates,
        "samplesBeyond": state.beyond,
    }


def _pools(states: Sequence[TargetState]) -> list[str]:
    return sorted({state.app for state in states})


def _count(parameters: Parameters, name: str) -> int:
    """A whole number of things to show; -1 (or nothing) is all of them, as in Prometheus."""
    text = parameters.text(name)
    if not text:
        return -1
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise bad_data(f"{name} must be a number")
    return int(text)
