"""The grammar of single pieces: the request line, the status line, a header line, a host.

Quantifiers over a set of characters are possessive (`[..]++`), and what may follow a set is never in it, so no input
makes a pattern go back and try again: time is linear. Quantifiers over a group are plain `(?:..)*`: possessive ones are
broken in Python 3.11.0 to 3.11.4 (Debian 12 has 3.11.2), which then take half a group as matched (cpython#106052).

Targets. RFC 9112 allows only RFC 3986 characters; real clients send more, and refusing `|` or `{` only breaks pages.
Nothing of what we add can end a line or a word: visible ASCII, but
  never `#` (a fragment is never sent), nothing above 0x7e, no space, no control;
  `<`, `>` and backslash in the query only: no browser sends them in a path, and some apps read backslash as a slash;
  in a path every `%` begins an octet (RFC 3986 2.1), or apps would differ in what it names; queries hold `100%`.

A version HTTP/1.2 or above is read as 1.1 (RFC 9110 2.5); what goes on says 1.1.
"""

import ipaddress
import re
from dataclasses import dataclass

from flyproxy.http1.faults import HttpFault

TCHAR = rb"!#$%&'*+\-.^_`|~0-9A-Za-z"
_PATH = rb"[!\"$&-;=@-\[\]-~]*+(?:%[0-9A-Fa-f]{2}[!\"$&-;=@-\[\]-~]*+)*"
_QUERY = rb"[!\"$-~]"
_VALUE = rb"[\t\x20-\x7e\x80-\xff]"

TOKEN = re.compile(rb"[" + TCHAR + rb"]++")
PATH_BYTES = bytes(byte for byte in range(256) if re.fullmatch(_PATH, bytes((byte,))))
QUERY_BYTES = bytes(byte for byte in range(256) if re.fullmatch(_QUERY, bytes((byte,))))
"""Every byte a target's path, but for the % of an octet, and its query may hold."""
VALUE_BYTES = bytes(byte for byte in range(256) if re.fullmatch(_VALUE, bytes((byte,))))
"""Every byte a header's value may hold, white space around it included."""
HEADER_LINE = re.compile(rb"([" + TCHAR + rb"]++):[ \t]*+(" + _VALUE + rb"*+)")
HEADER_LINE_IN_HEAD = re.compile(HEADER_LINE.pattern + rb"\r\n")
ORIGIN_LINE = re.compile(
    rb"([" + TCHAR + rb"]++) (/" + _PATH + rb"(?:\?" + _QUERY + rb"*+)?) HTTP/1\.([01])",
)
STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([1-5][0-9][0-9])(?: (" + _VALUE + rb"*+))?")
CONTENT_LENGTH = re.compile(rb"[0-9]{1,18}+")

_REQUEST_LINE = re.compile(rb"([^ ]++) ([^ ]++) HTTP/([0-9])\.([0-9])")
_ORIGIN = re.compile(rb"/" + _PATH + rb"(?:\?" + _QUERY + rb"*+)?")
_ABSOLUTE = re.compile(rb"(https?)://([^/?]*+)((?:/" + _PATH + rb")?(?:\?" + _QUERY + rb"*+)?)", re.IGNORECASE)
_HOST = re.compile(
    rb"([0-9A-Za-z_-]{1,63}+(?:\.[0-9A-Za-z_-]{1,63}+)*\.?+|\[[0-9A-Fa-f:.]{2,45}+\])(?::([0-9]{0,5}+))?"
)
_HOST_BYTES_MAX = 255
_PORT_MAX = 65535

# CGI and WSGI turn every `-` of a name into `_`, some every odd character: an app would read X_Forwarded_For, or
# X.Forwarded.For, as the X-Forwarded-For we vouch for. This maps lower-case names to what apps may take them for.
AS_APPS_READ = bytes(c if chr(c).isalnum() and c < 128 else ord("-") for c in range(256))

EVERYDAY_METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"))
_REFUSED_METHODS = frozenset((b"CONNECT", b"TRACE"))


def check_method(method: bytes) -> None:
    """Refuse (501) what a front door does not do: tunnels and echoes; other extension methods pass."""
    if method.upper() in _REFUSED_METHODS:
        raise HttpFault(501, "the method is not supported here")


@dataclass(frozen=True, slots=True)
class Authority:
    """The host an absolute-form target names."""

    sent: bytes
    host: bytes
    port: bytes
    """Its own, else its scheme's default."""
    default_port: bytes


def unusual_request_line(line: bytes) -> tuple[bytes, bytes, int, Authority | None]:
    """Read a request line that is not plain origin-form: method, target, minor, the authority of an absolute-form.

    Raises 400, 501 or 505.
    """
    parts = _REQUEST_LINE.fullmatch(line)
    if parts is None:
        raise HttpFault(400, "the request line is not `METHOD target HTTP/1.1`")
    method, target, major, minor = parts.groups()
    if TOKEN.fullmatch(method) is None:
        raise HttpFault(400, "the method holds a character no method may hold")
    if major != b"1":
        raise HttpFault(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
    spoken = 0 if minor == b"0" else 1
    check_method(method)
    if target == b"*":
        if method != b"OPTIONS":
            raise HttpFault(400, "only OPTIONS may ask for `*`")
        return method, target, spoken, None
    if _ORIGIN.fullmatch(target) is not None:
        return method, target, spoken, None
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise HttpFault(400, "the request target is neither a path nor an http:// or https:// URL")
    scheme, sent, path = absolute.groups()
    host, port = host_and_port(sent)
    default_port = b"443" if scheme.lower() == b"https" else b"80"
    if not path:
        path = b"*" if method == b"OPTIONS" else b"/"
    elif path.startswith(b"?"):
        path = b"/" + path
    return method, path, spoken, Authority(sent.removesuffix(b":"), host, port or default_port, default_port)


def host_and_port(value: bytes) -> tuple[bytes, bytes]:
    """A Host value's name in lower case without its final dot, and its port (b"" without one). Raises 400.

    Names are dotted labels of letters, digits, `-` and `_`: narrower than RFC 3986's reg-name, which also allows
    `%00`, `,` or `'`. No user part, no empty label. An empty port is none (RFC 9110 4.2.1).
    """
    parts = _HOST.fullmatch(value)
    if parts is None or len(value) > _HOST_BYTES_MAX:
        raise HttpFault(400, "the host is not a name or an address with an optional port")
    host, port = parts[1].lower(), parts[2] or b""
    if port and int(port) > _PORT_MAX:
        raise HttpFault(400, "the host's port is beyond 65535")
    if host.startswith(b"["):
        try:
            ipaddress.IPv6Address(host[1:-1].decode("ascii"))
        except ValueError:
            raise HttpFault(400, "the host is not a valid IPv6 address") from None
        return host, port
    return host.removesuffix(b"."), port


def header_line_fault(line: bytes) -> HttpFault:
    """Why a line that is no header line is none (400), in the reader's words."""
    name, colon, _ = line.partition(b":")
    if line.startswith((b" ", b"\t")):
        reason = "a header line begins with white space: folded headers are not accepted"
    elif b"\n" in line:
        reason = "a line ends in LF without CR"
    elif b"\r" in line:
        reason = "a CR stands without its LF"
    elif not colon:
        reason = "a header line has no colon"
    elif not name:
        reason = "a header has no name"
    elif name != name.rstrip(b" \t"):
        reason = "white space stands between a header's name and its colon"
    elif TOKEN.fullmatch(name) is None:
        reason = "a header's name holds a character no name may hold"
    else:
        reason = "a header's value holds a control character"
    return HttpFault(400, reason)
