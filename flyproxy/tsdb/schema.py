"""The database file: its tables, its version, and how a connection to it is opened.

WAL mode, so query workers read while telemetry writes; synchronous=FULL, so a transaction that was committed is on the
disk; incremental auto_vacuum, so what retention frees is given back in bounded steps.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from flyproxy.tsdb.faults import StoreError, StoreForeignError, StoreMissingError, translated

APPLICATION_ID = 0x666C7970
"""Bytes 68-71 of the file: "flyp"."""
FORMAT_VERSION = 1
"""Bytes 60-63 of the file (user_version)."""
BUSY_TIMEOUT_MS = 5_000
"""How long a connection waits for another one's lock."""
WAL_BYTES_MAX = 64 << 20
"""The write-ahead log is cut back to this after a checkpoint."""
CACHE_KIB = 8 << 10
"""Pages SQLite keeps in memory per connection."""

TABLES = """
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
"""


def open_writable(path: str) -> sqlite3.Connection:
    """The file, made with its tables when it is not there; raises StoreError."""
    with translating(path, "opening it"):
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            connection.text_factory = _text
            connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
            fresh = _is_empty(connection)
            if fresh:
                connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
            else:
                check_ours(connection, path)
            connection.execute("PRAGMA journal_mode=WAL").fetchall()
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(f"PRAGMA journal_size_limit={WAL_BYTES_MAX}").fetchall()
            connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
            if fresh:
                _create(connection)
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


def check_ours(connection: sqlite3.Connection, path: str) -> None:
    """Raises StoreForeignError for another program's database and for a format newer than this one."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION_ID:
        raise StoreForeignError(f"{path}: not a flyproxy store; move it away or choose another data_dir")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != FORMAT_VERSION:
        raise StoreForeignError(
            f"{path}: written in format {version}, and this flyproxy knows format {FORMAT_VERSION}; "
            "run the version that wrote it, or choose another data_dir"
        )


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


def _create(connection: sqlite3.Connection) -> None:
    """In one transaction: a reader never meets half of the tables, and never our tables without our mark."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={FORMAT_VERSION}")
    for statement in TABLES.split(";"):
        if statement.strip():
            connection.execute(statement)
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
