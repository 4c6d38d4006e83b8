"""A whole configuration from one fly.toml: `flyproxy run fly.toml`.

One app, which gets every host; one instance, this machine's internal_port (raw TCP doors of further services lead to
theirs). The doors: Fly's ports 80 and 443 are this machine's 8080 (plain HTTP until there is TLS), any other HTTP or
raw TCP port is itself, but for those below 1024, which only the superuser may open: they go 10,000 higher. The app has
ports of its own on this machine, and on Fly they often are the very ports of doors: such a door goes 10,000 higher
too. An app that only has metrics gets no door.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flyproxy.config.document import Document
from flyproxy.config.faults import ConfigError, Path, did_you_mean
from flyproxy.config.fly_toml import FlyToml, Ports, Service
from flyproxy.config.names import BadNameError, parse_slug
from flyproxy.config.regions import LOCAL, shipped_keys
from flyproxy.config.resolved import SEND_PROXY
from flyproxy.config.scalars import got

HTTP_PORT = 8080
"""Of the door that stands for Fly's 80 and 443."""
STEP_ASIDE = 10_000
FREE_PORT_MIN = 1024
"""Below it a port wants a privilege that a user's front door does not have."""
PORT_MAX = 65_535
DOORS_MAX = 64
"""Of one file: a port range may name 65,535."""
DEFAULT_NAME = "app"


@dataclass(frozen=True, slots=True)
class _Door:
    path: Path
    """What asks for it."""
    port: int
    http: bool
    instance_port: int | None
    """Where it is not the main service's."""
    send_proxy: str
    warning: tuple[Path, str] | None
    """Where it is on another port than Fly's: which, at which place."""


def front_door(fly: FlyToml) -> Document:
    """The configuration as a document: its tree is that of a YAML file, its places are the fly.toml's.

    Raises ConfigError when there is nothing to serve.
    """
    document = fly.document
    name = _name(fly)
    doors = _doors(fly)
    if document.faults:
        raise ConfigError(document.faults)
    if not doors and not fly.metrics:
        sentence = "nothing to serve: no http_service, no services with a TCP port that can be opened here, no metrics"
        raise ConfigError([document.fault((), sentence), *document.warnings])  # which say why there is no door
    if not doors:
        document.warn((), "no door is opened: no http_service, no services with a TCP port; only metrics are scraped")
    whole = Document(document.name, document.lines, warnings=document.warnings)
    port = fly.main.internal_port if fly.main is not None else fly.metrics[0][1].port
    process = fly.process if doors else next(iter(fly.metrics[0][1].processes), fly.process)
    instance = {"address": f"127.0.0.1:{port}", "process": process}
    whole.tree = {
        "edge": {"default_app": name, "region": _region(fly)},
        "listeners": [_listener(door, name) for door in doors],
        "apps": [
            {
                "name": name,
                "metrics": metrics_of(fly, {process}) or None,
                "concurrency": concurrency_of(fly),
                "send_proxy": send_proxy_of(fly),
                "instances": [instance],
            }
        ],
    }
    _keep_places(fly, whole, doors)
    return whole


def metrics_of(fly: FlyToml, processes: set[str]) -> list[dict[str, object]]:
    """The file's metrics as a YAML file has them, but for those of process groups that no instance here is of."""
    found: list[dict[str, object]] = []
    for path, endpoint in fly.metrics:
        here = [name for name in endpoint.processes if name in processes]
        if endpoint.processes and not here:
            words = ", ".join(f"'{name}'" for name in endpoint.processes)
            fly.document.warn((*path, "processes"), f"not scraped: no instance here is of the process group {words}")
            continue
        found.append({"port": endpoint.port, "path": endpoint.path, "https": endpoint.https, "processes": here})
    return found


def concurrency_of(fly: FlyToml) -> dict[str, object]:
    """The main service's concurrency as a YAML file has it."""
    limits = fly.concurrency
    return {"type": limits.type, "soft_limit": limits.soft_limit, "hard_limit": limits.hard_limit}


def send_proxy_of(fly: FlyToml) -> str:
    """The PROXY header for the main service's port, as a YAML file has it: what the HTTP ports that lead there say, or
    where there are none, the others. At Fly each port may do otherwise; here connections of HTTP are the app's."""
    main = fly.main
    leading = [one for one in fly.services if main is not None and one.internal_port == main.internal_port]
    ports = [one for service in leading for one in service.ports]
    ports = [one for one in ports if "http" in one.handlers] or ports
    asking = [one for one in ports if one.send_proxy != SEND_PROXY[0]]
    if not asking:
        return SEND_PROXY[0]
    version = asking[0].send_proxy
    if any(one.send_proxy != version for one in ports):
        sentence = f"not built yet: a PROXY header on some ports only; every request comes with one ({version})"
        fly.document.warn_once((*asking[0].path, "handlers"), sentence)
    return version


