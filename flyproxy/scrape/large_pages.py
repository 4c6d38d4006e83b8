"""Room in memory for large pages: a few at once, so that what all targets make the front door hold is bounded.

A page that grows beyond SMALL_BYTES takes a place and keeps it until it was read. While nobody waits it may take its
time. When others wait, one that trickles is given up, unless its target's last scrape was good: it may do so once.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from flyproxy.scrape.turns import Turn, Turns

LARGE_PAGES_MAX = 2
"""Larger pages that are fetched or read at once."""
RESERVED = 1
"""Of these places, for targets whose last scrape went well."""
HURRIED_SHARE = 0.1
"""Of a scrape's timeout: how long a large page may take, from there on, while others wait for its place."""

Result = TypeVar("Result")


class LargePages:
    """The places of all targets."""

    def __init__(self) -> None:
        self._turns = Turns(LARGE_PAGES_MAX, RESERVED)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pages")

    async def read(self, work: Callable[[], Result]) -> Result:
        """Do the work on the one thread for it: two would only take the interpreter from each other, and from the
        loop."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """No page is read any more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def place(self, trusted: bool) -> "Place":
        """For one scrape; nothing is held until it is taken."""
        return Place(self._turns, trusted)


class Place:
    """One scrape's place, if its page needs one."""

    def __init__(self, turns: Turns, trusted: bool) -> None:
        self.hurried = False
        """The scrape's deadline was brought forward because others wait."""
        self._turns = turns
        self._trusted = trusted
        self._turn: Turn | None = None
        self._deadline: asyncio.Timeout | None = None
        self._share_s = 0.0
        self._since_s = 0.0

    async def take(self, deadline: asyncio.Timeout, timeout_s: float) -> None:
        """Wait for it, within the deadline; once taken it stays so."""
        if self._turn is not None:
            return
        self._share_s = timeout_s * HURRIED_SHARE
        self._turn = await self._turns.take(self._trusted, self._hurry)
        self._since_s = asyncio.get_running_loop().time()
        self._deadline = deadline
        if self._turns.wanted:
            self._hurry()

    def fetched(self) -> None:
        """The page has come: its deadline is none any more."""
        self._deadline = None

    def leave(self) -> None:
        """Give it back; nothing happens when it is not held."""
        self._deadline = None
        if self._turn is not None:
            self._turn.leave()
            self._turn = None

    def _hurry(self) -> None:
        if self._deadline is None or self._trusted:
            return
        when = self._deadline.when()
        sooner = max(self._since_s + self._share_s, asyncio.get_running_loop().time())
        if when is not None and sooner < when and not self._deadline.expired():
            self.hurried = True
            self._deadline.reschedule(sooner)
