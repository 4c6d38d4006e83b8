"""The cases in cases/, by every parser there is, whole, byte by byte and at every split.

tests/edge/test_http1_cases.py has them once more, at a running front door.
"""

import re
from collections import Counter

import pytest

from flyproxy.http1.limits import HeadLimits
from tests.http1.case_files import CASES, Case, load, load_all, topics
from tests.http1.checks import check_request, check_response
from tests.http1.reading import Codec

CODEC = Codec()
LIMITS = HeadLimits()


@pytest.mark.parametrize("topic", topics("requests"))
def test_requests_are_read_or_refused_as_their_cases_say(topic: str) -> None:
    faults = [fault for case in load("requests", topic) for fault in check_request(CODEC, case)]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("topic", topics("responses"))
def test_responses_are_read_or_refused_as_their_cases_say(topic: str) -> None:
    faults = [fault for case in load("responses", topic) for fault in check_response(CODEC, case)]
    assert not faults, "\n".join(faults)


def test_there_are_enough_cases_and_each_has_one_name() -> None:
    for kind, least in (("requests", 420), ("responses", 110)):
        cases = list(load_all(kind))
        assert len(cases) >= least
        assert [name for name, times in Counter(case.id for case in cases).items() if times > 1] == []


def test_no_two_cases_send_the_same_for_the_same_end() -> None:
    def key(case: Case) -> object:
        return (*case.pieces, *case.said("to"), *case.said("then"))

    for kind in ("requests", "responses"):
        times = Counter(key(case) for case in load_all(kind))
        assert [case.id for case in load_all(kind) if times[key(case)] > 1] == []


def test_no_file_is_read_by_nobody() -> None:
    known = {CASES / "README.md"}
    for kind in ("requests", "responses", "found"):
        known |= set((CASES / kind).glob("*.txt"))
    assert {path for path in CASES.rglob("*") if path.is_file()} == known


def test_a_case_is_read_as_it_is_written() -> None:
    for case in load_all("requests"):
        assert case.verdict[0] in ("passed", "refused", "answers", "waits"), case.id
        assert all(re.fullmatch("[0-9]{3}|close|stay|waits", word) for word in case.verdict[1:]), case.id
    for case in load_all("responses"):
        assert case.verdict[0] == "client", case.id
        assert re.fullmatch("[0-9]{3}", case.verdict[1]), case.id
