"""The house: who may import whom (the map, and its guard), and what an edge worker must never have loaded."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "flyproxy"

GROUND = {"clock", "errors", "extension"}
MAY_IMPORT: dict[str, set[str]] = {
    "series": set(),
    "http1": set(),
    "config": {"series"},
    "instrument": {"series"},
    "tsdb": {"series"},
    "promql": {"series"},
    "discovery": {"series", "config"},
    "edge": {"http1", "config", "instrument"},
    "scrape": {"series", "config", "discovery"},
    "api": {"series", "config", "promql", "scrape"},
    "runtime": {
        "series", "http1", "config", "instrument", "tsdb", "promql", "discovery", "edge", "scrape", "api",
    },
    "cli": {"series", "config", "instrument", "tsdb", "promql", "api", "runtime"},
}  # fmt: skip

EDGE_MAY_IMPORT_OF_CONFIG = {"resolved"}
PURE_ROOMS = {"series", "promql", "http1"}
PURE_FILES = {
    "edge/router.py", "edge/balancer.py", "edge/forwarding.py", "edge/pool.py",
    "edge/proxy_protocol.py", "edge/trusted.py",
    "config/models.py", "config/resolved.py", "config/regions.py",
    "scrape/births.py", "scrape/cohorts.py", "scrape/labelling.py", "scrape/unpack.py",
    "tsdb/chunk.py", "tsdb/chunk_block.py", "tsdb/chunk_order.py", "tsdb/chunk_rows.py", "tsdb/layout.py",
    "tsdb/log.py", "tsdb/target.py", "instrument/procfs.py",
}  # fmt: skip
IMPURE_MODULES = {"asyncio", "socket", "ssl", "threading", "time", "selectors", "uvloop", "aiohttp"}
NEVER_IN_AN_EDGE_WORKER = {"numpy", "pydantic", "aiohttp", "click"}


def imports_of(path: Path) -> set[str]:
    """Every module a file imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_down_the_floors_only(path: Path) -> None:
    room = room_of(path)
    if room in {"__init__", "__main__"}:
        return
    allowed = GROUND if room in GROUND else MAY_IMPORT[room] | GROUND | {room}
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] == "flyproxy" and len(parts) > 1 and parts[1] != "__version__":
            assert parts[1] in allowed, f"{path.relative_to(PACKAGE)} imports {name}"
            if room == "edge" and parts[1] == "config" and len(parts) > 2:
                assert parts[2] in EDGE_MAY_IMPORT_OF_CONFIG, f"{path.relative_to(PACKAGE)} imports {name}"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_pure_files_wait_for_nothing_and_ask_no_clock(path: Path) -> None:
    if room_of(path) in PURE_ROOMS or str(path.relative_to(PACKAGE)) in PURE_FILES:
        impure = {name.split(".")[0] for name in imports_of(path)} & IMPURE_MODULES
        assert not impure, f"{path.relative_to(PACKAGE)} imports {impure}"
        assert "flyproxy.clock" not in imports_of(path)


def test_every_room_is_on_the_map_and_says_what_it_is() -> None:
    rooms = {folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").exists()}
    assert rooms == set(MAY_IMPORT)
    for room in rooms:
        tree = ast.parse((PACKAGE / room / "__init__.py").read_text())
        assert ast.get_docstring(tree), f"{room} has no docstring"
        assert len(tree.body) == 1, f"{room}/__init__.py holds more than its docstring"


def test_every_file_is_named_in_its_rooms_docstring() -> None:
    for path in sources():
        room = room_of(path)
        if room in MAY_IMPORT and path.name != "__init__.py":
            text = (PACKAGE / room / "__init__.py").read_text()
            assert path.stem in text, f"{path.relative_to(PACKAGE)} is not named in {room}/__init__.py"


def test_an_edge_worker_loads_nothing_heavy() -> None:
    program = (
        "import sys; import flyproxy.runtime.edge_worker; "
        "print(' '.join(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "flyproxy" in loaded
    assert not NEVER_IN_AN_EDGE_WORKER & set(loaded)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nobody_calls_write_eof(path: Path) -> None:
    """uvloop 0.22 and 0.23 abort the process when it meets connection churn: `edge/wire.py` half-closes instead."""
    for node in ast.walk(ast.parse(path.read_text())) if room_of(path) != "api" else ():  # aiohttp's is another
        assert not (isinstance(node, ast.Attribute) and node.attr in ("write_eof", "can_write_eof")), path
