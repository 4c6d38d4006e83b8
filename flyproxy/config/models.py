"""The configuration file as pydantic models, in the file's own order. Every default is here, written as a user would.

Attributes are named as the keys; durations become seconds, sizes bytes. What needs more than one key to be judged
is in checks; `python -m flyproxy.config.reference` prints this file as docs/config.md.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, model_validator

from flyproxy.config.fields import (
    AppName,
    BindAddress,
    FilledText,
    Handler,
    Hex4,
    Hex14,
    Hostname,
    InstanceAddress,
    MetricsPath,
    Network,
    OneOrList,
    OrganizationSlug,
    ProcessGroup,
    RegionKey,
    Text,
    Workers,
    between,
    keys_below,
    not_built,
    one_of,
    required,
    seconds,
    setting,
    size,
)

SendProxy = Annotated[Text, one_of("off", "v1", "v2")]
_MS, _MINUTE, _HOUR, _DAY = 0.001, 60.0, 3600.0, 86_400.0
_KIB, _MIB, _GIB, _TIB = 1024, 1024**2, 1024**3, 1024**4


class Section(BaseModel):
    """A mapping of the file: unknown keys are refused, nothing is guessed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Edge(Section):
    """The front door itself."""

    region: Text = setting(
        "local",
        "region",
        "Where this front door stands. `FLY_REGION` sets it too. `local` has no position: every region is equally far.",
    )
    host: Hex4 | None = setting(
        None, "4 hex digits", "This machine in the `host` label; derived from the machine when not given."
    )
    workers: Workers = setting(
        "auto", "auto or 0 to 128", "Edge processes; `auto` is one per CPU, 0 runs everything in one process."
    )
    loop: Annotated[Text, one_of("uvloop", "asyncio")] = setting(
        "uvloop", "uvloop or asyncio", "The event loop of the edge; without uvloop installed it is asyncio."
    )
    access_log: Annotated[Text, one_of("auto", "json", "console", "off")] = setting(
        "auto", "auto, json, console or off", "One line a request; `auto` is console on a terminal, else json."
    )
    default_app: Text | None = setting(None, "app", "The app that gets HTTP/1.0 requests without a Host.")


class Listener(Section):
    """One door."""

    bind: BindAddress = required("address", "Where it listens; port 0 takes a free one.")
    handlers: list[Handler] = setting(
        ["http"],
        "list of handlers",
        "`[http]`, or `[]` for raw TCP. `proxy_proto` before it: each connection begins with a PROXY header "
        "([more](proxy-protocol.md)). (`tls`, `pg_tls`: not built yet.)",
    )
    region: Text | None = setting(
        None, "region", "This door stands for another region (demo, tests); default `edge.region`."
    )
    app: Text | None = setting(None, "app", "Raw TCP: the app behind this door.")
    instance_port: Annotated[int, between(1, 65535)] | None = setting(
        None, "1 to 65535", "Raw TCP: the port this door leads to on every instance; default the instance's own."
    )
    send_proxy: SendProxy | None = setting(
        None, "off, v1 or v2", "Raw TCP: the PROXY header that instances get first; default as the app's `send_proxy`."
    )


class Telemetry(Section):
    """Counting, keeping and answering."""

    bind: BindAddress = setting("127.0.0.1:9290", "address", "The API and `/metrics`.")
    data_dir: FilledText = setting(
        "data", "folder", "Where samples and tokens are kept; relative to the configuration file's folder."
    )
    retention: Annotated[float, seconds(_MINUTE, 36_500 * _DAY)] = setting("15d", "duration", "How long samples stay.")
    retention_size: Annotated[int, size(16 * _MIB, 1024 * _TIB)] | None = setting(
        None, "size or null", "What the store's file may hold: the oldest samples go first; null: any."
    )
    own_interval: Annotated[float, seconds(100 * _MS, 5 * _MINUTE)] = setting(
        "5s", "duration", "How often the front door's own counters are sampled."
    )
    scrape_interval: Annotated[float, seconds(100 * _MS, _HOUR)] = setting(
        "15s", "duration", "How often the apps' own metrics are fetched."
    )
    query_workers: Annotated[int, between(1, 64)] = setting(
        1,
        "1 to 64",
        "Killable processes that answer one organization's queries; one more stands by for its neighbours.",
    )
    query_timeout: Annotated[float, seconds(10 * _MS, 10 * _MINUTE)] = setting(
        "5s", "duration", "A query's deadline; a shorter `timeout` of the request wins."
    )
    query_memory: Annotated[int, size(256 * _MIB, _TIB)] = setting(
        "2GiB", "size", "Memory of one query worker's own (not address space); a query that wants more is refused."
    )
    query_samples: Annotated[int, between(1000, 10**12)] = setting(
        50_000_000, "1000 to 1000000000000", "Samples one query may touch."
    )
    query_concurrency: Annotated[int, between(1, 10_000)] = setting(
        20, "1 to 10000", "Queries of one organization that run at once; 128 more wait their turn, then 429."
    )
    first_zero: bool = setting(
        True, "true or false", "A new counter gets a 0 one beat before its first value, so increase() sees the first."
    )
    instance_metrics: bool = setting(
        True, "true or false", "This machine's memory, CPU, disks and so on as `fly_instance_*` of the instances on it."
    )


