"""The grammar of names in the configuration: addresses, hostnames, slugs, ids. Pure; each refusal is a sentence."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from flyproxy.config.scalars import got
from flyproxy.errors import FlyproxyError

_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_PORT = re.compile(r"[0-9]{1,5}")
_NUMBERS_AND_DOTS = re.compile(r"[0-9.]+")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)

_IPV4_WITHIN_IPV6 = ipaddress.IPv6Network("::ffff:0:0/96")

HOSTNAME_CHARACTERS_MAX = 253
PROCESS_GROUP_CHARACTERS_MAX = 63

RESERVED_SLUGS = {
    "_operator": "the operator's own organization, which always exists",
    "_unmatched": "what counts requests for unknown hosts",
}


class BadNameError(FlyproxyError):
    """A name that breaks its grammar; str() is the sentence."""


@dataclass(frozen=True, slots=True)
class Address:
    """HOST:PORT, taken apart; the host may still be a name."""

    host: str
    port: int

    @property
    def is_ip(self) -> bool:
        """Is the host an IP address, so that nothing has to be looked up?"""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, *, port_zero: bool = False) -> Address:
    """`127.0.0.1:8080`, `[::1]:8080` or `localhost:8080`; `port_zero`: 0 asks the system for a free port."""
    scheme = _SCHEME.match(text)
    if scheme:
        rest = text[scheme.end() :].split("/")[0]
        raise BadNameError(f"an address has no '{scheme[0]}'; write '{rest}'")
    if "/" in text:
        raise BadNameError(f"{got(text)} is no address; wanted HOST:PORT, e.g. 127.0.0.1:8080")
    if text.isascii() and text.isdigit():
        raise BadNameError(f"{got(text)} has no host; wanted HOST:PORT, e.g. 127.0.0.1:{text}")
    host, port_text = _split(text)
    if not _PORT.fullmatch(port_text):
        raise BadNameError(f"the port {got(port_text)} is no number; wanted HOST:PORT, e.g. 127.0.0.1:8080")
    port = int(port_text)
    if port > 65535 or (port == 0 and not port_zero):
        raise BadNameError(f"the port {port} is out of range; wanted {0 if port_zero else 1} to 65535")
    return Address(_checked_host(host, text, port), port)


def with_port(text: str, port: int) -> str:
    """An address as it is, or with a port where it has none: `10.0.0.5`, `::1`, `[::1]`, `db.internal`."""
    for candidate in (text, f"{text}:{port}", f"[{text}]:{port}"):
        try:
            parse_address(candidate)
        except BadNameError:
            continue
        return candidate
    return text


def parse_metrics_path(text: str) -> str:
    """What a metrics endpoint is asked for."""
    if not text.startswith("/") or not text.isprintable() or " " in text or not text.isascii():
        raise BadNameError(f"{got(text)} is no path; wanted one that begins with '/', e.g. /metrics")
    return text


def parse_process_group(text: str) -> str:
    """A process group's name, as a fly.toml has it."""
    if not 0 < len(text) <= PROCESS_GROUP_CHARACTERS_MAX or not text.isprintable() or " " in text:
        raise BadNameError(f"{got(text)} is no process group; wanted a word such as web")
    return text


def parse_network(text: str) -> str:
    """A network of addresses, CIDR; an address alone is a network of one."""
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise BadNameError(f"{got(text)} is no network; wanted one such as 10.0.0.0/8, 192.0.2.7 or fd00::/8") from None
    if "%" in text:
        raise BadNameError(f"{got(text)}: a network is the same on all interfaces; leave out '%' and what follows")
    if "/" in text and ipaddress.ip_address(text.partition("/")[0]) != network.network_address:
        raise BadNameError(f"{got(text)} has bits beyond its prefix; did you mean '{network}'?")
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_IPV4_WITHIN_IPV6):
        mapped = ipaddress.ip_network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
        raise BadNameError(f"{got(text)} is a network of IPv4 within IPv6; write '{mapped}'")
    return str(network)


