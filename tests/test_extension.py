"""The typed extension's packaging, on a project of one tiny module: what is built where, and when it is not used."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

from flyproxy import extension

ROOT = Path(__file__).parent.parent
MODULES = ("flyproxy.room.fast", "flyproxy.room.faster")
BUILT = [f"flyproxy/room/{name}{sysconfig.get_config_var('EXT_SUFFIX')}" for name in ("fast", "faster")]
SOURCES = {"flyproxy/room/fast.pyx", "flyproxy/room/fast.pxd", "flyproxy/room/faster.pyx"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two modules, of which one cimports the other, and the real build hook."""
    for variable in ("FLYPROXY_TYPED", "FLYPROXY_PURE", "CC", "CFLAGS"):
        monkeypatch.delenv(variable, raising=False)
    root = tmp_path / "project"
    room = root / "flyproxy" / "room"
    room.mkdir(parents=True)
    for name in ("pyproject.toml", "hatch_build.py", "README.md", ".gitignore", "flyproxy/__init__.py"):
        shutil.copy(ROOT / name, root / name)
    text = (ROOT / "flyproxy" / "extension.py").read_text()
    line = next(line for line in text.splitlines() if line.startswith("MODULES:"))
    (root / "flyproxy" / "extension.py").write_text(text.replace(line, f"MODULES = {MODULES}"))
    (room / "__init__.py").touch()
    (room / "fast.pxd").write_text("cdef int twice(int number)\n")
    (room / "fast.pyx").write_text("cdef int twice(int number):\n    return 2 * number\n")
    (room / "faster.pyx").write_text("from flyproxy.room.fast cimport twice\ndef four(): return twice(2)\n")
    return root


def build(project: Path, version: str) -> Path:
    """What pip's `install .` (standard) and `install -e .` (editable) have built."""
    (wheel,) = WheelBuilder(str(project)).build(directory=str(project / "dist"), versions=[version])
    return Path(wheel)


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def reason(project: Path) -> str:
    return extension.why_pure(project, MODULES, {})


@pytest.mark.usefixtures("needs_compiler")
def test_a_wheel_holds_what_was_compiled_and_is_for_this_platform(project: Path) -> None:
    wheel = build(project, "standard")
    assert not wheel.name.endswith("-none-any.whl")
    assert set(BUILT) | SOURCES <= names(wheel)
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read("flyproxy-0.1.0.dist-info/WHEEL").decode()
        assert "Root-Is-Purelib: false" in text
        archive.extractall(project / "site")
    assert reason(project / "site") == ""
    code = "from flyproxy.room import faster; from flyproxy import extension; print(faster.four(), extension.words())"
    assert run_in(project / "site", code) == "4 typed"
    assert run_in(project / "site", code, FLYPROXY_PURE="1") == "4 pure: FLYPROXY_PURE is set"


