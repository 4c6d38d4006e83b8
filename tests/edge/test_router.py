import pytest

from flyproxy.edge.router import Router, RoutingError

NAMES = [("hello.test", 1), ("*.hello.test", 2), ("*.deep.hello.test", 3), ("other.test", 4)]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (b"hello.test", 1),
        (b"a.hello.test", 2),
        (b"a.b.hello.test", 2),
        (b"a.deep.hello.test", 3),
        (b"deep.hello.test", 2),
        (b"xhello.test", None),
        (b".hello.test", None),
        (b"other.test", 4),
        (b"a.other.test", None),
        (b"", None),
    ],
)
def test_exact_names_win_then_the_longest_suffix(host: bytes, expected: int | None) -> None:
    assert Router(NAMES).route(host) == expected


def test_a_request_without_a_host_goes_to_the_fallback_and_unknown_hosts_do_not() -> None:
    router = Router(NAMES, 9)
    assert router.route(b"") == 9
    assert router.route(b"stranger.test") is None


def test_with_any_host_unknown_hosts_go_to_the_fallback_too() -> None:
    router = Router(NAMES, 9, any_host=True)
    assert router.route(b"stranger.test") == 9
    assert router.route(b"hello.test") == 1


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(RoutingError, match=r"'hello\.test' is given twice"):
        Router([*NAMES, ("hello.test", 5)])
