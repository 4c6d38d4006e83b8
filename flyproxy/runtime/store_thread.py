"""The store's writer on a thread of its own: a commit waits for the disk, and the API's loop must not.

A store that cannot be opened (a foreign file, a full or read-only disk) is no reason for telemetry to leave: /metrics
and what is stored already are still served, readiness says why nothing is kept, and every beat tries again.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from flyproxy.instrument.own_metrics import OwnMetrics
from flyproxy.series.samples import Batch
from flyproxy.tsdb.faults import StoreError
from flyproxy.tsdb.writer import Writer

log = logging.getLogger("flyproxy.telemetry")

RESULT = TypeVar("RESULT")
EXPIRE_CALLS_MAX = 100
"""Bounded steps of retention in one go; what is left goes next time."""


class StoreThread:
    """Appends in the order they are asked for. A failed append is counted and said; its samples are lost, and
    `fault` says why until an append succeeds again."""

    def __init__(self, own: OwnMetrics) -> None:
        self.fault = ""
        self._own = own
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._path = ""
        self._first_zero = True
        self._retention_s = 0.0
        self._writer: Writer | None = None
        self._closed = False
        self._when_opened: list[Callable[[Writer], None]] = []

    async def open(self, path: str, *, first_zero: bool, retention_s: float) -> bool:
        """Whether the store could be opened; if not, `fault` says why, and each call below tries again."""
        self._path = path
        self.adjust(first_zero=first_zero, retention_s=retention_s)
        try:
            await self._on_thread(self._open_writer)
        except StoreError as fault:
            self._failed(fault)
            return False
        return True

    def adjust(self, *, first_zero: bool, retention_s: float) -> None:
        """Settings that may change while it is open; the next append and the next expiry go by them."""
        self._first_zero = first_zero
        self._retention_s = retention_s

    async def append(self, batches: Sequence[Batch]) -> bool:
        """Whether the batches are on the disk now."""
        begun_ns = time.monotonic_ns()
        try:
            refused = await self._on_thread(lambda: self._open_writer().append(batches))
        except StoreError as fault:
            self._failed(fault)
            self._own.count("flyproxy_store_append_failures_total")
            return False
        for sentence in refused:
            log.warning("samples are left out: %s", sentence)
        if self.fault:
            log.info("the store takes samples again")
        self.fault = ""
        self._own.observe("flyproxy_store_append_duration_seconds", time.monotonic_ns() - begun_ns)
        self._own.count("flyproxy_store_rows_appended_total", len(batches) - len(refused))
        return True

    async def end_targets(self, timestamp_ms: int, which: Callable[[str], bool]) -> None:
        """Stale markers for every live series of the targets whose name passes `which`; as soon as the store can be
        opened, if it cannot now."""

        def end(writer: Writer) -> None:
            for organization, target in writer.live_targets():
                if which(target):
                    writer.end_target(organization, target, timestamp_ms)

        def now_or_later() -> None:
            try:
                writer = self._open_writer()
            except StoreError:
                self._when_opened.append(end)
                raise
            end(writer)

        await self._quietly(now_or_later)

    async def organizations_of(self, target: str) -> set[str]:
        """The organizations that have rows of this target; none while the store cannot be opened."""
        return await self._quietly(lambda: self._open_writer().organizations_of(target)) or set()

    async def expire(self, now_ms: int) -> None:
        """Retention, and the store's size on /metrics."""

        def expire() -> dict[str, int]:
            writer = self._open_writer()
            for _ in range(EXPIRE_CALLS_MAX):
                if not writer.delete_before(now_ms - round(self._retention_s * 1000)):
                    break
            return writer.statistics()

        statistics = await self._quietly(expire)
        if statistics is not None:
            self._own.set("flyproxy_store_bytes", statistics["file_bytes"])
            self._own.set("flyproxy_store_series", statistics["series"])

    async def close(self) -> None:
        """Everything asked for before is done when this returns; nothing is stored any more."""

        def close() -> None:
            self._closed = True
            if self._writer is not None:
                self._writer.close()

        if self._closed:
            return
        await self._quietly(close)
        self._thread.shutdown(wait=False)

    def _open_writer(self) -> Writer:
        """On the store's thread. Raises StoreError."""
        if self._closed:
            raise StoreError(f"{self._path}: closed already")
        if self._writer is None:
            self._writer = Writer.open(self._path, report=self._report_damage)
            for work in self._when_opened:
                work(self._writer)
            self._when_opened = []
        self._writer.first_zero = self._first_zero
        return self._writer

    def _failed(self, fault: StoreError) -> None:
        if self.fault != str(fault):
            log.error("samples are lost: %s", fault)
        self.fault = str(fault)

    def _report_damage(self, sentence: str) -> None:
        self._own.count("flyproxy_store_damaged_rows_total")
        log.error("%s", sentence)

    async def _quietly(self, work: Callable[[], RESULT]) -> RESULT | None:
        try:
            return await self._on_thread(work)
        except StoreError as fault:
            if str(fault) != self.fault:  # which was said already
                log.error("%s", fault)
            return None

    async def _on_thread(self, work: Callable[[], RESULT]) -> RESULT:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
