"""The folders a front door lives in: the data directory (locked, lasting) and the run directory (shared memory,
gone with the front door).

A data directory that is there but cannot be written (a full disk, a file system that turned read-only) is no reason
not to serve: it is said, and telemetry says why it keeps nothing. One that cannot be made was never in use: refused.
"""

import fcntl
import logging
import os
import shutil
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path

from flyproxy.clock import Clock
from flyproxy.errors import FlyproxyError

log = logging.getLogger("flyproxy.supervisor")

SHARED_MEMORY = Path("/dev/shm")
RUN_PREFIX = "flyproxy-"
STORE_FILE = "store.db"
LOCK_FILE = "lock"


def database_path(data_dir: str) -> str:
    """The store of a data directory."""
    return os.path.join(data_dir, STORE_FILE)


class PlacesError(FlyproxyError):
    """A folder that cannot be used (the machine's fault, or another front door's)."""


class DataDir:
    """The data directory, held by a lock while this front door runs."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            os.listdir(self.path)
        except OSError as fault:
            raise PlacesError(f"cannot use the data directory {path}: {fault.strerror}") from None
        self._lock = self._opened()
        if self._lock is None:
            return
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.release()
            raise PlacesError(
                f"another front door uses the data directory {path}; stop it, or set telemetry.data_dir"
            ) from None

    def _opened(self) -> int | None:
        file = self.path / LOCK_FILE
        try:
            return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as fault:
            log.error("the data directory %s cannot be written (%s); serving without", self.path, fault.strerror)
        try:
            return os.open(file, os.O_RDONLY | os.O_CLOEXEC)  # a lock needs no more
        except OSError:
            return None

    def next_proxy_id(self) -> str:
        """ "blue" and "green" in turns, one a start: a restarted front door's counters are series of their own."""
        file = self.path / "proxy_id"
        try:
            last = file.read_text().strip()
        except OSError:
            last = "green"
        color = "green" if last == "blue" else "blue"
        try:
            # In place and of one length: a full disk has room for what is there already.
            number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                os.pwrite(number, f"{color:<5}\n".encode(), 0)
            finally:
                os.close(number)
        except OSError as fault:
            log.error("cannot write %s: %s; the next start will be %s too", file, fault.strerror, color)
        return color

    def release(self) -> None:
        """Another front door may have it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class RunDir:
    """A private folder in shared memory; folders of front doors that were killed are swept away first.

    A living front door holds the lock of its folder: its pid alone says nothing where /dev/shm is shared between
    containers."""

    def __init__(self) -> None:
        base = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
        prefix = f"{RUN_PREFIX}{os.getuid()}-"
        for folder in base.glob(f"{prefix}*"):
            pid = folder.name.removeprefix(prefix).split("-")[0]
            if pid.isdigit() and not Path(f"/proc/{pid}").exists() and not _is_held(folder):
                shutil.rmtree(folder, ignore_errors=True)
        try:
            self.path = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=base))
            self._lock = os.open(self.path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as fault:
            raise PlacesError(f"cannot make a folder in {base}: {fault.strerror}") from None
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def remove(self) -> None:
        """With all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _is_held(folder: Path) -> bool:
    """Somebody, in whatever container, holds its lock."""
    try:
        number = os.open(folder / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        with suppress(OSError):
            os.close(number)
    return False


def new_boot_id(clock: Clock) -> str:
    """Sortable by time, unique."""
    return f"{clock.now_ms():013d}-{uuid.uuid4().hex[:8]}"
