"""A file, the environment and flags: what is accepted, what is refused and with which words, what wins."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyproxy.config.faults import ConfigError, Fault, render_line
from flyproxy.config.load import from_flags, load_bytes, load_file

FOLDER = Path(__file__).parent
BAD = sorted((FOLDER / "bad").glob("*.yml"))
GOOD = sorted((FOLDER / "good").glob("*.yml"))
SHIPPED = sorted((FOLDER.parents[1] / "config").glob("*.yaml"))


def test_there_are_golden_files() -> None:
    assert len(BAD) > 200
    assert len(GOOD) > 10


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_file_gets_its_sentence_and_its_place(path: Path, environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_bytes(path.read_bytes(), path.name, environ=environ)
    assert len(caught.value.faults) == 1
    assert f"{caught.value}\n" == path.with_suffix(".txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", [*GOOD, *SHIPPED], ids=lambda path: path.stem)
def test_a_good_file_has_no_faults(path: Path, environ: dict[str, str]) -> None:
    load_file(str(path), environ=environ)


def test_every_bad_file_has_its_text_and_the_other_way_round() -> None:
    assert {path.stem for path in (FOLDER / "bad").glob("*.txt")} == {path.stem for path in BAD}


def test_every_fault_is_found_at_once_in_the_order_of_the_file() -> None:
    raw = b"""
edge: {region: odr, loop: 3}
apps:
  - name: hello
    hostnam: [hello.localhost]
    instances: [{address: 127.0.0.1}, {address: "127.0.0.1:8081", region: farr}]
  - name: hello
