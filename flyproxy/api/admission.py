"""How many queries of one organization run at once: so many, then a bounded line, then a refusal.

A dashboard asks all its panels at once, so what is above the limit waits its turn instead of being refused; waiting
counts against the query's own deadline.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from flyproxy.api.faults import ApiFault

QUERIES_WAITING_MAX = 128
"""Queries of one organization that wait in line."""


class Admission:
    """One line per organization; `concurrency` gives the setting in force."""

    def __init__(self, concurrency: Callable[[], int], waiting_max: int = QUERIES_WAITING_MAX) -> None:
        self._concurrency = concurrency
        self._waiting_max = waiting_max
        self._running: dict[str, int] = {}
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def turn(self, organization: str) -> AsyncIterator[None]:
        """Held while a query runs. Raises ApiFault 429 when the line is full; cancelling leaves the line."""
        await self._wait_turn(organization)
        try:
            yield
        finally:
            self._release(organization)

    async def _wait_turn(self, organization: str) -> None:
        line = self._waiting.setdefault(organization, [])
        running = self._running.get(organization, 0)
        if running < self._concurrency() and not line:
            self._running[organization] = running + 1
            return
        if len(line) >= self._waiting_max:
            raise ApiFault(
                429,
                "unavailable",
                f"{running} queries of this organization run and {len(line)} wait; ask again in a moment",
                {"Retry-After": "1"},
                limit="api_queries_waiting",
            )
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if not mine.cancelled():  # the turn was given in the very moment of leaving
                self._release(organization)
            elif mine in line:
                line.remove(mine)
            raise

    def _release(self, organization: str) -> None:
        left = self._running[organization] - 1
        line = self._waiting[organization]
        while line and left < self._concurrency():
            waiter = line.pop(0)
            if not waiter.done():  # else it is leaving
                waiter.set_result(None)
                left += 1
        self._running[organization] = left

    def statistics(self) -> dict[str, int]:
        """Queries running and waiting, all organizations."""
        return {
            "queries_running": sum(self._running.values()),
            "queries_waiting": sum(len(line) for line in self._waiting.values()),
        }
