"""The PROXY header: what is read, what is refused and why, wherever it is split; what is written is read again."""

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyproxy.edge.proxy_protocol import (
    HEADER_BYTES_MAX,
    Addresses,
    ProxyHeader,
    ProxyHeaderError,
    ProxyHeaderTooLongError,
    addresses_of,
    crc32c,
    decode,
    encode,
)

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V4 = b"\x7f\0\0\1\x7f\0\0\1\x30\x39\x01\xbb"
FOLDER = Path(__file__).parent / "proxy_headers"


def cases(name: str) -> list[tuple[str, bytes, str]]:
    """(as written, the bytes, what is said of them)."""
    found = []
    lines = [line for line in (FOLDER / name).read_text().splitlines() if line and not line.startswith("#")]
    for written, said in zip(lines[::2], lines[1::2], strict=True):
        assert said.startswith("-> "), said
        raw = written.encode().decode("unicode_escape").encode("latin-1")
        if raw.startswith(b"S"):
            raw = SIGNATURE + raw[1:].replace(b"||S", b"||" + SIGNATURE)
        found.append((written, raw, said.removeprefix("-> ")))
    return found


GOOD, BAD = cases("good.txt"), cases("bad.txt")


def test_there_are_cases() -> None:
    assert len(GOOD) > 15
    assert len(BAD) > 60
    assert len({raw for _, raw, _ in GOOD + BAD}) == len(GOOD) + len(BAD)


@pytest.mark.parametrize(("raw", "said"), [case[1:] for case in GOOD], ids=[case[0] for case in GOOD])
def test_a_header_is_read_and_what_follows_is_left(raw: bytes, said: str) -> None:
    header, _, rest = raw.partition(b"||")
    addresses = None
    if said != "the peer":
        source, source_port, destination, destination_port = said.split()
        addresses = Addresses(source, int(source_port), destination, int(destination_port))
    assert decode(header + rest) == decode(bytearray(header + rest)) == ProxyHeader(len(header), addresses)
    for size in range(len(header)):
        assert decode(header[:size]) is None, header[:size]


