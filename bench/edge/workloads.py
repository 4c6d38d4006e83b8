"""The workloads: what is asked, of whom, and the figure that is compared.

Every figure but W6's and memory's is CPU of the proxy's whole process tree, user and system. A figure may look at all
samples of its round, because some are a difference between two columns.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.edge import raw
from bench.edge.load import Ask
from bench.edge.peers import (
    Caddy,
    Direct,
    Flyproxy,
    FrontDoor,
    Haproxy,
    Nginx,
    Peer,
    Running,
    Scene,
    Traefik,
    files_max,
)
from bench.edge.processes import ROOT, memory_bytes
from bench.edge.stage import PROXY_CPU, Sample, Stage

APPS = 10_000
GIB = 1 << 30
WARM_S = 3
IDLE_CONNECTIONS = 10_000
"""Or as many as the limit of descriptors lets every proxy hold."""
FILES_PER_CONNECTION = 2.1
"""A client's connection and one to the upstream, as the peers keep them, and some to spare."""

Round = Mapping[str, Sample]
"""What was measured in one round, by column."""


@dataclass(frozen=True, slots=True)
class Column:
    """One proxy in one scene."""

    name: str
    peer: Peer
    scene: Scene
    ask: Ask = field(default_factory=Ask)


def cpu_us(column: str, found: Round) -> float:
    """Microseconds of CPU a request."""
    return found[column].cpu_s / found[column].requests * 1e6


def cpu_ms_per_gib(column: str, found: Round) -> float:
    return found[column].cpu_s * 1e3 / (found[column].bytes / GIB)


def added_us(column: str, found: Round) -> float:
    """Median latency beyond what load and upstream take without a proxy."""
    return float(found[column].p50_us - found["direct"].p50_us)


def kib_per_connection(column: str, found: Round) -> float:
    return found[column].memory_bytes / 1024 / found[column].requests


def asking(stage: Stage, running: Running, ask: Ask) -> Sample:
    """Measure a proxy while wrk asks this."""
    return stage.measured(running, lambda: stage.load(running, ask))


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    title: str
    unit: str
    columns: tuple[Column, ...]
    measure: Callable[[Stage, Running, Ask], Sample] = asking
    figure: Callable[[str, Round], float] = cpu_us
    """Of a column in a round, in `unit`."""
    base: str = "haproxy"
    """The column that the others are compared with."""
    silent: tuple[str, ...] = ()
    """Columns that have no figure of their own."""
    fresh: bool = False
    """Every measurement wants a process that has done nothing yet."""
    rounds_max: int | None = None
    watched: bool = False
    """Also look at what the parsers remember under this load."""


def asking_warm(stage: Stage, running: Running, ask: Ask) -> Sample:
    """Right after the same load unmeasured: idle connections to 10,000 instances have been let go since the last."""
    if ask.hosts > 1:
        stage.load(running, ask, WARM_S)
    return stage.measured(running, lambda: stage.load(running, ask))


def bulk(stage: Stage, running: Running, _: Ask) -> Sample:
    return stage.measured(running, lambda: raw.bulk(running.port, stage.seconds))


def holding(stage: Stage, running: Running, _: Ask) -> Sample:
    """How much a process tree grows by idle connections; it has served requests before."""
    stage.load(running, Ask(), 1)
    pids = running.pids()
    before = memory_bytes(pids)
    count = idle_connections()
    with raw.idle_connections(running.port, count):
        grown = memory_bytes(pids) - before
    return Sample(requests=count, memory_bytes=grown)


def idle_connections() -> int:
    return min(IDLE_CONNECTIONS, int(files_max() / FILES_PER_CONNECTION))


def columns(scene: Scene, peers: Sequence[Peer], ask: Ask | None = None) -> tuple[Column, ...]:
    return tuple(Column(peer.name, peer, scene, ask or Ask()) for peer in peers)


def named(workloads: Sequence[Workload], only: Sequence[str]) -> list[Workload]:
    """Those asked for; all when none is. SystemExit with what there is."""
    by_name = {workload.name.lower(): workload for workload in workloads}
    unknown = [name for name in only if name.lower() not in by_name]
    if unknown:
        raise SystemExit(f"no workload {', '.join(unknown)}; there are {', '.join(one.name for one in workloads)}")
    return [by_name[name.lower()] for name in only] if only else list(workloads)


