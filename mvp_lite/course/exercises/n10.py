"""Checks of notebook 10: the gradient of a shared score, an FFN and an attention layer without dead units."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mvp_lite.course.exercises.tools import WrongAnswer, call, close, exercise, like, normal

#: (G, W, group) of one matrix
Part = tuple[Tensor, Tensor, Tensor]


@exercise("10.1")
def _group_gradient(answer: Any) -> None:
    block = torch.arange(4).view(2, 2).repeat_interleave(3, dim=0).repeat_interleave(2, dim=1)  # (6, 4)
    neuron, head = torch.arange(5), torch.arange(2).repeat_interleave(3)
    rows = [head[:, None].expand(6, 6)] * 3
    cases = [([block], 4), ([neuron[:, None].expand(5, 3), neuron.expand(2, 5)], 5), ([*rows, head.expand(6, 6)], 2)]
    cases += [([torch.tensor([[3, 0], [0, 1]])], 5)]  # two groups without a weight
    for seed, (groups, count) in enumerate(cases):
        parts = [
            (normal(*group.shape, seed=20 * seed + n), normal(*group.shape, seed=20 * seed + n + 10), group)
            for n, group in enumerate(groups)
        ]
        given = [(G.clone(), W.clone(), group.clone()) for G, W, group in parts]
        got = call(answer, given, count)
        if len(given) != len(parts) or not all(
            torch.equal(a, b) for mine, own in zip(given, parts, strict=True) for a, b in zip(mine, own, strict=True)
        ):
            raise WrongAnswer("your function changes its argument number 1 in place: work on a copy")
        _check_sums(got, parts, count)


def _check_sums(got: Any, parts: list[Part], count: int) -> None:
    def added(values: list[Tensor]) -> Tensor:
        total = torch.zeros(count, dtype=torch.float64)
        for value, (_, _, group) in zip(values, parts, strict=True):
            total.index_add_(0, group.flatten(), value.flatten())
        return total

    products = [G * W for G, W, _ in parts]
    nothing = [torch.zeros_like(product) for product in products]
    expected = added(products)
    overwritten = torch.zeros(count, dtype=torch.float64)
    for product, (_, _, group) in zip(products, parts, strict=True):
        overwritten[group.flatten()] += product.flatten()
    members = added([torch.ones_like(product) for product in products]).clamp(min=1.0)
    hints = {
        "this is the mean over each group, expected the sum": expected / members,
        "this is G alone: multiply by W before you add": added([G for G, _, _ in parts]),
        "this is W alone: multiply by G before you add": added([W for _, W, _ in parts]),
        "add the products with their signs, not their absolute values": added([product.abs() for product in products]),
        "multiply each G by its own W, and add afterwards": added([G for G, _, _ in parts])
        * added([W for _, W, _ in parts]),
        "total[group] += … adds only one weight of each group: index_add_ adds all": overwritten,
        "the sign is wrong: expected the gradient, not the step": -expected,
    }
    if len(parts) > 1:
        hints |= {
            "only the first matrix is counted": added([products[0], *nothing[1:]]),
            "only the last matrix is counted": added([*nothing[:-1], products[-1]]),
            "this is the mean over the matrices: add them": expected / len(parts),
        }
    close(got, expected, mistakes=hints)


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
        _which_neurons(got, W1, W2, alive)
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


def _which_neurons(got: Any, W1: Tensor, W2: Tensor, alive: Tensor) -> None:
    """Raise for mistakes in the choice of the neurons."""
    left, rows = got[0], W1.ne(0).any(dim=1)
    if not isinstance(left, Tensor) or left.dim() != 2 or len(left) == int(alive.sum()):
        return
    if len(left) == len(W1):
        raise WrongAnswer(f"all {len(W1)} neurons are still there: leave out those whose column of W2 is zero")
    constant = "a neuron whose row is zero but whose column is not still adds W2[:, n] * gelu(b1[n]): it stays"
    likely = [
        (rows, "select by columns of W2: a neuron with a zero row adds a constant, with a zero column nothing"),
        (rows & alive, constant),
        (rows | alive, "a neuron goes if its column of W2 is zero, also if its row of W1 is not"),
        (W2.ne(0).all(dim=0), "a neuron is dead if *all* entries of its column are zero, not if one of them is"),
        (W2.sum(dim=0).ne(0), "a column that sums to 0 need not be zero: compare its entries with 0, not their sum"),
        (W2.abs().amax(dim=0) > 1e-3, "a neuron with a small column is not dead: expected only exact zeros to go"),
        (~alive, "these are the dead neurons, expected the others"),
    ]
    for chosen, hint in likely:
        if left.shape == W1[chosen].shape and torch.allclose(left.double(), W1[chosen]):
            raise WrongAnswer(hint)
    raise WrongAnswer(f"W1 has {len(left)} neurons, expected {int(alive.sum())}: those with a non-zero column of W2")


@exercise("10.3")
def _shrink_attention(answer: Any) -> None:
    for seed, (heads, size) in enumerate([(5, 3), (4, 2), (6, 4)]):
        width = heads * size
        W, b = normal(3, width, width, seed=seed), normal(3, width, seed=seed + 10)
        W_O = normal(width, width, seed=seed + 20)
        columns = W_O.view(width, heads, size)
        columns[:, [0, 2]] = 0.0  # dead; the first too, so that the first rows are a wrong answer
        columns[:, 3, 0] = 0.0  # alive: its other columns are not zero
        columns[:, 1] = 0.0
        columns[:2, 1] = torch.tensor([[1.5], [-1.5]])  # alive, although all its columns sum to 0
        W.view(3, heads, size, width)[2, 1:4] = 0.0  # no values; the biases of those that are alive still count
        W_O[:, -1] *= 1e-6
        got = call(answer, W, b, W_O, heads)
        if not isinstance(got, tuple | list) or len(got) != 3:
            raise WrongAnswer("expected a tuple of three tensors, W, b and W_O")
        kept = W_O.ne(0).any(dim=0).view(heads, size).any(dim=1).repeat_interleave(size)
        _which_heads(got, W, W_O, heads, kept)
        for name, mine, right in zip(("W", "b", "W_O"), got, (W[:, kept], b[:, kept], W_O[:, kept]), strict=True):
            like(mine, right, name)
        x = normal(5, width, seed=seed + 30)
        out = _attention(x, got[0].double(), got[1].double(), got[2].double(), size)
        if any(part.dtype == torch.float32 for part in got):
            out = out.float()
        scattered = kept.view(heads, size).any(dim=1).repeat(size)
        wrong = {
            "these are the first biases, not those of the heads that stay": (W[:, kept], b[:, : got[1].shape[1]]),
            "the biases are missing": (W[:, kept], torch.zeros_like(b[:, kept])),
            "these are the first rows of W, not those of the heads that stay": (W[:, : got[0].shape[1]], b[:, kept]),
        }
        hints = {hint: _attention(x, *both, W_O[:, kept], size) for hint, both in wrong.items()}
        hints["the rows of a head are neighbors: repeat_interleave, not repeat"] = _attention(
            x, W[:, scattered], b[:, scattered], W_O[:, scattered], size
        )
        expected = _attention(x, W[:, kept], b[:, kept], W_O[:, kept], size)
        close(out, expected, mistakes=hints, what="the output of your smaller attention layer")


def _attention(x: Tensor, W: Tensor, b: Tensor, W_O: Tensor, size: int) -> Tensor:
    """Output of self-attention with heads of `size` rows each, without the output's bias."""
    Q, K, V = ((x @ w.T + bias).view(len(x), -1, size).transpose(0, 1) for w, bias in zip(W, b, strict=True))
    P = torch.softmax(Q @ K.transpose(1, 2) / size**0.5, dim=2)
    values: Tensor = (P @ V).transpose(0, 1).reshape(len(x), -1)
    return values @ W_O.T


