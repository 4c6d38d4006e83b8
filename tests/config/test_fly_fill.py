"""`apps[].fly_toml`: what an app of a YAML file leaves to its fly.toml."""

from pathlib import Path

import pytest

from flyproxy.config import fly_fill
from flyproxy.config.faults import ConfigError, render_line
from flyproxy.config.load import Loaded, load_bytes, load_file
from flyproxy.config.models import App

FLY = """
app = "ignored"
primary_region = "fra"
[processes]
web = "a"
worker = "b"
[http_service]
internal_port = 3000
force_https = true
processes = ["web"]
[http_service.concurrency]
hard_limit = 25
[[metrics]]
port = 9091
processes = ["web", "worker"]
[[metrics]]
port = 9092
processes = ["worker"]
"""


@pytest.fixture
def load(tmp_path: Path) -> "Load":
    (tmp_path / "apps").mkdir()
    (tmp_path / "apps" / "fly.toml").write_text(FLY)
    return Load(tmp_path)


class Load:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, more: str = "") -> Loaded:
        text = f"apps:\n  - name: hello\n    fly_toml: apps/fly.toml\n{more}"
        return load_bytes(text.encode(), "etc/f.yml", folder=str(self.folder), environ={})

    def app(self, more: str = "") -> App:
        return self(more).configuration.apps[0]


INSTANCE = "    instances: [{address: 10.0.0.5}]\n"


def test_an_address_without_a_port_gets_the_internal_port(load: Load) -> None:
    more = '    instances: [{address: 10.0.0.5}, {address: "10.0.0.5:81"}, {address: "::1"}, {address: db.internal}]\n'
    addresses = [instance.address for instance in load.app(more).instances]
    assert addresses == ["10.0.0.5:3000", "10.0.0.5:81", "[::1]:3000", "db.internal:3000"]


def test_without_an_internal_port_an_address_needs_its_own(load: Load) -> None:
    (load.folder / "apps" / "fly.toml").write_text("app = 'worker'\n")
    with pytest.raises(ConfigError, match=r"f\.yml:4:27: error: .*'10\.0\.0\.5' has no port"):
        load(INSTANCE)


def test_metrics_are_the_files_for_the_groups_that_are_here(load: Load) -> None:
    app = load.app(INSTANCE)
    assert [(entry.port, entry.processes) for entry in app.metrics or ()] == [(9091, ["web"])]
    assert app.instances[0].process == "web"
    both = load.app("    instances: [{address: 10.0.0.5}, {address: 10.0.0.6, process: worker}]\n")
    assert [(entry.port, entry.processes) for entry in both.metrics or ()] == [
        (9091, ["web", "worker"]),
        (9092, ["worker"]),
    ]


def test_inline_metrics_win_whole(load: Load) -> None:
    assert [entry.port for entry in load.app(f"    metrics: {{port: 1}}\n{INSTANCE}").metrics or ()] == [1]
    assert load.app(f"    metrics: null\n{INSTANCE}").metrics is None


def test_inline_limits_win_key_by_key(load: Load) -> None:
    def limits(written: str) -> tuple[str, int | None, int | None]:
        concurrency = load.app(written).concurrency
        return concurrency.type, concurrency.soft_limit, concurrency.hard_limit

    assert limits("") == ("connections", 20, 25)
    assert limits("    concurrency: {type: requests}\n") == ("requests", 20, 25)
    assert limits("    concurrency: {hard_limit: 10}\n") == ("connections", 10, 10)
    assert limits("    concurrency: {soft_limit: 5, hard_limit: null}\n") == ("connections", 5, None)


def test_limits_that_do_not_fit_together_are_a_fault_of_the_yaml(load: Load) -> None:
    with pytest.raises(
        ConfigError, match=r"etc/f\.yml:4:31: error: .*soft_limit \(30\) is larger than hard_limit \(25\)"
    ):
        load("    concurrency: {soft_limit: 30}\n")


def test_warnings_of_both_files_are_kept_once(load: Load) -> None:
    more = f"    concurrency: {{soft_limit: 2}}\n{INSTANCE}  - name: again\n    fly_toml: apps/fly.toml\n{INSTANCE}"
    shown = [render_line(warning).split(" warning: ")[0] for warning in load(more).warnings]
    assert shown == ["etc/apps/fly.toml:9:1:", "etc/apps/fly.toml:12:1:", "etc/apps/fly.toml:18:1:", "etc/f.yml:4:31:"]


def test_faults_of_the_fly_toml_name_it_and_stand_beside_the_yamls(load: Load) -> None:
    (load.folder / "apps" / "fly.toml").write_text("[http_service]\ninternal_port = 70000\n")
    with pytest.raises(ConfigError) as caught:
        load("    hostnames: [a b]\n")
    assert [(fault.file, fault.line, fault.path) for fault in caught.value.faults] == [
        ("etc/apps/fly.toml", 2, "http_service.internal_port"),
        ("etc/f.yml", 4, "apps[0].hostnames[0]"),
    ]


def test_a_file_that_is_not_there_is_said_at_its_key(load: Load) -> None:
    (load.folder / "apps" / "fly.toml").unlink()
    with pytest.raises(ConfigError, match=r"etc/f\.yml:3:15: error: apps\[0\]\.fly_toml: cannot read 'apps/fly\.toml'"):
        load()


def test_files_are_bounded(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fly_fill, "FILES_MAX", 1)
    (load.folder / "other.toml").write_text(FLY)
    with pytest.raises(ConfigError, match=r"apps\[1\]\.fly_toml: more than 1 files"):
        load("  - name: again\n    fly_toml: other.toml\n")


def test_the_path_is_relative_to_the_configurations_folder(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load.folder / "f.yml"
    config.write_text("apps: [{name: hello, fly_toml: apps/fly.toml}]")
    monkeypatch.chdir("/")
    assert load_file(str(config), environ={}).configuration.apps[0].concurrency.hard_limit == 25


@pytest.mark.parametrize(
    "text",
    [
        "apps: 5",
        "apps: [5, {fly_toml: apps/fly.toml}]",
        "apps: [{name: a, fly_toml: apps/fly.toml, instances: 5}]",
        "apps: [{name: a, fly_toml: apps/fly.toml, instances: [5, {address: 5}, {address: []}], concurrency: 7}]",
        "apps: [{name: a, fly_toml: apps/fly.toml, instances: [{address: 10.0.0.5, process: []}]}]",
        "apps: [{name: a, fly_toml: apps/fly.toml, concurrency: {soft_limit: x, hard_limit: []}}]",
        "apps: [{name: a, fly_toml: 5}]",
        'apps: [{name: a, fly_toml: "\\0"}]',
    ],
)
def test_values_of_the_wrong_kind_get_their_own_sentence(load: Load, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_bytes(text.encode(), "f.yml", folder=str(load.folder), environ={})
    assert all(fault.line for fault in caught.value.faults)


def test_an_app_gets_the_proxy_header_its_file_asks_for_unless_it_says_otherwise(load: Load) -> None:
    assert load.app(INSTANCE).send_proxy == "off"
    file = load.folder / "apps" / "fly.toml"
    file.write_text("[[services]]\ninternal_port = 25\nports = [{port = 25, handlers = ['proxy_proto']}]\n")
    assert load.app(INSTANCE).send_proxy == "v1"
    assert load.app(INSTANCE + "    send_proxy: v2\n").send_proxy == "v2"