def workloads(loop: str) -> list[Workload]:
    """All of them, in the order they are measured; `loop`: flyproxy's, "uvloop" or "asyncio"."""
    pure, typed = Flyproxy(pure=True, loop=loop), Flyproxy(pure=False, loop=loop)
    two, four = (Haproxy(), Nginx()), (Haproxy(), Nginx(), Caddy(), Traefik())
    ours = (pure, typed)
    everybody = (*four, *ours)
    us, plain = "CPU µs per request", Scene()
    varied = Ask(path="/varied?item=", vary=True)
    upload = Ask(path="/upload", upload_bytes=64 << 10)
    return [
        Workload("W1", "small GET, keep-alive, 64 connections", us, columns(plain, everybody), watched=True),
        Workload("W1r", "W1, every header value new in every request", us, columns(plain, everybody, varied),
                 watched=True),
        Workload("W1l", "W1, access logs on, to /dev/null", us, columns(Scene(access_log=True), everybody)),
        Workload("W2", "1 MiB answers, 16 connections", "CPU µs per answer",
                 columns(plain, everybody, Ask(path="/file", connections=16))),
        Workload("W3b", "raw TCP, bulk, 4 connections", "CPU ms per GiB", columns(Scene(tcp=True), (*two, *ours)), bulk,
                 cpu_ms_per_gib),
        Workload("W3c", "raw TCP, a connection for one small exchange", "CPU µs per connection",
                 columns(Scene(tcp=True), (*two, *ours), Ask(close=True))),
        Workload("W4", "64 KiB uploads, read whole by the upstream", us, columns(plain, everybody, upload)),
        Workload("W5", "a new connection per request", us, columns(plain, everybody, Ask(close=True))),
        Workload("W6", "added median latency at one connection", "µs",
                 columns(plain, (Direct(), *everybody), Ask(connections=1)), figure=added_us, silent=("direct",)),
        Workload("memory", f"{idle_connections():,} idle connections after one request each", "KiB per connection",
                 columns(plain, everybody), holding, kib_per_connection, fresh=True, rounds_max=3),
        *(workers(number, loop) for number in (1, 2, 8)),
        Workload("instances", "W1, 10 instances", us, columns(Scene(instances=10), everybody)),
        apps((*two, *ours)),
        recording(loop),
        counting(loop),
    ]  # fmt: skip


def workers(number: int, loop: str) -> Workload:
    """So many workers, flyproxy as a whole: with its supervisor, telemetry and query workers."""
    peers = (Haproxy(), Nginx(), FrontDoor(pure=True, loop=loop), FrontDoor(pure=False, loop=loop))
    title = f"W1, {number} worker{'s' if number > 1 else ''}, `flyproxy run` with all its processes"
    return Workload(f"workers{number}", title, "CPU µs per request", columns(Scene(workers=number), peers))


def apps(peers: Sequence[Peer]) -> Workload:
    """One app; 10,000 apps of which one is asked; 10,000 apps asked in turns: of the same proxy in the same rounds."""
    found = []
    for peer in peers:
        found.append(Column(f"{peer.name}, 1 app", peer, Scene()))
        found.append(Column(f"{peer.name}, {APPS} apps, one asked", peer, Scene(apps=APPS), ask=Ask(hosts=1, of=APPS)))
        found.append(Column(f"{peer.name}, {APPS} apps", peer, Scene(apps=APPS), ask=Ask(hosts=APPS, of=APPS)))
    return Workload("apps", f"W1, {APPS} apps with an instance each, asked in turns", "CPU µs per request",
                    tuple(found), asking_warm, cpu_us, base="haproxy, 1 app")  # fmt: skip


def counting(loop: str) -> Workload:
    """W1 with the recorder, less W1 with one that counts nothing. The typed path counts in its lane."""
    real, none = Flyproxy(pure=True, loop=loop), Flyproxy(pure=True, loop=loop, counting=False)
    silent = f"{real.name}, not counting"

    def figure(column: str, samples: Round) -> float:
        return cpu_us(column, samples) - cpu_us(silent, samples)

    both = (Column(real.name, real, Scene()), Column(silent, none, Scene()))
    return Workload("counting", "W1, less W1 with a recorder that counts nothing", "CPU µs per request", both,
                    figure=figure, base="", silent=(silent,))  # fmt: skip


def recording(loop: str) -> Workload:
    """The recorder's verbs by themselves, with a fold for as many requests as the worker folded under W1."""
    found = [Column(peer.name, peer, Scene()) for peer in (Flyproxy(pure=pure, loop=loop) for pure in (True, False))]
    return Workload("recording", "the recorder's verbs and the share of a fold", "µs per request", tuple(found),
                    recorded, lambda column, samples: samples[column].cpu_s * 1e6, base="")  # fmt: skip


def recorded(stage: Stage, running: Running, _: Ask) -> Sample:
    """Seconds a request is counted in, of one process that does nothing else."""
    turn = stage.requests_per_fold(running)
    path = running.folder / "record.json"
    command = ["taskset", "-c", str(PROXY_CPU), sys.executable, "-m", "bench.instrument_record"]
    subprocess.run([*command, "--turn", str(turn), "--json", str(path)], cwd=ROOT, check=True, capture_output=True,
                   env={**os.environ, **running.peer.environment(running.folder)})  # fmt: skip
    rounds = json.loads(path.read_text())["ns_per_call"]
    return Sample(requests=turn, cpu_s=statistics.median(next(reversed(rounds.values()))) / 1e9)
