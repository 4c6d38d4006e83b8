"""Nothing a user can meet is undocumented: settings, metrics, routes, verbs, fault codes."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flyproxy.api.application import build_application
from flyproxy.api.ports import Ports
from flyproxy.cli.main import VERBS
from flyproxy.clock import ManualClock
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


def routes(data_dir: Path) -> set[str]:
    """Every path of the API, written as the page writes them."""
    nobody: Any = SimpleNamespace(limit_reached=None, data_dir=str(data_dir))  # it is put together, not asked
    application = build_application(Ports(nobody, nobody, nobody), lambda: nobody, ManualClock())
    names = {"organization": "org", "label": "name"}
    paths = {resource.canonical for resource in application.router.resources()} - {"/grafana/{other}"}  # a 404
    return {re.sub(r"\{(\w+)\}", lambda found: f"<{names.get(found[1], found[1])}>", path) for path in paths}


def test_every_route_is_documented(tmp_path: Path) -> None:
    documented = text("docs", "api.md")
    missing = [route for route in routes(tmp_path) if f"`{route}`" not in documented]
    assert sorted(missing) == []


@pytest.mark.parametrize("fault", faults.FAULTS.values(), ids=lambda fault: str(fault.code))
def test_every_fault_code_is_documented(fault: faults.Fault) -> None:
    row = f"| `{fault.code}` | {fault.status} | {fault.blame.value} | {fault.sentence} |"
    assert row in text("docs", "faults.md")


def test_every_file_the_readme_points_to_is_there() -> None:
    for target in re.findall(r"\]\(([a-z0-9_./-]+)\)", text("README.md"), re.IGNORECASE):
        assert (ROOT / target).exists(), target
