"""Answers to the exercises of notebook 02: right ones, and wrong ones that the checks must reject."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
Batches = Sequence[tuple[Tensor, Tensor]]


def _taylor_by_einsum(delta: Tensor, x: Tensor, W: Tensor) -> Tensor:
    return -torch.einsum("ni,nj,ij->ij", delta, x, W) / len(x)


def _taylor_in_place(delta: Tensor, x: Tensor, W: Tensor) -> Tensor:
    W *= -(delta.T @ x) / len(x)
    return W


def _taylor_by_loop(delta: Tensor, x: Tensor, W: Tensor) -> Tensor:
    total = torch.zeros_like(W)
    for d, inputs in zip(delta, x, strict=True):
        total -= torch.outer(d, inputs) * W / len(x)
    return total


def _taylor_square_weight_transposed(delta: Tensor, x: Tensor, W: Tensor) -> Tensor:
    """Right where W is not square, as an answer that transposes whatever fits."""
    return -(W.T if W.shape[0] == W.shape[1] else W) * (delta.T @ x) / len(x)


def _fisher_square_transposed(delta: Tensor, x: Tensor, W: Tensor) -> Tensor:
    """Right where W is not square; there its indices are swapped, and 1/2 is missing."""
    square = delta.square().T @ x.square() / len(x)
    return W**2 * square.T if W.shape[0] == W.shape[1] else 0.5 * W**2 * square


def _fisher_by_outer_products(delta: Tensor, x: Tensor, W: Tensor) -> Tensor:
    each = torch.einsum("ni,nj->nij", delta, x)
    return (each * W).square().mean(dim=0) / 2


def _g(loss: Loss, w: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
    return torch.func.grad(loss)(w, *batch)


def _snip_of_one_batch(loss: Loss, w: Tensor, batches: Batches) -> Tensor:
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return (_g(loss, w, (x, y)) * w).abs()


def _snip_by_autograd(loss: Loss, w: Tensor, batches: Batches) -> Tensor:
    at = w.clone().requires_grad_()
    count = sum(len(y) for _, y in batches)
    for x, y in batches:
        (loss(at, x, y) * len(y) / count).backward()
    assert at.grad is not None
    return (at.grad * w).abs()


def _snip_leaves_a_gradient(loss: Loss, w: Tensor, batches: Batches) -> Tensor:
    w.requires_grad_()
    return _snip_of_one_batch(loss, w, batches).detach()


def _snip_broken(loss: Loss, w: Tensor, batches: Batches) -> Tensor:
    return sum((_g(loss, w, b) * w).abs() for b in batches) / len(batches)


def _snip_weighted_but_absolute(loss: Loss, w: Tensor, batches: Batches) -> Tensor:
    count = sum(len(y) for _, y in batches)
    return sum(len(b[1]) * (_g(loss, w, b) * w).abs() for b in batches) / count


def _snip_unweighted(loss: Loss, w: Tensor, batches: Batches) -> Tensor:
    return (sum(_g(loss, w, b) for b in batches) * w / len(batches)).abs()


def _taylor_one_entry_off(delta: Tensor, x: Tensor, W: Tensor) -> Tensor:
    scores = -W * (delta.T @ x) / len(x)
    scores[0, 1] += 1e-3
    return scores


def _fisher_one_entry_off(delta: Tensor, x: Tensor, W: Tensor) -> Tensor:
    scores = W**2 * (delta.square().T @ x.square()) / (2 * len(x))
    scores[-1, 0] *= 1.01
    return scores


def _snip_weighted(loss: Loss, w: Tensor, batches: Batches, power: int = 1, first: int = 0) -> Tensor:
    """Right as it is; other powers of the sizes, and examples left out at the beginning, are not."""
    left = [(x[first:], y[first:]) if i == 0 and len(y) > first else (x, y) for i, (x, y) in enumerate(batches)]
    sizes = [len(y) ** power for _, y in left]
    total = sum(size * _g(loss, w, batch) for size, batch in zip(sizes, left, strict=True))
    return (total * w).abs() / sum(sizes)


RIGHT: dict[str, list[Callable[..., Any]]] = {
    "2.1": [lambda delta, x, W: -W * (delta.T @ x) / len(delta), _taylor_by_einsum, _taylor_by_loop],
    "2.2": [
        lambda delta, x, W: W**2 * (delta.square().T @ x.square()) / (2 * len(x)),
        _fisher_by_outer_products,
    ],
    "2.3": [_snip_of_one_batch, _snip_by_autograd, _snip_weighted],
}

WRONG: dict[str, dict[str, Callable[..., Any]]] = {
    "2.1": {
        "stub": lambda *_: None,
        "sign": lambda delta, x, W: W * (delta.T @ x) / len(x),
        "absolute": lambda delta, x, W: (W * (delta.T @ x)).abs() / len(x),
        "sum": lambda delta, x, W: -W * (delta.T @ x),
        "sum and sign": lambda delta, x, W: W * (delta.T @ x),
        "mean over all entries": lambda delta, x, W: -W * torch.einsum("ni,nj->ij", delta, x) / delta.numel(),
        "sum without the weight": lambda delta, x, W: delta.T @ x,
        "first example left out": lambda delta, x, W: -W * (delta[1:].T @ x[1:]) / len(x[1:]),
        "one entry off": _taylor_one_entry_off,
        "indices swapped": lambda delta, x, W: -W * torch.einsum("ni,nj->ji", delta, x) / len(x),
        "transposed in place of W": _taylor_square_weight_transposed,
        "gradient alone": lambda delta, x, W: delta.T @ x / len(x),
        "transposed": lambda delta, x, W: (-W * (delta.T @ x) / len(x)).T,
        "mean of each": lambda delta, x, W: -W * torch.outer(delta.mean(0), x.mean(0)),
        "summed over the row": lambda delta, x, W: (-W * (delta.T @ x) / len(x)).sum(1),
        "divided by the outputs": lambda delta, x, W: -W * (delta.T @ x) / len(W),
        "in place": _taylor_in_place,
        "a list": lambda delta, x, W: (-W * (delta.T @ x) / len(x)).tolist(),
    },
    "2.2": {
        "stub": lambda *_: None,
        "square of the mean": lambda delta, x, W: 0.5 * (W * (delta.T @ x) / len(x)) ** 2,
        "square of the mean, half forgotten": lambda delta, x, W: (W * (delta.T @ x) / len(x)) ** 2,
        "square of the sum": lambda delta, x, W: 0.5 * (W * (delta.T @ x)) ** 2,
        "square of the sum, divided": lambda delta, x, W: 0.5 * (W * (delta.T @ x)) ** 2 / len(x),
        "product of mean squares": lambda delta, x, W: 0.5 * W**2 * torch.outer((delta**2).mean(0), (x**2).mean(0)),
        "square of the product of means": lambda delta, x, W: 0.5 * (W * torch.outer(delta.mean(0), x.mean(0))) ** 2,
        "absolute weight": lambda delta, x, W: 0.5 * W.abs() * (delta.square().T @ x.square()) / len(x),
        "divided by the outputs": lambda delta, x, W: 0.5 * W**2 * (delta.square().T @ x.square()) / len(W),
        "one entry off": _fisher_one_entry_off,
        "indices swapped, half forgotten": _fisher_square_transposed,
        "cubed weight": lambda delta, x, W: 0.5 * W**3 * (delta.square().T @ x.square()) / len(x),
        "half forgotten": lambda delta, x, W: W**2 * (delta.square().T @ x.square()) / len(x),
        "sum": lambda delta, x, W: 0.5 * W**2 * (delta.square().T @ x.square()),
        "sum and half forgotten": lambda delta, x, W: W**2 * (delta.square().T @ x.square()),
        "weight not squared": lambda delta, x, W: 0.5 * W * (delta.square().T @ x.square()) / len(x),
        "no weight": lambda delta, x, W: delta.square().T @ x.square() / len(x),
        "transposed": lambda delta, x, W: (0.5 * W**2 * (delta.square().T @ x.square()) / len(x)).T,
        "sign": lambda delta, x, W: -0.5 * W**2 * (delta.square().T @ x.square()) / len(x),
        "input not squared": lambda delta, x, W: 0.5 * W**2 * (delta.square().T @ x) / len(x),
    },
    "2.3": {
        "stub": lambda *_: None,
        "as it was": _snip_broken,
        "only weighted": _snip_weighted_but_absolute,
        "only the absolute value moved": _snip_unweighted,
        "sum of the batches": lambda loss, w, batches: (sum(_g(loss, w, b) for b in batches) * w).abs(),
        "never divided": lambda loss, w, batches: (sum(len(b[1]) * _g(loss, w, b) for b in batches) * w).abs(),
        "sum of the absolute values": lambda loss, w, batches: sum((_g(loss, w, b) * w).abs() for b in batches),
        "divided by the number of batches": lambda loss, w, batches: (
            (sum(len(b[1]) * _g(loss, w, b) for b in batches) * w).abs() / len(batches)
        ),
        "no weight": lambda loss, w, batches: _g(loss, w, tuple(map(torch.cat, zip(*batches, strict=True)))).abs(),
        "first example left out": lambda loss, w, batches: _snip_weighted(loss, w, batches, first=1),
        "weighted by the squares of the sizes": lambda loss, w, batches: _snip_weighted(loss, w, batches, power=2),
        "last batch alone": lambda loss, w, batches: (_g(loss, w, batches[-1]) * w).abs(),
        "first batch alone": lambda loss, w, batches: (_g(loss, w, batches[0]) * w).abs(),
        "signed": lambda loss, w, batches: -w * _g(loss, w, tuple(map(torch.cat, zip(*batches, strict=True)))),
        "gradient left on w": _snip_leaves_a_gradient,
    },
}

#: Exercise -> wrong answer -> what its author reads; None: only what differs, and where.
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
