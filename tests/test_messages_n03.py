"""The messages of the checks of notebook 03 name the mistake that was made, and no other."""

import pytest
import torch

from mvp_lite import course
from mvp_lite.course.exercises import WrongAnswer
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
