"""What all tests share: the rule about outside programs, and that in CI nothing skips."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`@pytest.mark.peer("promtool")`: skip, saying so, where that program, or any of several, is missing."""
    for mark in item.iter_markers("peer"):
        for program in mark.args:
            if shutil.which(program) is None:
                pytest.skip(f"needs the program {program}, which is not installed")


@pytest.hookimpl(hookwrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """With FLYPROXY_NO_SKIPS=1 (CI) a skipped test is a failure."""
    yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter is not None else []
    if skipped and os.environ.get("FLYPROXY_NO_SKIPS") == "1":
        print(f"\n{len(skipped)} skipped, and FLYPROXY_NO_SKIPS=1 forbids it")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def needs_compiler() -> None:
    """Skips, saying so, where the typed extension cannot be built."""
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        pytest.skip("needs Python.h (python3-dev), which is not installed")
    if not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        pytest.skip("needs a C compiler, which is not installed")


@pytest.fixture
def hostile_targets() -> Iterator[dict[str, dict[str, Any]]]:
    """Scrape targets that do their worst, each on a port of its own: {name: {port, https, up, reason, large, slow}}."""
    program = Path(__file__).parent / "targets" / "hostile.py"
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        try:
            yield json.loads(running.stdout.readline())
        finally:
            running.kill()
