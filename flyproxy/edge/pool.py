"""Idle connections to one instance: last in, first out (pure: every decision returns what must be closed).

The connection used last is the least likely to have been closed by the other side, and a pool that is used from one end
shrinks from the other. Watching idle connections for EOF and bytes is the connection's own business: it says `remove`.
"""

from typing import Generic, TypeVar

C = TypeVar("C")

IDLE_CONNECTIONS_MAX = 256
"""Connections kept open to one instance by one worker while nobody uses them."""
IDLE_S = 4.0
"""How long one is kept; below the 5 s after which common servers hang up, so that we hang up first."""


class Pool(Generic[C]):
    """Connections of one instance that wait for their next request."""

    def __init__(self, idle_max: int = IDLE_CONNECTIONS_MAX, idle_s: float = IDLE_S) -> None:
        self.idle: dict[C, int] = {}
        """Since when, the oldest first."""
        self.idle_max = idle_max
        self._idle_ns = int(idle_s * 1e9)
        self.closed = False

    def __repr__(self) -> str:
        return f"<Pool {len(self.idle)} idle{', closed' if self.closed else ''}>"

    def __len__(self) -> int:
        return len(self.idle)

    def lease(self) -> C | None:
        """The connection that was used last, or None: dial one."""
        if self.idle:
            return self.idle.popitem()[0]
        return None

    def release(self, connection: C, now_ns: int) -> C | None:
        """Take a connection back; returns the one to close instead, if the pool is full or closed."""
        if self.closed:
            return connection
        surplus = None
        if len(self.idle) >= self.idle_max:
            surplus = next(iter(self.idle))
            del self.idle[surplus]
        self.idle[connection] = now_ns
        return surplus

    def remove(self, connection: C) -> None:
        """Forget a connection that died while idle."""
        self.idle.pop(connection, None)

    def expired(self, now_ns: int) -> list[C]:
        """Connections idle for too long, already forgotten here: close them."""
        gone = []
        for connection, since_ns in self.idle.items():
            if now_ns - since_ns < self._idle_ns:
                break  # insertion order is age order
            gone.append(connection)
        for connection in gone:
            del self.idle[connection]
        return gone

    def close(self) -> list[C]:
        """Keep nothing from now on; returns what was idle: close it."""
        self.closed = True
        gone = list(self.idle)
        self.idle.clear()
        return gone
