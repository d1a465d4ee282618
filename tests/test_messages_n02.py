"""Messages of the checks of notebook 02: a mistake is named only where the answer is exactly what it gives."""

import itertools

import pytest
import torch
from test_exercises import BANKS

from mvp_lite import course
from mvp_lite.course.exercises import WrongAnswer, n02
from mvp_lite.course.exercises.tools import CHECKS

#: Exercise -> wrong answer of the bank -> what its author reads; None: only what differs, and where.
SAID = {
    "2.1": {
        "sign": "the sign: removal",
        "absolute": "that is SNIP",
        "sum": "you take the sum$",
        "sum and sign": "in place of the mean, and the sign",
        "divided by the outputs": "not of outputs",
        "mean over all entries": "outputs too",
        "gradient alone": "product with minus the weight is missing",
        "mean of each": "you multiply the means",
        "transposed in place of W": "the weight is transposed",
        "one entry off": None,
        "first example left out": None,
        "sum without the weight": None,
    },
    "2.2": {
        "square of the mean": "you square the mean$",
        "square of the mean, half forgotten": "you square the mean, and 1/2 is missing",
        "square of the sum": "you square their sum$",
        "square of the sum, divided": "their sum, then divide",
        "product of mean squares": r"the means of delta\*\*2 and x\*\*2",
        "square of the product of means": "you square the product of the means",
        "absolute weight": "absolute value",
        "half forgotten": "the factor 1/2 is missing",
        "sum": "you take the sum$",
        "sum and half forgotten": "you take the sum, and the factor 1/2",
        "divided by the outputs": "not of outputs",
        "weight not squared": "the weight enters squared",
        "no weight": r"W\*\*2 / 2 is missing",
        "input not squared": "x is not squared",
        "sign": "belongs to Taylor",
        "one entry off": None,
        "indices swapped, half forgotten": None,
        "cubed weight": None,
    },
    "2.3": {
        "as it was": "both bugs",
        "only weighted": "taken for each batch; average",
        "only the absolute value moved": "all batches count the same",
        "sum of the batches": "added as they are",
        "sum of the absolute values": "their sum is not divided",
        "never divided": "not divided by the number of examples",
        "divided by the number of batches": "not of batches",
        "last batch alone": "only the last batch",
        "first batch alone": "only the first batch",
        "signed": "the sign is that of Taylor",
        "first example left out": None,
        "weighted by the squares of the sizes": None,
    },
}
CASES = [
    pytest.param(number, name, words, id=f"{number}-{name}")
    for number, said in SAID.items()
    for name, words in said.items()
]
HINTS = " is not right: "


@pytest.mark.parametrize(("number", "name", "words"), CASES)
def test_the_message_fits_the_mistake(number, name, words):
    with pytest.raises(WrongAnswer, match=words or r"^entry \(\d+,( \d+)?\) of .*, expected ") as caught:
        course.exercises.check(number, BANKS["n02"].WRONG[number][name])
    assert (HINTS in str(caught.value)) == (words is not None)


@pytest.mark.parametrize("number", ["2.1", "2.2", "2.3"])
def test_no_two_mistakes_look_alike_where_they_are_first_seen(number, monkeypatch):
    """With a right answer `close` sees the mistakes of every case, as the check would compare them."""
    seen = []
    monkeypatch.setattr(n02, "close", lambda got, expected, *, mistakes, what: seen.append((expected, mistakes)))
    CHECKS[number](BANKS["n02"].RIGHT[number][0])
    assert len(seen) >= 3
    for expected, mistakes in seen[:2]:  # a single batch, or equal ones, come later and hide some mistakes
        values = [expected, *mistakes.values()]
        gaps = [(a - b).abs().max() / b.abs().max() for a, b in itertools.permutations(values, 2)]
        assert torch.stack(gaps).min() > 1e-3