def parse_hostname(text: str) -> str:
    """A hostname to route by, lower case: exact or `*.suffix`."""
    name = text.lower()
    if not name:
        raise BadNameError("an empty hostname")
    if _SCHEME.match(name):
        raise BadNameError(f"a hostname has no '{name.split('//')[0]}//'; write only the name")
    if name == "*":
        raise BadNameError("'*' alone is no hostname; a wildcard is '*.example.com'")
    if "/" in name:
        raise BadNameError(f"{got(text)} is no hostname: apps are found by host, not by path")
    if not name.isascii():
        raise BadNameError(f"{got(text)} is not ASCII{_in_ascii(name)}")
    if ":" in name and not name.startswith("["):
        raise BadNameError(f"a hostname has no port; write '{name.split(':')[0]}'")
    if name.startswith("["):
        return _bracketed(name)
    suffix = name[2:] if name.startswith("*.") else name
    if "*" in suffix:
        raise BadNameError(f"{got(text)}: a wildcard is one whole first label, as in '*.example.com'")
    if name.endswith("."):
        raise BadNameError(f"{got(text)}: leave out the last dot")
    if len(name) > HOSTNAME_CHARACTERS_MAX:
        raise BadNameError(f"a hostname has at most {HOSTNAME_CHARACTERS_MAX} characters, this one {len(name)}")
    for label in suffix.split("."):
        if not _LABEL.fullmatch(label):
            raise BadNameError(
                f"{got(text)} is no hostname: the part {got(label)} must be 1 to 63 letters, digits and inner hyphens"
            )
    if _NUMBERS_AND_DOTS.fullmatch(suffix) and not Address(name, 1).is_ip:
        raise BadNameError(f"{got(text)} is neither a hostname nor an IP address")
    return name


def parse_slug(text: str, what: str) -> str:
    """The name of an app, an organization or a region: lower-case letters, digits and inner hyphens."""
    if text in RESERVED_SLUGS:
        raise BadNameError(f"{got(text)} is reserved: {RESERVED_SLUGS[text]}")
    if not _SLUG.fullmatch(text):
        raise BadNameError(f"{got(text)} is no {what}: wanted 1 to 63 of a-z, 0-9 and inner hyphens")
    return text


def parse_hex(text: str, digits: int, what: str) -> str:
    """So many hex digits, lower case."""
    if not re.fullmatch(f"[0-9a-fA-F]{{{digits}}}", text):
        raise BadNameError(f"{got(text)} is no {what}: wanted {digits} hex digits")
    return text.lower()


def _split(text: str) -> tuple[str, str]:
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or not rest.startswith(":"):
            raise BadNameError(f"{got(text)} has no port; wanted [IPv6]:PORT, e.g. [::1]:8080")
        return host, rest[1:]
    if text.count(":") > 1:
        raise BadNameError(f"{got(text)}: an IPv6 address stands in brackets, e.g. [::1]:8080")
    host, colon, port = text.partition(":")
    if not colon or not port:
        raise BadNameError(f"{got(text)} has no port; wanted HOST:PORT, e.g. {host or '127.0.0.1'}:8080")
    return host, port


def _checked_host(host: str, text: str, port: int) -> str:
    if not host:
        raise BadNameError(
            f"{got(text)} has no host; write 127.0.0.1:{port} (this machine) or 0.0.0.0:{port} (all networks)"
        )
    if host == "*":
        raise BadNameError(f"'*' is no host; write 0.0.0.0:{port}")
    if ":" in host or text.startswith("["):
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError:
            raise BadNameError(f"{got(host)} is no IPv6 address") from None
    if _NUMBERS_AND_DOTS.fullmatch(host):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise BadNameError(f"{got(host)} is neither a name nor an IPv4 address") from None
    lowered = host.lower().removesuffix(".")
    if len(lowered) > HOSTNAME_CHARACTERS_MAX or not all(_LABEL.fullmatch(label) for label in lowered.split(".")):
        raise BadNameError(f"{got(host)} is neither a name nor an IP address")
    return lowered


def _bracketed(name: str) -> str:
    inner, closed, rest = name[1:].partition("]")
    if not closed or rest:
        raise BadNameError(f"{got(name)}: an IPv6 hostname is written '[::1]', without a port")
    try:
        return f"[{ipaddress.IPv6Address(inner)}]"
    except ValueError:
        raise BadNameError(f"{got(inner)} is no IPv6 address") from None


def _in_ascii(name: str) -> str:
    try:
        return f"; write '{name.encode('idna').decode('ascii')}'"
    except UnicodeError:
        return "; write its xn-- form"
