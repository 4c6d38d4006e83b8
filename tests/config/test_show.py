"""The configuration in force, as text: whole for the operator, its own part for an organization."""

from dataclasses import replace

import pytest
import yaml

from flyproxy.config import models
from flyproxy.config.load import from_flags, load_bytes
from flyproxy.config.machine import Machine
from flyproxy.config.resolve import resolve
from flyproxy.config.resolved import Resolved
from flyproxy.config.show import running_yaml

TEXT = b"""
edge: {region: fra, host: 0123, default_app: shop, access_log: off}
listeners:
  - {bind: "[::1]:8080"}
  - {bind: "127.0.0.1:5432", handlers: [], app: db, region: lab}
  - {bind: "127.0.0.1:5433", handlers: [], app: rival-db}
  - {bind: "127.0.0.1:8090", handlers: [proxy_proto, http]}
  - {bind: "127.0.0.1:5434", handlers: [proxy_proto], app: db, send_proxy: v2}
trusted_proxies: [10.77.0.0/16, "fd00::/8"]
telemetry: {data_dir: /var/lib/flyproxy, retention: 36h, own_interval: 500ms}
organizations: [{slug: personal}, {slug: rival}]
regions: [{key: lab, latitude: 52.52, longitude: 13.4, name: "The lab, Berlin"}]
limits: {body_bytes: 1MB}
scrape_limits: {samples: 7}
apps:
  - name: shop
    hostnames: [shop.localhost, "*.shop.localhost"]
    metrics: [{port: 9091, processes: [web]}, {https: true, path: /x}]
    concurrency: {soft_limit: 20, hard_limit: 25}
    instances: [{address: "localhost:8081", process: web}, {address: "[::1]:8082", id: 1234567890e123}]
  - {name: db, send_proxy: v1, instances: [{address: "db.internal:5432"}]}
  - {name: rival-db, organization: rival, hostnames: [rival.localhost], instances: [{address: "10.0.0.9:1"}]}
"""


@pytest.fixture
def resolved(machine: Machine) -> Resolved:
    return resolve(load_bytes(TEXT, "f.yml", folder="/etc/flyproxy", environ={}), machine)


def test_the_operators_text_resolves_to_the_same_values_again(resolved: Resolved, machine: Machine) -> None:
    text = running_yaml(resolved, None)
    again = resolve(load_bytes(text.encode(), "f.yml", environ={}), machine)
    assert again == resolved


def test_so_does_the_text_of_every_default(machine: Machine) -> None:
    resolved = resolve(load_bytes(b"", "f.yml", environ={}), machine)
    assert resolve(load_bytes(running_yaml(resolved, None).encode(), "f.yml", environ={}), machine) == resolved


def test_the_operator_sees_every_key_that_is_built(resolved: Resolved) -> None:
    shown = yaml.safe_load(running_yaml(resolved, None))
    for section, model in (
        ("edge", models.Edge),
        ("telemetry", models.Telemetry),
        ("limits", models.Limits),
        ("timeouts", models.Timeouts),
        ("scrape_limits", models.ScrapeLimits),
        ("promql", models.Promql),
    ):
        assert set(shown[section]) == set(model.model_fields), section
    app = shown["apps"][0]
    assert set(models.App.model_fields) - set(app) == {"fly_toml", "checks"}
    assert set(app["instances"][0]) == set(models.Instance.model_fields)
    assert set(app["metrics"][0]) == set(models.Metrics.model_fields)
    assert set(app["concurrency"]) == set(models.Concurrency.model_fields)
    assert set(shown["listeners"][0]) == set(models.Listener.model_fields)
    assert set(shown["regions"][0]) == set(models.Region.model_fields)


def test_values_read_as_a_user_writes_them(resolved: Resolved) -> None:
    shown = yaml.safe_load(running_yaml(resolved, None))
    assert (shown["telemetry"]["retention"], shown["telemetry"]["own_interval"]) == ("36h", "500ms")
    assert (shown["limits"]["head_bytes"], shown["limits"]["body_bytes"]) == ("32KiB", "1000000B")
    assert shown["listeners"][0]["bind"] == "[::1]:8080"


def test_an_organization_sees_only_its_own(resolved: Resolved) -> None:
    text = running_yaml(resolved, "rival")
    shown = yaml.safe_load(text)
    assert [app["name"] for app in shown["apps"]] == ["rival-db"]
    assert shown["organizations"] == [{"slug": "rival"}]
    assert shown["edge"]["default_app"] is None
    assert [door["app"] for door in shown["listeners"]] == [None, "rival-db", None]
    for word in ("shop", "personal", "/var/lib", "data_dir", "8081", "db.internal", "f.yml", "10.77"):
        assert word not in text


def test_an_organization_without_apps_sees_what_is_common(resolved: Resolved) -> None:
    shown = yaml.safe_load(running_yaml(resolved, "nobody"))
    assert shown["apps"] == []
    assert shown["scrape_limits"]["samples"] == 7


def test_an_app_for_every_host_is_said_to_whom_it_concerns(machine: Machine) -> None:
    resolved = resolve(from_flags(["8081"], environ={}), machine)
    assert running_yaml(resolved, None).startswith("# every host goes to the app 'app'\n")
    assert running_yaml(resolved, "personal").startswith("# every host goes to the app 'app'\n")
    assert not running_yaml(replace(resolved), "rival").startswith("#")
