"""The command itself: help, version, exit codes, and what it costs to ask."""

import importlib
import subprocess
import sys

import click
import pytest

from flyproxy import __version__, extension
from flyproxy.cli.main import VERBS, run
from flyproxy.errors import FlyproxyError


def test_help_lists_every_verb_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(verb in out for verb in VERBS)
    assert "Examples:" in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"flyproxy {__version__} ({extension.words()})\n"


def test_an_unknown_verb_is_wrong_usage_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["chck"]) == 2
    assert "no verb is called 'chck'; did you mean 'check'?" in capsys.readouterr().err


def test_no_verb_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    captured = capsys.readouterr()
    assert "Usage: flyproxy" in captured.out + captured.err


def test_asking_for_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from flyproxy.cli.main import run; run(['--help'])\n"
        "heavy = {'pydantic', 'aiohttp', 'numpy', 'yaml', 'asyncio', 'rich', 'orjson'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_examples(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, "--help"]) == 0
    assert "Examples:" in capsys.readouterr().out


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (FlyproxyError("the disk is full"), 1)])
def test_how_a_verb_ends(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def ends() -> None:
        raise error

    monkeypatch.setattr(importlib.import_module("flyproxy.cli.check"), "check", ends)
    assert run(["check"]) == code
    assert capsys.readouterr().err.strip() == ("" if code == 130 else "flyproxy: the disk is full")