limits: {head_bytes: many}
remote_write: [somewhere]
"""
    with pytest.raises(ConfigError) as caught:
        load_bytes(raw, "f.yml", environ={})
    assert [(fault.line, fault.path) for fault in caught.value.faults] == [
        (2, "edge.region"),
        (2, "edge.loop"),
        (5, "apps[0].hostnam"),
        (6, "apps[0].instances[0].address"),
        (6, "apps[0].instances[1].region"),
        (7, "apps[1].name"),
        (8, "limits.head_bytes"),
        (9, "remote_write"),
    ]


def test_numbers_keep_the_way_they_were_written_where_a_text_is_wanted() -> None:
    loaded = load_file(str(FOLDER / "good" / "numbers_as_names.yml"), environ={})
    app = loaded.configuration.apps[0]
    assert loaded.configuration.edge.host == "0123"
    assert (app.name, app.instances[0].id, app.instances[0].host) == ("2048", "12345678901234", "1e10")
    assert app.instances[1].id == "1234567890e123"


def test_off_and_no_are_words() -> None:
    loaded = load_file(str(FOLDER / "good" / "words_yaml_1_1_would_take_for_booleans.yml"), environ={})
    assert loaded.configuration.edge.access_log == "off"
    assert loaded.configuration.apps[0].name == "no"


def test_variables_are_filled_in_and_may_be_numbers(environ: dict[str, str]) -> None:
    configuration = load_file(str(FOLDER / "good" / "variables.yml"), environ=environ).configuration
    assert configuration.listeners[0].bind == "0.0.0.0:8080"
    assert configuration.apps[0].instances[0].address == "10.0.0.7:8081"
    assert configuration.apps[0].metrics is not None
    assert configuration.apps[0].metrics[0].port == 9091


def test_merge_keys_give_way_to_the_keys_beside_them() -> None:
    hello, shop = load_file(str(FOLDER / "good" / "anchors_and_merges.yml"), environ={}).configuration.apps
    assert (hello.name, shop.name) == ("hello", "shop")
    assert shop.instances == hello.instances
    assert [entry.port for entry in shop.metrics or ()] == [9091, 9092]


def test_the_environment_wins_over_the_file_and_flags_over_both() -> None:
    raw = b"edge: {region: ord}\nlimits: {body_bytes: 1KiB}"

    def region(environ: dict[str, str], overrides: dict[str, object] | None = None) -> str:
        return load_bytes(raw, "f.yml", environ=environ, overrides=overrides).configuration.edge.region

    assert region({}) == "ord"
    assert region({"FLY_REGION": "fra"}) == "fra"
    assert region({"FLY_REGION": ""}) == "ord"
    assert region({"FLYPROXY_EDGE_REGION": "nrt", "FLY_REGION": "fra"}) == "nrt"
    assert region({"FLYPROXY_EDGE_REGION": "nrt"}, {"edge.region": "syd"}) == "syd"


def test_the_environment_may_set_numbers_and_names() -> None:
    environ = {
        "FLYPROXY_EDGE_WORKERS": "2",
        "FLYPROXY_EDGE_HOST": "0042",
        "FLYPROXY_TELEMETRY_FIRST_ZERO": "false",
        "FLYPROXY_LIMITS_BODY_BYTES": "null",
        "FLYPROXY_TIMEOUTS_DRAIN": "0s",
        "FLYPROXY_SCRAPE_LIMITS_BODY_BYTES": "1MiB",
        "FLYPROXY_TOKEN": "is not a setting",
    }
    configuration = load_bytes(b"limits: {body_bytes: 1MiB}", "f.yml", environ=environ).configuration
    assert configuration.edge.workers == 2
    assert configuration.edge.host == "0042"
    assert configuration.telemetry.first_zero is False
    assert configuration.limits.body_bytes is None
    assert configuration.timeouts.drain == 0
    assert configuration.scrape_limits.body_bytes == 1024 * 1024


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        (
            {"FLY_REGION": "odr"},
            "FLY_REGION: error: edge.region: unknown region 'odr'; did you mean 'ord'?",
        ),
        (
            {"FLYPROXY_EDGE_WORKERS": "lots"},
            "FLYPROXY_EDGE_WORKERS: error: edge.workers: wanted 'auto' or a whole number, got 'lots'",
        ),
        (
            {"FLYPROXY_EDGE_WORKER": "1"},
            "FLYPROXY_EDGE_WORKER: error: no setting is called edge.worker; did you mean 'FLYPROXY_EDGE_WORKERS'?",
        ),
    ],
)
def test_a_fault_of_the_environment_names_the_variable(environ: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_bytes(b"", "f.yml", environ=environ)
    assert str(caught.value) == f"{text}\n1 error"


def test_a_fault_of_a_flag_says_so() -> None:
    with pytest.raises(ConfigError) as caught:
        load_bytes(b"", "f.yml", environ={}, overrides={"listeners": [{"bind": "x"}]})
    assert str(caught.value).startswith("flags: error: listeners[0].bind: 'x' has no port")


def test_an_override_of_a_section_that_is_no_mapping_leaves_its_fault() -> None:
    with pytest.raises(ConfigError) as caught:
        load_bytes(b"edge: 5", "f.yml", environ={}, overrides={"edge.region": "ord"})
    assert str(caught.value).startswith("f.yml:1:7: error: edge: wanted a mapping, got 5")


def test_what_cannot_be_read_is_said_in_a_sentence(tmp_path: Path) -> None:
    missing = tmp_path / "missing.yml"
    for path, reason in ((missing, "no such file or directory"), (tmp_path, "is a directory")):
        with pytest.raises(ConfigError) as caught:
            load_file(str(path), environ={})
        assert str(caught.value) == f"{path}: error: cannot read the configuration: {reason}\n1 error"


def test_limits_that_are_not_enforced_yet_are_a_warning_and_no_fault() -> None:
    raw = b"apps:\n  - name: a\n    concurrency: {type: connections, soft_limit: 20, hard_limit: 25}\n"
    (warning,) = load_bytes(raw, "f.yml", environ={}).warnings
    assert render_line(warning) == (
        "f.yml:3:50: warning: apps[0].concurrency.soft_limit: "
        "not built yet: enforcing limits; an instance gets all that comes"
    )
    assert load_bytes(b"apps: [{name: a, concurrency: {type: connections}}]", "f.yml", environ={}).warnings == ()


def test_a_file_that_is_too_large_is_refused_unread() -> None:
    with pytest.raises(ConfigError, match=r"the file has 1048577 bytes; a configuration has at most 1048576"):
        load_bytes(b"#" * (1024 * 1024 + 1), "f.yml", environ={})


def test_relative_paths_belong_to_the_folder_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "f.yml"
    path.write_text("")
    assert load_file(str(path), environ={}).folder == str(tmp_path)


def test_to_makes_one_app_for_every_host() -> None:
    loaded = from_flags(["8081", "localhost:8082", "[::1]:8083"], environ={})
    assert loaded.any_host
    assert loaded.configuration.edge.default_app == "app"
    assert [instance.address for instance in loaded.configuration.apps[0].instances] == [
        "127.0.0.1:8081",
        "localhost:8082",
        "[::1]:8083",
    ]


def test_without_to_flags_make_the_defaults() -> None:
    loaded = from_flags(environ={})
    assert not loaded.any_host
    assert loaded.configuration == load_bytes(b"", "f.yml", environ={}).configuration


def test_faults_of_to_name_the_flag() -> None:
    with pytest.raises(ConfigError) as caught:
        from_flags(["0", "127.0.0.1"], environ={})
    assert str(caught.value).splitlines() == [
        "--to: error: the port 0 is out of range; wanted 1 to 65535",
        "--to: error: '127.0.0.1' has no port; wanted HOST:PORT, e.g. 127.0.0.1:8080",
        "2 errors",
    ]


def faults_of(raw: bytes) -> list[Fault]:
    try:
        load_bytes(raw, "f.yml", environ={})
    except ConfigError as error:
        return error.faults
    return []


@given(st.binary(max_size=200))
def test_any_bytes_are_a_configuration_or_a_fault(raw: bytes) -> None:
    faults_of(raw)


_PIECES = ["edge:", "apps:", "- ", "  ", "\n", "name: a", "{", "}", "[", "]", "&a ", "*a", "<<: ", "!!int ", "'", '"',
           "${A}", ": ", "0", "null", "handlers: ", "listeners:", "limits: ", "metrics: ", "\t", "|", "? "]  # fmt: skip


@given(st.lists(st.sampled_from(_PIECES), max_size=25).map("".join))
def test_any_yaml_is_a_configuration_or_a_fault(text: str) -> None:
    assert all(fault.line is not None for fault in faults_of(text.encode()))


@pytest.mark.parametrize("metrics", ["{}", "{port: 8081}", "[{port: 1}, {path: /x}]"])
def test_a_scrape_of_a_port_that_waits_for_a_proxy_header_is_a_warning(metrics: str) -> None:
    app = f"{{name: a, send_proxy: SEND, metrics: {metrics}, instances: [{{address: '127.0.0.1:8081'}}]}}"
    raw = f"apps:\n  - {app}\n"
    (warning,) = load_bytes(raw.replace("SEND", "v1").encode(), "f.yml", environ={}).warnings
    assert warning.path.startswith("apps[0].metrics")
    assert warning.sentence.startswith("a scrape sends no PROXY header, and this port waits for one")
    assert load_bytes(raw.replace("SEND", "off").encode(), "f.yml", environ={}).warnings == ()


def test_trusted_proxies_are_bounded() -> None:
    networks = ", ".join(f"10.{number // 256}.{number % 256}.0/24" for number in range(1001))
    raw = f"listeners: [{{bind: '0.0.0.0:1', handlers: [proxy_proto, http]}}]\ntrusted_proxies: [{networks}]\n"
    with pytest.raises(ConfigError, match="trusted_proxies: at most 1000 networks, got 1001"):
        load_bytes(raw.encode(), "f.yml", environ={})
