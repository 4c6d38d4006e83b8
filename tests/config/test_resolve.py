"""Models to plain values: defaults filled in, names looked up, ids derived."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from flyproxy.config.faults import ConfigError
from flyproxy.config.load import Loaded, from_flags, load_bytes
from flyproxy.config.machine import Machine, four_digits
from flyproxy.config.resolve import instance_id, resolve
from flyproxy.config.resolved import (
    Concurrency,
    Instance,
    Limits,
    Listener,
    MetricsEndpoint,
    Resolved,
    ScrapeLimits,
    Timeouts,
)


def loaded(text: str) -> Loaded:
    return load_bytes(text.encode(), "f.yml", folder="/etc/flyproxy", environ={})


def test_an_empty_file_is_a_front_door_with_every_default(machine: Machine) -> None:
    result = resolve(loaded(""), machine)
    assert result.workers == 4
    assert result.source == "f.yml"
    assert result.edge.listeners == (Listener("0.0.0.0", 8080, True, "local", None),)
    assert (result.edge.region, result.edge.host, result.edge.loop) == ("local", "2bc3", "uvloop")
    assert (result.edge.apps, result.edge.default_app, result.edge.any_host) == ((), None, False)
    assert result.edge.limits == Limits()
    assert result.edge.timeouts == Timeouts()
    assert len(result.edge.region_positions) == 36
    assert (result.telemetry.host, result.telemetry.port) == ("127.0.0.1", 9290)
    assert result.telemetry.organizations == ("personal",)
    assert result.telemetry.retention_s == 15 * 86_400


def test_an_instance_gets_what_it_was_not_given(machine: Machine) -> None:
    text = "edge: {region: ord}\napps: [{name: hello, instances: [{address: 'localhost:8081'}]}]"
    app = resolve(loaded(text), machine).edge.apps[0]
    assert app.organization == "personal"
    assert app.instances == (
        Instance(instance_id("hello", "localhost:8081"), "127.0.0.1", 8081, "ord", worker_host="2bc3"),
    )


def test_a_derived_id_is_fourteen_hex_digits_and_stays(machine: Machine) -> None:
    assert instance_id("hello", "127.0.0.1:8081") == "ed2240cc98999d"
    assert instance_id("hello", "127.0.0.1:8082") != instance_id("hello", "127.0.0.1:8081")
    assert instance_id("shop", "127.0.0.1:8081") != instance_id("hello", "127.0.0.1:8081")


def test_the_host_of_an_instance_is_this_machine_only_when_it_runs_here(machine: Machine) -> None:
    text = """
edge: {host: aaaa}
apps:
  - name: hello
    instances:
      - {address: "127.0.0.1:1"}
      - {address: "db.internal:1"}
      - {address: "10.0.0.9:1"}
      - {address: "10.0.0.9:2"}
      - {address: "10.0.0.9:3", host: "0B0B"}
"""
    hosts = [instance.worker_host for instance in resolve(loaded(text), machine).edge.apps[0].instances]
    assert hosts == ["aaaa", "aaaa", four_digits("10.0.0.9"), four_digits("10.0.0.9"), "0b0b"]


def test_doors_stand_for_their_region_or_the_edges(machine: Machine) -> None:
    text = """
edge: {region: fra}
listeners:
  - {bind: "localhost:8080"}
  - {bind: "[::1]:0", region: nrt, handlers: [], app: db}
apps: [{name: db}]
"""
    assert resolve(loaded(text), machine).edge.listeners == (
        Listener("127.0.0.1", 8080, True, "fra", None),
        Listener("::1", 0, False, "nrt", "db"),
    )


def test_metrics_are_one_endpoint_or_several(machine: Machine) -> None:
    text = "apps: [{name: a, metrics: {port: 9091}}, {name: b, metrics: [{}, {port: 1, path: /x}]}, {name: c}]"
    metrics = [app.metrics for app in resolve(loaded(text), machine).edge.apps]
    assert metrics == [
        (MetricsEndpoint(9091, "/metrics"),),
        (MetricsEndpoint(None, "/metrics"), MetricsEndpoint(1, "/x")),
        (),
    ]


def test_process_groups_choose_where_metrics_are(machine: Machine) -> None:
    text = """
apps:
  - name: a
    metrics: {port: 1, https: true, processes: [web]}
    instances: [{address: "127.0.0.1:1", process: web}, {address: "127.0.0.1:2"}]
"""
    (app,) = resolve(loaded(text), machine).edge.apps
    assert app.metrics == (MetricsEndpoint(1, "/metrics", True, ("web",)),)
    assert [instance.process for instance in app.instances] == ["web", "app"]


def test_limits_are_carried(machine: Machine) -> None:
    text = "apps: [{name: a, concurrency: {type: connections, soft_limit: 20, hard_limit: 25}}, {name: b}]"
    limits = [app.concurrency for app in resolve(loaded(text), machine).edge.apps]
    assert limits == [Concurrency("connections", 20, 25), Concurrency("requests", None, None)]


def test_scrape_limits_are_the_scrapers_unless_given(machine: Machine) -> None:
    assert resolve(loaded(""), machine).telemetry.scrape_limits == ScrapeLimits()
    given = resolve(loaded("scrape_limits: {body_bytes: 1MiB, samples: 7, lines: 9}"), machine).telemetry.scrape_limits
    assert given == ScrapeLimits(body_bytes=1024 * 1024, samples=7, lines=9)


def test_each_app_belongs_to_its_organization(machine: Machine) -> None:
    text = """
