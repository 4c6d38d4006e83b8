"""The database file: its tables, its version, and how a connection to it is opened.

WAL mode, so query workers read while telemetry writes; synchronous=FULL, so a transaction that was committed is on the
disk; incremental auto_vacuum, so what retention frees is given back in bounded steps.
"""

import errno
import fcntl
import os
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import quote

from flyproxy.tsdb.faults import (
    StoreBusyError,
    StoreError,
    StoreForeignError,
    StoreMissingError,
    StoreReadOnlyError,
    translated,
)

APPLICATION_ID = 0x666C7970
"""Bytes 68-71 of the file: "flyp"."""
BUSY_TIMEOUT_MS = 5_000
"""How long a connection waits for another one's lock."""
WAL_BYTES_MAX = 64 << 20
"""The write-ahead log is cut back to this after a checkpoint."""
CACHE_KIB = 8 << 10
"""Pages SQLite keeps in memory per connection."""

FORMATS = (
    """
CREATE TABLE frames (
  id INTEGER PRIMARY KEY AUTOINCREMENT, organization TEXT NOT NULL, target TEXT NOT NULL, crc INTEGER NOT NULL);
CREATE INDEX frames_by_target ON frames (organization, target);
CREATE TABLE layouts (
  id INTEGER PRIMARY KEY AUTOINCREMENT, frame INTEGER NOT NULL, first INTEGER NOT NULL, count INTEGER NOT NULL,
  blob BLOB NOT NULL);
CREATE INDEX layouts_by_frame ON layouts (frame);
CREATE TABLE presence (frame INTEGER PRIMARY KEY, version INTEGER NOT NULL, blob BLOB NOT NULL);
CREATE INDEX presence_by_version ON presence (version);
CREATE TABLE log (
  id INTEGER PRIMARY KEY AUTOINCREMENT, frame INTEGER NOT NULL, ts_ms INTEGER NOT NULL, key_ms INTEGER NOT NULL,
  blob BLOB NOT NULL);
CREATE UNIQUE INDEX log_by_frame ON log (frame, ts_ms);
CREATE TABLE counts (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
INSERT INTO counts VALUES ('presence_version', 0), ('deletions', 0);
""",
    """
CREATE TABLE chunks (
  id INTEGER PRIMARY KEY AUTOINCREMENT, frame INTEGER NOT NULL, first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL,
  head BLOB NOT NULL);
CREATE INDEX chunks_by_frame ON chunks (frame, last_ms, first_ms);
CREATE TABLE blocks (
  chunk INTEGER NOT NULL, block INTEGER NOT NULL, blob BLOB NOT NULL, PRIMARY KEY (chunk, block));
INSERT INTO counts VALUES ('merges', 0);
""",
)
"""What makes a file of format N from one of format N - 1, whose first is an empty file: format 3 is one more entry."""
FORMAT_VERSION = len(FORMATS)
"""Bytes 60-63 of the file (user_version)."""


def open_writable(path: str) -> sqlite3.Connection:
    """The file, made with its tables when it is not there, and brought to this format when it is of an older one;
    raises StoreError."""
    with translating(path, "opening it"):
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            connection.text_factory = _text
            connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
            fresh = _is_empty(connection)
            if fresh:
                connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
            else:
                check_ours(connection, path, oldest=1)
            connection.execute("PRAGMA journal_mode=WAL").fetchall()
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(f"PRAGMA journal_size_limit={WAL_BYTES_MAX}").fetchall()
            connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
            _bring_up(connection)
        except BaseException:
            connection.close()
            raise
    return connection


def open_readable(path: str) -> sqlite3.Connection:
    """The file for reading only; raises StoreError (StoreMissingError while it is not there)."""
    if not os.path.exists(path):
        raise StoreMissingError(f"{path}: there is no store here yet; it is made when telemetry starts")
    with translating(path, "opening it"):
        connection = sqlite3.connect(_uri(path, "mode=ro"), uri=True, isolation_level=None, check_same_thread=False)
        try:
            connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
            try:
                empty = _is_empty(connection)
            except sqlite3.OperationalError as fault:
                if fault.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
                    raise
                connection = _without_wal(connection, path)
                empty = _is_empty(connection)
            if empty:
                raise StoreMissingError(f"{path}: the store is still being made; try again in a moment")
            check_ours(connection, path)
            connection.text_factory = _text
            connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        except BaseException:
            connection.close()
            raise
    return connection


