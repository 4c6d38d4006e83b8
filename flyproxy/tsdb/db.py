"""The one door: Writer (append, seal, merge, retention), Reader (one organization's samples), what can go wrong."""

from flyproxy.tsdb.faults import (
    StoreBusyError,
    StoreDamagedError,
    StoreError,
    StoreForeignError,
    StoreFullError,
    StoreMissingError,
    StoreReadOnlyError,
)
from flyproxy.tsdb.reader import OrganizationView, Reader
from flyproxy.tsdb.writer import Writer

__all__ = [
    "OrganizationView",
    "Reader",
    "StoreBusyError",
    "StoreDamagedError",
    "StoreError",
    "StoreForeignError",
    "StoreFullError",
    "StoreMissingError",
    "StoreReadOnlyError",
    "Writer",
]
