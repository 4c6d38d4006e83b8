"""README's numbers of the edge are what the committed JSON says."""

from typing import Any

from bench.commit import ROOT
from bench.readme_numbers import BEGIN, END, committed, rewritten, section

FOUND: dict[str, Any] = {
    "commit": "0123456789ab",
    "when": "2026-01-02T03:04:05Z",
    "settings": {"rounds": 9, "seconds": 2, "awake": False},
    "machine": {"cpu": "Some CPU", "cpus": 2, "virtual": True},
    "versions": {"haproxy": "HAProxy version 2.6", "flyproxy (pure)": "CachedRequestParser on uvloop", "wrk": "4.1"},
    "workloads": {
        "W1": {
            "title": "small GET",
            "unit": "CPU µs per request",
            "columns": {"haproxy": {"median": 11.93}, "flyproxy (pure)": {"median": 15.51}},
            "compared": [
                {
                    "of": "flyproxy (pure)",
                    "to": "haproxy",
                    "median": 1.3,
                    "low": 1.28,
                    "high": 1.32,
                    "at_most": 1.35,
                    "met": True,
                }
            ],
            "watched": {"flyproxy (pure)": {"requests": {"lines": 100, "known": 90}}},
        },
        "recording": {
            "title": "the verbs",
            "unit": "µs per request",
            "columns": {"flyproxy (pure)": {"median": 0.353}},
            "compared": [
                {
                    "of": "flyproxy (pure)",
                    "to": None,
                    "median": 0.853,
                    "low": 0.8,
                    "high": 0.9,
                    "at_most": 0.8,
                    "met": False,
                }
            ],
        },
    },
}


def test_the_section_has_each_workload_with_its_ratios_and_where_it_comes_from() -> None:
    text = section([FOUND])
    assert "Commit 0123456789ab, 2026-01-02, a virtual machine with 2 CPUs (Some CPU); HAProxy version 2.6;" in text
    assert "| **W1** small GET | CPU µs per request | 11.9 | - | - | - | 15.5, **1.30** [1.28 1.32] | - |" in text
    assert "| flyproxy (pure) | 0.35 |  |" in text
    assert "| W1, flyproxy (pure), to haproxy | 1.35 | **1.30** [1.28 1.32] | met |" in text
    assert "| recording, flyproxy (pure), µs per request | 0.8 | **0.85** [0.80 0.90] | undecided |" in text
    assert "In W1 flyproxy (pure) knew 90% of the request lines before." in text


def test_mixed_load_has_its_quantiles() -> None:
    found = {"median": 1.25, "low": 1.2, "high": 1.31, "confidence": 0.98}
    mixed = {
        **{key: FOUND[key] for key in ("commit", "when", "machine", "versions")},
        "settings": {"rounds": 7, "seconds": 15},
        "rates": {"haproxy": 9000.0, "flyproxy": 9000.0},
        "compared": [
            {"quantile": "p50", "rounds": [1.25], "found": found, "at_most": None},
            {"quantile": "p99", "rounds": [1.25], "found": found, "at_most": 1.3},
        ],
    }
    text = section([FOUND, mixed])
    assert "\n\nUnder mixed load (haproxy 9,000/s, flyproxy 9,000/s). Commit" in text
    assert "| p50 |  | **1.25** [1.20 1.31] |  |" in text
    assert "| p99 | 1.3 | **1.25** [1.20 1.31] | undecided |" in text


def test_only_what_is_between_the_markers_is_rewritten() -> None:
    readme = f"before\n{BEGIN}\nold\n{END}\nbehind\n"
    assert rewritten(readme, "new") == f"before\n{BEGIN}\nnew\n{END}\nbehind\n"


def test_the_readme_says_what_the_committed_results_say() -> None:
    readme = (ROOT / "README.md").read_text()
    assert BEGIN in readme
    results = committed()
    assert not results or rewritten(readme, section(results)) == readme
