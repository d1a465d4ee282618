"""Messages of the checks of notebook 04: what the author of a likely mistake reads."""

import pytest
from test_exercises import BANKS

from mvp_lite import course
from mvp_lite.course.exercises import WrongAnswer, n04

#: Exercise -> wrong answer of the bank -> what its author reads.
SAID = {
    "4.2": {
        "loss after the step": "the loss is computed after the new masks",
        "loss summed": "the loss is the sum",
        "loss halved": "a factor 1/2",
        "largest scores of either sign": r"the largest \|S\|",
        "pruned weights set to zero": "keep W dense",
        "score's gradient masked": "the gradient of S is masked",
    },
    "4.3": {
        "a number with a point": "warmup=0.0: an integer from 0 to 41",
        "tiny learning rate": "the mean must be below 0.06: two of the three values can stay",
        "everything": "change more than one of the three",
    },
}


@pytest.mark.parametrize(("number", "name"), [(number, name) for number, said in SAID.items() for name in said])
def test_the_likely_mistake_is_named(number, name):
    with pytest.raises(WrongAnswer, match=SAID[number][name]):
        course.exercises.check(number, BANKS["n04"].WRONG[number][name])


def test_each_mistake_of_the_loop_has_losses_of_its_own(monkeypatch):
    seen = {}

    def notice(got, expected, with_mistake):
        seen.setdefault("runs", []).append({name: tuple(with_mistake(name)[2]) for name in n04._LOOP_MISTAKES})

    monkeypatch.setattr(n04, "_compare_runs", notice)
    course.exercises.check("4.2", lambda *given: None)
    for name in n04._LOOP_MISTAKES:
        assert any(list(run.values()).count(run[name]) == 1 for run in seen["runs"]), name
