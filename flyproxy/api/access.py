"""Who is asking: the token of a request, and whether it really comes from this machine."""

import asyncio
import base64
import binascii
import ipaddress
import re

from aiohttp import web

from flyproxy.api.faults import ApiFault
from flyproxy.api.tokens import Grant, Scope, TokenFile, TokenFileError

HOW = "send `Authorization: Bearer TOKEN`; `flyproxy auth token` prints one"
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="flyproxy", Basic realm="flyproxy"'}

_FORWARDING = frozenset(
    {"forwarded", "via", "cdn-loop", "true-client-ip", "x-client-ip", "x-cluster-client-ip", "x-proxyuser-ip"}
)
_FORWARDING_PREFIXES = ("x-forwarded", "x-original-", "x-real-", "x-envoy-", "fly-", "cf-", "fastly-")
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9A-Za-z.-]+))(?::[0-9]{1,5})?", re.ASCII)


def organization_grant(request: web.Request, tokens: TokenFile, organization: str) -> Grant:
    """The grant that lets this request read an organization; raises ApiFault 401 or 403. Whether the organization
    exists is not said to a token of another one."""
    grant = request_grant(request, tokens)
    if not grant.allows(organization, Scope.READ):
        raise ApiFault(403, "forbidden", "this token is for another organization than the one in the path")
    return grant


def operator_grant(request: web.Request, tokens: TokenFile) -> Grant:
    """The grant of an operator; raises ApiFault 401 or 403."""
    grant = request_grant(request, tokens)
    if grant.scope is not Scope.OPERATOR:
        raise ApiFault(403, "forbidden", "this needs an operator's token; `flyproxy auth token --operator` prints one")
    return grant


def request_grant(request: web.Request, tokens: TokenFile) -> Grant:
    """The grant of the request's token; raises ApiFault 401, which says what was wrong with it."""
    sent = request.headers.getall("Authorization", [])
    if not sent:
        raise _unauthorized(f"no token: {HOW}")
    if len(sent) > 1:
        raise _unauthorized("more than one Authorization header")
    token = _token_of(sent[0])
    try:
        grant = tokens.check(token)
    except TokenFileError:
        raise ApiFault(503, "unavailable", "the tokens cannot be read; the operator's log says why") from None
    if grant is None:
        raise _unauthorized("the token is not known here: it was revoked, has expired, or belongs to another proxy")
    return grant


def asks_from_here(request: web.Request) -> bool:
    """Whether a request comes from this machine itself: a loopback peer, nobody forwarded it, it was addressed to
    loopback (a foreign Host is a browser led here by DNS), and no other site's page sent it."""
    if request.transport is None or not comes_from_here(request.transport):
        return False
    names = [name.lower() for name in request.headers]
    if any(name in _FORWARDING or name.startswith(_FORWARDING_PREFIXES) for name in names):
        return False
    hosts = request.headers.getall("Host", [])
    if len(hosts) != 1 or not _names_loopback(hosts[0]):
        return False
    if not request.raw_path.startswith("/"):  # absolute-form: the host that counts is in there (RFC 9112 3.2.2)
        return False
    origins = request.headers.getall("Origin", [])
    if any(origin.partition("://")[2].lower() != hosts[0].lower() for origin in origins):
        return False
    return all(site in ("none", "same-origin") for site in request.headers.getall("Sec-Fetch-Site", []))


def comes_from_here(transport: asyncio.BaseTransport) -> bool:
    """Whether the connection's other end is a loopback address."""
    peer = transport.get_extra_info("peername")
    return isinstance(peer, tuple) and _is_loopback(str(peer[0]))


def _token_of(authorization: str) -> str:
    scheme, _, rest = authorization.strip().partition(" ")
    value = rest.strip()
    if scheme.lower() == "basic" and not value:
        raise _unauthorized(f"nothing follows Basic: {HOW}")
    match scheme.lower():
        case "bearer" | "flyv1":
            token = value
        case "basic":
            token = _password_of(value)
        case other if other.startswith("fp_"):
            raise _unauthorized(f"the scheme is missing before the token: {HOW}")
        case _:
            raise _unauthorized("the Authorization scheme is not one of Bearer, FlyV1 and Basic")
    if not token:
        raise _unauthorized(f"the token after {scheme} is empty: {HOW}")
    if any(character.isspace() for character in token):
        raise _unauthorized(f"what follows {scheme} is more than one word; a token has no spaces")
    return token


def _password_of(value: str) -> str:
    try:
        name_and_password = base64.b64decode(value, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        raise _unauthorized("what follows Basic is not base64 of name:password") from None
    _, colon, password = name_and_password.partition(":")
    if not colon:
        raise _unauthorized("what follows Basic holds no colon; the token goes where the password is, as any:TOKEN")
    return password


def _unauthorized(message: str) -> ApiFault:
    return ApiFault(401, "unauthorized", message, CHALLENGE)


def _names_loopback(host: str) -> bool:
    """`localhost` or a loopback address, with or without a port, and nothing else."""
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    name = found[1] or found[2]
    return name.lower() == "localhost" or _is_loopback(name)


def _is_loopback(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback
