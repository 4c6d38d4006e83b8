"""docs/config.md is what the models say."""

from pathlib import Path

from flyproxy.config.models import Configuration
from flyproxy.config.reference import markdown

PAGE = Path(__file__).parents[2] / "docs" / "config.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == markdown(), "run: python -m flyproxy.config.reference > docs/config.md"


def test_every_key_is_described() -> None:
    rows = [line for line in markdown().splitlines() if line.startswith("| `")]
    assert len(rows) > 60
    assert all(line.count("|") == 5 and line.split("|")[4].strip() for line in rows)
    assert all(f"| `{name}` |" in markdown() for name in Configuration.model_fields)
