"""The facts about the machine the tests run on."""

import re

import pytest

from flyproxy.config.machine import four_digits, is_own, look_up, this_machine


def test_the_machine_is_the_same_at_every_start() -> None:
    one, other = this_machine(), this_machine()
    assert one.host == other.host
    assert re.fullmatch("[0-9a-f]{4}", one.host)
    assert one.cpus >= 1


def test_loopback_is_our_own_and_a_documentation_address_is_not() -> None:
    assert is_own("127.0.0.1")
    assert is_own("127.1.2.3")
    assert is_own("::1")
    assert is_own("0.0.0.0")
    assert not is_own("192.0.2.1")
    assert not is_own("2001:db8::1")


def test_localhost_is_looked_up_and_nonsense_is_not() -> None:
    assert look_up("localhost") in ("127.0.0.1", "::1")
    with pytest.raises(OSError):
        look_up("nothing.invalid")


def test_four_digits_do_not_show_what_they_are_made_of() -> None:
    assert four_digits("a") != four_digits("b")
    assert re.fullmatch("[0-9a-f]{4}", four_digits("10.0.0.9"))