def run_in(folder: Path, code: str, **environment: str) -> str:
    environment = {**os.environ, **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.usefixtures("needs_compiler")
def test_nothing_is_left_in_the_sources_and_no_path_of_the_machine_gets_into_a_wheel(project: Path) -> None:
    before = sorted(project.rglob("*.*"))
    wheel = build(project, "standard")
    new = [path for path in sorted(project.rglob("*.*")) if path not in before and path.suffix != ".pyc"]
    assert new == [wheel]
    with zipfile.ZipFile(wheel) as archive:
        for name in BUILT:
            content = archive.read(name)
            assert str(project).encode() not in content
            assert b"flyproxy-typed-" not in content


@pytest.mark.usefixtures("needs_compiler")
def test_an_editable_install_has_it_beside_its_sources_until_they_change(project: Path) -> None:
    assert reason(project) == "the extension is not built"
    build(project, "editable")
    assert reason(project) == ""
    assert sorted(path.suffix for path in (project / "flyproxy" / "room").iterdir() if path.stem != "__init__") == [
        ".pxd", ".pyx", ".pyx", ".so", ".so",
    ]  # fmt: skip
    source = project / "flyproxy" / "room" / "fast.pxd"
    source.write_text(source.read_text() + "cdef int thrice(int number)\n")
    assert reason(project) == "the extension was built from other sources: install again"


@pytest.mark.usefixtures("needs_compiler")
def test_a_failing_build_leaves_no_old_machine_code_beside_the_sources(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(project, "editable")
    (project / "flyproxy" / "room" / "fast.pyx").write_text("this is no Cython\n")
    build(project, "editable")
    assert reason(project) == "the extension is not built"
    printed = capsys.readouterr()
    (line,) = [line for line in (printed.out + printed.err).splitlines() if "flyproxy:" in line]
    assert "the pure path is used, the typed extension is not built: python" in line
    assert "failed: " in line


@pytest.mark.usefixtures("needs_compiler")
def test_machine_code_in_the_checkout_never_gets_into_a_pure_wheel(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(project, "editable")
    monkeypatch.setenv("FLYPROXY_TYPED", "0")
    wheel = build(project, "standard")
    assert wheel.name == "flyproxy-0.1.0-py3-none-any.whl"
    assert not any(name.endswith(".so") for name in names(wheel))
    build(project, "editable")
    assert reason(project) == "the extension is not built"


@pytest.mark.usefixtures("needs_compiler")
def test_a_compiler_that_fails_makes_a_pure_wheel_or_an_error_as_asked(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CFLAGS", "--no-such-option")
    assert build(project, "standard").name == "flyproxy-0.1.0-py3-none-any.whl"
    printed = capsys.readouterr()
    assert "failed: " in printed.out + printed.err
    monkeypatch.setenv("FLYPROXY_TYPED", "1")
    with pytest.raises(Exception, match="no-such-option"):
        build(project, "standard")


@pytest.mark.parametrize(
    ("missing", "said"),
    [("compiler", "there is no C compiler"), ("Python.h", "there is no Python.h"), ("Cython", "there is no Cython")],
)
def test_without_what_it_needs_the_wheel_is_pure_and_one_line_says_why(
    missing: str, said: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if missing == "compiler":
        monkeypatch.setenv("CC", "there-is-no-such-compiler")
    if missing == "Cython":
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    headers = project / "include"
    headers.mkdir()
    if missing != "Python.h":
        (headers / "Python.h").touch()
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(headers))
    wheel = build(project, "standard")
    assert wheel.name == "flyproxy-0.1.0-py3-none-any.whl"
    assert not any(name.endswith(".so") for name in names(wheel))
    printed = capsys.readouterr()
    assert [said in line for line in (printed.out + printed.err).splitlines() if "flyproxy:" in line] == [True]


def test_an_sdist_holds_the_sources_and_the_hook(project: Path) -> None:
    (archive,) = SdistBuilder(str(project)).build(directory=str(project / "dist"), versions=["standard"])
    with tarfile.open(archive) as opened:
        inside = {name.partition("/")[2] for name in opened.getnames()}
    assert {*SOURCES, "hatch_build.py", "flyproxy/extension.py"} <= inside
    assert not any(name.endswith(".so") for name in inside)


@pytest.mark.parametrize(
    ("environment", "said"),
    [({}, "the extension is not built"), ({"FLYPROXY_PURE": "1"}, "FLYPROXY_PURE is set")],
)
def test_the_reason_for_the_pure_path_is_said(environment: dict[str, str], said: str, project: Path) -> None:
    assert extension.why_pure(project, MODULES, environment) == said
    assert extension.why_pure(project, (), {}) == "there is no extension"


def test_every_source_to_compile_is_named_and_is_there() -> None:
    found = {path.relative_to(ROOT) for path in (ROOT / "flyproxy").rglob("*.pyx")}
    assert found == {Path(*module.split(".")).with_suffix(".pyx") for module in extension.MODULES}


def test_what_is_built_in_this_checkout_is_of_these_sources() -> None:
    built = [module for module in extension.MODULES if extension.built_file(ROOT, module)]
    if built:
        assert extension.why_pure(ROOT, extension.MODULES, {}) == ""
