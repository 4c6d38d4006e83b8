"""One fly.toml, read as Fly reads it: what the front door has to know of it, every fault, every warning.

A user of Fly keeps the file as it is. So what is not the front door's business is passed over, what is but is not built
yet is a warning that says what happens instead (once for a file, however often it is asked for), and only what Fly
would refuse too is a fault: a key nobody knows, a soft limit above the hard one, or limits without the service they are
for are deployed there. What older files have is read as well: ports as texts, one table where a list may stand,
`concurrency = "20,25"`, `[experimental] metrics_port`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flyproxy.config import fly_keys
from flyproxy.config.document import Document
from flyproxy.config.faults import ConfigError, Path, did_you_mean, one_of_these
from flyproxy.config.fly_keys import Keys, NotBuilt
from flyproxy.config.names import BadNameError, parse_metrics_path, parse_process_group
from flyproxy.config.resolved import SEND_PROXY, Concurrency, MetricsEndpoint
from flyproxy.config.scalars import got
from flyproxy.config.toml_document import read_toml

DEFAULT_INTERNAL_PORT = 8080
"""Of an http_service that gives none."""
DEFAULT_GROUP = "app"
"""The process group where a file names none."""
SOFT_LIMIT = 20
"""Fly's, where a file gives none; there is no hard limit then."""
LIMIT_MAX = 10**9
HANDLERS = ("http", "tls", "pg_tls", "proxy_proto")
_PROTOCOLS = ("tcp", "udp")
_COUNTED = ("connections", "requests")


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports of a service that Fly opens to the world."""

    path: Path
    first: int
    last: int
    handlers: frozenset[str]
    send_proxy: str = SEND_PROXY[0]
    """The PROXY header that the app gets first on a connection through these ports."""


@dataclass(frozen=True, slots=True)
class Service:
    """An http_service, or one of the services."""

    path: Path
    internal_port: int
    ports: tuple[Ports, ...]
    processes: tuple[str, ...]
    """() is every group."""
    concurrency: Concurrency


@dataclass(frozen=True, slots=True)
class FlyToml:
    """What a fly.toml says that the front door has to know."""

    document: Document
    """Its places; the warnings are in it."""
    app: str | None
    primary_region: str | None
    services: tuple[Service, ...]
    """Those over TCP, the http_service first."""
    metrics: tuple[tuple[Path, MetricsEndpoint], ...]
    groups: tuple[str, ...]
    """Process groups; () where the file names none, which is one group, `app`."""

    @property
    def main(self) -> Service | None:
        """The service whose port, group and concurrency are the instances': the first that the world can reach."""
        return next((service for service in self.services if service.ports), next(iter(self.services), None))

    @property
    def process(self) -> str:
        """The process group of the instances behind the front door."""
        if self.main is not None and self.main.processes:
            return self.main.processes[0]
        return DEFAULT_GROUP if not self.groups or DEFAULT_GROUP in self.groups else self.groups[0]

    @property
    def concurrency(self) -> Concurrency:
        """The main service's, else Fly's default."""
        return self.main.concurrency if self.main is not None else Concurrency("connections", SOFT_LIMIT, None)


def read_fly_toml(raw: bytes, name: str) -> FlyToml:
    """The file's contents; `name` is what faults call it. Raises ConfigError with every fault."""
    reading = _Reading(read_toml(raw, name))
    read = reading.whole()
    if reading.document.faults:
        raise ConfigError(reading.document.faults)
    return read


