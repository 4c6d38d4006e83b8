"""Writes README's numbers of the edge, between its two marker comments, from the JSON that was committed.

    python -m bench.readme_numbers            # README.md from bench/results/edge.json (and mixed.json, if it is there)

`make bench-edge` and `make bench-mixed` write the JSON; a test holds README to what this script makes of it.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.commit import ROOT
from bench.edge.ratios import verdict

README = ROOT / "README.md"
RESULTS = ROOT / "bench" / "results"
SOURCES = ("edge.json", "mixed.json")
BEGIN = "<!-- the edge's numbers: written by bench/readme_numbers.py -->"
END = "<!-- end of the edge's numbers -->"
PEERS = ("haproxy", "nginx", "caddy", "traefik", "flyproxy (pure)", "flyproxy (typed)")
BASE = "haproxy"

Json = Mapping[str, Any]


def section(results: Iterable[Json]) -> str:
    """The text between the markers."""
    return "\n\n".join(edge(one) if "workloads" in one else mixed(one) for one in results)


def edge(found: Json) -> str:
    """Of edge.json."""
    return "\n".join([about(found), "", *tables(found), "", *targets(found), "", *remembered(found)]).rstrip("\n")


def mixed(found: Json) -> str:
    """Of mixed.json: the quantiles at the same rate, and what they were to be."""
    rates = ", ".join(f"{name} {rate:,.0f}/s" for name, rate in found["rates"].items())
    lines = [
        f"Under mixed load ({rates}). {about(found)}",
        "",
        "| latency, to HAProxy | at most | found | |",
        "|---" * 4 + "|",
    ]
    for one in found["compared"]:
        at_most, lies = one["at_most"], one["found"]
        said = "" if at_most is None else verdict(lies["low"], lies["high"], at_most)
        bound = "" if at_most is None else f"{at_most:g}"
        lines.append(f"| {one['quantile']} | {bound} | {ratio(lies)} | {said} |")
    return "\n".join(lines)


def about(found: Json) -> str:
    """Where the figures come from."""
    settings, machine = found["settings"], found["machine"]
    peers = ", ".join(found["versions"][name] for name in PEERS if name in found["versions"] and "fly" not in name)
    kind = "a virtual machine" if machine["virtual"] else "a machine"
    return (
        f"Commit {found['commit']}, {found['when'][:10]}, {kind} with {machine['cpus']} CPUs ({machine['cpu']}); "
        f"{peers}; {settings['rounds']} paired rounds of {settings['seconds']} s, medians, in brackets where the "
        f"median of the ratios lies{'; idle CPUs polled' if settings.get('awake') else ''}."
    )


def tables(found: Json) -> list[str]:
    """Workloads that have the peers for columns, and below them a table for each of the others."""
    lines = [f"| | unit | {' | '.join(PEERS)} |", "|---" * (len(PEERS) + 2) + "|"]
    rest: list[str] = []
    for name, workload in found["workloads"].items():
        if BASE in workload["columns"]:
            lines.append(row(name, workload))
        else:
            rest += ["", *own_table(name, workload)]
    return [*(lines if len(lines) > 2 else []), *rest]


def row(name: str, workload: Json) -> str:
    """One line: each peer's figure, and its ratio to HAProxy."""
    ratios = {one["of"]: one for one in workload["compared"] if one["to"] == BASE}
    cells = [cell(workload["columns"].get(peer), ratios.get(peer)) for peer in PEERS]
    return f"| **{name}** {workload['title']} | {workload['unit']} | {' | '.join(cells)} |"


def own_table(name: str, workload: Json) -> list[str]:
    """A workload with columns of its own."""
    lines = [f"| **{name}** {workload['title']} | {workload['unit']} | |", "|---|---|---|"]
    for column, one in workload["columns"].items():
        if one["median"] is not None:
            compared = [found for found in workload["compared"] if found["of"] == column and found["to"] is not None]
            said = "; ".join(f"{ratio(found)} of {found['to']}" for found in compared)
            lines.append(f"| {column} | {number(one['median'])} | {said} |")
    return lines


def targets(found: Json) -> list[str]:
    """What was to be reached, and whether it was."""
    lines = ["| to reach | at most | found | |", "|---|---|---|---|"]
    for name, workload in found["workloads"].items():
        for one in workload["compared"]:
            if one["at_most"] is not None:
                what = f"{name}, {one['of']}" + (f", to {one['to']}" if one["to"] else f", {workload['unit']}")
                said = verdict(one["low"], one["high"], one["at_most"])
                lines.append(f"| {what} | {one['at_most']:g} | {ratio(one)} | {said} |")
    return lines if len(lines) > 2 else []


def cell(column: Json | None, compared: Json | None) -> str:
    if column is None or column["median"] is None:
        return "-"
    return number(column["median"]) + (f", {ratio(compared)}" if compared is not None else "")


def ratio(compared: Json) -> str:
    return f"**{compared['median']:.2f}** [{compared['low']:.2f} {compared['high']:.2f}]"


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def remembered(found: Json) -> list[str]:
    """What the line cache knew."""
    lines = []
    for name, workload in found["workloads"].items():
        for column, watched in workload.get("watched", {}).items():
            one = watched["requests"]
            lines.append(
                f"In {name} {column} knew {one['known'] / max(1, one['lines']):.0%} of the request lines before."
            )
    return [*lines, ""] if lines else []


def rewritten(readme: str, text: str) -> str:
    """The README with that between its markers."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, behind = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"README.md has no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n{text}\n{END}{behind}"


def committed(folder: Path = RESULTS) -> list[Json]:
    """The results that are there."""
    return [json.loads((folder / name).read_text()) for name in SOURCES if (folder / name).exists()]


def main() -> None:
    results = committed()
    if not results:
        raise SystemExit("bench/results/edge.json is not there: make bench-edge writes it")
    README.write_text(rewritten(README.read_text(), section(results)))


if __name__ == "__main__":
    main()
