"""What is to be reached, as ratios of two columns of the same rounds, or as a figure by itself."""

from dataclasses import dataclass

PURE, TYPED = "flyproxy (pure)", "flyproxy (typed)"


@dataclass(frozen=True, slots=True)
class Target:
    workload: str
    of: str
    """The column."""
    to: str | None
    """The column it is compared with; None: the figure itself."""
    at_most: float


def both(workload: str, to: str | None, at_most: float, suffix: str = "") -> list[Target]:
    """The same for the pure and the typed parser."""
    return [Target(workload, f"{name}{suffix}", to, at_most) for name in (PURE, TYPED)]


TARGETS: tuple[Target, ...] = (
    Target("W1", PURE, "haproxy", 1.35),
    Target("W1", TYPED, "haproxy", 1.1),
    Target("W1r", PURE, "haproxy", 1.5),
    Target("W1r", TYPED, "haproxy", 1.1),
    *(target for name in ("W1", "W1r") for peer in ("caddy", "traefik") for target in both(name, peer, 0.2)),
    *both("W2", "haproxy", 0.9),
    *both("W3b", "haproxy", 0.4),
    *both("W3b", "nginx", 0.4),
    *both("W3c", "haproxy", 1.5),
    *both("W4", "haproxy", 1.1),
    *both("W5", "haproxy", 1.25),
    *both("W6", "haproxy", 1.2),
    *both("memory", None, 8.0),
    *(
        Target("apps", f"{name}, {many}", f"{name}, 1 app", 1.05)
        for name in (PURE, TYPED)
        for many in ("10000 apps, one asked", "10000 apps")
    ),
    Target("recording", PURE, None, 0.8),
    Target("recording", TYPED, None, 0.3),
    Target("counting", PURE, None, 0.8),
)