def _which_heads(got: Any, W: Tensor, W_O: Tensor, heads: int, kept: Tensor) -> None:
    """Raise for mistakes in the choice of the rows."""
    left, size = got[0], len(kept) // heads
    if not isinstance(left, Tensor) or left.dim() != 3 or left.shape[1] == int(kept.sum()):
        return
    if left.shape[2] != W.shape[2]:
        raise WrongAnswer("the width of the input does not change: leave out rows of W and columns of W_O")
    columns = W_O.ne(0).any(dim=0)
    whole, values = columns.view(heads, size).all(dim=1), W[2].ne(0).view(heads, -1).any(dim=1)
    by_values = "select by the columns of W_O: a head whose value rows are zero still adds a constant"
    by_sum = "a column that sums to 0 need not be zero: compare its entries with 0, not their sum"
    likely = [
        (torch.ones_like(kept), f"all {heads} heads are still there: leave out those with only zeros in W_O"),
        (columns, "a head stays or goes as a whole: it stays if any of its columns is not zero"),
        (whole.repeat_interleave(size), "a head is dead if *all* of its columns are zero, not if one of them is"),
        (values.repeat_interleave(size), by_values),
        (values.repeat_interleave(size) & kept, by_values),
        (W_O.sum(dim=0).ne(0).view(heads, size).any(dim=1).repeat_interleave(size), by_sum),
        (~kept, "these are the dead heads, expected the others"),
    ]
    for chosen, hint in likely:
        if left.shape[1] == int(chosen.sum()) and torch.allclose(left.double(), W[:, chosen]):
            raise WrongAnswer(hint)
    raise WrongAnswer(
        f"W has {left.shape[1]} rows for each map, expected {int(kept.sum())}: {size} for each head that stays"
    )
