"""The PROXY protocol, versions 1 and 2: a header in which one proxy tells the next whose connection it carries (pure).

haproxy.org/download/3.0/doc/proxy-protocol.txt, sections 2.1 (text) and 2.2 (binary). A header is believed before
anything else is known of a connection, so reading is total and strict: the same verdict wherever the bytes are split,
a refusal at the first byte that fits neither version, no address but one written as the standard writes it.

What the standard leaves to the receiver: LOCAL, UNKNOWN, AF_UNSPEC and AF_UNIX name nobody, so the peer speaks for
itself (the balancer's own health checks; a client on the balancer's own machine); datagrams cannot have come over this
connection and are refused; the fields of version 2 (TLVs) are walked, since a length that does not fit shows a damaged
header, and skipped, but for the checksum, which must be right where it is given. Worst case: the checksum of
HEADER_BYTES_MAX bytes, once a connection, about half a millisecond.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from struct import Struct

HEADER_BYTES_MAX = 4096
"""Of version 2, fields included. A sender keeps to some 536 bytes, but a client's certificate may be among them."""
TEXT_BYTES_MAX = 107
"""Of version 1, its line end included."""

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_TEXT = b"PROXY "
_HEAD = Struct("!12sBBH")
_INET = Struct("!4s4sHH")
_INET6 = Struct("!16s16sHH")
_UNIX_BYTES = 216
_LOCAL, _PROXY = 0x20, 0x21
_UNSPECIFIED, _TCP4, _TCP6, _UNIX_STREAM = 0x00, 0x11, 0x21, 0x31
_DATAGRAMS = (0x12, 0x22, 0x32)
_CRC32C = 0x03

_PORT = re.compile(rb"0|[1-9][0-9]{0,4}")
_IPV4 = re.compile(rb"(?:(?:0|[1-9][0-9]{0,2})(?:\.|\Z)){4}(?<=[0-9])")
_IPV6 = re.compile(rb"[0-9A-Fa-f:.]{2,45}")


class ProxyHeaderError(Exception):
    """What came is no PROXY header; str() says why."""


class ProxyHeaderTooLongError(ProxyHeaderError):
    """It is longer than it may be."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Both ends of a client's connection; IPv4 where the address is one, also one written inside IPv6."""

    source: str
    source_port: int
    destination: str
    destination_port: int


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """One header."""

    size: int
    """Its bytes; what follows is the client's."""
    addresses: Addresses | None
    """None: the peer speaks for itself."""


def decode(data: bytes | bytearray) -> ProxyHeader | None:
    """The header these bytes begin with; None: it is not whole yet, and all of them belong to it. ProxyHeaderError."""
    beginning = bytes(data[:12])
    if beginning[:1] == b"P":
        return _decode_text(bytes(data[:TEXT_BYTES_MAX]))
    if not _SIGNATURE.startswith(beginning):
        raise ProxyHeaderError("The connection does not begin with a PROXY header.")
    return _decode_binary(data)


def encode(version: int, addresses: Addresses | None) -> bytes:
    """The header in version 1 or 2; `addresses` None: whose connection it is cannot be said."""
    if version == 1:
        return _encode_text(addresses)
    return _encode_binary(addresses)


def addresses_of(peer: tuple[str, int], own: tuple[str, int]) -> Addresses:
    """Both ends of a socket, as `getpeername` and `getsockname` give them (the first two of their fields)."""
    return Addresses(_plain(_read_address(peer[0])), peer[1], _plain(_read_address(own[0])), own[1])


def _plain(address: IPv4Address | IPv6Address) -> str:
    """As everybody writes it; a client of a socket for both families comes as ::ffff:192.0.2.1."""
    inner = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(inner or address)


def _read_address(text: str) -> IPv4Address | IPv6Address:
    return ip_address(text.partition("%")[0])  # fe80::1%eth0 is known by that name on this machine only


# version 1: PROXY TCP4 192.0.2.1 198.51.100.1 56324 443


def _decode_text(data: bytes) -> ProxyHeader | None:
    if not data.startswith(_TEXT[: len(data)]):
        raise ProxyHeaderError("The connection does not begin with a PROXY header.")
    end = data.find(b"\n")
    if end < 0:
        if len(data) == TEXT_BYTES_MAX:
            raise ProxyHeaderTooLongError(f"A PROXY header of version 1 has at most {TEXT_BYTES_MAX} bytes.")
        if b"\r" in data[:-1]:
            raise ProxyHeaderError("A bare CR in a PROXY header.")
        return None
    line = data[: end - 1]
    if data[end - 1 : end] != b"\r" or b"\r" in line:
        raise ProxyHeaderError("A PROXY header of version 1 ends with CR LF, and has neither before.")
    return ProxyHeader(end + 1, _decode_line(line[len(_TEXT) :]))


def _decode_line(rest: bytes) -> Addresses | None:
    protocol, _, ends = rest.partition(b" ")
    if protocol == b"UNKNOWN":
        return None  # whatever follows is to be ignored
    if protocol not in (b"TCP4", b"TCP6"):
        raise ProxyHeaderError("A PROXY header of version 1 is for TCP4, TCP6 or UNKNOWN.")
    words = ends.split(b" ")
    if len(words) != 4:
        raise ProxyHeaderError("A PROXY header has two addresses and two ports, one space between.")
    source, destination = (_decode_address(protocol, word) for word in words[:2])
    source_port, destination_port = map(_decode_port, words[2:])
    return Addresses(source, source_port, destination, destination_port)


