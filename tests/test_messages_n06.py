"""Messages of the checks of notebook 06: the likely mistakes are named, and only where the answer is what they give."""

import itertools

import pytest
import torch
from test_exercises import BANKS

from mvp_lite import course
from mvp_lite.course.exercises import WrongAnswer, n06
from mvp_lite.course.exercises.tools import CHECKS

#: Exercise -> wrong answer of the bank -> what its author reads; None: only what differs, and where.
SAID = {
    "6.1": {
        "tau against S": r"threshold of sigmoid\(S\)",
        "mask left in": "without a mask: else pruned weights never return$",
        "penalty masked": "the penalty acts on every score, without a mask$",
        "both masked": "neither of its two terms",
        "slope in the term of the loss": r"straight-through, G \* W, without sigmoid",
        "mean for sum": "a sum here, not a mean$",
        "absolute value": None,
    },
    "6.2": {
        "rounded down": r"2 of 20 .*: density \* N is rounded down",
        "rounded up": r"2 of 6 .*: density \* N is rounded up",
        "rounded to even": r"2 of 20 .*: a half is rounded up",
        "none kept": "expected 1 .*: k is at least 1",
        "off by one": "one too many passes",
        "just above the first that fails": None,
    },
    "6.3": {
        "penalty times f": "only the term of the loss has the factor f$",
        "penalty times M": "the penalty has no mask$",
        "penalty of open gates": "also where the gate is shut$",
        "noise forgotten": "the noise u is missing in f$",
        "temperature forgotten": "b is missing inside the sigmoid of f$",
        "test-time gate": "the noise u and the temperature b are missing in f$",
        "u for its log-odds": "by its log-odds",
        "f forgotten": "the factor f is missing$",
        "soft movement's penalty": "soft movement's penalty",
    },
}
CASES = [
    pytest.param(number, name, words, id=f"{number}-{name}")
    for number, said in SAID.items()
    for name, words in said.items()
]


@pytest.mark.parametrize(("number", "name", "words"), CASES)
def test_the_message_fits_the_mistake(number, name, words):
    with pytest.raises(WrongAnswer, match=words or r"^entry \(\d+,( \d+)?\) of .*, expected ") as caught:
        course.exercises.check(number, BANKS["n06"].WRONG[number][name])
    assert ", or: " not in str(caught.value)


@pytest.mark.parametrize("number", ["6.1", "6.3"])
def test_no_two_mistakes_look_alike_where_they_are_first_seen(number, monkeypatch):
    """With a right answer `close` sees the mistakes of every case, as the check would compare them."""
    seen = []
    monkeypatch.setattr(n06, "close", lambda got, expected, *, mistakes, **_: seen.append((expected, mistakes)))
    CHECKS[number](BANKS["n06"].RIGHT[number][0])
    for expected, mistakes in seen[: 2 if number == "6.1" else 1]:  # of 6.1 the new W and the new S
        values = [expected, *mistakes.values()]
        gaps = [(a - b).abs().max() / b.abs().max() for a, b in itertools.permutations(values, 2)]
        assert torch.stack(gaps).min() > 1e-4
