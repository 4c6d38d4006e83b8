"""Labels and presence come back as they were, or are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyproxy.series.labels import Labels, labels_from
from flyproxy.tsdb.layout import (
    LIVE_MS,
    NEVER_MS,
    Presence,
    decode_layout,
    decode_presence,
    encode_layout,
    encode_presence,
    labels_of,
)
from flyproxy.tsdb.log import DamagedError

texts = st.text(min_size=1, max_size=6)
label_sets = st.lists(st.dictionaries(texts, texts, max_size=4).map(labels_from), max_size=12)


@given(label_sets)
def test_any_labels_come_back(series: list[Labels]) -> None:
    blob = encode_layout(3, 40, series)
    back = labels_of(decode_layout(3, 40, len(series), blob))
    assert back == series or not any(series)


def test_a_label_value_may_be_any_text() -> None:
    series = [labels_from({"__name__": "up", "path": 'a\\"\n\x00é🦆\ud800'})]
    assert labels_of(decode_layout(1, 0, 1, encode_layout(1, 0, series))) == series


def test_a_damaged_or_misplaced_layout_is_noticed() -> None:
    blob = encode_layout(3, 40, [labels_from({"a": "b"})])
    for frame, first, damaged in ((4, 40, blob), (3, 41, blob), (3, 40, blob[:-1]), (3, 40, b"")):
        with pytest.raises(DamagedError):
            decode_layout(frame, first, 1, damaged)
    with pytest.raises(DamagedError):
        decode_layout(3, 40, 2, blob)


def test_presence_comes_back() -> None:
    first, last = np.array([1, LIVE_MS, -5]), np.array([LIVE_MS, NEVER_MS, 7])
    back = decode_presence(9, encode_presence(9, Presence(first, last)))
    assert back.first_ms.tolist() == first.tolist()
    assert back.last_ms.tolist() == last.tolist()
    with pytest.raises(DamagedError):
        decode_presence(8, encode_presence(9, back))
