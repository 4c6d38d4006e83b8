"""What the tests of the configuration share: the folders of golden files, an environment, a machine."""

from pathlib import Path

import pytest

from flyproxy.config.machine import Machine

FOLDER = Path(__file__).parent


@pytest.fixture
def environ() -> dict[str, str]:
    """The environment the golden files are read in."""
    return {"APP_HOST": "10.0.0.7", "APP_PORT": "eighty", "METRICS_PORT": "9091"}


@pytest.fixture
def machine() -> Machine:
    """A machine of four CPUs that knows two names and three addresses."""
    known = {"localhost": "127.0.0.1", "db.internal": "10.0.0.5"}

    def look_up(name: str) -> str:
        if name not in known:
            raise OSError(-2, "Name or service not known")
        return known[name]

    return Machine(
        cpus=4,
        host="2bc3",
        terminal=False,
        uvloop=True,
        look_up=look_up,
        is_own=lambda address: address in ("127.0.0.1", "::1", "10.0.0.5"),
    )
