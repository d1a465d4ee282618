"""Messages of the checks of notebook 05: a mistake is named only where the answer is exactly what it gives."""

import itertools

import pytest
import torch
from test_exercises import BANKS

from mvp_lite import course
from mvp_lite.course.exercises import WrongAnswer, n05
from mvp_lite.course.exercises.tools import CHECKS

#: Exercise -> wrong answer of the bank -> what its author reads.
SAID = {
    "5.2": {
        "sign": "costs of .* is not right: the sign is wrong: .* costs -G W$",
        "leaving has the sign of entering": "the sign of leaving entries is wrong: they cost -G W$",
        "leaving forgotten": "right: entries that leave are missing$",
        "entering forgotten": "right: entries that enter are missing$",
        "those that stay counted": "right: entries that stay cost nothing",
        "ties kept": "right: .* at the threshold it is 0$",
        "always a gain": "right: costs keep their signs",
        "scores in place of masks": "expected the change of the mask$",
        "weight forgotten": "right: the cost of a flip is G W, not G$",
        "weight alone": "right: the cost of a flip is G W, not W$",
        "absolute scores": r"right: the mask is S > tau, not \|S\| > tau$",
        "mask of the sigmoid": "right: the mask is S > tau; the sigmoid of S comes in notebook 06$",
        "reversed rule": "right: the mask is S > tau; S < tau is the reversed rule$",
    },
    "5.3": {
        "the lead does not shrink with the learning rate": "with lr=0.001 there is no swap: .* must shrink with lr$",
        "a fixed lead": "with lr=1e-09 there is no swap: .* must shrink with lr$",
        "W and S exchanged": "^W and S are exchanged: return W, S, x, y in this order$",
        "overflow": "with lr=0.1 the loss is too large for a floating-point number: choose smaller numbers$",
        "one fit for another": "the loss does not change: -1 to first order and [+]1 from the jump",
        "the pencil's swap": "the loss falls by 4.88: -6.5 to first order",
        "the rise is too small": "the loss rises by .* expected a rise of at least 1$",
    },
}
CASES = [
    pytest.param(number, name, words, id=f"{number}-{name}")
    for number, said in SAID.items()
    for name, words in said.items()
]


@pytest.mark.parametrize(("number", "name", "words"), CASES)
def test_the_message_fits_the_mistake(number, name, words):
    with pytest.raises(WrongAnswer, match=words) as caught:
        course.exercises.check(number, BANKS["n05"].WRONG[number][name])
    assert ", or: " not in str(caught.value)


def test_no_two_mistakes_look_alike_where_they_are_first_seen(monkeypatch):
    """With a right answer `close` sees the mistakes of every case, as the check would compare them."""
    seen = []
    monkeypatch.setattr(n05, "close", lambda got, expected, *, mistakes, what: seen.append((expected, mistakes)))
    CHECKS["5.2"](BANKS["n05"].RIGHT["5.2"][0])
    expected, mistakes = seen[0]
    gaps = [(a - b).abs().max() for a, b in itertools.permutations([expected, *mistakes.values()], 2)]
    assert torch.stack(gaps).min() > 1e-3
