"""What processes get: plain, frozen, picklable values with every default filled in. No pydantic, no numpy.

An edge worker imports this file and nothing else of this room.
"""

from dataclasses import dataclass

SEND_PROXY = ("off", "v1", "v2")
"""What a user writes for each version of the PROXY header; the first is none."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One place where an app runs."""

    id: str
    """14 hex digits as Fly's machine ids, given or derived from app and address."""
    host: str
    """IP address to dial (names are resolved before)."""
    port: int
    region: str
    worker_host: str
    """The `host` label: 4 hex digits of the machine the instance runs on."""
    process: str = "app"
    """Its process group."""


@dataclass(frozen=True, slots=True)
class MetricsEndpoint:
    """Where an app exports its own metrics, on each of its instances."""

    port: int | None
    """None: the instance's own port."""
    path: str
    https: bool = False
    """TLS; the certificate is not verified (docs/decisions/0005)."""
    processes: tuple[str, ...] = ()
    """Only on instances of these process groups; none named: on all."""


@dataclass(frozen=True, slots=True)
class Concurrency:
    """How much of an app's work an instance takes at once. Carried, not enforced yet."""

    type: str = "requests"
    """What is counted: "requests" or "connections"."""
    soft_limit: int | None = None
    """Above it, other instances are preferred."""
    hard_limit: int | None = None
    """At it, an instance gets no more."""


@dataclass(frozen=True, slots=True)
class App:
    name: str
    organization: str
    hostnames: tuple[str, ...]
    """Lower case, exact or `*.suffix`."""
    instances: tuple[Instance, ...]
    metrics: tuple[MetricsEndpoint, ...]
    access_log: bool = True
    concurrency: Concurrency = Concurrency()
    send_proxy: int = 0
    """The version of the PROXY header that a connection to its instances begins with: 1, 2, or 0 for none."""


@dataclass(frozen=True, slots=True)
class Listener:
    """One door."""

    host: str
    port: int
    """0 is not resolved here: the supervisor binds and says which port it got."""
    http: bool
    """False: raw TCP to `app`."""
    region: str
    app: str | None
    """The app behind a raw TCP door."""
    instance_port: int | None = None
    """The port it leads to on each instance; None: the instance's own."""
    proxy_proto: bool = False
    """Each connection begins with a PROXY header, and who sends it is among `Edge.trusted_proxies`."""
    send_proxy: int | None = None
    """Of a raw TCP door: as the app's, which holds where this is None."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one message and one connection, bytes (counts where named so)."""

    head_bytes: int = 32 * 1024
    line_bytes: int = 8 * 1024
    header_count: int = 100
    buffer_bytes: int = 64 * 1024
    body_bytes: int | None = None
    connections: int = 10_000
    """Client connections a worker holds at once."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds."""

    head_s: float = 10.0
    body_s: float = 30.0
    idle_s: float = 60.0
    write_s: float = 30.0
    connect_s: float = 2.0
    response_s: float = 120.0
    drain_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Edge:
    """Everything an edge worker needs to know of one generation."""

    region: str
    host: str
    """The `host` label of this machine, 4 hex digits."""
    loop: str
    """"uvloop" or "asyncio"."""
    listeners: tuple[Listener, ...]
    apps: tuple[App, ...]
    default_app: str | None
    """The app that gets a request without a Host (HTTP/1.0) or, with --to, every host."""
    any_host: bool
    """True (--to): every host goes to the default app."""
    limits: Limits
    timeouts: Timeouts
    region_positions: tuple[tuple[str, float, float], ...]
    """(key, latitude, longitude) of every known region, degrees."""
    access_log: str
    """"json", "console" or "off"."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks (CIDR) whose PROXY headers are believed."""


@dataclass(frozen=True, slots=True)
class Region:
    key: str
    latitude: float
    longitude: float
    name: str
    geo_region: str
    """africa, asia_pacific, europe, north_america or south_america; "" for a user's own."""


@dataclass(frozen=True, slots=True)
class ScrapeLimits:
    """Bounds of one page that an app exports; a page beyond one of them is refused whole."""

    body_bytes: int = 16 * 1024 * 1024
    """Unpacked."""
    samples: int = 100_000
    labels: int = 64
    """Of one series."""
    label_name_characters: int = 512
    label_value_characters: int = 8192
    lines: int = 500_000
    """Comments too."""
    series: int = 200_000
    """Not of a page: different series that one target may have within an hour. New ones beyond it are left out."""


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Everything telemetry and the query workers need to know of one generation."""

    host: str
    port: int
    data_dir: str
    retention_s: float
    own_interval_s: float
    scrape_interval_s: float
    query_workers: int
    query_timeout_s: float
    query_memory_bytes: int
    query_samples: int
    query_concurrency: int
    first_zero: bool
    promql_mode: str
    """"prometheus3" or "prometheus2"."""
    metricsql: bool
    organizations: tuple[str, ...]
    """Without `_operator`, which always exists."""
    regions: tuple[Region, ...]
    retention_size_bytes: int | None = None
    """What the store's file may take; None: any size."""
    scrape_limits: ScrapeLimits = ScrapeLimits()

    @property
    def query_processes(self) -> int:
        """`query_workers`, and one that stands by: no organization can keep all of them busy."""
        return self.query_workers + 1

    instance_metrics: bool = True
    """Whether this machine is read for the instances on it."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """One configuration, whole."""

    workers: int
    """Edge processes; 0: everything in one process."""
    edge: Edge
    telemetry: Telemetry
    source: str
    """The file it came from, or "" for flags alone."""
