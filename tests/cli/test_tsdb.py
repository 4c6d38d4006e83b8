"""`flyproxy tsdb`: text out of a data directory and in again, and what is said about it."""

import io
import json
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flyproxy.cli.main import run
from flyproxy.clock import SystemClock
from flyproxy.series.labels import labels_from
from flyproxy.series.samples import Batch, Layout
from flyproxy.tsdb.db import Writer

Printed = Callable[..., tuple[str, str]]


@pytest.fixture
def printed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[str, str]]:
    """Runs the verb in a folder of its own: standard output and error output."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str, code: int = 0) -> tuple[str, str]:
        assert run(["tsdb", *arguments]) == code
        captured = capsys.readouterr()
        return captured.out, captured.err

    return command


def recent(seconds_ago: int) -> int:
    """Whole seconds, since retention asks the clock."""
    return SystemClock().now_ms() // 1000 - seconds_ago


def store(folder: Path, *, organizations: tuple[str, ...] = ("personal",)) -> str:
    """A data directory in which every organization has one gauge of its own; its samples as text."""
    folder.mkdir(exist_ok=True)
    writer = Writer.open(str(folder / "store.db"))
    at = recent(60)
    for organization in organizations:
        layout = Layout((labels_from({"__name__": "temperature", "of": organization}),), np.zeros(1, np.bool_))
        writer.append([Batch(organization, "t", at * 1000, layout, np.array([21.5]), 15_000)])
    writer.close()
    first = organizations[0]
    return f'# TYPE temperature unknown\ntemperature{{of="{first}"}} 21.5 {at}\n# EOF\n'


def test_export_goes_to_standard_output_or_a_file(printed: Printed, tmp_path: Path) -> None:
    text = store(tmp_path / "data")
    assert printed("export") == (text, "1 sample of 1 series in 1 families\n")
    assert printed("export", "--data", "data", "-o", "out.txt")[0] == ""
    assert (tmp_path / "out.txt").read_text() == text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out.txt"]


def test_import_of_our_own_export_and_export_again(printed: Printed, tmp_path: Path) -> None:
    text = store(tmp_path / "data")
    printed("export", "-o", "out.txt")
    said = printed("import", "out.txt", "--data", "other/folder")[1]
    assert said.startswith("1 sample of 1 series into personal, from 20")
    assert printed("export", "--data", "other/folder")[0] == text
    said = printed("import", "out.txt", "--data", "other/folder")[1]
    assert said == "1 sample left out: there already, from an import of this file\n"


def test_our_own_names_may_be_imported_from_standard_input(
    printed: Printed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f'fly_edge_http_responses_count{{app="a"}} 1 {recent(5)}\nup 1 {recent(5)}\n# EOF\n'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    printed("import", "-")
    out, _ = printed("export", "--match", "up", "--match", "fly_edge_http_responses_count")
    assert [line.split(" ")[0] for line in out.splitlines() if line[0] != "#"] == [
        'fly_edge_http_responses_count{app="a"}',
        "up",
    ]


def test_what_is_older_than_the_retention_is_counted(printed: Printed, tmp_path: Path) -> None:
    (tmp_path / "flyproxy.yaml").write_text("telemetry: {retention: 1h}\n")
    (tmp_path / "in.txt").write_text(f"a 1 {recent(7200)}\na 2 {recent(60)}\n# EOF\n")
    said = printed("import", "in.txt")[1].splitlines()
    assert said[0].startswith("1 sample of 1 series into personal")
    assert said[1:] == ["1 sample left out: older than the retention of 1h"]
    (tmp_path / "old.txt").write_text(f"a 1 {recent(7200)}\n# EOF\n")
    assert printed("import", "old.txt")[1].splitlines()[0] == "nothing was imported"


def test_a_bad_file_is_refused_with_its_line(printed: Printed, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("a 1 1\nb\n")
    assert printed("import", "in.txt", code=1)[1] == ("flyproxy: line 2: not `name{labels} value timestamp`: 'b'\n")
    assert printed("export", "--org", "_operator")[0] == "# EOF\n"


def test_a_running_front_door_is_told(printed: Printed, tmp_path: Path) -> None:
    store(tmp_path / "data")
    (tmp_path / "in.txt").write_text("a 1 1\n")
    writer = Writer.open(str(tmp_path / "data" / "store.db"))
    try:
        assert "stop it first, or import into another --data DIR" in printed("import", "in.txt", code=1)[1]
        assert printed("export")[0].endswith("# EOF\n")
    finally:
        writer.close()


def test_the_organization_is_the_configurations_first_or_the_only_one(printed: Printed, tmp_path: Path) -> None:
    store(tmp_path / "data", organizations=("shop", "work", "_operator"))
    (tmp_path / "flyproxy.yaml").write_text("organizations: [{slug: work}, {slug: shop}]\n")
    assert 'of="work"' in printed("export")[0]
    assert 'of="shop"' in printed("export", "--org", "shop")[0]
    assert "did you mean 'work'?" in printed("export", "--org", "wrk", code=2)[1]
    assert "The store has: shop, work; use --org" in printed("export", "--data", "data", code=2)[1]
    assert 'of="shop"' in printed("export", "--data", "data", "--org", "shop")[0]
    store(tmp_path / "single", organizations=("shop", "_operator"))
    assert 'of="shop"' in printed("export", "--data", "single")[0]
    (tmp_path / "in.txt").write_text(f"a 1 {recent(5)}\n# EOF\n")
    assert "no organization 'wrk' in the configuration" in printed("import", "in.txt", "--org", "wrk", code=2)[1]
    assert "wanted 1 to 63" in printed("import", "in.txt", "--data", "new", "--org", "A B", code=2)[1]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["export"], 1, "data/store.db; use --data DIR or -c FILE"),
        (["export", "--match", "a{"], 2, "--match: 1:3: parse error"),
        (["export", "--start", "x"], 2, '"--start": cannot parse "x" to a valid timestamp'),
        (["import", "nothing.txt"], 1, "cannot read nothing.txt: No such file or directory"),
        (["import"], 2, "Missing argument 'FILE'"),
        (["exprot"], 2, "No such command 'exprot'"),
    ],
)
def test_wrong_usage_is_told(printed: Printed, arguments: list[str], code: int, said: str) -> None:
    assert said in printed(*arguments, code=code)[1]


def test_a_file_that_cannot_be_written_is_told_and_left_alone(printed: Printed, tmp_path: Path) -> None:
    store(tmp_path / "data")
    assert "cannot write nowhere/out.txt: No such file" in printed("export", "-o", "nowhere/out.txt", code=1)[1]
    (tmp_path / "folder").mkdir()
    assert "cannot write folder" in printed("export", "-o", "folder", code=1)[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "folder"]


def test_stats_are_a_table_or_json(printed: Printed, tmp_path: Path) -> None:
    store(tmp_path / "data", organizations=("shop", "work"))
    lines = printed("stats")[0].splitlines()
    assert lines[0].split() == [
        "organization", "targets", "frames", "series", "samples", "from", "to", "log", "chunks", "bytes/sample",
    ]  # fmt: skip
    assert [line.split()[:5] for line in lines[1:4]] == [
        ["shop", "1", "1", "1", "1"],
        ["work", "1", "1", "1", "1"],
        ["all", "2", "2", "2", "2"],
    ]
    assert "store.db: " in lines[4]
    found = json.loads(printed("stats", "--json", "--data", "data", "--org", "shop")[0])
    assert [each["name"] for each in found["organizations"]] == ["shop"]
    assert found["total"]["log"]["samples"] == 1
    assert printed("stats", "--org", "nobody")[1] == "note: the store has nothing of 'nobody'\n"


def test_a_sound_store_is_said_to_be_and_a_damaged_one_fails(printed: Printed, tmp_path: Path) -> None:
    store(tmp_path / "data")
    out, said = printed("check")
    assert out == ""
    assert said.endswith("store.db: sound; 1 frame, 1 row in the log, 0 chunks, 1 sample\n")
    assert json.loads(printed("check", "--json")[0])["ok"] is True
    connection = sqlite3.connect(tmp_path / "data" / "store.db")
    connection.execute("UPDATE log SET blob = substr(blob, 1, length(blob) - 1) || x'00'")
    connection.commit()
    connection.close()
    out, said = printed("check", code=1)
    assert out
    assert "1 fault in it" in said
    found = json.loads(printed("check", "--json", code=1)[0])
    assert (found["ok"], found["faults"], len(found["sentences"])) == (False, 1, 1)


def test_a_backup_is_a_store_and_overwrites_nothing(printed: Printed, tmp_path: Path) -> None:
    text = store(tmp_path / "data")
    (tmp_path / "copy").mkdir()
    assert printed("backup", "copy/store.db")[1].startswith("copy/store.db: ")
    assert printed("export", "--data", "copy")[0] == text
    assert "is there already" in printed("backup", "copy/store.db", code=1)[1]


@pytest.mark.parametrize("verb", [["stats"], ["check"], ["backup", "copy.db"]])
def test_without_a_store_the_mend_is_told(printed: Printed, verb: list[str]) -> None:
    assert "store.db; use --data DIR or -c FILE" in printed(*verb, "--data", "nowhere", code=1)[1]


def test_a_question_to_a_data_directory_needs_no_front_door(
    printed: Printed, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    store(tmp_path / "data", organizations=("shop", "work"))
    asked = ["query", "temperature * 2", "--data", "data", "--org", "work"]
    assert run([*asked, "-o", "csv"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert (header, row.split(",")[0], row.split(",")[2]) == ("of,time,value", "work", "43")
    assert run([*asked, "--range", "2m", "--step", "1m", "-o", "csv"]) == 0
    assert capsys.readouterr().out.splitlines()[1:]
    assert run(["query", "mode(temperature)", "--data", "data", "--org", "shop"]) == 0
    assert "21.5" in capsys.readouterr().out
    assert run(["query", "mode(temperature)", "--data", "data", "--org", "shop", "--strict"]) == 1
    assert capsys.readouterr().err.splitlines()[1:] == ["       mode(temperature)", "       ^"]
    assert run(["query", "1", "--data", "data"]) == 2
    assert "The store has: shop, work; use --org" in capsys.readouterr().err
    assert run(["query", "1", "--data", "nowhere"]) == 1
    assert "there is no store at nowhere/store.db" in capsys.readouterr().err
    assert run(["query", "1", "--data", "data", "--url", "http://x", "--token", "t"]) == 2


def test_times_are_taken_as_elsewhere(printed: Printed, tmp_path: Path) -> None:
    store(tmp_path / "data")
    assert printed("export", "--start", str(recent(10)))[0] == "# EOF\n"
    assert printed("export", "--end", "2020-01-01T00:00:00Z")[0] == "# EOF\n"
    assert "temperature" in printed("export", "--start", "2020-01-01T00:00:00Z")[0]
