"""How a fault is shown."""

import json

from flyproxy.config.faults import (
    FAULTS_SHOWN_MAX,
    ConfigError,
    Fault,
    did_you_mean,
    one_of_these,
    render_fault,
    render_faults,
    written_path,
)


def test_a_fault_has_its_place_its_line_and_a_caret() -> None:
    fault = Fault("f.yml", 12, 5, "apps[0].nam", "unknown key 'nam'", "    nam: hello")
    assert render_fault(fault) == (
        "f.yml:12:5: error: apps[0].nam: unknown key 'nam'\n    12 |     nam: hello\n       |     ^"
    )


def test_a_tab_before_the_place_keeps_the_caret_below_it() -> None:
    assert render_fault(Fault("f", 1, 3, "", "s", "\ta: b")).endswith("| \ta: b\n       | \t ^")


def test_a_long_line_is_shown_around_the_place() -> None:
    shown = render_fault(Fault("f", 1, 501, "", "s", "x" * 500 + "Y" + "x" * 500)).splitlines()
    assert len(shown[1]) < 140
    assert shown[1][shown[2].index("^")] == "Y"


def test_nothing_of_a_file_can_command_the_terminal() -> None:
    assert "\x1b" not in render_fault(Fault("f", 1, 1, "", "got '\x1b[31m'", "\x1b[2J"))


def test_many_faults_are_counted_not_shown() -> None:
    fault = Fault("f", None, None, "", "s")
    lines = render_faults([fault] * (FAULTS_SHOWN_MAX + 7)).splitlines()
    assert lines[-2:] == ["... and 7 more", f"{FAULTS_SHOWN_MAX + 7} errors"]
    assert len(lines) == FAULTS_SHOWN_MAX + 2


def test_the_error_orders_its_faults_and_reads_as_rendered() -> None:
    later, earlier = Fault("f", 2, 1, "", "later"), Fault("f", 1, 9, "", "earlier")
    error = ConfigError([later, earlier])
    assert error.faults == [earlier, later]
    assert str(error) == render_faults([earlier, later])


def test_faults_of_several_files_stand_file_by_file() -> None:
    faults = [
        Fault("a", 9, 1, "", "1"),
        Fault("b", 2, 1, "", "2"),
        Fault("a", 3, 1, "", "3"),
        Fault("X", None, None, "", "0"),
    ]
    assert [fault.sentence for fault in ConfigError(faults).faults] == ["0", "3", "1", "2"]


def test_warnings_are_shown_and_counted_beside_errors() -> None:
    shown = render_faults([Fault("f", 1, 1, "", "s", "x"), Fault("f", 2, 1, "k", "t", "y", "warning")])
    assert "f:2:1: warning: k: t" in shown
    assert shown.splitlines()[-1] == "1 error, 1 warning"


def test_a_fault_is_json() -> None:
    assert json.loads(json.dumps(Fault("f", 1, 2, "edge", "s", "x").as_json())) == {
        "severity": "error",
        "file": "f",
        "line": 1,
        "column": 2,
        "path": "edge",
        "sentence": "s",
        "source_line": "x",
    }


def test_a_path_reads_as_users_write_it() -> None:
    assert written_path(("apps", 2, "instances", 0, "address")) == "apps[2].instances[0].address"
    assert written_path(()) == ""


def test_the_nearest_word_is_offered_else_what_there_is() -> None:
    assert did_you_mean("retension", ["retention", "region"]) == "; did you mean 'retention'?"
    assert did_you_mean("x" * 10_000, ["retention"]) == ""
    assert one_of_these("zzz", ["red", "blue"]) == "; there are: red, blue"
    assert one_of_these("zzz", []) == "; there is none"
