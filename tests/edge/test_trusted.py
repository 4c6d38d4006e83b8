"""Whom a door believes."""

import pytest

from flyproxy.edge.trusted import TrustedNetworks

TRUSTED = TrustedNetworks(["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32", "fe80::/10"])


@pytest.mark.parametrize(
    "ip", ["10.0.0.1", "10.255.255.255", "192.0.2.7", "2001:db8::1", "::ffff:10.1.2.3", "fe80::1%eth0"]
)
def test_a_peer_of_a_network_is_believed(ip: str) -> None:
    assert TRUSTED.believe(ip)


@pytest.mark.parametrize(
    "ip", ["11.0.0.1", "192.0.2.8", "2001:db9::1", "::ffff:11.0.0.1", "::1", "", "unknown", "10.0.0"]
)
def test_nobody_else_is(ip: str) -> None:
    assert not TRUSTED.believe(ip)


def test_without_networks_nobody_is() -> None:
    assert not TrustedNetworks().believe("127.0.0.1")
    assert repr(TrustedNetworks()) == "<TrustedNetworks nobody>"
    assert "10.0.0.0/8" in repr(TRUSTED)
