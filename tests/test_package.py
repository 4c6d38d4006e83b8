"""What `pip install` brings: built as a wheel, looked into, and run in a fresh virtual environment."""

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from flyproxy import extension

ROOT = Path(__file__).parent.parent
USE = """
from flyproxy import extension
from flyproxy.http1.limits import HeadLimits
from flyproxy.http1.parser import request_parser
head = request_parser(HeadLimits(), frozenset()).parse(b"GET /a HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
print(extension.path(), extension.__file__, head.target.decode())
"""


def build(folder: Path) -> Path:
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    return Path(wheel)


def sources() -> set[str]:
    return {
        str(path.relative_to(ROOT))
        for path in (ROOT / "flyproxy").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so"
    }


def compiled() -> set[str]:
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    return {module.replace(".", "/") + suffix for module in extension.MODULES}


def install(wheel: Path, folder: Path) -> Path:
    """A fresh virtual environment with the wheel; what flyproxy needs is read where these tests have it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), "install", *options, str(wheel)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "needs.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_a_pure_wheel_holds_the_whole_package_and_nothing_else_and_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYPROXY_TYPED", "0")
    wheel = build(tmp_path)
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = next(name for name in names if name.endswith("entry_points.txt"))
        assert "flyproxy = flyproxy.cli.main:main" in archive.read(entry_points).decode()
    assert {"flyproxy/py.typed", "flyproxy/config/regions.json"} <= sources()
    assert {name for name in names if ".dist-info/" not in name} == sources()
    assert works(install(wheel, tmp_path / "venv"), monkeypatch) == "pure"


def test_a_typed_wheel_holds_the_compiled_modules_too_and_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needs_compiler: None
) -> None:
    if not extension.MODULES:
        return
    monkeypatch.setenv("FLYPROXY_TYPED", "1")
    wheel = build(tmp_path)
    assert not wheel.name.endswith("-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name for name in names if ".dist-info/" not in name} == sources() | compiled()
    assert works(install(wheel, tmp_path / "venv"), monkeypatch) == "typed"


def works(python: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path that an installed flyproxy says it runs, after it has read a head."""
    for variable in ("FLYPROXY_PURE", "PYTHONPATH"):
        monkeypatch.delenv(variable, raising=False)
    folder = python.parent
    done = subprocess.run([python, "-c", USE], capture_output=True, text=True, check=True, cwd=folder)
    path, file, target = done.stdout.split()
    assert Path(file).is_relative_to(folder.parent)
    assert target == "/a"
    said = subprocess.run([folder / "flyproxy", "--version"], capture_output=True, text=True, check=True, cwd=folder)
    assert f"({path}" in said.stdout
    return path
