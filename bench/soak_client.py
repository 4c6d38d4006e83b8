"""The soak's visitors: HTTP/1.1 by hand over loopback, every answer and every byte in an account of their own."""

import asyncio
import contextlib
import random
from collections import Counter
from dataclasses import dataclass, field

PLAN = ((200, 0, 60), (200, 30, 15), (201, 5, 10), (404, 0, 10), (500, 10, 5))
"""(status, delay in ms, weight)"""
POST_SHARE = 0.3
KEEP_SHARE = 0.9


@dataclass
class Account:
    """What the visitors of one app saw."""

    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(region, status)"""
    bytes_sent: int = 0
    bytes_received: int = 0
    connects: int = 0
    unanswered: int = 0
    """Requests written whose answer never came whole: nobody can say how those were counted."""


class Visitor:
    """One connection after another to one door, one request after another on it."""

    def __init__(self, account: Account, host: str, region: str, port: int, dice: random.Random) -> None:
        self._account = account
        self._host = host
        self._region = region
        self._port = port
        self._dice = dice
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def visit(self) -> None:
        """One request. A connection that ends in the middle leaves it unanswered."""
        ((status, delay_ms, _),) = self._dice.choices(PLAN, [weight for *_, weight in PLAN])
        try:
            await self._request(status, delay_ms, self._dice.random() < POST_SHARE, self._dice.random() < KEEP_SHARE)
        except (OSError, asyncio.IncompleteReadError):
            await self.leave()

    async def leave(self) -> None:
        """Close the connection."""
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
        self._reader = self._writer = None

    async def _request(self, status: int, delay_ms: int, post: bool, keep: bool) -> None:
        account = self._account
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
            account.connects += 1
        assert self._reader is not None
        body = b"x" * self._dice.randint(1, 2000) if post else b""
        lines = [
            f"{'POST' if post else 'GET'} /s/{status}/{delay_ms} HTTP/1.1",
            f"Host: {self._host}",
            *([f"Content-Length: {len(body)}"] if post else []),
            *([] if keep else ["Connection: close"]),
        ]
        message = "\r\n".join([*lines, "", ""]).encode() + body
        account.unanswered += 1
        account.bytes_sent += len(message)
        self._writer.write(message)
        head = await self._reader.readuntil(b"\r\n\r\n")
        fields = head.lower().split(b"\r\n")
        length = next((int(line.split(b":")[1]) for line in fields if line.startswith(b"content-length:")), 0)
        payload = await self._reader.readexactly(length)
        account.bytes_received += len(head) + len(payload)
        account.unanswered -= 1
        account.answers[(self._region, fields[0].split()[1].decode())] += 1
        if not keep or b"connection: close" in fields:
            await self.leave()


class Crowd:
    """Visitors of every app at every door, `rate` requests a second all in all, that can be asked to pause."""

    def __init__(
        self, accounts: dict[str, Account], doors: dict[str, int], rate: float, visitors: int, seed: int
    ) -> None:
        """`accounts` by app, whose host is `<app>.localhost`; `doors` by region."""
        places = [(app, region) for app in accounts for region in doors]
        self._between_s = visitors / rate
        self._go, self._pausing = asyncio.Event(), asyncio.Event()
        self._resting = 0
        self._tasks = [
            asyncio.create_task(self._stroll(app, accounts[app], region, doors[region], random.Random(seed + number)))
            for number, (app, region) in zip(range(visitors), places * visitors, strict=False)
        ]
        self.go_on()

    async def _stroll(self, app: str, account: Account, region: str, port: int, dice: random.Random) -> None:
        visitor = Visitor(account, f"{app}.localhost", region, port, dice)
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._pausing.wait(), dice.expovariate(1 / self._between_s))
            if self._pausing.is_set():
                await visitor.leave()
                self._resting += 1
                await self._go.wait()
                self._resting -= 1
            else:
                await visitor.visit()

    async def pause(self) -> None:
        """Everybody has an answer and no connection when this returns."""
        self._go.clear()
        self._pausing.set()
        while self._resting < len(self._tasks):  # noqa: ASYNC110 (no event for many at once)
            await asyncio.sleep(0.01)

    def go_on(self) -> None:
        self._pausing.clear()
        self._go.set()

    async def stop(self) -> None:
        """Pause, and everybody goes home."""
        await self.pause()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
