"""Every mistake of mutants.py is noticed by the cases or the oracles, and can still be made."""

from collections import Counter
from pathlib import Path

import pytest

from tests.http1.mutants import MUTANTS, Mutant, caught_by, mutate


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_mistake_is_caught(mutant: Mutant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = mutate(mutant, tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert caught_by(package) != ""


def test_without_a_mistake_nothing_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = mutate(None, tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert caught_by(package) == ""


def test_there_are_twenty_mistakes_or_more_and_each_is_one() -> None:
    assert len(MUTANTS) >= 20
    assert [name for name, times in Counter(mutant.name for mutant in MUTANTS).items() if times > 1] == []
    assert all(mutant.old != mutant.new for mutant in MUTANTS)
