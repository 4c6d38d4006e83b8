"""The outcome as a table for people."""

import statistics

from bench.edge.ratios import CONFIDENCE, verdict
from bench.edge.rounds import QUIET_SHARE, Compared, Outcome

INDENT = "  "


def table(found: Outcome) -> str:
    """One workload: its columns, their ratios, its targets, and what is to be said about it."""
    base = found.workload.base
    unit = found.workload.unit + (f"; the ratio to {base}" if base else "")
    lines = [f"{found.workload.name}  {found.workload.title}: {unit}"]
    by_pair = {(one.of, one.to): one for one in found.compared}
    for name, figures in found.figures.items():
        row = f"{INDENT}{name:40}{statistics.median(figures):8.{_digits(figures)}f}"
        if name == base:
            row += f"{'':4}1"
        elif (name, base) in by_pair:
            row += f"{'':4}{ratio(by_pair[name, base])}"
        lines.append(row.rstrip())
    lines += [f"{INDENT}{line}" for line in targets(found)]
    lines += [f"{INDENT}left out: {name}: {why}" for name, why in found.missing.items()]
    lines += [f"{INDENT}{line}" for line in remembered(found)]
    share = found.others_share()
    if share > QUIET_SHARE:
        lines.append(f"{INDENT}not a quiet machine: others used {share:.0%} of the proxies' CPU")
    return "\n".join(lines) + "\n"


def targets(found: Outcome) -> list[str]:
    """A line each."""
    lines = []
    for one in found.compared:
        if one.at_most is not None:
            what = one.of + (f" / {one.to}" if one.to else "")
            lines.append(
                f"{what:48}    {ratio(one)}  <= {one.at_most:<5g} {verdict(one.found.low, one.found.high, one.at_most)}"
            )
    return lines


def ratio(one: Compared) -> str:
    """The median and its interval."""
    found = one.found
    sure = "" if found.confidence >= CONFIDENCE else f" ({found.confidence:.0%} only)"
    return f"{found.median:.3g} [{found.low:.3g} .. {found.high:.3g}]{sure}"


def remembered(found: Outcome) -> list[str]:
    """What the parsers knew of the header lines."""
    lines = []
    for name, watched in found.watched.items():
        for side in ("requests", "answers"):
            one = watched[side]
            known, seen = (one[key] / max(1, one["lines"]) for key in ("known", "seen_before"))
            lines.append(
                f"{name}: of {one['lines']:,} header lines of {side} {known:.1%} were known to the parser"
                f" ({seen:.1%} had come before; {one['distinct']:,} distinct)"
            )
    for column in found.workload.columns:
        if column.ask.sent_new and column.name in found.watched:
            sent = sum(one.requests for one in found.samples[column.name]) * column.ask.sent_new
            lines.append(f"{column.name}: was sent {sent:,} distinct header values while it was measured")
    return lines


def _digits(figures: list[float]) -> int:
    middle = abs(statistics.median(figures))
    return 0 if middle >= 1000 else 1 if middle >= 10 else 2
