"""The demo's visitors: a few requests a second over all doors, of mixed routes, on this machine only."""

import asyncio
import random
from collections import Counter
from types import TracebackType
from typing import Self

import aiohttp

ROUTES = (("GET", "/", 30), ("GET", "/hello/signup", 30), ("GET", "/slow", 15), ("POST", "/orders", 15),
          ("GET", "/missing", 8), ("GET", "/broken", 2))  # fmt: skip
"""(method, path, weight)"""
SHARES = (0.4, 0.3, 0.2, 0.1)
"""How the visitors spread over the doors, first to last."""
FIRST_SHARE = 0.6
IN_FLIGHT_MAX = 64
TIMEOUT_S = 10.0


class Traffic:
    """`rate` requests a second for `apps` to doors {region: port}; counts what it saw as (region, status). The first
    app has FIRST_SHARE of them."""

    def __init__(self, doors: dict[str, int], apps: list[str], rate: float) -> None:
        self.seen: Counter[tuple[str, int]] = Counter()
        self.failed = 0
        self._doors = list(doors.items())
        self._hosts = [f"{app}.localhost" for app in apps]
        others = len(apps) - 1
        self._shares = [FIRST_SHARE] + [(1 - FIRST_SHARE) / others] * others if others else [1.0]
        self._rate = rate
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        self._session = aiohttp.ClientSession(timeout=timeout, trust_env=False)
        self._beat = asyncio.create_task(self._send())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in (self._beat, *self._tasks):
            task.cancel()
        await asyncio.gather(self._beat, *self._tasks, return_exceptions=True)
        await self._session.close()

    async def _send(self) -> None:
        weights = [weight for _, _, weight in ROUTES]
        while True:
            await asyncio.sleep(random.expovariate(self._rate))
            if len(self._tasks) >= IN_FLIGHT_MAX:
                continue
            ((method, path, _),) = random.choices(ROUTES, weights)
            ((region, port),) = random.choices(self._doors, SHARES[: len(self._doors)])
            (host,) = random.choices(self._hosts, self._shares)
            task = asyncio.create_task(self._visit(method, path, region, port, host))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _visit(self, method: str, path: str, region: str, port: int, host: str) -> None:
        body = b"x" * random.randint(1, 5000) if method == "POST" else None
        try:
            url = f"http://127.0.0.1:{port}{path}"
            async with self._session.request(method, url, data=body, headers={"Host": host}) as reply:
                await reply.read()
                self.seen[(region, reply.status)] += 1
        except (aiohttp.ClientError, TimeoutError):
            self.failed += 1
