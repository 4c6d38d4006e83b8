"""A fly.toml as Fly's users have it: read as it is, with a sentence for what is wrong and for what is not done."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyproxy.config.faults import ConfigError, Fault, render_faults
from flyproxy.config.fly_toml import FlyToml, read_fly_toml
from flyproxy.config.load import load_bytes, load_file
from flyproxy.config.resolved import Concurrency, MetricsEndpoint

FOLDER = Path(__file__).parent / "fly"
BAD = sorted((FOLDER / "bad").glob("*.toml"))
WARNED = sorted((FOLDER / "warned").glob("*.toml"))
GOOD = sorted((FOLDER / "good").glob("*.toml"))
SHIPPED = sorted((FOLDER.parents[2] / "config").glob("*.toml"))


def read(text: str) -> FlyToml:
    return read_fly_toml(text.encode(), "fly.toml")


def test_there_are_golden_files() -> None:
    assert len(BAD) > 40
    assert len(WARNED) > 50
    assert GOOD
    assert SHIPPED
    for paths in (BAD, WARNED):
        assert {path.stem for path in paths[0].parent.glob("*.txt")} == {path.stem for path in paths}


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_file_gets_its_sentence_and_its_place(path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_bytes(path.read_bytes(), path.name, environ={})
    assert f"{caught.value}\n" == path.with_suffix(".txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", WARNED, ids=lambda path: path.stem)
def test_what_is_not_done_gets_its_sentence_and_stops_nobody(path: Path) -> None:
    loaded = load_bytes(path.read_bytes(), path.name, environ={})
    assert {warning.severity for warning in loaded.warnings} == {"warning"}
    assert f"{render_faults(loaded.warnings)}\n" == path.with_suffix(".txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", [*GOOD, *SHIPPED], ids=lambda path: path.stem)
def test_a_good_file_has_neither_faults_nor_warnings(path: Path) -> None:
    assert load_file(str(path), environ={}).warnings == ()


def test_the_http_service_is_the_first_of_the_services() -> None:
    fly = read("[[services]]\ninternal_port = 5000\n[http_service]\ninternal_port = 3000\n")
    assert [service.internal_port for service in fly.services] == [3000, 5000]
    assert fly.main is fly.services[0]


def test_limits_are_flys_where_the_file_gives_none() -> None:
    assert read("").concurrency == Concurrency("connections", 20, None)
    assert read("[http_service]\n").concurrency == Concurrency("connections", 20, None)
    assert read("[http_service.concurrency]\ntype = 'requests'\n").concurrency == Concurrency("requests", 20, None)
    assert read("[http_service.concurrency]\nhard_limit = 5\n").concurrency == Concurrency("connections", 5, 5)
    assert read("[http_service.concurrency]\nsoft_limit = 30\n").concurrency == Concurrency("connections", 30, None)
    assert read("[http_service.concurrency]\nsoft_limit = 0\n").concurrency == Concurrency("connections", 20, None)


def test_an_older_files_limits_count_requests() -> None:
    fly = read('[[services]]\ninternal_port = "80"\nconcurrency = "12, 23"\n')
    assert fly.concurrency == Concurrency("requests", 12, 23)


def test_the_instances_are_of_the_main_services_first_group() -> None:
    groups = "[processes]\nweb = ''\nworker = ''\n"
    assert read(f"{groups}[http_service]\nprocesses = ['worker', 'web']\n").process == "worker"
    assert read(f"{groups}[http_service]\n").process == "web"
    assert read("[processes]\nworker = ''\napp = ''\n[http_service]\n").process == "app"
    assert read("[http_service]\n").process == "app"


def test_metrics_are_one_table_or_several_or_an_old_key() -> None:
    def endpoints(text: str) -> list[MetricsEndpoint]:
        return [endpoint for _, endpoint in read(text).metrics]

    assert endpoints("") == []
    assert endpoints("[metrics]\nport = 9091\n") == [MetricsEndpoint(9091, "/metrics")]
    assert endpoints(
        "[[metrics]]\nport = 1\nhttps = true\n[[metrics]]\nport = 2\npath = '/x'\nprocesses = ['app']\n"
    ) == [
        MetricsEndpoint(1, "/metrics", https=True),
        MetricsEndpoint(2, "/x", processes=("app",)),
    ]
    old = "[experimental]\nmetrics_port = 9091\nmetrics_path = '/m'\n"
    assert endpoints(old) == [MetricsEndpoint(9091, "/m")]
    assert endpoints(f"{old}[metrics]\nport = 1\n") == [MetricsEndpoint(1, "/metrics")]


def test_every_fault_of_a_file_is_found_at_once() -> None:
    text = "[http_service]\ninternal_port = 0\n[metrics]\nport = 'x'\n"
    text += "[[services]]\ninternal_port = 5\nprotocol = 'sctp'\nports = 1\n"
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert [fault.path for fault in caught.value.faults] == [
        "http_service.internal_port",
        "metrics.port",
        "services[0].protocol",
        "services[0].ports",
    ]


def faults_of(raw: bytes) -> list[Fault] | None:
    try:
        load_bytes(raw, "fly.toml", environ={})
    except ConfigError as error:
        return error.faults
    return None


@given(st.binary(max_size=200))
def test_any_bytes_are_a_configuration_or_a_fault(raw: bytes) -> None:
    assert faults_of(raw) != []


_KEYS = ["app", "primary_region", "http_service", "services", "metrics", "metric", "processes", "experimental",
         "checks",
         "internal_port", "ports", "handlers", "concurrency", "soft_limit", "type", "http_options", "response", "port",
         "start_port", "end_port", "protocol", "path", "https", "metrics_port", "zzz"]  # fmt: skip
_VALUES = ["1", "80", "70000", "-1", "1.5", "nan", "true", "''", "'http'", "'tcp'", "[]", "{}", "[{}]",
           "['tls', 'http']",
           "[[1]]", "{port = 80}", "[{port = 443, handlers = ['tls', 'http']}]", "1979-05-27", "0x" + "f" * 5000,
           "'5,6'", "[{start_port = 1, end_port = 65535}]"]  # fmt: skip
_LINES = st.one_of(
    st.tuples(st.sampled_from(_KEYS), st.sampled_from(_VALUES)).map(" = ".join),
    st.lists(st.sampled_from(_KEYS), min_size=1, max_size=3).map(lambda parts: f"[{'.'.join(parts)}]"),
    st.sampled_from(_KEYS).map(lambda name: f"[[{name}]]"),
)


@given(st.lists(_LINES, max_size=10).map("\n".join))
def test_any_toml_is_a_configuration_or_a_fault(text: str) -> None:
    assert faults_of(text.encode()) != []