@pytest.mark.parametrize(("raw", "said"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_what_is_no_header_is_refused_with_its_sentence(raw: bytes, said: str) -> None:
    with pytest.raises(ProxyHeaderError) as caught:
        decode(raw)
    assert str(caught.value) == said
    assert isinstance(caught.value, ProxyHeaderTooLongError) == ("at most" in said.lower())
    assert refused_wherever_split(raw)


def refused_wherever_split(raw: bytes) -> bool:
    """No beginning is taken for a header, and what is refused once stays refused with more bytes."""
    refused = False
    for size in range(len(raw) + 1):
        try:
            assert decode(raw[:size]) is None
            assert not refused, raw[:size]
        except ProxyHeaderError:
            refused = True
    return refused


def test_a_unix_socket_is_the_peer_itself() -> None:
    header = SIGNATURE + b"\x21\x31\x00\xd8" + bytes(216)
    assert decode(header + b"GET") == ProxyHeader(len(header), None)


def test_the_longest_header_is_taken_and_one_byte_more_is_not() -> None:
    field = HEADER_BYTES_MAX - 16 - len(V4) - 3
    header = SIGNATURE + b"\x21\x11" + (len(V4) + 3 + field).to_bytes(2, "big") + V4
    header += b"\xe0" + field.to_bytes(2, "big") + bytes(field)
    assert len(header) == HEADER_BYTES_MAX
    assert decode(header) == ProxyHeader(HEADER_BYTES_MAX, Addresses("127.0.0.1", 12345, "127.0.0.1", 443))
    longer = SIGNATURE + b"\x21\x11" + (len(V4) + 4 + field).to_bytes(2, "big")
    with pytest.raises(ProxyHeaderTooLongError):
        decode(longer)


def with_fields(*fields: bytes) -> bytes:
    whole = V4 + b"".join(fields)
    return SIGNATURE + b"\x21\x11" + len(whole).to_bytes(2, "big") + whole


@pytest.mark.parametrize("before", [b"", b"\x04\0\2ab"])
@pytest.mark.parametrize("after", [b"", b"\x02\0\1h"])
def test_a_checksum_covers_the_whole_header_wherever_it_stands(before: bytes, after: bytes) -> None:
    blank = with_fields(before, b"\x03\0\4" + bytes(4), after)
    good = with_fields(before, b"\x03\0\4" + crc32c(blank).to_bytes(4, "big"), after)
    assert decode(good) == ProxyHeader(len(good), Addresses("127.0.0.1", 12345, "127.0.0.1", 443))
    for place in range(16, len(good)):
        for bit in range(8):
            damaged = bytearray(good)
            damaged[place] ^= 1 << bit
            if damaged[16 + len(V4) + len(before)] == 3:  # else it is no checksum any more
                with pytest.raises(ProxyHeaderError):
                    decode(damaged)


def test_a_checksum_is_given_once() -> None:
    empty = b"\x03\0\4" + bytes(4)
    right = b"\x03\0\4" + crc32c(with_fields(empty, empty)).to_bytes(4, "big")
    with pytest.raises(ProxyHeaderError, match="given once"):
        decode(with_fields(right, empty))


def test_the_checksum_is_castagnolis() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4
    assert crc32c(bytes(range(32))) == 0x46DD794E


IPS = st.ip_addresses().map(lambda ip: str((ip.ipv4_mapped if isinstance(ip, IPv6Address) else None) or ip))
ADDRESSES = st.builds(Addresses, IPS, st.integers(0, 65535), IPS, st.integers(0, 65535))


@given(version=st.sampled_from((1, 2)), addresses=st.none() | ADDRESSES, rest=st.binary(max_size=20))
def test_what_is_written_is_read_again(version: int, addresses: Addresses | None, rest: bytes) -> None:
    header = encode(version, addresses)
    assert decode(header + rest) == ProxyHeader(len(header), addresses)
    assert all(decode(header[:size]) is None for size in range(len(header)))


BEGINNINGS = (
    b"",
    b"PROXY ",
    b"PROXY TCP4 ",
    b"PROXY UNKNOWN",
    SIGNATURE,
    SIGNATURE + b"\x21",
    SIGNATURE + b"\x21\x11\0",
)


@given(beginning=st.sampled_from(BEGINNINGS), rest=st.binary(max_size=150))
def test_reading_is_total_and_the_same_at_every_split(beginning: bytes, rest: bytes) -> None:
    whole = beginning + rest
    verdicts: list[object] = []
    for size in range(len(whole) + 1):
        try:
            verdicts.append(decode(whole[:size]))
        except ProxyHeaderError:
            verdicts.append("refused")
    verdict = next((one for one in verdicts if one is not None), None)
    first = verdicts.index(verdict)
    assert all(one == verdict for one in verdicts[first:])
    if isinstance(verdict, ProxyHeader):
        assert verdict.size == first


@given(st.sampled_from([raw.partition(b"||")[0] for _, raw, _ in GOOD]), st.data())
def test_a_damaged_header_never_breaks_the_reader(raw: bytes, data: st.DataObject) -> None:
    damaged = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        header = decode(damaged)
    except ProxyHeaderError:
        return
    if header is not None and header.addresses is not None:
        for text in (header.addresses.source, header.addresses.destination):
            assert str(IPv6Address(text) if ":" in text else IPv4Address(text)) == text


def test_both_ends_of_a_socket_are_written_as_everybody_writes_them() -> None:
    assert addresses_of(("::ffff:192.0.2.1", 5), ("::ffff:198.51.100.1", 80)) == Addresses(
        "192.0.2.1", 5, "198.51.100.1", 80
    )
    assert addresses_of(("fe80::1%eth0", 5), ("fe80::2%eth0", 80)) == Addresses("fe80::1", 5, "fe80::2", 80)


def test_what_is_sent_is_what_the_standard_shows() -> None:
    v4, v6 = Addresses("192.0.2.1", 56324, "198.51.100.1", 443), Addresses("2001:db8::1", 1, "192.0.2.1", 2)
    assert encode(1, v4) == b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"
    assert encode(1, v6) == b"PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 1 2\r\n"
    assert encode(1, None) == b"PROXY UNKNOWN\r\n"
    assert encode(2, v4) == SIGNATURE + b"\x21\x11\x00\x0c\xc0\0\x02\x01\xc6\x33\x64\x01\xdc\x04\x01\xbb"
    assert encode(2, None) == SIGNATURE + b"\x21\x00\x00\x00"