class Organization(Section):
    """Who owns apps and their metrics."""

    slug: OrganizationSlug = required("name", "Its name in the API's paths.")


class Metrics(Section):
    """Where each instance of an app exports its own metrics."""

    port: Annotated[int, between(1, 65535)] | None = setting(None, "1 to 65535", "Default: the instance's own port.")
    path: MetricsPath = setting("/metrics", "path", "What is asked for.")
    https: bool = setting(
        False, "true or false", "Over TLS; the certificate is not verified, since targets are addressed by IP."
    )
    processes: list[ProcessGroup] = setting(
        [], "list of process groups", "Only on instances of these groups; `[]`: on all."
    )


class Concurrency(Section):
    """How much of an app's work an instance takes at once."""

    type: Annotated[Text, one_of("requests", "connections")] = setting(
        "requests", "requests or connections", "What is counted. A `fly_toml` that says nothing means connections."
    )
    soft_limit: Annotated[int, between(1, 10**9)] | None = setting(
        None, "1 to 1000000000", "Above it other instances are preferred. Read, not enforced yet: a warning says so."
    )
    hard_limit: Annotated[int, between(1, 10**9)] | None = setting(
        None, "1 to 1000000000", "At it an instance gets no more. Read, not enforced yet: a warning says so."
    )


class Instance(Section):
    """One place where an app runs."""

    address: InstanceAddress = required(
        "address",
        "Where it listens; a name is looked up when the file is loaded. With a `fly_toml` the port may be left out.",
    )
    region: Text | None = setting(None, "region", "Where it runs; default `edge.region`.")
    process: ProcessGroup = setting(
        "app", "process group", "What `metrics.processes` chooses by; a `fly_toml` that names groups: its first."
    )
    id: Hex14 | None = setting(None, "14 hex digits", "The `instance` label; default derived from app and address.")
    host: Hex4 | None = setting(
        None, "4 hex digits", "The machine it runs on, in the `host` label; derived when not given."
    )


class App(Section):
    """One app behind the front door."""

    name: AppName = required("name", "The `app` label; one app of this name across all organizations.")
    organization: Text | None = setting(None, "organization", "Who sees its metrics; default the first organization.")
    hostnames: list[Hostname] = setting([], "list of hostnames", "Exact, or `*.suffix` for every name below it.")
    fly_toml: FilledText | None = setting(
        None,
        "file",
        "A fly.toml, relative to this file's folder: its metrics, concurrency, process group and internal port, where "
        "they are not given here.",
    )
    metrics: Annotated[list[Metrics] | None, OneOrList] = keys_below(
        lambda: None, "mapping, or a list of them", "Where its own metrics are; null: it has none."
    )
    concurrency: Concurrency = keys_below(Concurrency, "mapping", "How much an instance takes at once.")
    send_proxy: SendProxy = setting(
        "off",
        "off, v1 or v2",
        "Its instances get a PROXY header with the client's address first on every connection, which is then used for "
        "one request only ([more](proxy-protocol.md)).",
    )
    checks: Annotated[list[None], not_built([], "health checks")] = setting([], "empty list", "Not built yet.")
    instances: list[Instance] = keys_below(list, "list of mappings", "Where it runs.")
    access_log: bool = setting(True, "true or false", "Whether its requests are in the access log.")


class Limits(Section):
    """Bounds of one message and one connection."""

    head_bytes: Annotated[int, size(_KIB, _MIB)] = setting("32KiB", "size", "The whole head of a message.")
    line_bytes: Annotated[int, size(128, _MIB)] = setting("8KiB", "size", "One line of a head.")
    header_count: Annotated[int, between(1, 10_000)] = setting(100, "1 to 10000", "Header lines of a message.")
    buffer_bytes: Annotated[int, size(4 * _KIB, 16 * _MIB)] = setting(
        "64KiB", "size", "Bytes held for one connection in each direction before its sender has to wait."
    )
    body_bytes: Annotated[int, size(0, _TIB)] | None = setting(None, "size or null", "A request's body; null: any.")
    connections: Annotated[int, between(1, 1_000_000)] = setting(
        10_000, "1 to 1000000", "Client connections one worker holds at once."
    )


