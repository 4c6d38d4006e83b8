"""Host to app: exact names first, then `*.suffix` with the longest suffix first (pure).

What a client sends is only ever looked up here, never stored: a stranger's host leaves no trace.
"""

from collections.abc import Iterable
from typing import Generic, TypeVar

from flyproxy.errors import FlyproxyError

T = TypeVar("T")


class RoutingError(FlyproxyError):
    """The names of this generation cannot be told apart, or name an app that is not there."""


class Router(Generic[T]):
    """Finds the route of a host; `T` is whatever a route is to the caller."""

    def __init__(self, names: Iterable[tuple[str, T]], fallback: T | None = None, *, any_host: bool = False) -> None:
        """`names` are lower case, exact or `*.suffix`; `fallback` gets requests without a host, all unknown ones too
        when `any_host`. RoutingError for a name given twice."""
        self._exact: dict[bytes, T] = {}
        self._suffixes: dict[bytes, T] = {}
        for name, route in names:
            key = name.encode("idna" if not name.isascii() else "ascii")
            wildcard = key.startswith(b"*.")
            table = self._suffixes if wildcard else self._exact
            key = key[1:] if wildcard else key
            if key in table:
                raise RoutingError(f"the host name {name!r} is given twice")
            table[key] = route
        self._fallback = fallback
        self._stranger = fallback if any_host else None

    def route(self, host: bytes) -> T | None:
        """The route of a lower-case host without port or final dot; `b""`: a request without one; None: nobody's."""
        found = self._exact.get(host)
        if found is not None:
            return found
        return self._search(host)

    def _search(self, host: bytes) -> T | None:
        if not host:
            return self._fallback
        dot = host.find(b".", 1) if self._suffixes else -1
        while dot != -1:
            found = self._suffixes.get(host[dot:])
            if found is not None:
                return found
            dot = host.find(b".", dot + 1)
        return self._stranger
