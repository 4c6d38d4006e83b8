"""Does anything grow? The demo's setting at ten times its beats, for hours: two organizations, apps that restart, a
worker that is killed, an app that comes and goes, people who ask; and a client that keeps its own account.

    python -m bench.soak [--minutes 120] [--retention 10m] [--json FILE]

Every few seconds the memory, file descriptors and threads of each kind of process are looked at, and the store's
frames, rows and bytes. At the end two things must hold, else it says which does not and exits with 1:

exact   what the client logged by region and status is what /metrics says and what the store says to each organization's
        own token; bytes and connections too
flat    a straight line through a quantity's samples, from the end of the first quarter and after the retention was
        reached, grows by no more than its tolerance (bench/soak_watch.py)

Needs nothing but flyproxy. Retention should be a quarter of the time at most: until it is reached the file only grows.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.soak_client import Account, Crowd
from bench.soak_stage import ORGANIZATIONS, Stage
from bench.soak_watch import MIB, History, Verdict, of_processes, of_segments, of_store, verdicts

SECONDS = {"s": 1, "m": 60, "h": 3600}
LOOKS = 240
"""Samples of a run, as far as LOOK_EVERY_MIN_S allows."""
LOOK_EVERY_MIN_S = 2.0
ASK_EVERY_S = 2.0
QUESTIONS: tuple[tuple[str, dict[str, str]], ...] = (
    ("query_range", {"query": "sum by (region, status) (rate(fly_edge_http_responses_count[1m]))"}),
    (
        "query_range",
        {"query": "histogram_quantile(0.9, sum by (le) (rate(fly_app_http_response_time_seconds_bucket[1m])))"},
    ),
    ("query_range", {"query": "sum by (instance) (rate(app_answers_total[1m]))"}),
    ("query", {"query": "max by (mode) (irate(fly_instance_cpu[1m]))"}),
    ("query", {"query": 'count({__name__=~".+"})'}),
    ("labels", {}),
    ("label/__name__/values", {}),
)
"""Of each organization in turn; a range is the last five minutes."""


def seconds_of(text: str) -> float:
    """10m, 90s, 2h."""
    return float(text[:-1]) * SECONDS[text[-1]]


class Soak:
    """One run."""

    def __init__(self, stage: Stage, arguments: argparse.Namespace) -> None:
        self._stage = stage
        self._run_s = arguments.minutes * 60
        self._trouble_s = arguments.trouble_every or max(20.0, self._run_s / 30)
        self._look_s = max(LOOK_EVERY_MIN_S, self._run_s / LOOKS)
        self.judged_from_s = max(self._run_s / 4, seconds_of(arguments.retention) * 1.25)
        self.accounts = {app: Account() for app in ORGANIZATIONS}
        self.history = History()
        self.events: list[tuple[float, str]] = []
        self.refusals: list[str] = []
        self._begun = time.monotonic()
        self._crowd = Crowd(self.accounts, stage.doors, arguments.rate, arguments.visitors, arguments.seed)
        self._stopping = False

    async def run(self) -> None:
        """Until the time is up or the front door is gone."""
        beside = [asyncio.create_task(work()) for work in (self._ask, self._trouble)]
        due_s = 0.0
        while (now_s := self._now_s()) < self._run_s:
            for task in beside:
                if task.done():
                    await task  # it failed: so does the soak
            if not self._stage.alive():
                raise SystemExit(f"the front door ended:\n{self._stage.log()}")
            if now_s >= due_s:
                due_s = now_s + self._look_s
                self.history.add(now_s, await asyncio.to_thread(self._look))
            await asyncio.sleep(0.2)
        self._stopping = True
        await asyncio.gather(*beside)
        await self._crowd.stop()

    def _now_s(self) -> float:
        return time.monotonic() - self._begun

    def _look(self) -> dict[str, float]:
        pid = self._stage.supervisor.pid
        return {**of_processes(pid), **of_segments(pid), **of_store(self._stage.database)}

    async def _ask(self) -> None:
        """What a dashboard of each organization asks. A refusal is noted, it is not the soak's end."""
        number = 0
        while not self._stopping:
            endpoint, parameters = QUESTIONS[number % len(QUESTIONS)]
            now = time.time()
            span = {"start": f"{now - 300:.3f}", "end": f"{now:.3f}", "step": "5"} if endpoint == "query_range" else {}
            for organization in ORGANIZATIONS.values():
                try:
                    await asyncio.to_thread(self._stage.ask, organization, endpoint, **parameters, **span)
                except (OSError, ValueError) as fault:
                    self.refusals.append(str(fault))
            number += 1
            await asyncio.sleep(ASK_EVERY_S)

    async def _trouble(self) -> None:
        """One after the other: the app that comes and goes, the restart, the kill."""
        work: tuple[tuple[str, Callable[[], None], bool], ...] = (
            ("an app comes", self._stage.change_guest, False),
            ("an instance restarts", self._stage.restart_app, False),
            ("it goes", self._stage.change_guest, False),
            ("an edge worker is killed", self._stage.kill_edge_worker, True),
        )
        number = 0
        due_s = self._trouble_s
        while not self._stopping:
            await asyncio.sleep(0.2)
            # None in the last tenth: what is judged should end as it went on.
            if not due_s < self._now_s() < self._run_s * 0.9:
                continue
            due_s = self._now_s() + self._trouble_s
            what, act, alone = work[number % len(work)]
            number += 1
            self.events.append((self._now_s(), what))
            if alone:
                await self._crowd.pause()
            await asyncio.to_thread(act)
            if alone:
                self._crowd.go_on()