class ScrapeLimits(Section):
    """Bounds of one page that an app exports; a page beyond one of them is refused whole, and `targets` says why."""

    body_bytes: Annotated[int, size(_KIB, _GIB)] = setting("16MiB", "size", "The page, unpacked.")
    samples: Annotated[int, between(1, 10_000_000)] = setting(100_000, "1 to 10000000", "Samples.")
    labels: Annotated[int, between(1, 1000)] = setting(64, "1 to 1000", "Labels of one series.")
    label_name_characters: Annotated[int, between(16, 65_536)] = setting(
        512, "16 to 65536", "Characters of a label's name."
    )
    label_value_characters: Annotated[int, between(16, 1_048_576)] = setting(
        8192, "16 to 1048576", "Characters of a label's value; the metric's name counts as one."
    )
    lines: Annotated[int, between(1, 50_000_000)] = setting(500_000, "1 to 50000000", "Lines, comments too.")
    series: Annotated[int, between(1, 50_000_000)] = setting(
        200_000, "1 to 50000000", "Not of a page: series one target may have within an hour; newer ones are left out."
    )


_TIMEOUT = seconds(_MS, _DAY)


class Timeouts(Section):
    """How long is waited; none of them can be switched off."""

    head: Annotated[float, _TIMEOUT] = setting("10s", "duration", "For a request's whole head, from its first byte.")
    body: Annotated[float, _TIMEOUT] = setting("30s", "duration", "Between two reads of a body.")
    idle: Annotated[float, _TIMEOUT] = setting("60s", "duration", "For the next request on a connection.")
    write: Annotated[float, _TIMEOUT] = setting("30s", "duration", "For a reader that takes nothing.")
    connect: Annotated[float, _TIMEOUT] = setting("2s", "duration", "For a connection to an instance.")
    response: Annotated[float, _TIMEOUT] = setting("120s", "duration", "For the head of an instance's response.")
    drain: Annotated[float, seconds(0.0, _DAY)] = setting("30s", "duration", "For what a leaving worker has in flight.")


class Region(Section):
    """A region beyond the shipped list."""

    key: RegionKey = required("name", "Its code, as in the `region` label.")
    latitude: Annotated[float, between(-90, 90)] = required("degrees", "North is positive.")
    longitude: Annotated[float, between(-180, 180)] = required("degrees", "East is positive.")
    name: Text = setting("", "text", "What people call it; default its key.")


class Promql(Section):
    """How queries are read."""

    mode: Annotated[Text, one_of("prometheus3", "prometheus2")] = setting(
        "prometheus3", "prometheus3 or prometheus2", "`prometheus2`: closed windows and legacy names."
    )
    metricsql: bool = setting(True, "true or false", "MetricsQL's missing and too short windows are accepted.")


class Configuration(Section):
    """The whole file."""

    edge: Edge = keys_below(Edge, "mapping", "The front door itself.")
    listeners: list[Listener] = keys_below(
        lambda: [Listener(bind="0.0.0.0:8080")], "list of mappings", "The doors; default one for HTTP on port 8080."
    )
    telemetry: Telemetry = keys_below(Telemetry, "mapping", "Counting, keeping and answering.")
    organizations: list[Organization] = keys_below(
        lambda: [Organization(slug="personal")], "list of mappings", "Who owns apps; default one, `personal`."
    )
    apps: list[App] = keys_below(list, "list of mappings", "The apps behind the front door.")
    limits: Limits = keys_below(Limits, "mapping", "Bounds of one message and one connection.")
    timeouts: Timeouts = keys_below(Timeouts, "mapping", "How long is waited.")
    scrape_limits: ScrapeLimits = keys_below(ScrapeLimits, "mapping", "Bounds of one page that an app exports.")
    trusted_proxies: list[Network] = setting(
        [],
        "list of networks",
        "Whose PROXY headers are believed, at doors with the handler `proxy_proto`. (Their `X-Forwarded-*`: not built "
        "yet.)",
    )
    regions: list[Region] = keys_below(list, "list of mappings", "Regions beyond the shipped list.")
    rule_files: Annotated[list[str], not_built([], "recording and alerting rules")] = setting(
        [], "empty list", "Not built yet."
    )
    alertmanagers: Annotated[list[str], not_built([], "sending alerts")] = setting([], "empty list", "Not built yet.")
    remote_write: Annotated[list[str], not_built([], "sending samples to a remote store")] = setting(
        [], "empty list", "Not built yet."
    )
    remote_store: Annotated[None, not_built(None, "querying another store than the embedded one")] = setting(
        None, "null", "Not built yet."
    )
    promql: Promql = keys_below(Promql, "mapping", "How queries are read.")

    @model_validator(mode="before")
    @classmethod
    def _empty_sections_are_defaults(cls, value: object) -> object:
        """`apps:` with nothing below it, every line a comment, is what an unfinished file looks like."""
        if isinstance(value, dict):
            return {name: inner for name, inner in value.items() if inner is not None}
        return value
