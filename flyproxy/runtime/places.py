"""The folders a front door lives in: the data directory (locked, lasting) and the run directory (shared memory,
gone with the front door)."""

import fcntl
import os
import shutil
import tempfile
import uuid
from pathlib import Path

from flyproxy.clock import Clock
from flyproxy.errors import FlyproxyError

SHARED_MEMORY = Path("/dev/shm")
RUN_PREFIX = "flyproxy-"


STORE_FILE = "store.db"


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
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as fault:
            raise PlacesError(f"cannot use the data directory {path}: {fault.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise PlacesError(
                f"another front door uses the data directory {path}; stop it, or set telemetry.data_dir"
            ) from None

    def next_proxy_id(self) -> str:
        """ "blue" and "green" in turns, one a start: a restarted front door's counters are series of their own."""
        file = self.path / "proxy_id"
        try:
            last = file.read_text().strip()
        except OSError:
            last = "green"
        color = "green" if last == "blue" else "blue"
        try:
            file.write_text(color + "\n")
        except OSError as fault:
            raise PlacesError(f"cannot write to the data directory {self.path}: {fault.strerror}") from None
        return color

    def release(self) -> None:
        os.close(self._lock)


def new_run_dir() -> Path:
    """A private folder in shared memory; folders of front doors that were killed are swept away first."""
    base = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    prefix = f"{RUN_PREFIX}{os.getuid()}-"
    for folder in base.glob(f"{prefix}*"):
        pid = folder.name.removeprefix(prefix).split("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=base))


def new_boot_id(clock: Clock) -> str:
    """Sortable by time, unique."""
    return f"{clock.now_ms():013d}-{uuid.uuid4().hex[:8]}"