def differences(stage: Stage, accounts: dict[str, Account]) -> list[str]:
    """Where /metrics or the store does not say what the client logged; none is the goal."""
    found = []
    for app, account in accounts.items():
        logged: dict[str, dict[tuple[str, ...], int]] = {
            "fly_edge_http_responses_count": {key: n for key, n in account.answers.items() if n},
            "fly_edge_data_in": {(): account.bytes_sent},
            "fly_edge_data_out": {(): account.bytes_received},
            "fly_edge_tcp_connects_count": {(): account.connects},
            "fly_edge_tcp_disconnects_count": {(): account.connects},
        }
        for source, told in (("/metrics", stage.exposed), ("the store", stage.stored)):
            for family, wanted in logged.items():
                by = ("region", "status") if family.endswith("responses_count") else ()
                got = {key: n for key, n in told(app, family, *by).items() if n}
                if got != {key: n for key, n in wanted.items() if n}:
                    found.append(f"{source} has {family} of {app} as {got}, the client as {wanted}")
        if account.unanswered:
            found.append(f"{account.unanswered} requests to {app} were not answered to the end")
    return found


def settled(stage: Stage, accounts: dict[str, Account], within_s: float = 20.0) -> list[str]:
    """The differences that are left once the last beat is stored."""
    deadline = time.monotonic() + within_s
    while (left := differences(stage, accounts)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return left


def shown(name: str, value: float) -> str:
    """A quantity as a person reads it."""
    in_bytes = name.partition(" ")[0] in ("memory", "pss", "file_bytes", "segment_bytes")
    return f"{value / MIB:10.2f} MiB" if in_bytes else f"{value:10.1f}    "


def table(judged: list[Verdict]) -> str:
    lines = [f"{'':24}{'line begins':>14}{'line ends':>14}{'may grow':>14}"]
    for one in judged:
        figures = "".join(shown(one.name, value) for value in (one.begun, one.ended, one.allowed))
        lines.append(f"{one.name:24}{figures}  {'flat' if one.flat else 'GROWS'}")
    return "\n".join(lines)


def arguments_of(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--retention", default="10m", help="as telemetry.retention; at most a quarter of the time")
    parser.add_argument("--own-interval", default="500ms")
    parser.add_argument("--scrape-interval", default="1500ms")
    parser.add_argument("--rate", type=float, default=60.0, help="requests a second, all in all")
    parser.add_argument("--visitors", type=int, default=24, help="connections at once, at most")
    parser.add_argument("--workers", type=int, default=2, help="edge workers")
    parser.add_argument("--trouble-every", type=float, help="seconds between two kills, restarts and reloads")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write every sample there")
    return parser.parse_args(words)


def main() -> None:
    arguments = arguments_of()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was started ends with us
    telemetry: dict[str, Any] = {
        "own_interval": arguments.own_interval,
        "scrape_interval": arguments.scrape_interval,
        "retention": arguments.retention,
    }
    with tempfile.TemporaryDirectory(prefix="flyproxy-soak-") as folder:
        stage = Stage(Path(folder), telemetry, arguments.workers)
        try:
            raise SystemExit(asyncio.run(judge(stage, arguments)))
        finally:
            stage.stop()


async def judge(stage: Stage, arguments: argparse.Namespace) -> int:
    """The run, its table, and the exit code."""
    soak = Soak(stage, arguments)
    await soak.run()
    wrong = await asyncio.to_thread(settled, stage, soak.accounts)
    judged = verdicts(soak.history, soak.judged_from_s)
    grows = [one.name for one in judged if not one.flat]
    requests = sum(sum(account.answers.values()) for account in soak.accounts.values())
    print(table(judged))
    print(f"\n{requests} requests, {len(soak.history.at_s)} looks, {len(soak.events)} troubles, judged from", end=" ")
    print(f"{soak.judged_from_s:.0f} s on; {len(soak.refusals)} questions were refused")
    print(*soak.refusals[:5], sep="\n")
    print("exact: yes" if not wrong else "exact: NO\n" + "\n".join(wrong))
    print("flat: yes" if judged and not grows else f"flat: NO: {', '.join(grows) or 'too short to say'}")
    if "Traceback" in stage.log():
        wrong.append("the front door's log has a traceback")
        print(stage.log())
    if arguments.json is not None:
        written = {
            "at_s": soak.history.at_s,
            "values": soak.history.values,
            "events": soak.events,
            "verdicts": [{**one._asdict(), "flat": one.flat} for one in judged],
            "requests": requests,
            "wrong": wrong,
            "refusals": soak.refusals,
        }
        arguments.json.write_text(json.dumps(written, indent=1))
    return 1 if wrong or grows or not judged else 0


if __name__ == "__main__":
    main()
