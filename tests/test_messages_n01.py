"""Messages of the checks of notebook 01: each likely mistake is named, and no other with it."""

import pytest
from test_exercises import BANKS

from mvp_lite import course
from mvp_lite.course.exercises import WrongAnswer

#: Exercise -> wrong answer of the bank -> words that its author reads.
SAID = {
    "1.1": {
        "broken as given": "all entries that tie",
        "all ties stay": "all entries that tie",
        "all ties go": "all entries that equal the threshold",
        "later entry wins": "the later ones are kept",
        "column by column": "column by column",
        "rounded down": "rounded down",
        "rounded up": "rounded up",
        "round()": "half to an even integer",
        "no max": "nothing is kept",
        "one too many": "one entry too many",
        "lowest stay": "the lowest scores",
        "magnitude of the scores": "with their signs",
        "pruned for kept": "marks the weights that go",
        "a little less for each place": "differ very little",
        "the package's": "the package's top_v",
    },
    "1.2": {
        "magnitude": "the inputs are not used",
        "signed": "use its magnitude",
        "no root": "the root of Sigma_jj is missing",
        "variance": "do not subtract the mean",
        "std": "do not subtract the mean",
        "mean": "the mean of x,",
        "mean of |x|": r"the mean of \|x\|,",
        "rows apart": "each row is ranked by itself",
        "divided": "expected a product",
        "lowest stay": "the cheapest weights are kept",
        "pruned for kept": "marks the weights that go",
    },
    "1.3": {
        "no cross term": "the cross term is missing",
        "no factor 2": "counts twice",
        "sign of the cross term": "has the wrong sign",
        "sign": "the error afterwards minus the error before",
        "mask forgotten": "price of a pruned weight is 0",
        "kept for gone": "sums over the kept weights",
        "all of the row": "sums over the whole row",
        "diagonal by rows": "belongs to the columns",
        "no Sigma": "Sigma_jj is missing",
    },
}
CASES = [
    pytest.param(number, name, words, id=f"{number}-{name}")
    for number, said in SAID.items()
    for name, words in said.items()
]


@pytest.mark.parametrize(("number", "name", "words"), CASES)
def test_the_message_names_the_mistake_and_no_other(number, name, words):
    with pytest.raises(WrongAnswer, match=words) as caught:
        course.exercises.check(number, BANKS["n01"].WRONG[number][name])
    assert ", or: " not in str(caught.value)
