"""One measurement, and what the rounds come to."""

import statistics
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.edge.ratios import Interval, interval, paired, verdict
from bench.mixed.generator import QUANTILES, Generator, Run
from bench.mixed.sides import Side

CONNECTIONS = 64
RELOAD_AT_SHARE = 0.2
TARGETS = {"p50": None, "p99": 1.3, "p99.9": 2.0}
BASE, OURS = "haproxy", "flyproxy"
WATCHED = (
    "flyproxy_event_loop_lag_seconds_bucket",
    "flyproxy_gc_pause_seconds_bucket",
    "flyproxy_store_samples_sealed_total",
    "flyproxy_store_seal_duration_seconds",
    "flyproxy_query_duration_seconds_sum",
)


@dataclass(frozen=True, slots=True)
class Play:
    """A column: one side at one rate."""

    name: str
    side: Side
    rate: float


@dataclass(frozen=True, slots=True)
class Played:
    """One measurement."""

    run: Run
    panels_ms: list[float]
    panels_failed: list[str]
    watched: dict[str, float]
    """By how much the side's own counters grew: loop lag, collector pauses, what was sealed."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A quantile of ours against HAProxy's, by rounds."""

    quantile: str
    rounds: list[float]
    found: Interval
    at_most: float | None


def capacity(generator: Generator, side: Side, seconds: int) -> float:
    """Requests of the mix in a second when it is always asked; the second of two, the first warms."""
    for seed in (1, 2):
        found = generator.run(side.port, 0, seconds, CONNECTIONS, seed)
    return found.per_second


def play(generator: Generator, one: Play, seconds: int, seed: int, reloads: int) -> Played:
    """Load, panels, a reload. `seed` is the round's: the same requests in the same order for both sides."""
    before = one.side.exposed()
    timer = threading.Timer(seconds * RELOAD_AT_SHARE, one.side.reload, (reloads,))
    with one.side.dashboard() as dashboard:
        timer.start()
        try:
            run = generator.run(one.side.port, one.rate, seconds, CONNECTIONS, seed)
        finally:
            timer.cancel()
            timer.join()
    after = one.side.exposed()
    grown = {key: after[key] - before.get(key, 0.0) for key in after if key.startswith(WATCHED)}
    watched = {key: value for key, value in grown.items() if value}
    return Played(run, dashboard.answers_ms, dashboard.failed, watched)


def compared(rounds: Mapping[str, Sequence[Played]]) -> list[Compared]:
    """Each quantile's ratio at the same rate."""
    found = []
    for name, at_most in TARGETS.items():
        sides = [[one.run.latency_us(name) for one in rounds[side]] for side in (OURS, BASE)]
        ratios = paired(*sides)
        found.append(Compared(name, ratios, interval(ratios), at_most))
    return found


def table(plays: Sequence[Play], rounds: Mapping[str, Sequence[Played]], capacities: Mapping[str, float]) -> str:
    """For people: medians of the rounds, ratios with their intervals."""
    lines = ["Mixed load, microseconds from when a request was due; medians of the rounds"]
    lines += [f"  capacity of {name} on one core: {one:,.0f} requests/s" for name, one in capacities.items()]
    lines.append(
        f"  {'':30}{'rate/s':>8}" + "".join(f"{name:>10}" for name in QUANTILES) + "  failed retried  panels ms"
    )
    for one in plays:
        played = rounds[one.name]
        row = "".join(f"{statistics.median(p.run.latency_us(name) for p in played):10,.0f}" for name in QUANTILES)
        failed, retried = sum(p.run.failed for p in played), sum(p.run.retried for p in played)
        panels = statistics.median(ms for p in played for ms in p.panels_ms)
        lines.append(f"  {one.name:30}{one.rate:8,.0f}{row}{failed:8}{retried:8}{panels:11,.0f}")
    for ratio in compared(rounds):
        found = ratio.found
        words = f"  {ratio.quantile:6} {OURS} / {BASE}: {found.median:.2f} [{found.low:.2f} .. {found.high:.2f}]"
        if ratio.at_most is not None:
            words += f"  <= {ratio.at_most:g} {verdict(found.low, found.high, ratio.at_most)}"
        lines.append(words + ("" if found.confidence >= 0.95 else f" ({found.confidence:.0%} only)"))
    sealed = [sum(v for k, v in p.watched.items() if "samples_sealed" in k) for p in rounds[OURS]]
    lines.append(f"  samples flyproxy sealed, by round: {', '.join(f'{one:,.0f}' for one in sealed)}")
    faults = [fault for some in rounds.values() for one in some for fault in one.panels_failed]
    lines += [f"  panels that failed: {len(faults)}, as {faults[0]}"] if faults else []
    return "\n".join(lines)
