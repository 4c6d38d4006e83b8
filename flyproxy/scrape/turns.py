"""A bounded number of places, given to those who have shown that they give them back.

One target that hangs costs a place until its timeout, and a hundred cost all of them. So a target whose last scrape
went well is trusted: it is served before every one that is not, and some places are never given to those.
"""

import asyncio
import heapq
from collections.abc import Callable


class Turns:
    """`places` holders at once, of which `reserved` are trusted ones."""

    def __init__(self, places: int, reserved: int) -> None:
        self._free = places
        self._reserved = reserved
        self._held: set[Turn] = set()
        self._waiting: list[tuple[bool, int, asyncio.Future[None]]] = []
        self._came = 0

    @property
    def wanted(self) -> bool:
        """Whether somebody waits."""
        return any(not future.done() for _, _, future in self._waiting)

    async def take(self, trusted: bool, hurry: Callable[[], None] = lambda: None) -> "Turn":
        """Wait for a place and hold it until `Turn.leave`. `hurry` is called each time somebody begins to wait."""
        if self._may_go(trusted):
            self._free -= 1
        else:
            await self._wait(trusted)
        turn = Turn(self, hurry)
        self._held.add(turn)
        return turn

    def left(self, turn: "Turn") -> None:
        """The place goes to the next, or is free."""
        self._held.remove(turn)
        self._give_back()

    def _may_go(self, trusted: bool) -> bool:
        return self._free > (0 if trusted else self._reserved)

    async def _wait(self, trusted: bool) -> None:
        future = asyncio.get_running_loop().create_future()
        self._came += 1
        heapq.heappush(self._waiting, (not trusted, self._came, future))
        for turn in tuple(self._held):
            turn.hurry()
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():  # it was given a place that it cannot use any more
                self._give_back()
            raise

    def _give_back(self) -> None:
        self._free += 1
        while self._waiting:
            distrusted, _, future = self._waiting[0]
            if not future.done():
                if not self._may_go(not distrusted):
                    return
                self._free -= 1
                future.set_result(None)
            heapq.heappop(self._waiting)


class Turn:
    """One place, held."""

    def __init__(self, turns: Turns, hurry: Callable[[], None]) -> None:
        self.hurry = hurry
        self._turns = turns

    def leave(self) -> None:
        """Once."""
        self._turns.left(self)
