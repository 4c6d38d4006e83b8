"""`flyproxy run fly.toml`: which doors, which app, which instance a file makes."""

from pathlib import Path

import pytest

from flyproxy.config.faults import ConfigError
from flyproxy.config.fly_front_door import DOORS_MAX
from flyproxy.config.load import load_bytes, load_file
from flyproxy.config.machine import Machine
from flyproxy.config.resolve import resolve
from flyproxy.config.resolved import Concurrency, MetricsEndpoint, Resolved

GOOD = Path(__file__).parent / "fly" / "good"
TEXT = """
app = "hello"
primary_region = "fra"
[http_service]
internal_port = 3000
"""


@pytest.fixture
def door(machine: Machine) -> "Make":
    return Make(machine)


class Make:
    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def __call__(
        self, text: str = TEXT, overrides: dict[str, object] | None = None, environ: dict[str, str] | None = None
    ) -> Resolved:
        loaded = load_bytes(text.encode(), "fly.toml", folder="/srv", overrides=overrides, environ=environ or {})
        return resolve(loaded, self._machine)


def doors(resolved: Resolved) -> list[tuple[int, bool, str | None]]:
    assert {listener.host for listener in resolved.edge.listeners} == {"0.0.0.0"}
    return [(listener.port, listener.http, listener.app) for listener in resolved.edge.listeners]


def services(*ports: str, internal_port: int = 3000) -> str:
    return f"app = 'hello'\n[[services]]\ninternal_port = {internal_port}\nports = [{', '.join(ports)}]\n"


def test_raw_doors_of_another_service_lead_to_its_port_and_step_aside_from_it(door: Make) -> None:
    more = "[[services]]\ninternal_port = 5432\nports = [{port = 5432}, {port = 7000}]\n"
    listeners = door(services("{port = 80, handlers = ['http']}", "{port = 7100}") + more).edge.listeners
    assert [(one.port, one.http, one.instance_port) for one in listeners] == [
        (8080, True, None),
        (7100, False, None),
        (15432, False, 5432),
        (7000, False, 5432),
    ]


def test_one_app_gets_every_host_and_runs_on_this_machine(door: Make) -> None:
    resolved = door()
    (app,) = resolved.edge.apps
    (instance,) = app.instances
    assert resolved.edge.any_host
    assert (resolved.edge.default_app, app.name, app.organization) == ("hello", "hello", "personal")
    assert (instance.host, instance.port, instance.region, instance.process) == ("127.0.0.1", 3000, "fra", "app")
    assert app.metrics == ()
    assert app.concurrency == Concurrency("connections", 20, None)
    assert resolved.source == "fly.toml"
    assert resolved.telemetry.data_dir == "/srv/data"


def test_the_region_is_the_environments_before_the_files(door: Make) -> None:
    assert door().edge.region == "fra"
    assert door(environ={"FLY_REGION": "nrt"}).edge.region == "nrt"
    assert (
        door(overrides={"edge.region": "syd"}, environ={"FLY_REGION": "nrt"}).edge.apps[0].instances[0].region == "syd"
    )
    assert door(TEXT.replace("fra", "xxx")).edge.region == "local"


def test_flys_http_ports_are_one_door(door: Make) -> None:
    assert doors(door()) == [(8080, True, None)]
    both = services("{port = 80, handlers = ['http']}", "{port = 443, handlers = ['tls', 'http']}")
    assert doors(door(both)) == [(8080, True, None)]
    assert doors(door(services("{port = 443, handlers = ['http', 'tls']}"))) == [(8080, True, None)]


def test_any_other_port_is_itself(door: Make) -> None:
    text = services("{port = 3001, handlers = ['http']}", "{port = 5000}", "{start_port = 6000, end_port = 6001}")
    assert doors(door(text)) == [
        (3001, True, None),
        (5000, False, "hello"),
        (6000, False, "hello"),
        (6001, False, "hello"),
    ]


def test_a_port_is_opened_once(door: Make) -> None:
    assert doors(door(services("{port = 5000}", "{start_port = 4999, end_port = 5000}"))) == [
        (5000, False, "hello"),
        (4999, False, "hello"),
    ]


def test_a_door_steps_aside_where_the_app_is(door: Make) -> None:
    assert doors(door(TEXT.replace("3000", "8080"))) == [(18080, True, None)]
    assert doors(door(services("{port = 5432}", internal_port=5432))) == [(15432, False, "hello")]


def test_doors_are_bounded(door: Make) -> None:
    assert len(door(services("{start_port = 1, end_port = 65535}")).edge.listeners) == DOORS_MAX


def test_flags_win(door: Make) -> None:
    resolved = door(overrides={"listeners": [{"bind": "127.0.0.1:9000"}], "telemetry.bind": "127.0.0.1:9001"})
    assert [(listener.host, listener.port) for listener in resolved.edge.listeners] == [("127.0.0.1", 9000)]
    assert resolved.telemetry.port == 9001


