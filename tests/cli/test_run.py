"""`flyproxy run`: which configuration it reads. (That it serves is for the end-to-end tests.)"""

from pathlib import Path

import click
import pytest

from flyproxy.cli.run import reader


def test_without_anything_it_reads_the_file_in_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flyproxy.yaml").write_text("edge: {region: fra}")
    assert reader(None, (), {})().configuration.edge.region == "fra"


def test_with_nothing_to_read_it_says_what_to_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(click.UsageError, match=r"nothing to serve: .*write \./flyproxy\.yaml$"):
        reader(None, (), {})
    (tmp_path / "fly.toml").write_text("app = 'hello'\n")
    with pytest.raises(click.UsageError, match=r"; there is a fly\.toml here: flyproxy run fly\.toml$"):
        reader(None, (), {})


def test_the_file_is_read_anew_each_time(tmp_path: Path) -> None:
    path = tmp_path / "fly.toml"
    path.write_text("[http_service]\ninternal_port = 3000\n")
    read = reader(str(path), (), {"edge.workers": "1"})
    assert read().configuration.apps[0].instances[0].address == "127.0.0.1:3000"
    path.write_text("[http_service]\ninternal_port = 3001\n")
    assert read().configuration.apps[0].instances[0].address == "127.0.0.1:3001"
    assert read().any_host


def test_a_fly_toml_that_the_file_names_is_read_anew_too(tmp_path: Path) -> None:
    (tmp_path / "flyproxy.yaml").write_text("apps: [{name: hello, fly_toml: fly.toml}]")
    fly_toml = tmp_path / "fly.toml"
    fly_toml.write_text("[metrics]\nport = 9091\n")
    read = reader(str(tmp_path / "flyproxy.yaml"), (), {})
    ports = []
    for port in (9091, 9092):
        fly_toml.write_text(f"[metrics]\nport = {port}\n")
        ports += [entry.port for entry in read().configuration.apps[0].metrics or ()]
    assert ports == [9091, 9092]