def hold(path: str) -> IO[str]:
    """The lock that keeps a second writer out; the kernel lets go of it when its holder dies."""
    try:
        held = open(path + ".lock", "a+")  # noqa: SIM115 (held for the writer's life)
    except OSError as fault:
        kind = StoreReadOnlyError if fault.errno in (errno.EACCES, errno.EPERM, errno.EROFS) else StoreError
        raise kind(f"{path}.lock: {fault.strerror}; check that its directory exists and is ours") from fault
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as fault:
        held.seek(0)
        owner = held.read(32).strip() or "unknown"
        held.close()
        raise StoreBusyError(f"{path}: process {owner} already writes this store; stop it first") from fault
    held.truncate(0)
    held.write(f"{os.getpid()}\n")
    held.flush()
    return held


def check_ours(connection: sqlite3.Connection, path: str, oldest: int = FORMAT_VERSION) -> None:
    """Raises StoreForeignError for another program's database and for a format older than `oldest` or newer than this
    one."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION_ID:
        raise StoreForeignError(f"{path}: not a flyproxy store; move it away or choose another data_dir")
    version = _version(connection)
    if version > FORMAT_VERSION or version < 1:
        raise StoreForeignError(
            f"{path}: written in format {version}, and this flyproxy knows format {FORMAT_VERSION}; "
            "run the version that wrote it, or choose another data_dir"
        )
    if version < oldest:
        raise StoreForeignError(
            f"{path}: still in format {version}; telemetry brings it to format {FORMAT_VERSION} when it starts, "
            "and nothing in it is lost"
        )


def insert_frame(connection: sqlite3.Connection, organization: str, target: str) -> int:
    """The number of a new frame."""
    crc = zlib.crc32(f"{organization}\0{target}".encode("utf-8", "surrogatepass"))
    inserted = connection.execute(
        "INSERT INTO frames (organization, target, crc) VALUES (?, ?, ?)", (organization, target, crc)
    )
    assert inserted.lastrowid is not None
    return inserted.lastrowid


def cut_wal(connection: sqlite3.Connection, path: str) -> None:
    """Fold the write-ahead log into the file and cut it back when it outgrew its bound: a reader that was in the way
    each time can have let it. A reader in the way now is not waited for."""
    try:
        if os.path.getsize(path + "-wal") <= WAL_BYTES_MAX:
            return
    except OSError:
        return
    connection.execute("PRAGMA busy_timeout=0")
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")


@contextmanager
def translating(path: str, doing: str) -> Iterator[None]:
    """SQLite's errors leave as StoreErrors."""
    try:
        yield
    except sqlite3.Error as fault:
        raise translated(fault, path, doing) from fault
    except OSError as fault:
        raise StoreError(f"{path}: {fault.strerror} while {doing}") from fault


@contextmanager
def transaction(
    connection: sqlite3.Connection, path: str, doing: str, begin: str = "BEGIN IMMEDIATE"
) -> Iterator[None]:
    """All of it is committed, or none of it; SQLite's errors leave as StoreErrors."""
    with translating(path, doing):
        connection.execute(begin)
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _text(stored: bytes) -> str:
    """Damaged names become names that fail their checksum, not errors."""
    return stored.decode("utf-8", "replace")


def _is_empty(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,))


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _bring_up(connection: sqlite3.Connection) -> None:
    """In one transaction: a reader never meets half of the tables, and never our tables without our mark."""
    if _version(connection) == FORMAT_VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    for statements in FORMATS[_version(connection) :]:
        for statement in statements.split(";"):
            if statement.strip():
                connection.execute(statement)
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={FORMAT_VERSION}")
    connection.execute("COMMIT")


def _without_wal(connection: sqlite3.Connection, path: str) -> sqlite3.Connection:
    """SQLite cannot open a WAL database on a read-only medium, for want of its -shm file. With no -wal beside it there
    is nothing to coordinate: the file is all there is."""
    wal = Path(path + "-wal")
    if wal.exists() and wal.stat().st_size:
        raise
    connection.close()
    return sqlite3.connect(_uri(path, "mode=ro&immutable=1"), uri=True, isolation_level=None, check_same_thread=False)


def _uri(path: str, options: str) -> str:
    return f"file:{quote(os.path.abspath(path))}?{options}"
