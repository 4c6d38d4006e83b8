"""`flyproxy check`."""

import json
from pathlib import Path

import pytest

from flyproxy.cli.main import run


@pytest.fixture
def good(tmp_path: Path) -> str:
    path = tmp_path / "good.yml"
    path.write_text("apps: [{name: a}, {name: b}]\nlisteners: [{bind: '0.0.0.0:1'}, {bind: '0.0.0.0:2'}]\n")
    return str(path)


@pytest.fixture
def bad(tmp_path: Path) -> str:
    path = tmp_path / "bad.yml"
    path.write_text("edges: {}\nedge: {region: odr}\n")
    return str(path)


def test_a_good_file_is_counted_and_ends_with_zero(good: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", good]) == 0
    assert capsys.readouterr() == ("ok: 2 apps, 1 organization, 2 listeners\n", "")


def test_a_bad_file_shows_every_fault_and_ends_with_one(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", bad]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f"{bad}:1:1: error: edges: unknown key 'edges'; did you mean 'edge'?",
        "     1 | edges: {}",
        "       | ^",
        f"{bad}:2:16: error: edge.region: unknown region 'odr'; did you mean 'ord'?",
        "     2 | edge: {region: odr}",
        "       |                ^",
        "2 errors",
    ]


def test_a_missing_file_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "nothing.yml"
    assert run(["check", str(path)]) == 1
    expected = f"{path}: error: cannot read the configuration: no such file or directory\n1 error\n"
    assert capsys.readouterr().err == expected


def test_json_for_scripts(good: str, bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", "--json", good]) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "faults": [], "warnings": []}
    assert run(["check", "--json", bad]) == 1
    result = json.loads(capsys.readouterr().out)
    assert [(fault["line"], fault["column"], fault["path"]) for fault in result["faults"]] == [
        (1, 1, "edges"),
        (2, 16, "edge.region"),
    ]


def test_without_a_file_it_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check"]) == 2
    assert "Missing argument 'FILE'" in capsys.readouterr().err


def test_a_warning_has_its_place_and_ends_with_zero(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "fly.toml"
    path.write_text('app = "hello"\n[http_service]\ninternal_port = 3000\nforce_https = true\n')
    assert run(["check", str(path)]) == 0
    out, err = capsys.readouterr()
    assert out == "ok: 1 app, 1 organization, 1 listener\n"
    sentence = "not built yet: force_https; plain HTTP is answered, not redirected"
    assert err.splitlines() == [
        f"{path}:4:1: warning: http_service.force_https: {sentence}",
        "     4 | force_https = true",
        "       | ^",
        "1 warning",
    ]


def test_warnings_are_in_the_json_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "fly.toml"
    path.write_text('app = "hello"\n[http_service]\ninternal_port = 3000\nforce_https = true\n')
    assert run(["check", "--json", str(path)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["ok"] is True
    assert [(one["severity"], one["line"], one["path"]) for one in result["warnings"]] == [
        ("warning", 4, "http_service.force_https")
    ]
