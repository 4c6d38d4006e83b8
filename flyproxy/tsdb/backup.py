"""A copy of a store, made while it is written to: consistent, compact, and there only when it is whole."""

import errno
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from flyproxy.tsdb import schema
from flyproxy.tsdb.faults import StoreError, StoreFullError

_UNTOUCHED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def backup(path: str, destination: str) -> int:
    """Copy the store at `path`, as of one moment, to the file `destination`, which must not be there yet; returns its
    bytes. It is on the disk on return, with the permissions of the original. Raises StoreError, StoreFullError when
    there is no room for it, and then leaves nothing behind."""
    folder, name = os.path.split(os.path.abspath(destination))
    if os.path.lexists(destination):
        raise StoreError(f"{destination}: is there already, and a backup overwrites nothing; choose another name")
    if not os.path.isdir(folder):
        raise StoreError(f"{destination}: the folder {folder} is not there; make it first")
    part = os.path.join(folder, f".{name}.{os.getpid()}.part")
    with closing(schema.open_readable(path)) as connection, _writing(destination):
        try:
            os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            with _reading(path):
                connection.execute("VACUUM INTO ?", (part,))
            os.chmod(part, stat.S_IMODE(os.stat(path).st_mode))
            _sync(part)
            size = os.path.getsize(part)
            os.link(part, destination)  # unlike a rename, it never replaces what came in the meantime
        finally:
            for left in (part, part + "-journal"):
                with suppress(FileNotFoundError):
                    os.unlink(left)
        _sync(folder)
    return size


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """What is wrong with the original leaves as its own error; the rest is the copy's."""
    try:
        yield
    except sqlite3.Error as fault:
        if (getattr(fault, "sqlite_errorcode", 0) or 0) & 0xFF in _UNTOUCHED:
            with schema.translating(path, "copying it"):
                raise
        raise


@contextmanager
def _writing(destination: str) -> Iterator[None]:
    try:
        yield
    except FileExistsError as fault:
        raise StoreError(f"{destination}: is being written already, or came meanwhile; choose another name") from fault
    except OSError as fault:
        kind = StoreFullError if fault.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else StoreError
        raise kind(f"{destination}: {fault.strerror} while writing the copy") from fault
    except sqlite3.Error as fault:
        if (getattr(fault, "sqlite_errorcode", 0) or 0) & 0xFF == sqlite3.SQLITE_FULL:
            raise StoreFullError(f"{destination}: no room left while writing the copy; free some space") from fault
        raise StoreError(f"{destination}: {fault} while writing the copy; look at its device and free space") from fault


def _sync(path: str) -> None:
    held = os.open(path, os.O_RDONLY)
    try:
        os.fsync(held)
    finally:
        os.close(held)
