"""Tells when raw sockets can be read or written, for both loops alike: one epoll instance of our own, which the loop
watches as one descriptor.

Not `loop.add_reader`, for three reasons. On uvloop each call makes a handle and some six system calls, which is most of
what setting up a raw connection costs. It watches no descriptor again whose event came with an error: bytes before a
RST were read, the RST was never told, and the connection stayed for ever. And it refuses the descriptors of transports.

Level-triggered; a descriptor nobody asks about is not watched, so a reset that nobody wants to hear of yet does not
make the loop spin. What is watched must be unwatched before it is closed.
"""

import asyncio
import select
from collections.abc import Callable

EVENTS_PER_WAKE = 64
"""Sockets that are looked at before the loop has its turn again."""
_READ = select.EPOLLIN
_WRITE = select.EPOLLOUT
_ENDED = select.EPOLLHUP | select.EPOLLERR


class _Watched:
    """One descriptor's callbacks; compared by identity, because a number may mean another socket a moment later."""

    __slots__ = ("readable", "writable")

    def __init__(self) -> None:
        self.readable: Callable[[], None] | None = None
        self.writable: Callable[[], None] | None = None


class Readiness:
    """One epoll instance; opened with the first descriptor, closed by `close`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, mistake: Callable[[Exception], None]) -> None:
        """`mistake` is told what a callback raised: the others are still called."""
        self._loop = loop
        self._mistake = mistake
        self._epoll: select.epoll | None = None
        self._watched: dict[int, _Watched] = {}

    def __repr__(self) -> str:
        return f"<Readiness of {len(self._watched)} descriptors>"

    def __len__(self) -> int:
        return len(self._watched)

    def add_reader(self, descriptor: int, readable: Callable[[], None]) -> None:
        """Call whenever there is something to read, or the end, or an error."""
        watched = self._watched.get(descriptor)
        if watched is None:
            watched = self._watched[descriptor] = _Watched()
            watched.readable = readable
            (self._epoll or self._open()).register(descriptor, _READ)
        else:
            watched.readable = readable
            self._change(descriptor, watched)

    def add_writer(self, descriptor: int, writable: Callable[[], None]) -> None:
        """Call whenever something can be written, or an error is to be had."""
        watched = self._watched.get(descriptor)
        if watched is None:
            watched = self._watched[descriptor] = _Watched()
            watched.writable = writable
            (self._epoll or self._open()).register(descriptor, _WRITE)
        else:
            watched.writable = writable
            self._change(descriptor, watched)

    def remove_reader(self, descriptor: int) -> None:
        watched = self._watched.get(descriptor)
        if watched is not None and watched.readable is not None:
            watched.readable = None
            self._change(descriptor, watched)

    def remove_writer(self, descriptor: int) -> None:
        watched = self._watched.get(descriptor)
        if watched is not None and watched.writable is not None:
            watched.writable = None
            self._change(descriptor, watched)

    def close(self) -> None:
        """Watch nothing any more."""
        for watched in self._watched.values():
            watched.readable = watched.writable = None
        self._watched.clear()
        if self._epoll is not None:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def _open(self) -> select.epoll:
        self._epoll = select.epoll()
        self._loop.add_reader(self._epoll.fileno(), self._look)
        return self._epoll

    def _change(self, descriptor: int, watched: _Watched) -> None:
        epoll = self._epoll
        assert epoll is not None
        wanted = (_READ if watched.readable is not None else 0) | (_WRITE if watched.writable is not None else 0)
        if wanted:
            epoll.modify(descriptor, wanted)
        else:
            del self._watched[descriptor]
            epoll.unregister(descriptor)

    def _look(self) -> None:
        if self._epoll is None:
            return
        watched_now = self._watched
        events = [(watched_now.get(one), mask) for one, mask in self._epoll.poll(0, EVENTS_PER_WAKE)]
        for watched, mask in events:
            if watched is None:
                continue
            try:
                if watched.readable is not None and mask & (_READ | _ENDED):
                    watched.readable()
                if watched.writable is not None and mask & (_WRITE | _ENDED):
                    watched.writable()
            except Exception as bug:  # one connection's trouble must not keep the others from being heard
                self._mistake(bug)
