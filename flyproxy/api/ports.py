"""What the runtime hands the API: small Protocols, so that the API never meets a store, an edge or a recorder."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from flyproxy.series.exposition_writer import ExposedFamily

QueryKind = Literal["query", "query_range", "series", "labels", "label_values"]


@dataclass(frozen=True, slots=True)
class QueryRequest:
    """One question about one organization's samples; picklable, it travels to a query worker. Every field was checked
    at the door. A field that its kind does not use keeps its default."""

    kind: QueryKind
    organization: str
    expression: str = ""
    """query, query_range."""
    matches: tuple[str, ...] = ()
    """series, labels, label_values: selectors as text."""
    label: str = ""
    """label_values."""
    time_ms: int = 0
    """query."""
    start_ms: int = 0
    end_ms: int = 0
    step_ms: int = 0
    """query_range, at least 1."""
    limit: int = 0
    """At most so many series or names; 0: all of them."""
    metricsql: bool | None = None
    """None: as the configuration says; False: plain PromQL."""
    timeout_s: float = 5.0
    """Counted from when the question was asked."""


@dataclass(frozen=True, slots=True)
class QueryAnswer:
    """A ready HTTP answer: status and JSON bytes."""

    status: int
    body: bytes


class QueryPort(Protocol):
    """Whoever answers queries."""

    async def ask(self, request: QueryRequest) -> QueryAnswer:
        """Raises NotReadyError when nobody can answer now, TimeoutError at the deadline. Being cancelled (the client
        went away) ends the work."""
        ...


class ExposePort(Protocol):
    """What stands on /metrics."""

    def families(self) -> Iterable[ExposedFamily]:
        """This front door's own families, all organizations, as of now."""
        ...


class StatusPort(Protocol):
    """The state of the whole front door."""

    def ready(self) -> tuple[bool, str]:
        """Whether requests and queries are served, and if not, why."""
        ...

    async def reload(self) -> tuple[bool, str]:
        """Read the configuration again; whether it is in force now, and a sentence."""
        ...

    def limit_reached(self, limit: str) -> None:
        """A bound of the API stopped a request: `flyproxy_limit_reached_total{limit}`."""
        ...


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything the API is handed."""

    query: QueryPort
    expose: ExposePort
    status: StatusPort


LIMITS: Sequence[str] = (
    "api_url_bytes",
    "api_body_bytes",
    "api_body_timeout",
    "api_connections",
    "api_head_timeout",
    "api_parameters",
    "api_match_count",
    "api_points",
    "api_queries_waiting",
    "api_query_timeout",
    "api_write_timeout",
)
"""Every name `limit_reached` is called with."""
