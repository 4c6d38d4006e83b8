"""What the supervisor and its children say to each other: frozen values, one file, so that both sides agree."""

from dataclasses import dataclass

from flyproxy.config.resolved import Resolved


@dataclass(frozen=True, slots=True)
class Start:
    """First word to every child: who it is, and the generation it begins with. Its sockets travel beside it."""

    kind: str
    """"edge", "telemetry" or "query"."""
    worker: int
    name: str
    """Unique in this boot, as "edge-0-3": the third child in slot 0; its segment is `<name>.cells`, later
    `<name>.<number>.cells`."""
    generation: int
    resolved: Resolved
    run_dir: str
    """Where segments and query sockets are; gone when the front door stops."""
    proxy_id: str
    """"blue" or "green"; the other one after every start of the front door."""
    boot_id: str
    """One start of the front door, sortable by time."""
    threaded: bool
    """The child is a thread of the supervisor's process (`workers: 0`)."""


@dataclass(frozen=True, slots=True)
class Open:
    """To an edge worker that is ready: begin to take connections."""


@dataclass(frozen=True, slots=True)
class Prepare:
    """Get ready for generation N; nothing changes for users yet. New sockets travel beside it."""

    generation: int
    resolved: Resolved


@dataclass(frozen=True, slots=True)
class Commit:
    """Generation N is in force from now."""

    generation: int


@dataclass(frozen=True, slots=True)
class Abort:
    """Forget generation N."""

    generation: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Take nothing new, finish what is there, then leave."""

    timeout_s: float


@dataclass(frozen=True, slots=True)
class Draining:
    """To telemetry: the front door is about to stop (readiness says so), but keep serving until `Drain`."""


@dataclass(frozen=True, slots=True)
class Child:
    """One living child, as the others may know it."""

    kind: str
    worker: int
    name: str
    pid: int
    started_ms: int
    restarts: int
    ready: bool


@dataclass(frozen=True, slots=True)
class Children:
    """To telemetry, whenever it changes: who is alive, and how the last reload went."""

    children: tuple[Child, ...]
    dead: tuple[str, ...]
    """Names of children that are gone and whose segment may still lie in the run directory."""
    generation: int
    last_reload_ok: bool
    last_reload_ms: int


@dataclass(frozen=True, slots=True)
class Beat:
    """To telemetry: sample the counters now (before the doors open, so that the first error is seen to come)."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """To telemetry: what became of the reload it asked for."""

    ok: bool
    text: str


@dataclass(frozen=True, slots=True)
class Ready:
    """From a child: the generation it was started with is in force."""

    generation: int


@dataclass(frozen=True, slots=True)
class Prepared:
    generation: int


@dataclass(frozen=True, slots=True)
class Refused:
    """From a child: it cannot take this generation; the old one stays."""

    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Beaten:
    """From telemetry: the beat asked for is in the store."""


@dataclass(frozen=True, slots=True)
class Drained:
    """From a child: nothing is left to do; it leaves now."""


@dataclass(frozen=True, slots=True)
class ReloadAsked:
    """From telemetry: somebody called /-/reload."""


Message = (
    Start
    | Open
    | Prepare
    | Commit
    | Abort
    | Drain
    | Draining
    | Children
    | Beat
    | Reloaded
    | Ready
    | Prepared
    | Refused
    | Beaten
    | Drained
    | ReloadAsked
)
