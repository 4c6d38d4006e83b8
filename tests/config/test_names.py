"""The grammar of names."""

import pytest

from flyproxy.config.names import (
    Address,
    BadNameError,
    parse_address,
    parse_hex,
    parse_hostname,
    parse_network,
    parse_slug,
    with_port,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", Address("127.0.0.1", 80)),
        ("[::1]:8080", Address("::1", 8080)),
        ("[0:0::1]:8080", Address("::1", 8080)),
        ("LocalHost:65535", Address("localhost", 65535)),
        ("db.internal.:5432", Address("db.internal", 5432)),
        ("my_app:80", Address("my_app", 80)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    ["", ":", "a", "a:", ":80", "a:0", "a:65536", "a:-1", "a:+1", "a:１", "a:8 0", "256.0.0.1:80", "1.2.3:80", "::1",
     "[::1]", "[::1]80", "[a]:80", "[127.0.0.1]:80", "a b:80", "a..b:80", "-a:80", "http://a:80", "a:80/x", "*:80",
     "unix:/x", "a:80:90", "\x00:80"],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(BadNameError):
        parse_address(text)


def test_port_zero_is_for_binding_only() -> None:
    assert parse_address("127.0.0.1:0", port_zero=True).port == 0


def test_an_address_knows_whether_it_must_be_looked_up() -> None:
    assert parse_address("[::1]:80").is_ip
    assert not parse_address("localhost:80").is_ip


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Hello.LocalHost", "hello.localhost"),
        ("*.hello.example", "*.hello.example"),
        ("localhost", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("[0::1]", "[::1]"),
        ("my_app.internal", "my_app.internal"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("*.localhost", "*.localhost"),
    ],
)
def test_hostnames(text: str, name: str) -> None:
    assert parse_hostname(text) == name


@pytest.mark.parametrize(
    "text",
    ["", "*", "*.", "*.*", "a.*", "*a.b", "a:80", "a/b", "a.", "a..b", ".a", "-a", "a-", "a b", "a\n", "bücher", "1.2",
     "999.1.1.1", "[::1]:80", "[x]", "[", "a" * 64, ".".join(["a" * 60] * 5), "*.1.2.3.4"],
)  # fmt: skip
def test_what_is_no_hostname(text: str) -> None:
    with pytest.raises(BadNameError):
        parse_hostname(text)


def test_slugs() -> None:
    assert parse_slug("my-app-2", "app's name") == "my-app-2"
    for text in ("", "-a", "a-", "A", "a.b", "a_b", "a" * 64, "_operator", "_unmatched", "a\n"):
        with pytest.raises(BadNameError):
            parse_slug(text, "app's name")


def test_hex_digits() -> None:
    assert parse_hex("2BC3", 4, "host") == "2bc3"
    for text in ("", "2bc", "2bc33", "2bcg", "2bc3\n"):
        with pytest.raises(BadNameError):
            parse_hex(text, 4, "host")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.5", "10.0.0.5:80"),
        ("10.0.0.5:81", "10.0.0.5:81"),
        ("::1", "[::1]:80"),
        ("[::1]", "[::1]:80"),
        ("[::1]:81", "[::1]:81"),
        ("db.internal", "db.internal:80"),
        ("8080", "8080"),
        ("http://x", "http://x"),
        ("10.0.0.5:", "10.0.0.5:"),
    ],
)
def test_a_port_is_added_only_where_that_makes_an_address(text: str, expected: str) -> None:
    assert with_port(text, 80) == expected


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("192.0.2.7", "192.0.2.7/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
        ("FD00::/8", "fd00::/8"),
        ("2001:db8:0::1", "2001:db8::1/128"),
        ("::/0", "::/0"),
    ],
)
def test_networks(text: str, network: str) -> None:
    assert parse_network(text) == network
    assert parse_network(network) == network


@pytest.mark.parametrize(
    "text",
    ["", "10", "10.0.0.0/33", "10.0.0.0/", "10.0.0.1/8", "fd00::1/8", "a/8", "10.0.0/8", "010.0.0.0/8",
     "fe80::%eth0/10", "::ffff:10.0.0.0/104", "::ffff:10.0.0.1", "10.0.0.0/8 ", "10.0.0.0:80"],
)  # fmt: skip
def test_what_is_no_network(text: str) -> None:
    with pytest.raises(BadNameError):
        parse_network(text)