def _decode_address(protocol: bytes, word: bytes) -> str:
    grammar, kind = (_IPV4, IPv4Address) if protocol == b"TCP4" else (_IPV6, IPv6Address)
    if grammar.fullmatch(word) is not None:
        try:
            return _plain(kind(word.decode()))
        except ValueError:
            pass
    raise ProxyHeaderError(f"A PROXY header of {protocol.decode()} has an address that is none.")


def _decode_port(word: bytes) -> int:
    if _PORT.fullmatch(word) is None or int(word) > 65535:
        raise ProxyHeaderError("A PROXY header has a port that is none.")
    return int(word)


def _encode_text(addresses: Addresses | None) -> bytes:
    if addresses is None:
        return b"PROXY UNKNOWN\r\n"
    protocol, source, destination = "TCP4", addresses.source, addresses.destination
    if ":" in source or ":" in destination:
        protocol, source, destination = "TCP6", _within_ipv6(source), _within_ipv6(destination)
    words = "PROXY", protocol, source, destination, str(addresses.source_port), str(addresses.destination_port)
    return " ".join(words).encode() + b"\r\n"


def _within_ipv6(text: str) -> str:
    return text if ":" in text else f"::ffff:{text}"


# version 2: 12 bytes of signature, version and command, family and transport, length, addresses, fields


def _decode_binary(data: bytes | bytearray) -> ProxyHeader | None:
    if len(data) < _HEAD.size:
        if len(data) > 12:
            _check_command(data[12])
        return None
    _, command, family, length = _HEAD.unpack_from(data)
    _check_command(command)
    size = _HEAD.size + length
    if size > HEADER_BYTES_MAX:
        raise ProxyHeaderTooLongError(f"At most {HEADER_BYTES_MAX} bytes of a PROXY header are taken.")
    if command == _LOCAL:
        return ProxyHeader(size, None) if len(data) >= size else None  # everything in it is to be ignored
    addresses_bytes = _addresses_bytes(family)
    if length < addresses_bytes:
        raise ProxyHeaderError("A PROXY header of version 2 is too short for its addresses.")
    if len(data) < size:
        return None
    if family == _UNSPECIFIED:
        return ProxyHeader(size, None)
    whole = bytes(data[:size])
    _check_fields(whole, _HEAD.size + addresses_bytes)
    return ProxyHeader(size, _unpacked(family, whole))


def _check_command(command: int) -> None:
    if command not in (_LOCAL, _PROXY):
        raise ProxyHeaderError("A PROXY header with an unknown version or command.")


def _addresses_bytes(family: int) -> int:
    if family in _DATAGRAMS:
        raise ProxyHeaderError("A PROXY header of a datagram on a stream.")
    sizes = {_UNSPECIFIED: 0, _TCP4: _INET.size, _TCP6: _INET6.size, _UNIX_STREAM: _UNIX_BYTES}
    if family not in sizes:
        raise ProxyHeaderError("A PROXY header with an unknown address family.")
    return sizes[family]


def _unpacked(family: int, header: bytes) -> Addresses | None:
    if family == _UNIX_STREAM:
        return None
    layout, kind = (_INET, IPv4Address) if family == _TCP4 else (_INET6, IPv6Address)
    source, destination, source_port, destination_port = layout.unpack_from(header, _HEAD.size)
    return Addresses(_plain(kind(source)), source_port, _plain(kind(destination)), destination_port)


def _check_fields(header: bytes, at: int) -> None:
    """The fields fill what is left of the header exactly; a checksum among them is right, and given once."""
    checked = False
    while at < len(header):
        value = at + 3
        end = value + int.from_bytes(header[at + 1 : value], "big")
        if end > len(header) or value > len(header):
            raise ProxyHeaderError("A field of a PROXY header is longer than the header.")
        if header[at] == _CRC32C:
            if checked or end - value != 4:
                raise ProxyHeaderError("A PROXY header's checksum has four bytes, and is given once.")
            checked = True
            told = int.from_bytes(header[value:end], "big")
            if told != crc32c(header[:value] + bytes(4) + header[end:]):
                raise ProxyHeaderError("A PROXY header's checksum is wrong.")
        at = end


def _encode_binary(addresses: Addresses | None) -> bytes:
    if addresses is None:
        return _HEAD.pack(_SIGNATURE, _PROXY, _UNSPECIFIED, 0)
    ports = addresses.source_port, addresses.destination_port
    if ":" in addresses.source or ":" in addresses.destination:
        ends = [IPv6Address(_within_ipv6(text)).packed for text in (addresses.source, addresses.destination)]
        return _HEAD.pack(_SIGNATURE, _PROXY, _TCP6, _INET6.size) + _INET6.pack(*ends, *ports)
    ends = [IPv4Address(text).packed for text in (addresses.source, addresses.destination)]
    return _HEAD.pack(_SIGNATURE, _PROXY, _TCP4, _INET.size) + _INET.pack(*ends, *ports)


# RFC 9260, appendix A: the polynomial 0x1EDC6F41, bits reversed


def _table_entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC_TABLE = tuple(map(_table_entry, range(256)))


def crc32c(data: bytes) -> int:
    """The checksum of the PROXY protocol's field of that name."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
