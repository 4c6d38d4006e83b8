"""Every line is a sample or a sentence with its number."""

import io

import pytest

from flyproxy.tsdb.openmetrics_lines import LINE_BYTES_MAX, ImportFault, Lines


def read(text: str | bytes) -> list[tuple[dict[str, str], int, float]]:
    lines = Lines(io.BytesIO(text if isinstance(text, bytes) else text.encode()))
    samples = list(lines)
    return [(dict(lines.series[number]), time_ms, value) for number, time_ms, value in samples]


def test_openmetrics_has_seconds_and_prometheus_text_milliseconds() -> None:
    assert read("# TYPE a gauge\na 1 1.5\n# EOF\n") == [({"__name__": "a"}, 1500, 1)]
    assert read("# HELP a b\n\na 1 1500\n") == [({"__name__": "a"}, 1500, 1)]
    assert read("a 1 1.5\n# EOF") == [({"__name__": "a"}, 1500, 1)]
    assert read("a 1 -1500") == [({"__name__": "a"}, -1500, 1)]


def test_a_time_stamp_that_prometheus_needs_is_its_millisecond() -> None:
    assert read("a 1 1700000000.1230001\na 1 1700000000.124\n# EOF\n")[0][1] == 1_700_000_000_123


def test_labels_are_read_in_every_spelling() -> None:
    wanted = {"__name__": "a", "x": 'q"\\\n', "y": "1"}
    text = 'a{x="q\\"\\\\\\n",y="1"} 1 1\n'
    for spelling in (text, '{"a",y="1",x="q\\"\\\\\\n"} 1 1\n', text.replace(",", " , ").replace("=", " = ")):
        assert read(spelling)[0][0] == wanted
    assert read('{"a b","c d"="e"}\t1 \t1\n')[0][0] == {"__name__": "a b", "c d": "e"}
    assert read('a{x="",} 1 1\na{} 2 2')[1][0] == {"__name__": "a"}
    assert read('a{x="1 2 # }"} 1 1\n')[0][0] == {"__name__": "a", "x": "1 2 # }"}


def test_two_spellings_of_a_series_are_one() -> None:
    lines = Lines(io.BytesIO(b'a{x="1",y="2"} 1 1\na{y="2",x="1"} 2 2\na{x="1",y="2"} 3 3\n'))
    assert [line.series for line in lines] == [0, 0, 0]
    assert [line.series for line in lines] == [0, 0, 0]
    assert len(lines.series) == 1


def test_values_are_go_numbers_and_exemplars_are_let_go() -> None:
    text = 'a -0 1\na +Inf 2\na NaN 3\na 1e-300 4 # {id="x y"} 1 2\na 0.1 5\n# EOF\n'
    values = [value for _, _, value in read(text)]
    assert [repr(value) for value in values] == ["-0.0", "inf", "nan", "1e-300", "0.1"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a 1 1\nb", "line 2: not `name{labels} value timestamp`: 'b'"),
        ("a 1", "line 1: the sample has no time stamp: 'a 1'"),
        ('a 1 1\na{x="1"} 5\n', "line 2: the sample has no time stamp"),
        ("a x 1", "line 1: 'x' is no number"),
        ("a 1 1\na 1_0 1", "line 2: '1_0' is no number"),
        ("a 1 x", "line 1: 'x' is no time stamp in milliseconds"),
        ("a 1 1.5", "line 1: '1.5' is no time stamp in milliseconds (in OpenMetrics it is seconds"),
        ("a 1 NaN\n# EOF", "line 1: 'NaN' is no time stamp"),
        ("a 1 1e300\n# EOF", "line 1: the time stamp '1e300' is beyond all times"),
        ("a 1 99999999999999999\n", "line 1: the time stamp '99999999999999999' is beyond all times"),
        ("a 1 1\n# EOF\na 1 2\n", "line 3: something after # EOF"),
        ("a 1 1\n# EOF\n\n# EOF\n", "line 3: something after # EOF"),
        ("1a 1 1", "line 1: '1a' is no metric name"),
        ('{x="1"} 1 1', "line 1: a sample without a metric name"),
        ('a{x="1",x="2"} 1 1', "line 1: a label is given twice"),
        ('a{__name__="b"} 1 1', "line 1: a label is given twice, is empty, or is __name__"),
        ("a{x=1} 1 1", "line 1: not a label: 'x=1'"),
        ('a{"x"} 1 1', "line 1: the label 'x' has no value"),
        ('a{x="1" 1 1', "line 1: not `name{labels} value timestamp`"),
        ("a 1 1 1", "line 1: not `name{labels} value timestamp`"),
        (b"a 1 1\na{x=\"\xff\"} 1 1", "line 2: not UTF-8"),
        (b"a 1 \xff", "line 1: not UTF-8"),
        (b"a 1 1\na 1 \xff", "line 2: '\ufffd' is no time stamp"),
        ("a" * (LINE_BYTES_MAX + 1), f"line 1: longer than {LINE_BYTES_MAX} bytes"),
    ],
)  # fmt: skip
def test_what_is_no_sample_is_told_with_its_line(text: str | bytes, sentence: str) -> None:
    with pytest.raises(ImportFault) as caught:
        read(text)
    assert sentence in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    "line",
    [
        "a" + " " * 500_000 + "x",
        'a{x="' + '\\"' * 250_000,
        "a{" * 250_000,
        "a{" + 'x="1",' * 100_000,
        "\t " * 250_000 + "}",
    ],
    ids=["blanks", "escapes", "braces", "labels", "mixed"],
)
def test_a_hostile_line_is_refused_without_much_work(line: str) -> None:
    with pytest.raises(ImportFault):
        read(line)
