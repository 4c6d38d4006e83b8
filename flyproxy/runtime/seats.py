"""Whose query the workers get next: the organizations take turns, and no one of them gets every worker.

So nobody notices how many queries a neighbour has in line, nor that one of them runs up to its deadline: that makes its
own organization wait. Only as many neighbours as there are workers, all of them busy for that long, can.
"""

import asyncio
from collections import Counter, deque


class Seats:
    """A seat for each of `count` query workers. A free one goes to the organization that waits longest for its turn;
    the last one of several to none that has all the others. Who may wait here is bounded before (api/admission.py)."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._share = max(1, count - 1)
        """What one organization may have."""
        self._taken: Counter[str] = Counter()
        self._lines: dict[str, deque[asyncio.Future[None]]] = {}
        """By organization, the next one to get a seat first."""

    async def take(self, organization: str) -> None:
        """Ends with a seat, which `give_back` frees. Cancelling leaves the line."""
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(organization, deque()).append(mine)
        self._hand_out()
        try:
            await mine
        except asyncio.CancelledError:
            if not mine.cancelled():  # the seat was given in the very moment of leaving
                self.give_back(organization)
            raise

    def give_back(self, organization: str) -> None:
        """The worker is free again."""
        self._taken[organization] -= 1
        self._hand_out()

    def _hand_out(self) -> None:
        """One to each organization that waits and may have one more, in turn, while there are any."""
        self._taken += Counter()  # keeps those above zero
        while self._taken.total() < self._count:
            organization = next(filter(self._may_have_one, self._lines), None)
            if organization is None:
                return
            line = self._lines.pop(organization)
            while line and line[0].done():  # it left
                line.popleft()
            if line:
                line.popleft().set_result(None)
                self._taken[organization] += 1
            if line:
                self._lines[organization] = line

    def _may_have_one(self, organization: str) -> bool:
        return self._taken[organization] < self._share

    def statistics(self) -> dict[str, int]:
        """Seats taken, and questions that wait for one."""
        waiting = [mine for line in self._lines.values() for mine in line if not mine.done()]
        return {"seats_taken": self._taken.total(), "seats_wanted": len(waiting)}
