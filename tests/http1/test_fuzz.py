"""The bounded form of `make fuzz`: the cases and mutations of them, under all oracles; and what fuzzing ever found."""

from pathlib import Path

import pytest

from tests.http1.case_files import escape, load_all, unescape
from tests.http1.fuzz import SMALL, keep, play, shrink
from tests.http1.mutants import MUTANTS, mutate
from tests.http1.mutator import Mutator, found, seeds
from tests.http1.oracles import Oracle
from tests.http1.reading import Codec

CODEC = Codec()
MESSAGES = 6000


def test_every_reader_agrees_on_every_case() -> None:
    oracle = Oracle(CODEC)
    for case in load_all("requests"):
        assert oracle.request(case.raw) == "", case.id
    for case in load_all("responses"):
        assert oracle.answer(case.raw) == "", case.id


@pytest.mark.parametrize("seed", [2, 3], ids=["usual bounds", "small bounds"])
def test_every_reader_agrees_on_broken_messages(seed: int) -> None:
    odd = play(CODEC, seed, MESSAGES)
    assert odd is None, odd


@pytest.mark.parametrize("limits", [{}, SMALL], ids=["usual bounds", "small bounds"])
def test_every_reader_agrees_on_what_was_found_before(limits: dict[str, int]) -> None:
    for name, _, raw in found("request"):
        assert Oracle(CODEC, **limits).request(raw) == "", name
    for name, method, raw in found("response"):
        assert Oracle(CODEC, **limits).answer(raw, method) == "", name


def test_the_same_seed_gives_the_same_messages() -> None:
    first, second = Mutator(seeds("requests"), 7), Mutator(seeds("requests"), 7)
    assert [first.next() for _ in range(50)] == [second.next() for _ in range(50)]


def test_a_finding_is_made_small() -> None:
    raw = b"GET / HTTP/1.1\r\nHost: a.test\r\nA: \x00b\r\n\r\n"
    assert shrink(raw, lambda candidate: b"\x00" in candidate and candidate.startswith(b"G")) == b"G\x00"


def test_a_finding_becomes_a_case_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = next(mutant for mutant in MUTANTS if mutant.name == "space-before-colon")
    monkeypatch.syspath_prepend(str(tmp_path))
    codec = Codec(mutate(mutant, tmp_path))
    odd = play(codec, 2, MESSAGES)
    assert odd is not None
    kind, method, raw, _, limits = odd
    monkeypatch.setattr("tests.http1.mutator.CASES", tmp_path)
    keep(codec, kind, method, raw, limits)
    ((_, read_method, small),) = found(kind)
    assert read_method == method
    assert len(small) <= len(raw)
    oracle = Oracle(codec, **limits)
    assert oracle.request(small) if kind == "request" else oracle.answer(small, method)


def test_what_is_written_down_is_read_back() -> None:
    every = bytes(range(256)) + b"\\r\\n\\{3 a}"
    assert unescape(escape(every)) == every
