"""What the runtime hands the API: small Protocols, so that the API never meets a store, an edge or a recorder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from flyproxy.errors import NotReadyError
from flyproxy.series.exposition_writer import ExposedFamily
from flyproxy.series.metadata import Metadata

if TYPE_CHECKING:  # a query worker imports this file and has no use for what scraping imports
    from flyproxy.scrape.target import TargetState

QueryKind = Literal[
    "query",
    "query_range",
    "series",
    "labels",
    "label_values",
    "federate",
    "status_tsdb",
    "query_exemplars",
    "format_query",
    "parse_query",
    "check_matches",
]
"""What may be asked of a query worker: also what only parses, since a hostile text takes its time there and nobody
else's."""


@dataclass(frozen=True, slots=True)
class QueryRequest:
    """One question about one organization's samples; picklable, it travels to a query worker. Every field was checked
    at the door. A field that its kind does not use keeps its default."""

    kind: QueryKind
    organization: str
    expression: str = ""
    """query, query_range, query_exemplars, format_query, parse_query."""
    matches: tuple[str, ...] = ()
    """series, labels, label_values, federate, check_matches: selectors as text."""
    label: str = ""
    """label_values."""
    time_ms: int = 0
    """query, federate, status_tsdb."""
    start_ms: int = 0
    end_ms: int = 0
    step_ms: int = 0
    """query_range, at least 1."""
    limit: int = 0
    """At most so many series or names; 0: all of them. status_tsdb: rows of each table, at least 1."""
    metricsql: bool | None = None
    """None: as the configuration says; False: plain PromQL."""
    timeout_s: float = 5.0
    """Counted from when the question was asked."""
    types: tuple[tuple[str, str], ...] = ()
    """federate: (family, type) of what is known about the organization's metrics."""
    utf8_names: bool = False
    """federate: the reader takes names beyond the old grammar."""


@dataclass(frozen=True, slots=True)
class QueryAnswer:
    """A ready HTTP answer: status and bytes."""

    status: int
    body: bytes
    content_type: str = "application/json"
    limit: str = ""
    """The bound that was reached, by its name in LIMITS."""


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
        """Whether requests and queries are served, and if not, why, in words that anybody may read."""
        ...

    def trouble(self) -> str:
        """What only the operator may read beside that (it names files); "" for nothing."""
        ...

    async def reload(self) -> tuple[bool, str]:
        """Read the configuration again; whether it is in force now, and a sentence."""
        ...

    def limit_reached(self, limit: str) -> None:
        """A bound of the API stopped a request: `flyproxy_limit_reached_total{limit}`."""
        ...

    def refused(self, status: int) -> None:
        """A request was sent away with one of REFUSALS: `flyproxy_api_refused_total{status}`."""
        ...


REFUSALS = frozenset({401, 403, 429})
"""Statuses `refused` is called with."""


class TargetsPort(Protocol):
    """Whoever scrapes, and what is known about metrics."""

    def targets(self, organization: str | None = None) -> Sequence[TargetState]:
        """The state of every target of one organization, or of all."""
        ...

    def metadata(self, organization: str) -> Mapping[str, Metadata]:
        """By family: the front door's own that this organization has, and what its apps' pages said."""
        ...


class ConfigurationPort(Protocol):
    """The configuration in force, to read."""

    def yaml(self, organization: str | None) -> str:
        """As a file with every secret hidden: what concerns one organization, or all of it (None). Called on a thread:
        writing a large one takes its time."""
        ...


class NothingScraped:
    """The TargetsPort of a front door that scrapes nothing."""

    def targets(self, organization: str | None = None) -> Sequence[TargetState]:
        return ()

    def metadata(self, organization: str) -> Mapping[str, Metadata]:
        return {}


class NotShown:
    """The ConfigurationPort where there is none."""

    def yaml(self, organization: str | None) -> str:
        raise NotReadyError("the configuration is not shown here")


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything the API is handed."""

    query: QueryPort
    expose: ExposePort
    status: StatusPort
    targets: TargetsPort = field(default_factory=NothingScraped)
    configuration: ConfigurationPort = field(default_factory=NotShown)


LIMITS: Sequence[str] = (
    "api_answer_bytes",
    "api_unread_bytes",
    "api_url_bytes",
    "api_body_bytes",
    "api_body_timeout",
    "api_connections",
    "api_connections_of_one",
    "api_head_timeout",
    "api_parameters",
    "api_match_count",
    "api_points",
    "api_queries_waiting",
    "api_query_timeout",
    "api_write_timeout",
    "query_memory",
    "query_samples",
)
"""Every name `limit_reached` is called with."""
