"""What can go wrong with a store, in the user's words; SQLite's errors are translated here and nowhere else."""

import sqlite3

from flyproxy.errors import FlyproxyError


class StoreError(FlyproxyError):
    """The store could not do what was asked. What an `append` raised it for is not stored, not even in part; the
    store goes on from what is on the disk, so the next beat may simply be appended."""


class StoreMissingError(StoreError):
    """There is no store at this path yet: whoever writes it has not started."""


class StoreFullError(StoreError):
    """No room left on the device (retryable once there is room)."""


class StoreReadOnlyError(StoreError):
    """The file or its directory may not be written."""


class StoreBusyError(StoreError):
    """Somebody else holds the store (retryable)."""


class StoreDamagedError(StoreError):
    """The database's own structure is broken; damage inside a row never raises this, such a row is skipped."""


class StoreForeignError(StoreError):
    """A file that is no store of ours, or of a version this one does not know."""


def translated(fault: sqlite3.Error, path: str, doing: str) -> StoreError:
    """The sentence for one of SQLite's errors (result codes: https://www.sqlite.org/rescode.html)."""
    code = getattr(fault, "sqlite_errorcode", 0) or 0
    match code & 0xFF:
        case sqlite3.SQLITE_FULL:
            return StoreFullError(f"{path}: no room left while {doing}; free some space or shorten the retention")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return StoreReadOnlyError(f"{path}: not writable while {doing}; check the owner and mode of the data_dir")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreBusyError(f"{path}: held by another process while {doing}; it will be tried again")
        case sqlite3.SQLITE_IOERR:
            return StoreError(f"{path}: the device failed ({fault}) while {doing}; look at its health and free space")
        case sqlite3.SQLITE_NOTADB:
            return StoreForeignError(f"{path}: not a flyproxy store; move it away or choose another data_dir")
        case sqlite3.SQLITE_CORRUPT:
            return StoreDamagedError(f"{path}: damaged ({fault}) while {doing}; move it away, or restore a copy")
        case sqlite3.SQLITE_CANTOPEN:
            return StoreError(f"{path}: cannot be opened while {doing}; check that its directory exists and is ours")
        case _:
            return StoreError(f"{path}: {fault} while {doing}")