def test_a_door_on_the_app_itself_is_refused_where_a_flag_asks_for_it(door: Make) -> None:
    with pytest.raises(ConfigError, match=r"fly\.toml:5:17: error: .*'127\.0\.0\.1:3000' is taken by listeners\[0\]"):
        door(overrides={"listeners": [{"bind": "0.0.0.0:3000"}]})


def test_what_the_file_says_of_metrics_and_limits_holds(machine: Machine) -> None:
    path = GOOD / "everything_that_is_not_ours.toml"
    (app,) = resolve(load_file(str(path), environ={}), machine).edge.apps
    assert app.metrics == (MetricsEndpoint(9091, "/metrics", True, ("web",)),)
    assert app.instances[0].process == "web"
    assert app.concurrency == Concurrency("connections", 20, None)


def test_a_variable_sets_what_a_fly_toml_has_no_key_for(door: Make) -> None:
    assert door(environ={"FLYPROXY_TELEMETRY_RETENTION": "2d"}).telemetry.retention_s == 2 * 86_400


def test_what_tls_would_carry_is_carried_without_it(door: Make) -> None:
    assert doors(door(services("{port = 8443, handlers = ['tls', 'http']}"))) == [(8443, True, None)]
    assert doors(door(services("{port = 9443, handlers = ['tls']}"))) == [(9443, False, "hello")]
    assert doors(door(services("{port = 5432, handlers = ['pg_tls']}"))) == [(5432, False, "hello")]


def test_a_port_for_superusers_only_is_a_door_ten_thousand_higher(door: Make) -> None:
    text = services("{port = 22}", "{port = 443}", "{start_port = 1023, end_port = 1024}", "{port = 80}")
    assert [port for port, _, _ in doors(door(text))] == [10022, 10443, 11023, 1024, 10080]
    assert doors(door(services("{port = 81, handlers = ['http']}"))) == [(10081, True, None)]


def test_an_app_that_only_has_metrics_gets_no_door_and_is_scraped(door: Make) -> None:
    resolved = door("app = 'queue'\n[processes]\nmail = ''\nbill = ''\n[metrics]\nport = 9091\nprocesses = ['bill']\n")
    (app,) = resolved.edge.apps
    assert resolved.edge.listeners == ()
    assert app.metrics == (MetricsEndpoint(9091, "/metrics", processes=("bill",)),)
    assert (app.instances[0].port, app.instances[0].process) == (9091, "bill")
    assert len(door(overrides={"listeners": [{"bind": "127.0.0.1:9000"}]}).edge.listeners) == 1


def test_the_instance_is_the_public_services(door: Make) -> None:
    text = "[[services]]\ninternal_port = 9999\n[[services]]\ninternal_port = 3000\nports = [{port = 5000}]\n"
    resolved = door(text)
    assert resolved.edge.apps[0].instances[0].port == 3000
    assert doors(resolved) == [(5000, False, "app")]


def test_a_soft_limit_above_the_hard_one_bends(door: Make) -> None:
    limits = "[http_service.concurrency]\nsoft_limit = 30\nhard_limit = 25\n"
    assert door(f"{TEXT}{limits}").edge.apps[0].concurrency == Concurrency("connections", 25, 25)


def test_a_metrics_path_without_its_slash_gets_one(door: Make) -> None:
    app = door(f"{TEXT}[metrics]\nport = 9091\npath = 'metrics/prometheus'\n").edge.apps[0]
    assert app.metrics == (MetricsEndpoint(9091, "/metrics/prometheus"),)


def test_a_port_with_the_handler_proxy_proto_sends_the_header_to_the_app(door: Make) -> None:
    resolved = resolve(load_file(str(GOOD / "proxy_proto.toml"), environ={}), door._machine)
    assert [(one.port, one.http, one.instance_port, one.send_proxy) for one in resolved.edge.listeners] == [
        (8080, True, None, None),
        (2500, False, 2525, 1),
        (2501, False, 2525, 2),
        (2502, False, 2525, 0),
    ]
    assert resolved.edge.apps[0].send_proxy == 0
    assert not any(one.proxy_proto for one in resolved.edge.listeners)  # nobody in front of it is believed
    assert resolved.edge.trusted_proxies == ()


def test_so_does_a_port_of_http_for_every_request(door: Make) -> None:
    (app,) = resolve(load_file(str(GOOD / "proxy_proto_http.toml"), environ={}), door._machine).edge.apps
    assert app.send_proxy == 2
    text = services("{port = 80, handlers = ['http']}", "{port = 5000, handlers = ['proxy_proto']}")
    resolved = door(text)
    assert resolved.edge.apps[0].send_proxy == 0
    assert [one.send_proxy for one in resolved.edge.listeners] == [None, 1]
    resolved = door(services("{port = 5000, handlers = ['tls', 'proxy_proto']}"))
    assert [(one.http, one.send_proxy) for one in resolved.edge.listeners] == [(False, 1)]
