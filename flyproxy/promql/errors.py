"""What can go wrong with a query that parses. Each class is one answer of the API: its status and its errorType."""

from flyproxy.errors import FlyproxyError


class QueryError(FlyproxyError):
    """The query cannot be answered on this data, or asks for something that is not built (422 execution)."""


class TooManySamples(QueryError):
    """The query would hold more points in memory than it may (422 execution); a narrower query may succeed."""


class BadQueryRange(FlyproxyError):
    """Start, end and step do not make a range that is answered (400 bad_data)."""


class QueryTimeout(FlyproxyError):
    """The query's time is up (503 timeout). Raised by the caller's checkpoint."""


class QueryCanceled(FlyproxyError):
    """Nobody waits for the answer any more (503 canceled). Raised by the caller's checkpoint."""
