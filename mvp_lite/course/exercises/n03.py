"""Checks of notebook 03: a straight-through mask, a step of movement pruning, and one without its bug."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from mvp_lite import masks
from mvp_lite.course.exercises.tools import WrongAnswer, call, close, exercise, like


@exercise("3.1")
def _straight_through(answer: Any) -> None:
    """(S, density) -> the top-v mask as numbers, with the identity as its gradient."""
    generator = torch.Generator().manual_seed(32)
    for shape, density in [((6, 7), 0.3), ((5,), 0.5), ((2, 3, 8), 0.1), ((3, 4), 1.0)]:
        S = _normal(generator, *shape).requires_grad_()
        upstream = _normal(generator, *shape)
        expected = masks.top_v(S, density).to(S.dtype)
        before = S.detach().clone()
        got = like(answer(S, density), expected, "the mask")
        if not torch.equal(S.detach(), before):
            raise WrongAnswer("the function changes S in place")
        values = S.detach()
        close(
            got,
            expected,
            what="the mask",
            mistakes={
                "these are the scores, expected the mask in the forward pass": values,
                "this is mask plus scores: the values of the scores have to cancel": expected + values,
                "kept entries are the scores themselves, expected 1": expected * values,
                "0 and 1 are exchanged": 1.0 - expected,
            },
        )
        if not got.requires_grad:
            raise WrongAnswer("no gradient flows from the mask to S: was everything detached?")
        (gradient,) = torch.autograd.grad(got, S, upstream.to(got.dtype), allow_unused=True)
        if gradient is None:
            raise WrongAnswer("no gradient flows from the mask to S")
        close(
            gradient,
            upstream,
            what="the gradient of S",
            tol=1e-5 if got.dtype == torch.float32 else 1e-9,
            mistakes={
                "it is 0 for pruned entries: in Eq. (3.7) it passes through all of them": upstream * expected,
                "it is 0 for kept entries": upstream * (1.0 - expected),
                "the sign is wrong: which of the two terms is detached?": -upstream,
                "it is twice as large": 2.0 * upstream,
                "it is zero": torch.zeros_like(upstream),
                "it is multiplied by the score: add the terms, do not multiply": upstream * values,
            },
        )
        if not torch.equal(got.detach().to(expected.dtype), expected):
            raise WrongAnswer("the mask is not exactly 0 or 1 because of rounding. In which order are the terms added?")


@exercise("3.2")
def _one_step(answer: Any) -> None:
    """(W, S, x, y, density, lr, score_lr) -> (W, S) after one step of plain SGD."""
    generator = torch.Generator().manual_seed(33)
    for batch, wide, high, density in [(5, 4, 3, 0.5), (1, 3, 2, 0.67), (7, 2, 6, 0.3), (4, 3, 3, 0.4)]:
        W, S = _normal(generator, high, wide), _normal(generator, high, wide)
        x, y = _normal(generator, batch, wide), _normal(generator, batch, high)
        for step, (lr, score_lr) in enumerate([(0.1, 0.7), (0.05, 1.0), (0.2, 0.3)]):
            M = masks.top_v(S, density).double()
            G = _linear_gradient(W * M, x, y)
            dense = _linear_gradient(W, x, y)
            lowest = masks.top_v(-S, density).double()
            new_W, new_S = W - lr * G * M, S - score_lr * G * W
            what_W, what_S = f"W after step {step + 1}", f"S after step {step + 1}"
            result = call(answer, W, S, x, y, density=density, lr=lr, score_lr=score_lr)
            got_W, got_S = _pair(result, what_W, what_S, like_this=W)
            close(
                got_W,
                new_W,
                what=what_W,
                mistakes={
                    "pruned weights have become 0: only their gradient is masked, Eq. (3.5)": W * M - lr * G * M,
                    "pruned weights have changed: the gradient is masked, Eq. (3.5)": W - lr * G,
                    "the gradient is that of the dense layer; the forward pass uses W * M": W - lr * dense * M,
                    "the dense layer was trained: no mask anywhere": W - lr * dense,
                    "the sign of the step is wrong": W + lr * G * M,
                    "the loss is a mean over the batch, so its gradient is divided by the batch size": W
                    - lr * batch * G * M,
                    "this is the new S; return W first": new_S,
                    "the gradient is half as large as it should be": W - 0.5 * lr * G * M,
                    "the gradient is twice as large as it should be": W - 2 * lr * G * M,
                    "the loss is summed over the outputs, not averaged": W - lr / high * G * M,
                    "mse_loss takes the mean over the outputs, and has no 1/2": W - 2 * lr / high * G * M,
                    "the gradient is divided by the batch size twice": W - lr / batch * G * M,
                    "the mask keeps the lowest scores": W - lr * _linear_gradient(W * lowest, x, y) * lowest,
                    "it uses the learning rate of the scores": W - score_lr * G * M,
                    "the mask is that of the highest |W|; the scores decide": _by_magnitude(W, x, y, density, lr),
                },
            )
            close(
                got_S,
                new_S,
                what=what_S,
                mistakes={
                    "scores of pruned weights have not changed: Eq. (3.8) has no mask": S - score_lr * G * W * M,
                    "the scores have not changed": S,
                    "the sign of the step is wrong": S + score_lr * G * W,
                    "it uses the new W: both gradients belong to the same forward pass": S - score_lr * G * new_W,
                    "it uses the learning rate of the weights": S - lr * G * W,
                    "the gradient is half as large as it should be": S - 0.5 * score_lr * G * W,
                    "the gradient is twice as large as it should be": S - 2 * score_lr * G * W,
                    "the loss is summed over the outputs, not averaged": S - score_lr * G / high * W,
                    "W is missing in the gradient": S - score_lr * G,
                    "the gradient is that of the dense layer; the forward pass uses W * M": S - score_lr * dense * W,
                },
            )
            W, S = new_W, new_S


@exercise("3.3")
def _fixed_step(answer: Any) -> None:
    """(layer, S, x, y, density, lr, score_lr): changes layer.weight and S, in place, by one step of plain SGD."""
    generator = torch.Generator().manual_seed(34)
    for batch, wide, high, density in [(5, 4, 3, 0.5), (1, 3, 2, 0.67), (7, 2, 6, 0.3)]:
        W, S = _normal(generator, high, wide), _normal(generator, high, wide)
        layer = torch.nn.Linear(wide, high, bias=False, dtype=torch.float64)
        layer.weight.data, scores, before = W.clone(), S.clone(), torch.zeros_like(W)
        for step, (lr, score_lr) in enumerate([(0.1, 0.7), (0.05, 1.0), (0.2, 0.3)], 1):
            x, y = _normal(generator, batch, wide), _normal(generator, batch, high)
            M = masks.top_v(S, density).double()
            G = _linear_gradient(W * M, x, y)
            new_W, new_S = W - lr * G * M, S - score_lr * G * W
            answer(layer, scores, x, y, density=density, lr=lr, score_lr=score_lr)
            close(
                scores,
                new_S,
                what=f"S after step {step}",
                mistakes={
                    "scores of pruned weights have not changed: G, or the weight that multiplies it, is masked "
                    "(layer.weight.grad is G * M where the forward pass multiplies layer.weight by M)": S
                    - score_lr * G * W * M,
                    "S has not changed: the function has to change the S that it is given, as S -= ... does": S,
                    "the gradient of the step before is still in layer.weight.grad": S - score_lr * (G + before) * W,
                    "it uses the new W: both gradients belong to the same forward pass": S - score_lr * G * new_W,
                    "the sign of the step is wrong": S + score_lr * G * W,
                    "the forward pass uses the dense weights": S - score_lr * _linear_gradient(W, x, y) * W,
                },
            )
            close(
                layer.weight,
                new_W,
                what=f"layer.weight after step {step}",
                mistakes={
                    "pruned weights are 0: their values are lost": W * M - lr * G * M,
                    "it has not changed: the function has to change layer.weight in place": W,
                    "pruned weights have changed: the gradient is masked, Eq. (3.5)": W - lr * G,
                    "it is what the forward pass used, without the step": W * M,
                },
            )
            W, S, before = new_W, new_S, G


def _by_magnitude(W: Tensor, x: Tensor, y: Tensor, density: float, lr: float) -> Tensor:
    """The new weights if the mask were that of magnitude pruning."""
    M = masks.top_v(W.abs(), density).double()
    return W - lr * _linear_gradient(W * M, x, y) * M


def _linear_gradient(used: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """By loops: gradient of the batch mean of half the squared error, for a linear map `used`, (out, in)."""
    G = torch.zeros_like(used)
    for n, i, j in product(range(x.shape[0]), range(used.shape[0]), range(used.shape[1])):
        G[i, j] += (torch.dot(used[i], x[n]) - y[n, i]) * x[n, j] / x.shape[0]
    return G


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _pair(result: Any, *names: str, like_this: Tensor) -> Sequence[Tensor]:
    """The values of an answer, each a tensor of the shape of `like_this`."""
    if result is None:
        raise WrongAnswer("your answer is None: does the function return its result?")
    if not isinstance(result, (tuple, list)) or len(result) != len(names):
        found = f"{len(result)} values" if isinstance(result, (tuple, list)) else f"a {type(result).__name__}"
        raise WrongAnswer(f"your answer is {found}, expected a pair ({', '.join(names)})")
    shapes: Mapping[str, Any] = dict(zip(names, result, strict=True))
    return [like(got, like_this, name) for name, got in shapes.items()]
