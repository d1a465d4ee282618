"""Checks of notebook 02: Taylor and Fisher scores of a layer without autograd, SNIP over batches without bugs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mvp_lite.course.exercises.tools import WrongAnswer, call, close, exercise
from mvp_lite.scores import fisher, snip, taylor

_SHAPES = ((6, 4, 3), (5, 2, 7), (9, 3, 3))  # examples, inputs, outputs; the last weight is square


def _layer(examples: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor, Tensor]:
    """delta (n, out), x (n, in), W (out, in): no zeros, no ties, both signs."""
    generator = torch.Generator().manual_seed(100 * examples + 10 * inputs + outputs)
    shapes = ((examples, outputs), (examples, inputs), (outputs, inputs))
    delta, x, W = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return delta, x, W


def _example_gradients(delta: Tensor, x: Tensor) -> list[Tensor]:
    """By a loop over examples and outputs: the products of delta and input."""
    return [torch.stack([d * inputs for d in deltas]) for deltas, inputs in zip(delta, x, strict=True)]


@exercise("2.1")
def _taylor_of_a_layer(answer: Any) -> None:
    for shape in _SHAPES:
        delta, x, W = _layer(*shape)
        gradients = _example_gradients(delta, x)
        G = sum(gradients, torch.zeros_like(W)) / len(gradients)
        expected = taylor(G, W)
        mistakes = {
            "the sign: pruning changes the weight by minus itself": -expected,
            "the absolute value loses the sign; that is SNIP, not Taylor": snip(G, W),
            "the loss is the mean over the examples, not their sum": expected * len(gradients),
            "that is the gradient; its product with the weight is missing": G,
            "that is minus the gradient; its product with the weight is missing": -G,
        }
        if W.shape[0] == W.shape[1]:
            mistakes["one of G and W is transposed"] = taylor(G.T, W)
        close(call(answer, delta, x, W), expected, mistakes=mistakes, what="taylor_scores(delta, x, W)")


@exercise("2.2")
def _fisher_of_a_layer(answer: Any) -> None:
    for shape in _SHAPES:
        delta, x, W = _layer(*shape)
        gradients = _example_gradients(delta, x)
        G = sum(gradients, torch.zeros_like(W)) / len(gradients)
        expected = fisher(gradients, W)
        mistakes = {
            "square each example's gradient first, then take the mean; you square the mean": 0.5 * (W * G).square(),
            "the factor 1/2 is missing": 2 * expected,
            "this is the sum over the examples, expected their mean": expected * len(gradients),
            "this is the sum over the examples, expected their mean; and the factor 1/2 is missing": 2
            * expected
            * len(gradients),
            "the weight enters squared": expected / W,
            "that is the mean square of the gradients alone: W**2 / 2 is missing": 2 * expected / W.square(),
            "the minus sign belongs to Taylor: squares raise the loss": -expected,
        }
        close(call(answer, delta, x, W), expected, mistakes=mistakes, what="fisher_scores(delta, x, W)")


def _squared_error(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Mean over the examples; w (in,), x (n, in), y (n,)."""
    return (torch.tanh(x @ w) - y).square().mean()


@exercise("2.3")
def _snip_over_batches(answer: Any) -> None:
    for seed, sizes in enumerate(([7], [2, 9], [1, 6, 3, 8], [4, 4, 4])):
        generator = torch.Generator().manual_seed(seed)
        w = torch.randn(5, generator=generator, dtype=torch.float64)
        x = torch.randn(sum(sizes), 5, generator=generator, dtype=torch.float64)
        y = torch.randn(sum(sizes), generator=generator, dtype=torch.float64)
        batches = list(zip(torch.split(x, sizes), torch.split(y, sizes), strict=True))
        each = [torch.func.grad(_squared_error)(w, *batch) for batch in batches]
        share = [size / sum(sizes) for size in sizes]
        zero = torch.zeros_like(w)
        G = sum((s * g for s, g in zip(share, each, strict=True)), zero)
        plain = sum(each, zero) / len(each)
        mistakes = {
            "both bugs are still there": sum((snip(g, w) for g in each), zero) / len(each),
            "the absolute value is still taken for each batch; average the gradients first": sum(
                (s * snip(g, w) for s, g in zip(share, each, strict=True)), zero
            ),
            "batches of two and of nine have equal weights: weight each gradient by the batch size": snip(plain, w),
            "the sum over the batches is not divided by the number of examples": snip(G, w) * sum(sizes),
            "the gradients of the batches are added, expected their mean": snip(plain, w) * len(each),
            "the absolute value is missing: SNIP is the magnitude of the change": G * w,
            "SNIP is never negative: it is the magnitude of the change": -(G * w),
            "only the last batch counts: the sum is overwritten": snip(each[-1], w),
        }
        before = [tensor.clone() for tensor in (w, x, y)]
        got = answer(_squared_error, w, batches)
        if w.requires_grad or not all(torch.equal(a, b) for a, b in zip((w, x, y), before, strict=True)):
            raise WrongAnswer("your function changes one of its arguments: work on a copy")
        what = f"snip_over_batches for batches of {', '.join(map(str, sizes))}"
        close(got, snip(torch.func.grad(_squared_error)(w, x, y), w), mistakes=mistakes, what=what)
