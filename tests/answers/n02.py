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


RIGHT: dict[str, list[Callable[..., Any]]] = {
    "2.1": [lambda delta, x, W: -W * (delta.T @ x) / len(delta), _taylor_by_einsum, _taylor_by_loop],
    "2.2": [
        lambda delta, x, W: W**2 * (delta.square().T @ x.square()) / (2 * len(x)),
        _fisher_by_outer_products,
    ],
    "2.3": [_snip_of_one_batch, _snip_by_autograd],
}

WRONG: dict[str, dict[str, Callable[..., Any]]] = {
    "2.1": {
        "stub": lambda *_: None,
        "sign": lambda delta, x, W: W * (delta.T @ x) / len(x),
        "absolute": lambda delta, x, W: (W * (delta.T @ x)).abs() / len(x),
        "sum": lambda delta, x, W: -W * (delta.T @ x),
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
        "last batch alone": lambda loss, w, batches: (_g(loss, w, batches[-1]) * w).abs(),
        "first batch alone": lambda loss, w, batches: (_g(loss, w, batches[0]) * w).abs(),
        "signed": lambda loss, w, batches: -w * _g(loss, w, tuple(map(torch.cat, zip(*batches, strict=True)))),
        "gradient left on w": _snip_leaves_a_gradient,
    },
}
