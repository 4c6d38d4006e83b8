"""Which path runs: typed (the compiled modules) or pure, and why. Imports nothing of ours: the build hook runs it, too.

The compiled modules are an option: each has a pure twin that does the same, and whoever imports one asks here first:

    if extension.is_used():
        from flyproxy.http1.typed import TypedRequestParser

Machine code that was built from other sources than those beside it must never run: what is built carries the digest
of all sources in its file, as plain bytes, and is looked at before it is imported. Reading it costs some 0.1 ms once.
FLYPROXY_PURE=1 runs the pure path in any case.
"""

import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

MODULES: tuple[str, ...] = ("flyproxy.http1.typed", "flyproxy.instrument.typed", "flyproxy.edge.typed_lane")
"""What is compiled, each from the .pyx (and, if there is one, the .pxd) of its name. The only place that names them."""

DIGEST_MARK = "flyproxy-sources-sha256:"


def path() -> str:
    """`typed` or `pure`."""
    return "pure" if pure_because() else "typed"


def words() -> str:
    """The path and, of the pure one, the reason: for people."""
    return f"pure: {pure_because()}" if pure_because() else "typed"


def is_used() -> bool:
    """Whether the compiled modules are there, are of these sources, and are wanted."""
    return not pure_because()


@functools.cache
def pure_because() -> str:
    """Why the pure path runs; empty when the typed one does."""
    return why_pure(Path(__file__).parent.parent, MODULES, os.environ)


def why_pure(root: Path, modules: Sequence[str], environment: Mapping[str, str]) -> str:
    """The same of any modules below any folder."""
    if environment.get("FLYPROXY_PURE", "0") not in ("", "0"):
        return "FLYPROXY_PURE is set"
    if not modules:
        return "there is no extension"
    wanted = None
    for module in modules:
        built = built_file(root, module)
        if built is None:
            return "the extension is not built"
        wanted = wanted or digest(root, modules)
        if not _carries(built, wanted):
            return "the extension was built from other sources: install again"
    return ""


def built_file(root: Path, module: str) -> Path | None:
    """The machine code of a module for this Python, where it is."""
    stem = root.joinpath(*module.split("."))
    return next((file for suffix in EXTENSION_SUFFIXES if (file := stem.with_name(stem.name + suffix)).exists()), None)


def sources(root: Path, modules: Sequence[str]) -> list[Path]:
    """Every file that is translated for these modules."""
    stems = [root.joinpath(*module.split(".")) for module in modules]
    beside = [stem.with_suffix(".pxd") for stem in stems]
    return [stem.with_suffix(".pyx") for stem in stems] + [file for file in beside if file.exists()]


def digest(root: Path, modules: Sequence[str]) -> bytes:
    """The mark that what is built from these sources carries: one for all, for they are built against each other."""
    summed = hashlib.sha256()
    for file in sources(root, modules):
        content = file.read_bytes()
        summed.update(f"{file.relative_to(root).as_posix()} {len(content)}\n".encode() + content)
    return f"{DIGEST_MARK}{summed.hexdigest()}".encode()


def _carries(file: Path, mark: bytes) -> bool:
    return mark in file.read_bytes()


if __name__ == "__main__":  # pragma: no cover
    print(path())
