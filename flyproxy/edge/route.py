"""Where requests go: what one door knows of one app, and what it knows of nobody's."""

from dataclasses import dataclass

from flyproxy.edge.forwarding import suffix_template
from flyproxy.edge.instance import Instance
from flyproxy.edge.router import Router
from flyproxy.edge.trusted import TrustedNetworks
from flyproxy.instrument.recorder import EdgeRecorder

UNMATCHED_APP = "_unmatched"
"""What a stranger counts under."""
OPERATOR = "_operator"
HOSTS_REMEMBERED = 16_384
"""Of one door; then they are found anew."""


@dataclass(frozen=True, slots=True)
class Route:
    """One app behind the doors of one region."""

    app: str
    edge: EdgeRecorder
    tiers: tuple[tuple[Instance, ...], ...]
    """Its instances, the nearest region first."""
    access_log: bool
    host: bytes
    """The Host the instance is told when the client sent none (HTTP/1.0)."""
    only: Instance | None = None
    """Its instance, where there is just one."""


class Doorway:
    """One listening address, as the connections that came through it see it. A new generation changes its fields."""

    def __init__(self, region: str, port: int) -> None:
        self.port = port
        self.region = region
        self.request_id_suffix = b"-" + region.encode("ascii", "replace")
        self.suffix_template = suffix_template(port, region)
        self.closing = False
        """It is gone from the configuration: connections are told to leave."""
        self.router: Router[Route]
        self.hosts: dict[bytes, Route] = {}
        """Host values as they were sent, and where they lead by this router; at most HOSTS_REMEMBERED."""
        self.unmatched: Route
        self.raw: Route | None = None
        """Where a raw TCP door leads."""
        self.instance_port: int | None = None
        """The port it leads to there; None: each instance's own."""
        self.send_proxy = 0
        """The version of the PROXY header that a raw TCP door's instances get first; 0: none."""
        self.trusted = TrustedNetworks()
        """Whose PROXY header is believed, where one is wanted."""
