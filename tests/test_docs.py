"""Nothing a user can meet is undocumented: settings, metrics, routes, verbs, fault codes."""

from pathlib import Path

import pytest

from flyproxy.cli.main import VERBS
from flyproxy.config import reference
from flyproxy.edge import faults
from flyproxy.instrument import catalog

ROOT = Path(__file__).parent.parent


def text(*parts: str) -> str:
    return ROOT.joinpath(*parts).read_text()


def test_every_setting_is_documented() -> None:
    assert text("docs", "config.md") == reference.markdown()


def test_every_metric_is_documented() -> None:
    assert text("docs", "metrics.md") == catalog.markdown()


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_is_documented(verb: str) -> None:
    assert f"flyproxy {verb}" in text("docs", "cli.md")
    assert f"flyproxy {verb}" in text("README.md") or verb in ("auth",)


def test_every_route_is_documented() -> None:
    documented = text("docs", "api.md")
    for route in (
        "/api/v1/query", "/api/v1/query_range", "/api/v1/series", "/api/v1/labels", "/api/v1/label/",
        "/api/v1/status/buildinfo", "/metrics", "/meta/regions.json", "/-/healthy", "/-/ready", "/-/reload",
    ):  # fmt: skip
        assert route in documented, route


@pytest.mark.parametrize("fault", faults.FAULTS.values(), ids=lambda fault: str(fault.code))
def test_every_fault_code_is_documented(fault: faults.Fault) -> None:
    row = f"| `{fault.code}` | {fault.status} | {fault.blame.value} | {fault.sentence} |"
    assert row in text("docs", "faults.md")


def test_every_file_the_readme_points_to_is_there() -> None:
    import re

    for target in re.findall(r"\]\(([a-z0-9_./-]+)\)", text("README.md"), re.IGNORECASE):
        assert (ROOT / target).exists(), target
