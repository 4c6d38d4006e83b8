"""What pages say about their metrics: by the name a query has, as the page's own client meant it."""

import pytest

from flyproxy.series.exposition_metadata import Comments, metadata_of
from flyproxy.series.exposition_parser import Bounds, Reader
from flyproxy.series.metadata import Metadata


def said(*lines: str, openmetrics: bool = False, characters_max: int = 1000) -> dict[str, Metadata]:
    return metadata_of(lines, openmetrics, characters_max)


def test_a_family_has_its_type_its_help_and_its_unit() -> None:
    lines = ("# HELP a_seconds How long.", "# TYPE a_seconds histogram", "# UNIT a_seconds seconds")
    assert said(*lines) == {"a_seconds": Metadata("histogram", "How long.", "seconds")}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (("# HELP someEvent_count ", "# TYPE someEvent_count counter"), {"someEvent_count": ("counter", "")}),
        (("# HELP a_count", "# TYPE a_count counter"), {"a_count": ("counter", "")}),
        (("# TYPE a_total gauge",), {"a_total": ("gauge", "")}),
        (("# TYPE a untyped",), {"a": ("unknown", "")}),
        (("# TYPE a nonsense",), {"a": ("unknown", "")}),
        (("# TYPE a",), {"a": ("unknown", "")}),
        (("# HELP a  two blanks",), {"a": ("unknown", " two blanks")}),
        (("#HELP a words", "#\tTYPE\ta\tgauge "), {"a": ("gauge", "words")}),
        ((r"# HELP a back\\slash \n line",), {"a": ("unknown", "back\\slash \n line")}),
        (('# HELP "a.b" words', '# TYPE "a.b" counter'), {"a.b": ("counter", "words")}),
        (("# just a comment", "# TYPES a gauge", "#", "# HELP"), {}),
    ],
)
def test_text_says_it_in_many_ways(lines: tuple[str, ...], expected: dict[str, tuple[str, str]]) -> None:
    assert said(*lines) == {name: Metadata(kind, help_, "") for name, (kind, help_) in expected.items()}


def test_openmetrics_families_have_the_names_of_their_samples() -> None:
    lines = ("# TYPE a counter", "# HELP a Words.", "# TYPE b info", "# TYPE c_total counter", "# TYPE d gauge")
    found = said(*lines, openmetrics=True)
    assert {name: metadata.type for name, metadata in found.items()} == {
        "a_total": "counter",
        "b_info": "info",
        "c_total": "counter",
        "d": "gauge",
    }
    assert found["a_total"].help == "Words."


def test_a_later_word_replaces_an_earlier_one() -> None:
    assert said("# TYPE a gauge", "# TYPE a counter") == {"a": Metadata("counter", "", "")}


def test_what_is_remembered_is_bounded() -> None:
    lines = [f"# HELP a{number} 0123456789" for number in range(9)]
    assert list(said(*lines, characters_max=36)) == ["a0", "a1", "a2"]


def test_a_page_has_it_as_the_same_object_while_its_comments_stay() -> None:
    reader = Reader(Bounds())
    first = reader.read(b"# TYPE a gauge\na 1\n", openmetrics=False)
    second = reader.read(b"# TYPE a gauge\na 2\n", openmetrics=False)
    third = reader.read(b"# TYPE a counter\na 2\n", openmetrics=False)
    assert first.metadata == {"a": Metadata("gauge", "", "")}
    assert second.metadata is first.metadata
    assert third.metadata == {"a": Metadata("counter", "", "")}


def test_of_a_page_full_of_comments_only_so_many_are_kept() -> None:
    comments = Comments(40, 2)
    for line in ("# words", "# TYPE a gauge", "# HELP a 0123456789", "# HELP b 0123456789", "# HELP c 0123456789"):
        comments.add(line)
    for name in "bcd":
        comments.add(f"# TYPE {name} gauge")
    assert comments.said == ["# TYPE a gauge", "# HELP a 0123456789", "# HELP b 0123456789", "# TYPE b gauge"]
