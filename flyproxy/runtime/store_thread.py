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
from flyproxy.tsdb.compaction import Sealed, stretch_ms
from flyproxy.tsdb.faults import StoreError
from flyproxy.tsdb.writer import Writer

log = logging.getLogger("flyproxy.telemetry")

RESULT = TypeVar("RESULT")
EXPIRE_CALLS_MAX = 100
"""Bounded steps of one kind of retention in one go; what is left goes next time."""


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
        self._retention_bytes: int | None = None
        self._writer: Writer | None = None
        self._closed = False
        self._when_opened: list[Callable[[Writer], None]] = []

    async def open(
        self, path: str, *, first_zero: bool, retention_s: float, retention_bytes: int | None = None
    ) -> bool:
        """Whether the store could be opened; if not, `fault` says why, and each call below tries again."""
        self._path = path
        self.adjust(first_zero=first_zero, retention_s=retention_s, retention_bytes=retention_bytes)
        try:
            await self._on_thread(self._open_writer)
        except StoreError as fault:
            self._failed(fault)
            return False
        return True

    def adjust(self, *, first_zero: bool, retention_s: float, retention_bytes: int | None = None) -> None:
        """Settings that may change while it is open; the next append and the next expiry go by them."""
        self._first_zero = first_zero
        self._retention_s = retention_s
        self._retention_bytes = retention_bytes

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

    async def seal(self, now_ms: int) -> None:
        """Seal what is ready at that time, in bounded steps: an append that comes meanwhile waits for one at most, and
        between two of them the processor is left to others for as long as the last one took."""
        while True:
            begun_ns = time.monotonic_ns()
            sealed = await self._quietly(
                lambda: self._open_writer().seal(now_ms, stretch_ms(self._retention_s))  # as it is by then
            )
            took_ns = time.monotonic_ns() - begun_ns
            if sealed is None:
                return
            if sealed.frame is not None:
                self._count_sealed(sealed, took_ns)
            if not sealed.more:
                return
            await asyncio.sleep(took_ns / 1e9)

    async def expire(self, now_ms: int) -> None:
        """Retention by time and by size, short-lived frames merged, in steps as `seal`; and the store's measures on
        /metrics."""
        horizon_ms = now_ms - round(self._retention_s * 1000)
        bytes_max = self._retention_bytes
        await self._repeat(lambda writer: writer.delete_before(horizon_ms))
        if bytes_max is not None and await self._repeat(lambda writer: writer.shrink(bytes_max)):
            self._own.count("flyproxy_store_size_retentions_total")
        await self._repeat(lambda writer: writer.merge(now_ms, stretch_ms(self._retention_s)))
        await self._repeat(Writer.give_back)
        statistics = await self._quietly(lambda: self._open_writer().statistics())
        if statistics is not None:
            self._own.set("flyproxy_store_bytes", statistics["file_bytes"])
            self._own.set("flyproxy_store_free_bytes", statistics["free_bytes"])
            self._own.set("flyproxy_store_series", statistics["series"])
            self._own.set("flyproxy_store_frames", statistics["frames"])
            self._own.set("flyproxy_store_chunks", statistics["chunks"])
            self._own.set("flyproxy_store_log_rows", statistics["log_rows"])
            self._own.set("flyproxy_store_frames_merged_total", statistics["frames_merged"])
            self._own.set("flyproxy_store_rows_deleted_total", statistics["rows_deleted"])
            self._own.set("flyproxy_store_chunks_deleted_total", statistics["chunks_deleted"])

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

    async def _repeat(self, step: Callable[[Writer], int]) -> int:
        """Take a bounded step until nothing is left for it, each one on its own: appends go in between. How many steps
        did something."""
        for done in range(EXPIRE_CALLS_MAX):
            if not await self._quietly(lambda: step(self._open_writer())):
                return done
        return EXPIRE_CALLS_MAX

    def _count_sealed(self, sealed: Sealed, took_ns: int) -> None:
        self._own.observe("flyproxy_store_seal_duration_seconds", took_ns)
        self._own.count("flyproxy_store_rows_sealed_total", sealed.rows)
        self._own.count("flyproxy_store_samples_sealed_total", sealed.samples)
        self._own.count("flyproxy_store_chunks_sealed_total", sealed.chunks)
        self._own.count("flyproxy_store_chunk_bytes_total", sealed.bytes)

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
