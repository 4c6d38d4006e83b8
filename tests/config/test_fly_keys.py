"""What becomes of a fly.toml's keys is on its page."""

from pathlib import Path

import pytest

from flyproxy.config import fly_keys

PAGE = (Path(__file__).parents[2] / "docs" / "fly-toml.md").read_text(encoding="utf-8")
TABLES = (
    fly_keys.TOP,
    fly_keys.HTTP_SERVICE,
    fly_keys.SERVICE,
    fly_keys.PORT,
    fly_keys.HTTP_OPTIONS,
    fly_keys.RESPONSE,
    fly_keys.METRICS,
    fly_keys.CONCURRENCY,
)
SPOKEN_OF = sorted({key for table in TABLES for key, fate in table.items() if fate is not fly_keys.IGNORED})


@pytest.mark.parametrize("key", SPOKEN_OF)
def test_every_key_that_is_read_or_warned_of_is_on_the_page(key: str) -> None:
    assert f"`{key}`" in PAGE


def test_a_warning_says_what_happens_instead() -> None:
    for table in TABLES:
        for key, fate in table.items():
            if fate is not None and fate is not fly_keys.IGNORED:
                assert fate.what, key
                assert fate.instead, key
