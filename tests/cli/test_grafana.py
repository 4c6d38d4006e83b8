"""`flyproxy grafana`: what it prints and writes, and what it leaves alone."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from flyproxy.api.grafana_dashboards import DASHBOARDS
from flyproxy.api.grafana_provisioning import datasource_uid
from flyproxy.cli.main import run


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "flyproxy.yaml"
    path.write_text("organizations: [{slug: personal}, {slug: shop}]\ntelemetry: {bind: '0.0.0.0:9333'}\n")
    return path


def gazetteer(path: Path) -> str:
    panels = json.loads(path.read_text())["panels"]
    (layer,) = [layer for panel in panels for layer in panel["options"].get("layers", [])]
    return str(layer["location"]["gazetteer"])


def test_alone_it_prints_the_values_to_paste(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["grafana", "-c", str(config)]) == 0
    out = capsys.readouterr().out
    for value in (
        "http://127.0.0.1:9333/prometheus/personal",
        "Authorization",
        "Bearer <token from: flyproxy auth token --org personal>",
        "http://127.0.0.1:9333/grafana/fly.json",
    ):
        assert value in out
    assert run(["grafana", "-c", str(config), "--url", "https://m.example/", "--org", "shop"]) == 0
    out = capsys.readouterr().out
    assert "https://m.example/prometheus/shop" in out
    assert "auth token --org shop" in out
    assert run(["grafana", "-c", str(config), "--org", "_operator"]) == 0
    assert "auth token --operator" in capsys.readouterr().out


def test_every_dashboard_is_written(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new" / "boards"
    assert run(["grafana", "dashboards", str(folder), "-c", str(config)]) == 0
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{name}.json" for name in DASHBOARDS)
    assert gazetteer(folder / "fly.json") == "http://127.0.0.1:9333/meta/regions.json"
    assert f"wrote {folder / 'fly.json'}" in capsys.readouterr().out
    assert run(["grafana", "dashboards", str(folder), "-c", str(config), "--base-url", "https://m.example/fly/"]) == 0
    assert gazetteer(folder / "fly.json") == "https://m.example/fly/meta/regions.json"


def test_provisioning_is_what_grafana_reads(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "provisioning"
    options = ["--url", "http://flyproxy:9290", "--base-url", "http://localhost:9290", "--org", "shop"]
    assert run(["grafana", "provision", str(folder), "-c", str(config), *options]) == 0
    assert "FLYPROXY_TOKEN=$(flyproxy auth token --org shop)" in capsys.readouterr().err
    (source,) = yaml.safe_load((folder / "datasources" / "flyproxy.yaml").read_text())["datasources"]
    assert source == {
        "name": "flyproxy shop",
        "uid": "flyproxy-shop",
        "type": "prometheus",
        "access": "proxy",
        "url": "http://flyproxy:9290/prometheus/shop",
        "jsonData": {
            "httpMethod": "POST",
            "timeInterval": "15s",
            "prometheusType": "Prometheus",
            "httpHeaderName1": "Authorization",
        },
        "secureJsonData": {"httpHeaderValue1": "Bearer $FLYPROXY_TOKEN"},
    }
    (provider,) = yaml.safe_load((folder / "dashboards" / "flyproxy.yaml").read_text())["providers"]
    assert provider["type"] == "file"
    boards = Path(provider["options"]["path"])
    assert boards == folder / "dashboards" / "flyproxy"
    assert gazetteer(boards / "fly.json") == "http://localhost:9290/meta/regions.json"
    source_variable: Any = json.loads((boards / "fly.json").read_text())["templating"]["list"][0]
    assert source_variable["current"]["value"] == "flyproxy-shop"


def test_a_dollar_that_is_meant_survives_grafanas_expansion(config: Path, tmp_path: Path) -> None:
    command = ["grafana", "provision", str(tmp_path / "p"), "-c", str(config), "--token-variable", "SHOP_TOKEN"]
    assert run([*command, "--dashboards-path", '/srv/$HOME "x"']) == 0
    (provider,) = yaml.safe_load((tmp_path / "p" / "dashboards" / "flyproxy.yaml").read_text())["providers"]
    assert provider["options"]["path"] == '/srv/$$HOME "x"'
    text = (tmp_path / "p" / "datasources" / "flyproxy.yaml").read_text()
    assert yaml.safe_load(text)["datasources"][0]["secureJsonData"] == {"httpHeaderValue1": "Bearer $SHOP_TOKEN"}


def test_its_own_files_are_written_anew_and_others_left_alone(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "provisioning"
    command = ["grafana", "provision", str(folder), "-c", str(config)]
    assert run(command) == 0
    assert run(command) == 0
    before = (folder / "datasources" / "flyproxy.yaml").read_text()
    foreign = folder / "dashboards" / "flyproxy.yaml"
    foreign.write_text("apiVersion: 1\n")
    capsys.readouterr()
    assert run([*command, "--url", "http://other:1"]) == 1
    assert f"not written by flyproxy: {foreign}; --force writes over it" in capsys.readouterr().err
    assert foreign.read_text() == "apiVersion: 1\n"
    assert (folder / "datasources" / "flyproxy.yaml").read_text() == before, "none of them, when not all"
    assert run([*command, "--force"]) == 0
    assert "providers:" in foreign.read_text()
    assert [path.name for path in folder.rglob(".*")] == []


@pytest.mark.parametrize("content", ["{}", "no json", "[]", '{"uid": null}', '{"uid": "someone-elses"}'])
def test_a_dashboard_of_somebody_else_is_left_alone(config: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "fly.json").write_text(content)
    assert run(["grafana", "dashboards", str(tmp_path), "-c", str(config)]) == 1
    assert (tmp_path / "fly.json").read_text() == content
    assert run(["grafana", "dashboards", str(tmp_path), "-c", str(config), "--force"]) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["dashboards", "d", "--base-url", "metrics.example"],
        ["dashboards", "d", "--base-url", "http://metrics.example/?x"],
        ["dashboards", "d", "--base-url", 'http://metrics.example"'],
        ["provision", "d", "--url", "ftp://metrics.example"],
        ["provision", "d", "--url", "http://me:secret@metrics.example"],
        ["provision", "d", "--org", "shpo"],
        ["provision", "d", "--token-variable", "A B"],
        ["--url", "metrics.example"],
        ["nothing"],
    ],
)
def test_wrong_usage_writes_nothing(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["grafana", *arguments]) == 2
    assert not (tmp_path / "d").exists()


def test_options_before_a_subcommand_are_not_lost_in_silence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["grafana", "--org", "shop", "provision", "d"]) == 2
    assert "--org goes after the subcommand" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_said(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run(["grafana", "dashboards", str(tmp_path / "file" / "d"), "-c", str(config)]) == 1
    assert "cannot write" in capsys.readouterr().err


def test_a_uid_fits_into_grafanas_forty_characters() -> None:
    assert datasource_uid("personal") == "flyproxy-personal"
    long, other = datasource_uid("a" * 63), datasource_uid("a" * 62)
    assert len(long) == len(other) == 40
    assert long != other
