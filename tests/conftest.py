"""What all tests share: the rule about outside programs, and that in CI nothing skips."""

import os
import shutil
from collections.abc import Iterator

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