def _name(fly: FlyToml) -> str:
    if fly.app is None:
        fly.document.warn((), f"no 'app' is named; it is called '{DEFAULT_NAME}' in the metrics")
        return DEFAULT_NAME
    try:
        return parse_slug(fly.app, "app's name")
    except BadNameError as error:
        fly.document.faults.append(fly.document.fault(("app",), str(error)))
        return DEFAULT_NAME


def _region(fly: FlyToml) -> str:
    """The primary region; one that has no place on our map must not stop anybody."""
    region = fly.primary_region
    if region is None or region in shipped_keys():
        return region or LOCAL
    hint = did_you_mean(region, sorted(shipped_keys())) or "."
    sentence = f"unknown region {got(region)}{hint} This front door stands in '{LOCAL}'"
    fly.document.warn(("primary_region",), sentence, at_key=False)
    return LOCAL


def _listener(door: _Door, name: str) -> dict[str, object]:
    bind = f"0.0.0.0:{door.port}"
    if door.http:
        return {"bind": bind}
    return {
        "bind": bind,
        "handlers": [],
        "app": name,
        "instance_port": door.instance_port,
        "send_proxy": door.send_proxy,
    }


def _doors(fly: FlyToml) -> list[_Door]:
    """The doors in the order of the file; a port is opened once."""
    doors: dict[int, _Door] = {}
    for door in _wanted(fly):
        if door.port in doors:
            continue
        if len(doors) == DOORS_MAX:
            fly.document.warn(door.path, f"a front door made from a fly.toml has at most {DOORS_MAX} doors")
            break
        if door.port in _own_ports(fly):  # no room to step aside
            fly.document.warn(_own_ports(fly)[door.port], f"{_taken(door.port)}no door is opened on it")
            continue
        doors[door.port] = door
        if door.warning is not None:
            fly.document.warn(*door.warning)
    return list(doors.values())


def _wanted(fly: FlyToml) -> Iterator[_Door]:
    for service in fly.services:
        assert fly.main is not None
        if not service.ports:
            continue  # private: Fly opens nothing either
        for ports in service.ports:
            http = _spoken(fly, ports)
            if http and service.internal_port != fly.main.internal_port:
                sentence = f"not built yet: HTTP to a second internal port ({fly.main.internal_port} is the first); no "
                fly.document.warn((*service.path, "internal_port"), f"{sentence}door is opened for it")
            else:
                for number in range(ports.first, ports.last + 1):
                    yield _door(fly, service, ports, number, http)


def _spoken(fly: FlyToml, ports: Ports) -> bool:
    """Is the door for HTTP (True) or raw TCP (False)? TLS is met half-way: what is in it is carried without it."""
    place = (*ports.path, "handlers")
    if "pg_tls" in ports.handlers:
        fly.document.warn_once(place, "not built yet: the handler 'pg_tls'; the port is raw TCP, without TLS")
        return False
    http = "http" in ports.handlers
    if "tls" in ports.handlers:
        instead = "served in plain HTTP" if http else "raw TCP without it"
        fly.document.warn_once(place, f"not built yet: TLS; the port is {instead}")
    return http


def _door(fly: FlyToml, service: Service, ports: Ports, number: int, http: bool) -> _Door:
    """The door for one of Fly's ports: on it, or above it where it is not free here."""
    assert fly.main is not None
    inside = None if service.internal_port == fly.main.internal_port else service.internal_port
    if http and number in (80, 443):
        number = HTTP_PORT
    elif number < FREE_PORT_MIN:
        above = number + STEP_ASIDE
        sentence = f"ports below {FREE_PORT_MIN} are the superuser's on this machine; the door is on {above}"
        return _Door(
            ports.path, above, http, inside, ports.send_proxy, (ports.path, sentence) if number == ports.first else None
        )
    taken = _own_ports(fly).get(number)
    if taken is not None and number + STEP_ASIDE <= PORT_MAX:
        above = number + STEP_ASIDE
        return _Door(
            ports.path, above, http, inside, ports.send_proxy, (taken, f"{_taken(number)}the door is on {above}")
        )
    return _Door(ports.path, number, http, inside, ports.send_proxy, None)


def _own_ports(fly: FlyToml) -> dict[int, Path]:
    """The ports the app has on this machine, and where they are named."""
    return {service.internal_port: (*service.path, "internal_port") for service in reversed(fly.services)}


def _taken(port: int) -> str:
    return f"the app itself has port {port} on this machine; "


def _keep_places(fly: FlyToml, whole: Document, doors: list[_Door]) -> None:
    """Where a fault of the whole (a port that is taken twice) shows its caret."""
    port = (*fly.main.path, "internal_port") if fly.main is not None else (*fly.metrics[0][0], "port")
    origins: dict[Path, Path] = {
        ("edge", "region"): ("primary_region",),
        ("apps", 0, "name"): ("app",),
        ("apps", 0, "instances", 0, "address"): port,
        **{("listeners", index, "bind"): door.path for index, door in enumerate(doors)},
    }
    for path, origin in origins.items():
        for length in range(len(origin), 0, -1):
            if origin[:length] in fly.document.values:
                whole.values[path] = fly.document.values[origin[:length]]
                break
