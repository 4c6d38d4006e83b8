"""What needs more than one key to be judged: names that clash, names that must exist, doors that make sense.

The checks read the values as written, not the models, so that they find their faults also where another key of the
same file is wrong: a user sees every fault at once. What is not of the expected kind is passed over; the models
have a sentence for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from flyproxy.config.document import Document
from flyproxy.config.faults import Fault, Path, did_you_mean, one_of_these, written_path
from flyproxy.config.fields import BUILT_HANDLERS
from flyproxy.config.fly_keys import LIMITS_SENTENCE
from flyproxy.config.names import Address, BadNameError, parse_address
from flyproxy.config.quantities import BadQuantityError, parse_size
from flyproxy.config.regions import ALIASES, LOCAL, shipped_keys
from flyproxy.config.scalars import as_text, got

DEFAULT_ORGANIZATION = "personal"
DEFAULT_TELEMETRY_BIND = "127.0.0.1:9290"
DEFAULT_BIND = "0.0.0.0:8080"
NETWORKS_MAX = 1000
"""Of trusted_proxies: each connection at a door that believes them is compared with all."""

Check = Callable[[Document], Iterator[Fault]]


def check_document(document: Document) -> list[Fault]:
    """Every fault that lies between keys."""
    return [fault for check in CHECKS for fault in check(document)]


def _organizations(document: Document) -> Iterator[Fault]:
    if _at(document.tree, ("organizations",)) == []:
        yield document.fault(("organizations",), "at least one is wanted; leave the key out for 'personal'")
    yield from _unique(document, _texts(document, "organizations", "*", "slug"), "the organization '{}'")
    known = [text for _, text in _texts(document, "organizations", "*", "slug")] or [DEFAULT_ORGANIZATION]
    for path, text in _texts(document, "apps", "*", "organization"):
        if text not in known:
            yield document.fault(path, f"unknown organization {got(text)}{one_of_these(text, known)}")


def _app_names(document: Document) -> Iterator[Fault]:
    yield from _unique(document, _texts(document, "apps", "*", "name"), "the app '{}'")
    known = [text for _, text in _texts(document, "apps", "*", "name")]
    for pattern in (("edge", "default_app"), ("listeners", "*", "app")):
        for path, text in _texts(document, *pattern):
            if text not in known:
                yield document.fault(path, f"unknown app {got(text)}{one_of_these(text, known)}")


def _hostnames(document: Document) -> Iterator[Fault]:
    names = ((path, text.lower()) for path, text in _texts(document, "apps", "*", "hostnames", "*"))
    yield from _unique(document, names, "the hostname '{}'")


def _instances(document: Document) -> Iterator[Fault]:
    ids = [(path, text.lower()) for path, text in _texts(document, "apps", "*", "instances", "*", "id")]
    yield from _unique(document, ids, "the instance id '{}'")
    with_id = {path[:-1] for path, _ in ids}
    seen: dict[tuple[Path, str], Path] = {}
    for path, text in _texts(document, "apps", "*", "instances", "*", "address"):
        app, instance = path[:2], path[:-1]
        first = seen.setdefault((app, text.lower()), instance)
        if first != instance and not (instance in with_id and first in with_id):
            sentence = f"the address '{text}' is given twice in this app; give each instance its own id"
            yield document.fault(path, sentence)


def _regions(document: Document) -> Iterator[Fault]:
    own = list(_texts(document, "regions", "*", "key"))
    yield from _unique(document, own, "the region '{}'")
    for path, text in own:
        if text in shipped_keys():
            yield document.fault(path, f"the region '{text}' is known already, with its position")
        if text in ALIASES:
            yield document.fault(path, f"'{text}' is what Fly calls a group of regions")
    known = sorted({LOCAL, *shipped_keys(), *(text for _, text in own)})
    patterns = (("edge", "region"), ("listeners", "*", "region"), ("apps", "*", "instances", "*", "region"))
    for pattern in patterns:
        for path, text in _texts(document, *pattern):
            if text not in known:
                yield document.fault(path, f"unknown region {got(text)}{_region_hint(text, known)}")


def _region_hint(text: str, known: list[str]) -> str:
    if text.lower() in known:
        return f"; did you mean '{text.lower()}'?"
    return did_you_mean(text.lower(), known) or "; add it to 'regions' with its position"


def _doors(document: Document) -> Iterator[Fault]:
    if _at(document.tree, ("listeners",)) == [] and ("listeners",) in document.values:  # a fly.toml may ask for none
        yield document.fault(("listeners",), "at least one is wanted; leave the key out for 0.0.0.0:8080")
    for path, listener in _select(document.tree, ("listeners", "*")):
        if not isinstance(listener, dict):
            continue
        handlers, app = listener.get("handlers", ["http"]), listener.get("app")
        if handlers in ([], ["proxy_proto"]) and app is None:
            sentence = f"a raw TCP door (handlers: [{', '.join(handlers)}]) needs the app behind it: app: NAME"
            yield document.fault((*path, "handlers"), sentence)
        if isinstance(handlers, list):
            yield from _handlers(document, (*path, "handlers"), handlers)
        if isinstance(handlers, list) and "http" in handlers:
            if app is not None:
                sentence = "an http door finds its app by hostname; 'app' belongs to raw TCP (handlers: [])"
                yield document.fault((*path, "app"), sentence)
            if listener.get("instance_port") is not None:
                sentence = "an http door leads to the instances' own ports; 'instance_port' belongs to raw TCP"
                yield document.fault((*path, "instance_port"), sentence)
            if listener.get("send_proxy") is not None:
                sentence = "an http door leads to many apps; 'send_proxy' belongs to each of them, or to raw TCP"
                yield document.fault((*path, "send_proxy"), sentence)


def _handlers(document: Document, path: Path, handlers: list[object]) -> Iterator[Fault]:
    for word in BUILT_HANDLERS:
        if handlers.count(word) > 1:
            last = len(handlers) - 1 - handlers[::-1].index(word)
            yield document.fault((*path, last), f"the handler '{word}' is given twice")
    if handlers == ["http", "proxy_proto"]:
        yield document.fault((*path, 1), "a PROXY header comes before everything else: write [proxy_proto, http]")


def _trusted_proxies(document: Document) -> Iterator[Fault]:
    networks = _at(document.tree, ("trusted_proxies",))
    wanted = [
        path for path, word in _select(document.tree, ("listeners", "*", "handlers", "*")) if word == "proxy_proto"
    ]
    if not networks and wanted:
        sentence = (
            "nobody's PROXY header could be believed: trusted_proxies is empty. List the networks of the proxies in "
            "front of this door there; to send the header to an app, it is send_proxy"
        )
        yield document.fault(wanted[0], sentence)
    if isinstance(networks, list) and networks and not wanted:
        sentence = (
            "not built yet: believing the X-Forwarded-* headers of other proxies; their PROXY headers are, at a door "
            "with handlers: [proxy_proto, http]"
        )
        yield document.fault(("trusted_proxies",), sentence)
    if isinstance(networks, list) and len(networks) > NETWORKS_MAX:
        yield document.fault(("trusted_proxies",), f"at most {NETWORKS_MAX} networks, got {len(networks)}")
    yield from _unique(document, _texts(document, "trusted_proxies", "*"), "the network '{}'")


def _binds(document: Document) -> Iterator[Fault]:
    seen: dict[Address, Path] = {}
    for path, address in _addresses(document, "listeners", "*", "bind"):
        if address.port and address in seen:
            yield document.fault(path, f"'{address}' is bound twice; first by {written_path(seen[address])}")
        seen.setdefault(address, path)
    for path, address in _addresses(document, "telemetry", "bind"):
        for door, door_path in seen.items():
            if address.port and address.port == door.port and _overlap(address.host, door.host):
                yield document.fault(path, f"'{address}' is taken by {written_path(door_path)}, which binds '{door}'")
    if not list(_texts(document, "telemetry", "bind")):
        for door, path in seen.items():
            if door.port == 9290 and _overlap("127.0.0.1", door.host):
                sentence = f"'{door}' is taken by telemetry.bind, which is {DEFAULT_TELEMETRY_BIND} when not given"
                yield document.fault(path, sentence)


def _overlap(one: str, other: str) -> bool:
    return one == other or bool({one, other} & {"0.0.0.0", "::"})


def _limits(document: Document) -> Iterator[Fault]:
    head, line = _at(document.tree, ("limits", "head_bytes")), _at(document.tree, ("limits", "line_bytes"))
    try:
        head_bytes, line_bytes = parse_size(head or "32KiB"), parse_size(line or "8KiB")
    except BadQuantityError:
        return
    if line_bytes > head_bytes:
        path = ("limits", "line_bytes" if line else "head_bytes")
        yield document.fault(path, f"line_bytes ({line or '8KiB'}) is larger than head_bytes ({head or '32KiB'})")


def _own_doors(document: Document) -> Iterator[Fault]:
    """An instance of this machine on the very port of a door: the front door would call itself."""
    doors = list(_addresses(document, "listeners", "*", "bind"))
    if not list(_select(document.tree, ("listeners",))):
        doors = [((), parse_address(DEFAULT_BIND))]
    for path, address in _addresses(document, "apps", "*", "instances", "*", "address"):
        for door_path, door in doors:
            host = "127.0.0.1" if address.host == "localhost" else address.host
            if address.port == door.port and _is_loopback(host) and _overlap(host, door.host):
                which = f"{written_path(door_path)}, which binds" if door_path else "the default door,"
                yield document.fault(
                    path, f"'{address}' is taken by {which} '{door}': it would call itself; give the door another port"
                )
                break


def _is_loopback(host: str) -> bool:
    return host == "::1" or host.startswith("127.")


def _processes(document: Document) -> Iterator[Fault]:
    for path, app in _select(document.tree, ("apps", "*")):
        instances = app.get("instances") if isinstance(app, dict) else None
        if not instances or not isinstance(app, dict) or not isinstance(instances, list):
            continue
        known = {as_text(item.get("process", "app")) for item in instances if isinstance(item, dict)}
        words = sorted(word for word in known if word is not None)
        for inner, text in _metrics_processes(app):
            if text not in known:
                sentence = f"no instance of this app is of the process group {got(text)}{one_of_these(text, words)}"
                yield document.fault((*path, *inner), sentence)


def _metrics_processes(app: dict[str, object]) -> Iterator[tuple[Path, str]]:
    one = isinstance(app.get("metrics"), dict)
    pattern = ("metrics", "processes", "*") if one else ("metrics", "*", "processes", "*")
    for path, value in _select(app, pattern):
        text = as_text(value)
        if text is not None:
            yield path, text


def _concurrency(document: Document) -> Iterator[Fault]:
    for path, limits in _select(document.tree, ("apps", "*", "concurrency")):
        if not isinstance(limits, dict):
            continue
        soft, hard = limits.get("soft_limit"), limits.get("hard_limit")
        if isinstance(soft, int) and isinstance(hard, int) and soft > hard:
            yield document.fault((*path, "soft_limit"), f"soft_limit ({soft}) is larger than hard_limit ({hard})")


CHECKS: tuple[Check, ...] = (
    _organizations,
    _app_names,
    _hostnames,
    _instances,
    _regions,
    _doors,
    _trusted_proxies,
    _binds,
    _own_doors,
    _processes,
    _concurrency,
    _limits,
)


def warn_document(document: Document) -> None:
    """What is accepted as written, and not done yet."""
    for path, limits in _select(document.tree, ("apps", "*", "concurrency")):
        written = limits if isinstance(limits, dict) else {}
        for key in ("soft_limit", "hard_limit"):
            if (*path, key) in document.values and written.get(key) is not None:
                document.warn((*path, key), LIMITS_SENTENCE, at_key=False)
                break
    for path, app in _select(document.tree, ("apps", "*")):
        if isinstance(app, dict) and app.get("send_proxy") in ("v1", "v2"):
            for inner, port in _metrics_ports(app):
                if port is None or port in _ports(app):
                    sentence = (
                        "a scrape sends no PROXY header, and this port waits for one (send_proxy); give the metrics a "
                        "port of their own"
                    )
                    document.warn((*path, *inner), sentence)


def _metrics_ports(app: dict[str, object]) -> Iterator[tuple[Path, object]]:
    pattern = ("metrics",) if isinstance(app.get("metrics"), dict) else ("metrics", "*")
    for path, endpoint in _select(app, pattern):
        if isinstance(endpoint, dict):
            yield path, endpoint.get("port")


def _ports(app: dict[str, object]) -> set[int]:
    texts = (as_text(value) for _, value in _select(app, ("instances", "*", "address")))
    return {parse_address(text).port for text in texts if text is not None}  # all are good by now


def _unique(document: Document, texts: Iterable[tuple[Path, str]], what: str) -> Iterator[Fault]:
    first: dict[str, Path] = {}
    for path, text in texts:
        if text in first:
            yield document.fault(path, f"{what.format(text)} is given twice; first at {written_path(first[text])}")
        first.setdefault(text, path)


def _addresses(document: Document, *pattern: str) -> Iterator[tuple[Path, Address]]:
    for path, text in _texts(document, *pattern):
        try:
            yield path, parse_address(text, port_zero=True)
        except BadNameError:
            continue


def _texts(document: Document, *pattern: str) -> Iterator[tuple[Path, str]]:
    for path, value in _select(document.tree, pattern):
        text = as_text(value)
        if text is not None:
            yield path, text


def _select(tree: object, pattern: tuple[str, ...], path: Path = ()) -> Iterator[tuple[Path, object]]:
    """Every value a pattern finds: `("apps", "*", "name")`."""
    if not pattern:
        yield path, tree
    elif pattern[0] == "*":
        if isinstance(tree, list):
            for index, item in enumerate(tree):
                yield from _select(item, pattern[1:], (*path, index))
    elif isinstance(tree, dict) and pattern[0] in tree:
        yield from _select(tree[pattern[0]], pattern[1:], (*path, pattern[0]))


def _at(tree: object, path: tuple[str, ...]) -> object:
    return next((value for _, value in _select(tree, path)), None)
