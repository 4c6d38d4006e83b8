"""Pages as the clients of the post's apps write them, with all their oddities: tests/series/pages/.

Each page `x.txt` has its answer beside it, `x.expected`: a line for each sample (`+` where it only grows), then one for
each metric's metadata.
"""

from pathlib import Path

import pytest

from flyproxy.series.exposition_parser import Reader

PAGES = sorted((Path(__file__).parent / "pages").glob("*.txt"))


def answer(page: Path) -> str:
    """As in an `.expected` file."""
    reader = Reader()
    read = reader.read(page.read_bytes(), openmetrics="openmetrics" in page.name)
    again = reader.read(page.read_bytes(), openmetrics="openmetrics" in page.name)
    assert again.series is read.series
    lines = [
        f"{'+' if grows else ' '} {dict(labels)} {value!r}"
        for labels, grows, value in zip(read.series, read.counters, read.values.tolist(), strict=True)
    ]
    lines += [f"{name}: {said.type} {said.help!r} {said.unit!r}" for name, said in read.metadata.items()]
    return "\n".join([*lines, ""])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_is_read_as_its_client_meant_it(page: Path) -> None:
    assert answer(page) == page.with_suffix(".expected").read_text()