class _Reading:
    """One document on its way; faults and warnings are gathered in it."""

    def __init__(self, document: Document) -> None:
        self.document = document
        assert isinstance(document.tree, dict), "a TOML text is a table"
        self._tree: dict[str, object] = document.tree

    def whole(self) -> FlyToml:
        self._top_keys()
        groups = self._groups()
        services = list(self._services(groups))
        return FlyToml(
            document=self.document,
            app=self._text((), self._tree, "app") or None,  # a template's `app = ""` leaves it to `fly deploy --app`
            primary_region=self._text((), self._tree, "primary_region"),
            services=tuple(services),
            metrics=tuple(self._metrics(groups)),
            groups=groups,
        )

    def _top_keys(self) -> None:
        """Fly's file has sections of many tools; only what looks like one of ours is worth a word."""
        ours = [key for key, fate in fly_keys.TOP.items() if fate is not fly_keys.IGNORED and key != "metric"]
        services = ["http_service", "services"]
        if set(services) & set(self._tree):
            services = []  # else a slip of the pen here would close every door at a reload
        for key, value in self._tree.items():
            fate = fly_keys.TOP.get(key, fly_keys.IGNORED)
            hint = did_you_mean(key, ours) if key not in fly_keys.TOP else ""
            if did_you_mean(key, services) and key not in fly_keys.TOP:
                self._fault((key,), f"unknown key '{key}'{did_you_mean(key, services)}", at_key=True)
            elif hint:
                self.document.warn((key,), f"unknown key '{key}'{hint} It is ignored")
            self._not_built((key,), fate, value)

    def _keys(self, path: Path, table: dict[str, object], known: Keys) -> None:
        """Fly passes over a key it does not know, be it a slip of the pen or newer than we are; we do, and say so. But
        for a slip in the one key that a service cannot be without."""
        ours = [key for key, fate in known.items() if fate is not fly_keys.IGNORED]
        needed = {"internal_port"} & set(known) - set(table)
        for key, value in table.items():
            if key in known:
                self._not_built((*path, key), known[key], value)
            elif did_you_mean(key, needed):
                self._fault((*path, key), f"unknown key '{key}'{did_you_mean(key, needed)}", at_key=True)
            else:
                self.document.warn_once(
                    (*path, key), f"unknown key '{key}'{did_you_mean(key, ours) or '.'} It is ignored"
                )

    def _not_built(self, path: Path, fate: NotBuilt | None, value: object) -> None:
        if fate is None or fate is fly_keys.IGNORED or value in fate.nothing:
            return
        self.document.warn_once(path, fate.sentence)

    def _groups(self) -> tuple[str, ...]:
        value = self._tree.get("processes", {})
        if isinstance(value, list):  # as an older file has it: [[processes]] name = "web"
            value = {item["name"]: "" for item in value if isinstance(item, dict) and isinstance(item.get("name"), str)}
        if not isinstance(value, dict):
            self._fault(("processes",), f"wanted a table, got {_got(value)}")
            return ()
        return tuple(value)

    def _services(self, groups: Sequence[str]) -> Iterator[Service]:
        if "http_service" in self._tree:
            table = self._tree["http_service"]
            if isinstance(table, dict):
                yield self._http_service(("http_service",), table, groups)
            else:
                self._fault(("http_service",), f"wanted a table, got {_got(table)}")
        unfinished = []
        others = "http_service" in self._tree
        for path, table in self._tables("services"):
            if table and "internal_port" not in table:
                self._keys(path, table, fly_keys.SERVICE)
                unfinished.append(path)
                continue
            service = self._service(path, table, groups) if table else None
            others = others or service is not None
            if service is not None:
                yield service
        for path in unfinished:  # often a [services.concurrency] that was meant for the http_service
            if others:
                self.document.warn(path, "no internal_port is given; no door is opened for this service")
            else:
                self._fault(path, "missing key 'internal_port'")

    def _http_service(self, path: Path, table: dict[str, object], groups: Sequence[str]) -> Service:
        self._keys(path, table, fly_keys.HTTP_SERVICE)
        self._http_options(path, table)
        port = self._port(path, table, "internal_port")
        return Service(
            path=path,
            internal_port=DEFAULT_INTERNAL_PORT if port is None else port,
            ports=(Ports(path, 80, 80, frozenset({"http"})),),  # its 443 is Fly's business: no key asks for it
            processes=self._processes(path, table, groups),
            concurrency=self._concurrency(path, table),
        )

    def _service(self, path: Path, table: dict[str, object], groups: Sequence[str]) -> Service | None:
        self._keys(path, table, fly_keys.SERVICE)
        protocol = self._text(path, table, "protocol") or "tcp"
        if protocol not in _PROTOCOLS:
            self._fault((*path, "protocol"), f"wanted 'tcp' or 'udp', got {got(protocol)}")
        port = self._port(path, table, "internal_port")
        service = Service(
            path=path,
            internal_port=port or DEFAULT_INTERNAL_PORT,
            ports=tuple(self._ports((*path, "ports"), table.get("ports", []))),
            processes=self._processes(path, table, groups),
            concurrency=self._concurrency(path, table),
        )
        if protocol == "udp":
            self.document.warn((*path, "protocol"), "UDP is not carried; no door is opened for this service")
            return None
        return service

    def _ports(self, path: Path, value: object) -> Iterator[Ports]:
        for place, table in self._tables_of(path, value):
            self._keys(place, table, fly_keys.PORT)
            self._http_options(place, table)
            handlers = frozenset(self._handlers(place, table))
            first = self._port(place, table, "port")
            last = first
            if "port" not in table:
                first, last = self._port(place, table, "start_port"), self._port(place, table, "end_port")
                if not {"start_port", "end_port"} <= set(table):
                    self._fault(place, "missing key 'port' (or 'start_port' and 'end_port')")
                elif first is not None and last is not None and first > last:
                    self._fault((*place, "start_port"), f"start_port ({first}) is larger than end_port ({last})")
            if first is not None and last is not None:
                yield Ports(place, first, last, handlers, self._send_proxy(place, table, handlers))

    def _handlers(self, path: Path, table: dict[str, object]) -> Iterator[str]:
        for place, word in self._words(path, table, "handlers"):
            if word in HANDLERS:
                yield word
            else:
                self._fault(place, f"{got(word)} is no handler{one_of_these(word, HANDLERS)}")

    def _send_proxy(self, path: Path, table: dict[str, object], handlers: frozenset[str]) -> str:
        options = self._table(path, table, "proxy_proto_options")
        path = (*path, "proxy_proto_options")
        self._keys(path, options, fly_keys.PROXY_PROTO_OPTIONS)
        none, *versions = SEND_PROXY
        version = self._text(path, options, "version") or versions[0]
        if version not in versions:
            self._fault((*path, "version"), f"wanted 'v1' or 'v2', got {got(version)}")
        return version if "proxy_proto" in handlers else none

    def _http_options(self, path: Path, table: dict[str, object]) -> None:
        options = self._table(path, table, "http_options")
        self._keys((*path, "http_options"), options, fly_keys.HTTP_OPTIONS)
        response = self._table((*path, "http_options"), options, "response")
        self._keys((*path, "http_options", "response"), response, fly_keys.RESPONSE)

    def _processes(self, path: Path, table: dict[str, object], groups: Sequence[str]) -> tuple[str, ...]:
        found = []
        known = groups or (DEFAULT_GROUP,)
        for place, word in self._words(path, table, "processes"):
            try:
                found.append(parse_process_group(word))
            except BadNameError as error:
                self._fault(place, str(error))
                continue
            if word not in known:
                sentence = f"no process group is called {got(word)}{one_of_these(word, known)}"
                self.document.warn(place, sentence, at_key=False)
        return tuple(found)

    def _concurrency(self, path: Path, table: dict[str, object]) -> Concurrency:
        path = (*path, "concurrency")
        value = table.get("concurrency", {})
        if isinstance(value, str):
            return self._old_concurrency(path, value)
        if not isinstance(value, dict):
            self._fault(path, f"wanted a table, got {_got(value)}")
            return Concurrency()
        self._keys(path, value, fly_keys.CONCURRENCY)
        kind = self._text(path, value, "type") or "connections"
        if kind not in _COUNTED:
            sentence = f"wanted 'connections' or 'requests', got {got(kind)}{did_you_mean(kind, _COUNTED)}"
            self._fault((*path, "type"), sentence)
        soft = self._number(path, value, "soft_limit", 0, LIMIT_MAX) or None
        hard = self._number(path, value, "hard_limit", 0, LIMIT_MAX) or None
        if soft is not None and hard is not None and soft > hard:
            sentence = f"soft_limit ({soft}) is larger than hard_limit ({hard}); {hard} is taken for both"
            self.document.warn((*path, "soft_limit"), sentence)
            soft = hard
        limited = next((key for key in value if key in ("soft_limit", "hard_limit") and value[key]), None)
        if limited is not None:
            self._limits_warning((*path, limited))
        return Concurrency(kind, min(SOFT_LIMIT, hard or SOFT_LIMIT) if soft is None else soft, hard)

    def _old_concurrency(self, path: Path, text: str) -> Concurrency:
        soft, _, hard = text.partition(",")
        if not (soft.strip().isdecimal() and hard.strip().isdecimal()) or not 0 < int(soft) <= int(hard) <= LIMIT_MAX:
            sentence = f'wanted a table, or SOFT,HARD as in "20,25", got {got(text)}'
            self._fault(path, sentence)
            return Concurrency()
        self._limits_warning(path)
        return Concurrency("requests", int(soft), int(hard))

    def _limits_warning(self, path: Path) -> None:
        self.document.warn_once(path, fly_keys.LIMITS_SENTENCE)

    def _metrics(self, groups: Sequence[str]) -> Iterator[tuple[Path, MetricsEndpoint]]:
        found = [*self._tables("metrics"), *self._tables("metric")]
        for path, table in found:
            self._keys(path, table, fly_keys.METRICS)
            if "port" not in table:
                self.document.warn(path, "no port is given; nothing is scraped here")
            processes = self._processes(path, table, groups)
            yield from self._endpoint(path, table, "port", "path", processes)
        experimental = self._tree.get("experimental")
        if not found and isinstance(experimental, dict) and "metrics_port" in experimental:
            yield from self._endpoint(("experimental",), experimental, "metrics_port", "metrics_path", ())

    def _endpoint(
        self, path: Path, table: dict[str, object], port_key: str, path_key: str, processes: tuple[str, ...]
    ) -> Iterator[tuple[Path, MetricsEndpoint]]:
        port = self._port(path, table, port_key)
        asked = self._text(path, table, path_key) or "/metrics"
        if not asked.startswith("/"):
            asked = f"/{asked}"
            self.document.warn((*path, path_key), f"a path begins with '/'; {got(asked)} is asked for", at_key=False)
        https = table.get("https", False)
        if not isinstance(https, bool):
            self._fault((*path, "https"), f"wanted true or false, got {_got(https)}")
        try:
            parse_metrics_path(asked)
        except BadNameError as error:
            self._fault((*path, path_key), str(error))
        if port is not None:
            yield path, MetricsEndpoint(port, asked, https is True, processes)

    def _tables(self, key: str) -> Iterator[tuple[Path, dict[str, object]]]:
        return self._tables_of((key,), self._tree.get(key, []))

    def _tables_of(self, path: Path, value: object) -> Iterator[tuple[Path, dict[str, object]]]:
        """The tables of a list, or the one table that stands for a list of one."""
        if isinstance(value, dict):
            yield path, value
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, dict):
                    yield (*path, index), item
                else:
                    self._fault((*path, index), f"wanted a table, got {_got(item)}")
        else:
            self._fault(path, f"wanted a table, or a list of them, got {_got(value)}")

    def _table(self, path: Path, table: dict[str, object], key: str) -> dict[str, object]:
        value = table.get(key, {})
        if isinstance(value, dict):
            return value
        self._fault((*path, key), f"wanted a table, got {_got(value)}")
        return {}

    def _words(self, path: Path, table: dict[str, object], key: str) -> Iterator[tuple[Path, str]]:
        value = table.get(key, [])
        if not isinstance(value, list):
            self._fault((*path, key), f"wanted a list of texts, got {_got(value)}")
            return
        for index, word in enumerate(value):
            if isinstance(word, str):
                yield (*path, key, index), word
            else:
                self._fault((*path, key, index), f"wanted a text, got {_got(word)}")

    def _text(self, path: Path, table: dict[str, object], key: str) -> str | None:
        value = table.get(key)
        if value is None or isinstance(value, str):
            return value
        self._fault((*path, key), f"wanted a text, got {_got(value)}")
        return None

    def _port(self, path: Path, table: dict[str, object], key: str) -> int | None:
        return self._number(path, table, key, 1, 65535)

    def _number(self, path: Path, table: dict[str, object], key: str, low: int, high: int) -> int | None:
        """A whole number within bounds; as a text too, as older files have it."""
        value = table.get(key)
        if value is None:
            return None
        if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 19:
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            self._fault((*path, key), f"wanted a whole number, got {_got(value)}")
        elif not low <= value <= high:
            self._fault((*path, key), f"wanted {low} to {high}, got {_got(value)}")
        else:
            return value
        return None

    def _fault(self, path: Path, sentence: str, *, at_key: bool = False) -> None:
        self.document.faults.append(self.document.fault(path, sentence, at_key=at_key))


def _got(value: object) -> str:
    if isinstance(value, int) and abs(value) >= 10**18:
        return "a number of many digits"  # Python itself refuses to write some of them
    return "a table" if isinstance(value, dict) else got(value)