organizations: [{slug: personal}, {slug: acme}, {slug: rival}]
apps: [{name: a}, {name: b, organization: acme}, {name: c, organization: acme}, {name: d, organization: rival}]
"""
    result = resolve(loaded(text), machine)
    assert result.telemetry.organizations == ("personal", "acme", "rival")
    assert [(app.name, app.organization) for app in result.edge.apps] == [
        ("a", "personal"),
        ("b", "acme"),
        ("c", "acme"),
        ("d", "rival"),
    ]


def test_a_name_is_one_app_across_all_organizations() -> None:
    text = "organizations: [{slug: x}, {slug: y}]\napps: [{name: a, organization: x}, {name: a, organization: y}]"
    with pytest.raises(ConfigError, match="the app 'a' is given twice"):
        loaded(text)


def test_names_nobody_knows_are_faults_with_their_place(machine: Machine) -> None:
    text = "apps:\n  - name: a\n    instances:\n      - address: nix:1\n      - address: nix:2\n"
    with pytest.raises(ConfigError) as caught:
        resolve(loaded(text), machine)
    assert [(fault.line, fault.sentence) for fault in caught.value.faults] == [
        (4, "cannot look up 'nix': name or service not known"),
        (5, "cannot look up 'nix': name or service not known"),
    ]


def test_a_name_is_asked_for_once(machine: Machine) -> None:
    asked: list[str] = []

    def look_up(name: str) -> str:
        asked.append(name)
        return "10.0.0.1"

    resolve(from_flags(["a:1", "a:2", "b:1"], environ={}), replace(machine, look_up=look_up))
    assert asked == ["a", "b"]


def test_folders_are_relative_to_the_file(machine: Machine) -> None:
    assert resolve(loaded("telemetry: {data_dir: d}"), machine).telemetry.data_dir == "/etc/flyproxy/d"
    assert resolve(loaded("telemetry: {data_dir: /var/lib/x}"), machine).telemetry.data_dir == "/var/lib/x"
    assert resolve(from_flags(environ={}), machine).telemetry.data_dir == str(Path.cwd() / "data")


def test_auto_settings_follow_the_machine(machine: Machine) -> None:
    def edge(machine: Machine, text: str = "") -> tuple[str, str]:
        result = resolve(loaded(text), machine).edge
        return result.loop, result.access_log

    assert edge(machine) == ("uvloop", "json")
    assert edge(replace(machine, terminal=True, uvloop=False)) == ("asyncio", "console")
    assert edge(replace(machine, terminal=True), "edge: {access_log: off, loop: asyncio}") == ("asyncio", "off")


def test_workers_are_bounded_however_large_the_machine(machine: Machine) -> None:
    assert resolve(loaded(""), replace(machine, cpus=512)).workers == 128
    assert resolve(loaded("edge: {workers: 0}"), machine).workers == 0


def test_own_regions_stand_beside_the_shipped_ones(machine: Machine) -> None:
    result = resolve(loaded("regions: [{key: lab, latitude: 1, longitude: 2}]"), machine)
    assert result.edge.region_positions[-1] == ("lab", 1.0, 2.0)
    assert (result.telemetry.regions[-1].name, len(result.telemetry.regions)) == ("lab", 37)


def test_flags_alone_have_no_source_and_take_any_host(machine: Machine) -> None:
    result = resolve(from_flags(["8081"], {"edge.workers": "1"}, environ={}), machine)
    assert (result.source, result.workers, result.edge.any_host, result.edge.default_app) == ("", 1, True, "app")


def test_the_result_travels_to_a_child(machine: Machine) -> None:
    result = resolve(loaded("apps: [{name: a, hostnames: [a.localhost], instances: [{address: '[::1]:1'}]}]"), machine)
    again = pickle.loads(pickle.dumps(result))
    assert isinstance(again, Resolved)
    assert again == result


def test_proxy_headers_are_believed_and_sent_as_written(machine: Machine) -> None:
    text = """
trusted_proxies: [10.0.0.0/8, 192.0.2.7]
listeners:
  - {bind: "127.0.0.1:1", handlers: [proxy_proto, http]}
  - {bind: "127.0.0.1:2", handlers: [proxy_proto], app: b, send_proxy: off}
  - {bind: "127.0.0.1:3", handlers: [], app: b, send_proxy: v2}
  - {bind: "127.0.0.1:4", handlers: [], app: b}
apps: [{name: a}, {name: b, send_proxy: v1}]
"""
    edge = resolve(loaded(text), machine).edge
    assert edge.trusted_proxies == ("10.0.0.0/8", "192.0.2.7/32")
    assert [(door.http, door.proxy_proto, door.send_proxy) for door in edge.listeners] == [
        (True, True, None),
        (False, True, 0),
        (False, False, 2),
        (False, False, None),
    ]
    assert [app.send_proxy for app in edge.apps] == [0, 1]
