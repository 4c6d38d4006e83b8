"""What `pip install` brings: built as a wheel, looked into."""

import zipfile
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parent.parent


def test_the_wheel_holds_the_whole_package_and_nothing_else(tmp_path: Path) -> None:
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = next(name for name in names if name.endswith("entry_points.txt"))
        assert "flyproxy = flyproxy.cli.main:main" in archive.read(entry_points).decode()
    wanted = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "flyproxy").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"flyproxy/py.typed", "flyproxy/config/regions.json"} <= wanted
    assert {name for name in names if ".dist-info/" not in name} == wanted
