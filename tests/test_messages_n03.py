"""The messages of the checks of notebook 03 name the mistake that was made, and no other."""

import itertools

import pytest
import torch
from test_exercises import BANKS

from mvp_lite import course
from mvp_lite.course.exercises import WrongAnswer, n03
from mvp_lite.course.exercises.tools import CHECKS
from mvp_lite.masks import top_v


def message(number, answer):
    with pytest.raises(WrongAnswer) as caught:
        course.exercises.check(number, answer)
    return str(caught.value)


def step(scale, choose=lambda W, S: S, swap=False):
    """One step with G multiplied by a factor of the number of outputs, and a mask of one's own."""

    def answer(W, S, x, y, density, lr, score_lr):
        M = top_v(choose(W, S), density).double()
        G = scale(len(W)) * ((x @ (W * M).T - y) / len(x)).T @ x
        lr, score_lr = (score_lr, lr) if swap else (lr, score_lr)
        return W - lr * G * M, S - score_lr * G * W

    return answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (step(lambda high: 1 / high), "the loss is summed over the outputs, not averaged"),
        (step(lambda high: 2.0), "the gradient is twice as large as it should be"),
        (step(lambda high: 0.5), "the gradient is half as large as it should be"),
        (step(lambda high: 1.0, swap=True), "it uses the learning rate of the scores"),
        (step(lambda high: 1.0, choose=lambda W, S: W.abs()), "the mask is that of the highest |W|"),
    ],
)
def test_a_step_with_one_mistake(answer, words):
    said = message("3.2", answer)
    assert words in said and ", or: " not in said


def test_a_masked_gradient_and_a_masked_weight_look_alike_and_both_are_named():
    def masked_gradient(layer, S, x, y, density, lr, score_lr):
        M = top_v(S, density)
        layer.weight.grad = None
        out = torch.nn.functional.linear(x, layer.weight * M)
        (0.5 * (out - y).square().sum() / len(x)).backward()
        S -= score_lr * layer.weight.grad * layer.weight.data
        layer.weight.data -= lr * layer.weight.grad

    assert "G, or the weight that multiplies it, is masked" in message("3.3", masked_gradient)


def test_a_pair_in_place_of_a_change_in_place():
    said = message("3.3", lambda layer, S, x, y, density, lr, score_lr: (layer.weight, S - 0.1))
    assert "the function has to change the S that it is given" in said


@pytest.mark.parametrize(
    ("number", "name", "words"),
    [
        ("3.1", "kept only", "it is 0 for pruned entries"),
        ("3.1", "rounding", "because of rounding"),
        ("3.1", "rounding, as often found", "because of rounding"),
        ("3.2", "mse_loss", "mse_loss takes the mean over the outputs, and has no 1/2"),
        ("3.2", "no mean", "its gradient is divided by the batch size"),
        ("3.2", "mean twice", "divided by the batch size twice"),
        ("3.2", "lowest kept", "the mask keeps the lowest scores"),
        ("3.3", "still broken", "G, or the weight that multiplies it, is masked"),
    ],
)
def test_the_message_fits_the_answer_of_the_bank(number, name, words):
    said = message(number, BANKS["n03"].WRONG[number][name])
    assert words in said and ", or: " not in said


@pytest.mark.parametrize("number", ["3.1", "3.2"])
def test_no_two_mistakes_look_alike_where_they_are_first_seen(number, monkeypatch):
    """With a right answer `close` sees the mistakes of every case, as the check would compare them."""
    seen = []

    def close(got, expected, *, mistakes, **_):
        seen.append([expected, *mistakes.values()])

    monkeypatch.setattr(n03, "close", close)
    CHECKS[number](BANKS["n03"].RIGHT[number][0])
    for values in seen[:2]:  # the two results of the first case
        for a, b in itertools.combinations(values, 2):
            assert (a - b).abs().max() > 1e-3 * torch.maximum(a.abs().max(), b.abs().max())
