"""Checks of notebook 10: the gradient of a head's score, an FFN without dead neurons, neurons within a budget."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mvp_lite.course.exercises.tools import WrongAnswer, call, close, exercise, like, normal


@exercise("10.1")
def _head_gradient(answer: Any) -> None:
    for seed, (width, heads) in enumerate([(6, 2), (12, 3), (8, 8)]):
        G, W = normal(4, width, width, seed=seed), normal(4, width, width, seed=seed + 10)
        head_size, product = width // heads, G * W
        rows = product.view(4, heads, head_size, width).sum(dim=(2, 3))
        columns = product.view(4, width, heads, head_size).sum(dim=(1, 3))
        strided = product.view(4, head_size, heads, width).sum(dim=(1, 3))
        strided_columns = product.view(4, width, head_size, heads).sum(dim=(1, 2))
        expected = rows[:3].sum(dim=0) + columns[3]
        weights = torch.cat([W[:3], W[3].T[None]]).view(4, heads, -1).sum(dim=(0, 2))
        hints = {
            "in the output matrix a head has columns, not rows": rows.sum(dim=0),
            "rows and columns are exchanged: a head has columns in the output matrix alone": columns[:3].sum(dim=0)
            + rows[3],
            "the output matrix is missing": rows[:3].sum(dim=0),
            "the score of a head acts on all four matrices, not on the output matrix alone": columns[3],
            "a head has adjacent rows: rows 0 to width/heads - 1 are the first head": strided[:3].sum(dim=0)
            + strided_columns[3],
            "this is the mean over the entries of a head, expected their sum": expected / (4 * head_size * width),
            "this is the mean over the four matrices: add them": expected / 4,
            "this is G alone: multiply by W before you add": torch.cat([G[:3], G[3].T[None]])
            .view(4, heads, -1)
            .sum(dim=(0, 2)),
            "this is W alone: multiply by G before you add": weights,
            "the sign is wrong": -expected,
        }
        close(call(answer, G, W, heads), expected, mistakes=hints)


@exercise("10.2")
def _shrink_ffn(answer: Any) -> None:
    for seed, (inputs, neurons, outputs) in enumerate([(4, 7, 3), (5, 12, 5), (6, 9, 6)]):
        W1, b1 = normal(neurons, inputs, seed=seed), normal(neurons, seed=seed + 10)
        W2 = normal(outputs, neurons, seed=seed + 20)
        W2[:, [0, 3, 5]] = 0.0  # dead; the first neuron too, so that the first biases are a wrong answer
        W1[[3, 4]] = 0.0  # one dead by row and column, one alive that adds a constant
        W2[0, [1, 6]] = 0.0  # alive: other outputs still use them
        W2[:, 2] = 0.0
        W2[:2, 2] = torch.tensor([1.5, -1.5])  # alive, although its column sums to 0
        W2[:, 6] *= 1e-6  # alive, although its column is small
        got = call(answer, W1, b1, W2)
        if not isinstance(got, tuple | list) or len(got) != 3:
            raise WrongAnswer("expected a tuple of three tensors, W1, b1 and W2")
        alive = W2.ne(0).any(dim=0)
        _sizes(got, W1, W2, alive)
        expected = (W1[alive], b1[alive], W2[:, alive])
        for name, mine, right in zip(("W1", "b1", "W2"), got, expected, strict=True):
            like(mine, right, name)
        x = normal(11, inputs, seed=seed + 30)
        outputs_of = [
            torch.nn.functional.gelu(x @ A.double().T + b.double()) @ B.double().T for A, b, B in (got, expected)
        ]
        if any(part.dtype == torch.float32 for part in got):
            outputs_of[0] = outputs_of[0].float()
        first = torch.nn.functional.gelu(x @ W1[alive].T + b1[: int(alive.sum())]) @ W2[:, alive].T
        bare = torch.nn.functional.gelu(x @ W1[alive].T) @ W2[:, alive].T
        hints = {
            "these are the first biases, not those of the neurons that stay": first,
            "the biases are missing": bare,
        }
        close(outputs_of[0], outputs_of[1], mistakes=hints, what="the output of your smaller FFN")


def _sizes(got: Any, W1: Tensor, W2: Tensor, alive: Tensor) -> None:
    """Raise for mistakes that show in the number of neurons."""
    left = got[0].shape[0] if isinstance(got[0], Tensor) and got[0].dim() == 2 else None
    by_rows, both = int(W1.ne(0).any(dim=1).sum()), int((alive & W1.ne(0).any(dim=1)).sum())
    full = int(W2.ne(0).all(dim=0).sum())
    if left == int(alive.sum()):
        return
    if left == len(W1):
        raise WrongAnswer(f"all {left} neurons are still there: leave out those whose column of W2 is zero")
    if left == by_rows:
        raise WrongAnswer(
            "select by columns of W2: a neuron with a zero row adds a constant, with a zero column nothing"
        )
    if left == both:
        raise WrongAnswer(
            "a neuron whose row is zero but whose column is not still adds W2[:, n] * gelu(b1[n]): it stays"
        )
    if left == full:
        raise WrongAnswer("a neuron is dead if *all* entries of its column are zero, not if one of them is")
    raise WrongAnswer(f"W1 has {left} neurons, expected {int(alive.sum())}: those with a non-zero column of W2")


@exercise("10.3")
def _most_neurons(answer: Any) -> None:
    for width, head_size, heads, neurons, length, budget in [
        (64, 16, 4, 100, 200, 0.45),  # the first: here each of the mistakes below gives other numbers
        (128, 32, 4, 512, 24, 0.5),
        (768, 64, 12, 3072, 128, 0.6),
        (96, 8, 12, 384, 7, 1.0),
    ]:
        per_head, per_neuron = 8 * length * width * head_size + 4 * length**2 * head_size, 4 * length * width
        linear = 8 * length * width * head_size

        def most(h_cost: float, n_cost: float, room: float | None = None) -> Tensor:
            total = budget * (heads * h_cost + neurons * n_cost) if room is None else room  # noqa: B023
            return (total - h_cost * torch.arange(1, heads + 1).double()) / n_cost  # noqa: B023

        exact = most(per_head, per_neuron)
        hints = {
            "attention's two products, 4 s^2 d_h a head, are missing": _clip(most(linear, per_neuron), neurons),
            "this goes over the budget: round down": _clip(exact.ceil(), neurons, exact < 0),
            "more neurons than the layer has: at most all of them": _clip(exact, 10**9),
            "expected -1 where the heads alone exceed the budget": _clip(exact, neurons).clamp(min=0),
            "a neuron has a row and a column: 4 s d operations": _clip(most(per_head, per_neuron / 2), neurons),
            "the budget is a share of all operations of the dense layer, heads and neurons": _clip(
                most(per_head, per_neuron, room=budget * neurons * per_neuron), neurons
            ),
            "the number of heads starts at 1, not at 0": _clip(exact + per_head / per_neuron, neurons),
        }
        got = call(answer, width, head_size, heads, neurons, length, budget)
        if isinstance(got, list | tuple) and all(isinstance(n, int | float) for n in got):
            got = torch.tensor(got)
        close(got, _clip(exact, neurons), mistakes=hints)


def _clip(numbers: Tensor, most: int, over_budget: Tensor | None = None) -> Tensor:
    found = (numbers + 1e-9).floor().clamp(max=most)
    return torch.where(numbers < 0 if over_budget is None else over_budget, -1.0, found)
