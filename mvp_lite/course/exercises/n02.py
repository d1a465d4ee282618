"""Checks of notebook 02: Taylor and Fisher scores of a layer without autograd, SNIP over batches without bugs.

A message names a mistake only where the answer is exactly what this mistake gives; see `tests/test_messages_n02.py`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mvp_lite.course.exercises.tools import WrongAnswer, call, close, exercise
from mvp_lite.scores import fisher, snip, taylor

#: Examples, inputs, outputs. No two of a line have the ratio 2, which would look like a missing 1/2; the last weight is
#: square.
_SHAPES = ((7, 4, 3), (5, 2, 7), (11, 3, 3))
_BATCHES = ([2, 9], [1, 6, 3, 8], [4, 4, 4], [7])


def _layer(examples: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor, Tensor]:
    """delta (n, out), x (n, in), W (out, in): no zeros, no ties, both signs."""
    generator = torch.Generator().manual_seed(100 * examples + 10 * inputs + outputs)
    shapes = ((examples, outputs), (examples, inputs), (outputs, inputs))
    delta, x, W = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return delta, x, W


def _example_gradients(delta: Tensor, x: Tensor) -> list[Tensor]:
    """By a loop over examples and outputs: the products of delta and input."""
    return [torch.stack([d * inputs for d in deltas]) for deltas, inputs in zip(delta, x, strict=True)]


def _taylor_mistakes(delta: Tensor, x: Tensor, W: Tensor) -> dict[str, Tensor]:
    n, outputs, inputs = len(x), *W.shape
    G = delta.T @ x / n
    right = -G * W
    mistakes = {
        "the sign: removal changes the weight by minus itself": -right,
        "the absolute value loses the sign; that is SNIP, not Taylor": right.abs(),
        "the loss is the mean over the examples, and you take the sum": n * right,
        "you take the sum over the examples in place of the mean, and the sign is the opposite": -n * right,
        "divide by the number of examples, not of outputs": right * n / outputs,
        "divide by the number of examples, not of inputs": right * n / inputs,
        "divide by the number of examples alone; you divide by the number of outputs too": right / outputs,
        "that is the gradient; its product with minus the weight is missing": G,
        "that is minus the gradient; its product with the weight is missing": -G,
        "take the product for each example, then the mean; you multiply the means of delta and x": -W
        * torch.outer(delta.mean(dim=0), x.mean(dim=0)),
    }
    if inputs == outputs:
        mistakes["the gradient is transposed: delta has the first index, x the second"] = -G.T * W
        mistakes["the weight is transposed"] = -G * W.T
        mistakes["the result is transposed"] = right.T
    return mistakes


@exercise("2.1")
def _taylor_of_a_layer(answer: Any) -> None:
    for shape in _SHAPES:
        delta, x, W = _layer(*shape)
        gradients = _example_gradients(delta, x)
        expected = taylor(sum(gradients, torch.zeros_like(W)) / len(gradients), W)
        mistakes = _taylor_mistakes(delta, x, W)
        close(call(answer, delta, x, W), expected, mistakes=mistakes, what="taylor_scores(delta, x, W)")


def _fisher_mistakes(delta: Tensor, x: Tensor, W: Tensor) -> dict[str, Tensor]:
    n, outputs, inputs = len(x), *W.shape
    G = delta.T @ x / n
    mean_square = delta.square().T @ x.square() / n
    right = 0.5 * W.square() * mean_square
    mistakes = {
        "square each example's gradient first, then take the mean; you square the mean": 0.5 * (W * G).square(),
        "square each example's gradient first, then take the mean; you square the mean, and 1/2 is missing": (
            W * G
        ).square(),
        "square each example's gradient first; you square their sum": 0.5 * (n * W * G).square(),
        "square each example's gradient first; you square their sum, then divide by the number": 0.5
        * n
        * (W * G).square(),
        "take the product for each example, then the mean; you multiply the means of delta**2 and x**2": 0.5
        * W.square()
        * torch.outer(delta.square().mean(dim=0), x.square().mean(dim=0)),
        "square first, then take the mean of the products; you square the product of the means of delta and x": 0.5
        * (W * torch.outer(delta.mean(dim=0), x.mean(dim=0))).square(),
        "the factor 1/2 is missing": 2 * right,
        "take the mean over the examples; you take the sum": n * right,
        "take the mean over the examples; you take the sum, and the factor 1/2 is missing": 2 * n * right,
        "divide by the number of examples, not of outputs": right * n / outputs,
        "divide by the number of examples, not of inputs": right * n / inputs,
        "the weight enters squared": right / W,
        "the weight enters squared; you take its absolute value": right / W.abs(),
        "that is the mean square of the gradients alone: the factor W**2 / 2 is missing": mean_square,
        "that is half the mean square of the gradients: the factor W**2 is missing": 0.5 * mean_square,
        "the minus sign belongs to Taylor: squares raise the loss": -right,
        "delta is not squared": 0.5 * W.square() * (delta.T @ x.square()) / n,
        "x is not squared": 0.5 * W.square() * (delta.square().T @ x) / n,
    }
    if inputs == outputs:
        mistakes["the mean square is transposed: delta has the first index, x the second"] = (
            0.5 * W.square() * mean_square.T
        )
        mistakes["the result is transposed"] = right.T
    return mistakes


@exercise("2.2")
def _fisher_of_a_layer(answer: Any) -> None:
    for shape in _SHAPES:
        delta, x, W = _layer(*shape)
        expected = fisher(_example_gradients(delta, x), W)
        mistakes = _fisher_mistakes(delta, x, W)
        close(call(answer, delta, x, W), expected, mistakes=mistakes, what="fisher_scores(delta, x, W)")


def _squared_error(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Mean over the examples; w (in,), x (n, in), y (n,)."""
    return (torch.tanh(x @ w) - y).square().mean()


