"""The store's writer on a thread of its own: a commit waits for the disk, and the API's loop must not."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
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
        self._writer: Writer | None = None

    async def open(self, path: str, *, first_zero: bool, retention_s: float) -> None:
        """Raises StoreError."""
        opening = partial(Writer.open, path, first_zero=first_zero, retention_s=retention_s, report=self._report_damage)
        self._writer = await self._on_thread(opening)

    async def append(self, batches: Sequence[Batch]) -> bool:
        """Whether the batches are on the disk now."""
        begun_ns = time.monotonic_ns()
        try:
            refused = await self._on_thread(lambda: self._open_writer().append(batches))
        except StoreError as fault:
            if self.fault != str(fault):
                log.error("samples are lost: %s", fault)
            self.fault = str(fault)
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
        """Stale markers for every live series of the targets whose name passes `which`."""

        def end() -> None:
            writer = self._open_writer()
            for organization, target in writer.live_targets():
                if which(target):
                    writer.end_target(organization, target, timestamp_ms)

        await self._quietly(end)

    async def expire(self, now_ms: int) -> None:
        """Retention, and the store's size on /metrics."""

        def expire() -> dict[str, int]:
            writer = self._open_writer()
            for _ in range(EXPIRE_CALLS_MAX):
                if not writer.expire(now_ms):
                    break
            return writer.statistics()

        statistics = await self._quietly(expire)
        if statistics is not None:
            self._own.set("flyproxy_store_bytes", statistics["file_bytes"])
            self._own.set("flyproxy_store_series", statistics["series"])

    async def close(self) -> None:
        """Everything asked for before is done when this returns."""
        if self._writer is not None:
            await self._quietly(self._writer.close)
        self._thread.shutdown(wait=False)

    def _open_writer(self) -> Writer:
        assert self._writer is not None, "the store is opened before it is used"
        return self._writer

    def _report_damage(self, sentence: str) -> None:
        self._own.count("flyproxy_store_damaged_rows_total")
        log.error("%s", sentence)

    async def _quietly(self, work: Callable[[], RESULT]) -> RESULT | None:
        try:
            return await self._on_thread(work)
        except StoreError as fault:
            log.error("%s", fault)
            return None

    async def _on_thread(self, work: Callable[[], RESULT]) -> RESULT:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
