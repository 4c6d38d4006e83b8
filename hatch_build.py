"""The build hook: compiles the modules that flyproxy/extension.py names; where that cannot be done the wheel is pure.

Needs Cython (build-system.requires brings it), a C compiler and Python.h. Where one is missing or fails, one line says
so and the pure path is what is installed. FLYPROXY_TYPED=0 does not try, FLYPROXY_TYPED=1 makes a failure an error.
`python hatch_build.py` compiles them beside their sources, as an editable install does.
CC and CFLAGS are heeded. Nothing is tuned to the machine that builds, for wheels travel.

A wheel gets the compiled modules and the tag of this platform; an editable install gets them beside their sources.
They are translated in a folder of their own, so no C file stays behind and no path of this machine gets into them.
"""

import importlib.util
import os
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FLAGS = ["-O2", "-DNDEBUG", "-fwrapv", "-fPIC", "-shared"]


class CannotBuild(Exception):
    """The extension cannot be built here, for the reason given."""


class TypedBuildHook(BuildHookInterface[Any]):
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="flyproxy-typed-")
        root = Path(self.root)
        extension = SimpleNamespace(**runpy.run_path(str(root / "flyproxy" / "extension.py")))
        built = self._try(root, extension)
        if version == "editable":
            place_beside_sources(root, extension, built)
        elif built:
            build_data["infer_tag"] = True
            build_data["pure_python"] = False
            build_data["force_include"].update({str(file): inside for inside, file in built.items()})

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        self._folder.cleanup()

    def _try(self, root: Path, extension: Any) -> dict[str, Path]:
        """Each built file by its place in the package; none when it cannot or shall not be built."""
        asked = os.environ.get("FLYPROXY_TYPED", "")
        if not extension.MODULES or asked == "0":
            return {}
        try:
            return build(root, Path(self._folder.name), extension)
        except CannotBuild as reason:
            if asked:
                self._folder.cleanup()
                raise
            self.app.display_warning(f"flyproxy: the pure path is used, the typed extension is not built: {reason}")
            return {}


def place_beside_sources(root: Path, extension: Any, built: dict[str, Path]) -> None:
    """An editable install runs what is beside its sources: what is not of this build goes."""
    for module in extension.MODULES:
        old = extension.built_file(root, module)
        if old is not None:
            old.unlink()
    for inside, file in built.items():
        shutil.copy(file, (root / inside).with_suffix(".new"))
        (root / inside).with_suffix(".new").replace(root / inside)  # what runs keeps the file it has open


def build(root: Path, folder: Path, extension: Any) -> dict[str, Path]:
    """Translate and compile every module in `folder`. Raises CannotBuild."""
    modules: tuple[str, ...] = extension.MODULES
    if sys.implementation.name != "cpython":
        raise CannotBuild(f"it is for CPython, this is {sys.implementation.name}")
    if importlib.util.find_spec("Cython") is None:
        raise CannotBuild("there is no Cython")
    include = Path(sysconfig.get_path("include"))
    if not (include / "Python.h").exists():
        raise CannotBuild("there is no Python.h (on Debian and Ubuntu: apt-get install python3-dev)")
    compiler = find_compiler()
    lay_out(root, folder, extension.sources(root, modules))
    mark = folder / "mark.c"
    mark.write_text(f'const char flyproxy_sources[] = "{extension.digest(root, modules).decode()}";\n')
    built = {}
    for module in modules:
        source = Path(*module.split(".")).with_suffix(".pyx")
        inside = source.with_name(source.stem + str(sysconfig.get_config_var("EXT_SUFFIX")))
        run([sys.executable, "-m", "cython", "-3", str(source)], folder)
        paths = [f"-I{include}", str(source.with_suffix(".c")), mark.name, "-o", str(inside)]
        run([*compiler, *FLAGS, *shlex.split(os.environ.get("CFLAGS", "")), *paths], folder)
        built[str(inside)] = folder / inside
    return built


def find_compiler() -> list[str]:
    """The command that is asked for, or that made this Python, or what there is."""
    made_with = str(sysconfig.get_config_var("CC") or "cc")
    for command in [os.environ["CC"]] if os.environ.get("CC") else [made_with, "cc", "gcc", "clang"]:
        words = shlex.split(command)
        if shutil.which(words[0]):
            return words
    raise CannotBuild("there is no C compiler (on Debian and Ubuntu: apt-get install gcc)")


def lay_out(root: Path, folder: Path, sources: Sequence[Path]) -> None:
    """Copy the sources into `folder`, in packages of the same names: Cython looks for what they cimport there."""
    for source in sources:
        copy = folder / source.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, copy)
        for parent in copy.relative_to(folder).parents[:-1]:
            (folder / parent / "__init__.py").touch()


def run(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " / ".join(line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip())
        raise CannotBuild(f"{Path(command[0]).name} failed: {said[:2000]}")


if __name__ == "__main__":
    here = Path(__file__).parent
    found = SimpleNamespace(**runpy.run_path(str(here / "flyproxy" / "extension.py")))
    with tempfile.TemporaryDirectory(prefix="flyproxy-typed-") as temporary:
        place_beside_sources(here, found, build(here, Path(temporary), found))