def _batches(seed: int, sizes: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """w (in,), x (n, in), y (n,), with n the sum of the sizes."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((5,), (sum(sizes), 5), (sum(sizes),))
    w, x, y = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return w, x, y


def _snip_mistakes(w: Tensor, each: list[Tensor], sizes: list[int]) -> dict[str, Tensor]:
    """each: the gradient of every batch."""
    count, n = len(sizes), sum(sizes)
    total = sum(each, torch.zeros_like(w))
    G = sum((size / n * g for size, g in zip(sizes, each, strict=True)), torch.zeros_like(w))
    absolute = sum((snip(g, w) for g in each), torch.zeros_like(w))
    shares = sum((size / n * snip(g, w) for size, g in zip(sizes, each, strict=True)), torch.zeros_like(w))
    return {
        "both bugs are still there": absolute / count,
        "the absolute value is taken for each batch; average the gradients first": shares,
        "the absolute value is taken for each batch, and their sum is not divided": absolute,
        "all batches count the same, whatever their size: weight each gradient by its number of examples": snip(
            total, w
        )
        / count,
        "the gradients of the batches are added as they are: weight each by its share of the examples": snip(total, w),
        "the sum, weighted by the sizes, is not divided by the number of examples": n * snip(G, w),
        "divide by the number of examples, not of batches": n / count * snip(G, w),
        "the absolute value is missing: SNIP has no sign": G * w,
        "the absolute value is missing, and the sign is that of Taylor: SNIP has no sign": -G * w,
        "that is the absolute value of the gradient: the weight is missing": G.abs(),
        "only the last batch counts: is the sum overwritten?": snip(each[-1], w),
        "only the first batch counts: does the function return inside the loop?": snip(each[0], w),
    }


@exercise("2.3")
def _snip_over_batches(answer: Any) -> None:
    for seed, sizes in enumerate(_BATCHES):
        w, x, y = _batches(seed, sizes)
        batches = list(zip(torch.split(x, sizes), torch.split(y, sizes), strict=True))
        each = [torch.func.grad(_squared_error)(w, *batch) for batch in batches]
        before = [tensor.clone() for tensor in (w, x, y)]
        got = answer(_squared_error, w, batches)
        if w.requires_grad or not all(torch.equal(a, b) for a, b in zip((w, x, y), before, strict=True)):
            raise WrongAnswer("your function changes one of its arguments: work on a copy")
        what = f"snip_over_batches for batches of {', '.join(map(str, sizes))}"
        expected = snip(torch.func.grad(_squared_error)(w, x, y), w)
        close(got, expected, mistakes=_snip_mistakes(w, each, sizes), what=what)
