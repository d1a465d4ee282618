"""Messages of the exercise checks: a mistake is named only where the answer is exactly what it gives."""

import itertools
from importlib import import_module

import pytest
import torch
from test_exercises import BANKS

from mvp_lite import course
from mvp_lite.course.exercises import WrongAnswer, n04
from mvp_lite.course.exercises.tools import CHECKS

SAID = {number: said for bank in BANKS.values() for number, said in getattr(bank, "SAID", {}).items()}
WRONG = {number: answers for bank in BANKS.values() for number, answers in bank.WRONG.items()}
RIGHT = {number: answers for bank in BANKS.values() for number, answers in bank.RIGHT.items()}
CASES = [
    pytest.param(number, name, words, id=f"{number}-{name}")
    for number, said in SAID.items()
    for name, words in said.items()
]


@pytest.mark.parametrize(("number", "name", "words"), CASES)
def test_the_message_fits_the_mistake(number, name, words):
    with pytest.raises(WrongAnswer, match=words or r"^entry \(\d+,( \d+)?\) of .*, expected ") as caught:
        course.exercises.check(number, WRONG[number][name])
    assert ", or: " not in str(caught.value)


#: Exercise -> how often its check compares something in its first case.
COMPARED = {"2.1": 2, "2.2": 2, "2.3": 2, "3.1": 2, "3.2": 2, "5.2": 1, "6.1": 2, "6.3": 1}


@pytest.mark.parametrize("number", COMPARED)
def test_no_two_mistakes_look_alike_where_they_are_first_seen(number, monkeypatch):
    """With a right answer `close` sees the mistakes of every case, as the check would compare them."""
    seen = []
    module = import_module(f"mvp_lite.course.exercises.n{number.partition('.')[0].zfill(2)}")
    monkeypatch.setattr(module, "close", lambda got, expected, *, mistakes, **_: seen.append((expected, mistakes)))
    CHECKS[number](RIGHT[number][0])
    assert len(seen) >= COMPARED[number]
    for expected, mistakes in seen[: COMPARED[number]]:
        for a, b in itertools.combinations([expected, *mistakes.values()], 2):
            assert (a - b).abs().max() > 1e-4 * torch.maximum(a.abs().max(), b.abs().max())


def test_each_mistake_of_the_training_loop_has_losses_of_its_own(monkeypatch):
    seen = {}

    def notice(got, expected, with_mistake):
        seen.setdefault("runs", []).append({name: tuple(with_mistake(name)[2]) for name in n04._LOOP_MISTAKES})

    monkeypatch.setattr(n04, "_compare_runs", notice)
    course.exercises.check("4.2", lambda *given: None)
    for name in n04._LOOP_MISTAKES:
        assert any(list(run.values()).count(run[name]) == 1 for run in seen["runs"]), name
