"""Whom a door believes (pure): the networks of `trusted_proxies`."""

from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address, ip_network


class TrustedNetworks:
    """Looked at once a connection, at doors that believe a PROXY header only."""

    def __init__(self, networks: Sequence[str] = ()) -> None:
        """`networks`: CIDR."""
        self._networks = [ip_network(text) for text in networks]

    def __repr__(self) -> str:
        return f"<TrustedNetworks {', '.join(map(str, self._networks)) or 'nobody'}>"

    def believe(self, ip: str) -> bool:
        """Whether a peer of this address is one of them; what is no address is nobody's."""
        try:
            address = ip_address(ip.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, IPv6Address):
            address = address.ipv4_mapped or address
        return any(address in network for network in self._networks)
