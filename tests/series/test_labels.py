from flyproxy.series.labels import EMPTY, label_value, labels_from


def test_labels_are_sorted_by_name() -> None:
    assert labels_from({"b": "2", "a": "1"}) == (("a", "1"), ("b", "2"))
    assert labels_from([("b", "2"), ("B", "1")]) == (("B", "1"), ("b", "2"))


def test_an_empty_value_is_no_label() -> None:
    assert labels_from({"a": "", "b": "2"}) == (("b", "2"),)
    assert labels_from({}) == EMPTY


def test_a_missing_label_has_the_empty_value() -> None:
    labels = labels_from({"a": "1"})
    assert label_value(labels, "a") == "1"
    assert label_value(labels, "z") == ""
