"""Right and wrong answers to notebook 05's exercises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

import mvp_lite as mvp


def second_order(a: Tensor, a_next: Tensor, c: int) -> Tensor:
    p = a.softmax(0)
    curvature = torch.diag(p) - torch.outer(p, p)
    d = a_next - a
    return (p - one_hot(torch.tensor(c), len(a))) @ d + 0.5 * d @ curvature @ d


def second_order_by_autograd(a: Tensor, a_next: Tensor, c: int) -> Tensor:
    a = a.clone().requires_grad_()
    loss = -a.log_softmax(0)[c]
    (g,) = torch.autograd.grad(loss, a, create_graph=True)
    d = a_next - a.detach()
    slope = g @ d
    (bend,) = torch.autograd.grad(slope, a)
    return (slope + bend @ d / 2).detach()


def _second_order(
    *, half: float = 0.5, slope: float = 1.0, outer: float = -1.0, label: float = 1.0, diagonal: bool = True
) -> Callable[[Tensor, Tensor, int], Tensor]:
    def wrong(a: Tensor, a_next: Tensor, c: int) -> Tensor:
        p, d = a.softmax(0), a_next - a
        curvature = (torch.diag(p) if diagonal else torch.eye(len(a))) + outer * torch.outer(p, p)
        return slope * (p - label * one_hot(torch.tensor(c), len(a))) @ d + half * d @ curvature @ d

    return wrong


def second_order_at_the_end(a: Tensor, a_next: Tensor, c: int) -> Tensor:
    return -second_order(a_next, a, c)


def second_order_in_place(a: Tensor, a_next: Tensor, c: int) -> Tensor:
    right = second_order(a, a_next, c)
    a -= a_next
    return right


def bill(G: Tensor, W: Tensor, S: Tensor, S_next: Tensor, tau: float) -> Tensor:
    old, new = S > tau, S_next > tau
    return torch.where(new & ~old, G * W, torch.where(old & ~new, -G * W, torch.zeros_like(W)))


def bill_by_loop(G: Tensor, W: Tensor, S: Tensor, S_next: Tensor, tau: float) -> Tensor:
    cost = torch.zeros_like(W)
    for m in range(W.shape[0]):
        for n in range(W.shape[1]):
            after, before = W[m, n] * (S_next[m, n] > tau), W[m, n] * (S[m, n] > tau)
            cost[m, n] = G[m, n] * (after - before)
    return cost


def bill_in_place(G: Tensor, W: Tensor, S: Tensor, S_next: Tensor, tau: float) -> Tensor:
    right = bill(G, W, S, S_next, tau)
    S.copy_(S_next)
    return right


Step = tuple[Tensor, Tensor, Tensor]


def correct_step(
    W: Tensor, S: Tensor, M: Tensor, x: Tensor, y: Tensor, density: float, lr_W: float, lr_S: float
) -> Step:
    G = torch.outer((W * M) @ x - y, x)
    W, S = W - lr_W * G * M, S - lr_S * G * W
    return W, S, mvp.masks.top_v(S, density)


def correct_step_by_autograd(
    W: Tensor, S: Tensor, M: Tensor, x: Tensor, y: Tensor, density: float, lr_W: float, lr_S: float
) -> Step:
    weight, mask = W.clone().requires_grad_(), M.to(W.dtype).requires_grad_()
    (0.5 * ((weight * mask) @ x - y).square().sum()).backward()
    with torch.no_grad():
        S_next = S - lr_S * mask.grad
        return W - lr_W * weight.grad, S_next, mvp.masks.top_v(S_next, density)


def broken_step(
    W: Tensor, S: Tensor, M: Tensor, x: Tensor, y: Tensor, density: float, lr_W: float, lr_S: float
) -> Step:
    G = torch.outer((W * M) @ x - y, x)
    M = mvp.masks.top_v(S, density)
    W = W - lr_W * G * M
    S = S - lr_S * G * W
    return W, S, M


def _step(change: Callable[..., Any], select: Callable[..., Tensor] | None = None) -> Callable[..., Any]:
    """A step from `change`, (W, S, M, G, lr_W, lr_S, density) -> new W and S, and `select`, (old S, new S, density)."""

    def wrong(W: Tensor, S: Tensor, M: Tensor, x: Tensor, y: Tensor, density: float, lr_W: float, lr_S: float) -> Any:
        G = torch.outer((W * M) @ x - y, x)
        W_next, S_next = change(W, S, M, G, lr_W, lr_S, density)
        return W_next, S_next, select(S, S_next, density) if select else mvp.masks.top_v(S_next, density)

    return wrong


def _both(W: Tensor, S: Tensor, M: Tensor, G: Tensor, p: float, q: float, v: float) -> tuple[Tensor, Tensor]:
    return W - p * G * M, S - q * G * W


def step_new_mask_on_weights(
    W: Tensor, S: Tensor, M: Tensor, x: Tensor, y: Tensor, density: float, lr_W: float, lr_S: float
) -> Step:
    G = torch.outer((W * M) @ x - y, x)
    S = S - lr_S * G * W
    M = mvp.masks.top_v(S, density)
    return W - lr_W * G * M, S, M


def step_selects_first(
    W: Tensor, S: Tensor, M: Tensor, x: Tensor, y: Tensor, density: float, lr_W: float, lr_S: float
) -> Step:
    return correct_step(W, S, mvp.masks.top_v(S, density), x, y, density, lr_W, lr_S)


def step_dense_forward(
    W: Tensor, S: Tensor, M: Tensor, x: Tensor, y: Tensor, density: float, lr_W: float, lr_S: float
) -> Step:
    G = torch.outer(W @ x - y, x)
    W, S = W - lr_W * G * M, S - lr_S * G * W
    return W, S, mvp.masks.top_v(S, density)


def step_in_place(
    W: Tensor, S: Tensor, M: Tensor, x: Tensor, y: Tensor, density: float, lr_W: float, lr_S: float
) -> Step:
    W_next, S_next, M_next = correct_step(W, S, M, x, y, density, lr_W, lr_S)
    return W.copy_(W_next), S.copy_(S_next), M_next


RIGHT: dict[str, list[Callable[..., Any]]] = {
    "5.1": [second_order, second_order_by_autograd],
    "5.2": [bill, bill_by_loop],
    "5.3": [correct_step, correct_step_by_autograd],
}

WRONG: dict[str, dict[str, Callable[..., Any]]] = {
    "5.1": {
        "stub": lambda *a: None,
        "first order only": _second_order(half=0.0),
        "second order only": _second_order(slope=0.0),
        "no half": _second_order(half=1.0),
        "curvature subtracted": _second_order(half=-0.5),
        "sign of the slope": _second_order(slope=-1.0),
        "squared loss's curvature": _second_order(outer=0.0, diagonal=False),
        "diagonal alone": _second_order(outer=0.0),
        "plus the outer product": _second_order(outer=1.0),
        "right class forgotten": _second_order(label=0.0),
        "backwards": lambda a, a_next, c: second_order(a_next, a, c),
        "derivatives at the end": second_order_at_the_end,
        "true change": lambda a, a_next, c: cross_entropy(a_next, torch.tensor(c)) - cross_entropy(a, torch.tensor(c)),
        "a float": lambda a, a_next, c: second_order(a, a_next, c).item(),
        "entry by entry": lambda a, a_next, c: (a.softmax(0) - one_hot(torch.tensor(c), len(a))) * (a_next - a),
        "in place": second_order_in_place,
    },
    "5.2": {
        "stub": lambda *a: None,
        "sign": lambda *a: -bill(*a),
        "leaving has the sign of entering": lambda G, W, S, R, tau: ((S > tau) != (R > tau)) * G * W,
        "leaving forgotten": lambda G, W, S, R, tau: ((R > tau) & (S <= tau)) * G * W,
        "entering forgotten": lambda G, W, S, R, tau: -1.0 * ((S > tau) & (R <= tau)) * G * W,
        "those that stay counted": lambda G, W, S, R, tau: (R > tau) * G * W,
        "ties kept": lambda G, W, S, R, tau: ((R >= tau).double() - (S >= tau).double()) * G * W,
        "always a gain": lambda *a: -bill(*a).abs(),
        "scores in place of masks": lambda G, W, S, R, tau: (R - S) * G * W,
        "weight forgotten": lambda G, W, S, R, tau: ((R > tau).double() - (S > tau).double()) * G,
        "summed": lambda *a: bill(*a).sum(),
        "transposed": lambda *a: bill(*a).T,
        "sigmoid of the scores": lambda G, W, S, R, tau: bill(G, W, S.sigmoid(), R.sigmoid(), tau),
        "absolute scores": lambda G, W, S, R, tau: bill(G, W, S.abs(), R.abs(), tau),
        "in place": bill_in_place,
    },
    "5.3": {
        "stub": lambda *a: None,
        "still broken": broken_step,
        "mask late": _step(_both, lambda S, R, v: mvp.masks.top_v(S, v)),
        "new mask on the weights": step_new_mask_on_weights,
        "mask selected again before the forward pass": step_selects_first,
        "new weight in the score": _step(lambda W, S, M, G, p, q, v: (W - p * G * M, S - q * G * (W - p * G * M))),
        "masked score gradient": _step(lambda W, S, M, G, p, q, v: (W - p * G * M, S - q * G * M * W)),
        "masked weights move": _step(lambda W, S, M, G, p, q, v: (W - p * G, S - q * G * W)),
        "uphill": _step(lambda W, S, M, G, p, q, v: (W - p * G * M, S + q * G * W)),
        "learning rates exchanged": _step(lambda W, S, M, G, p, q, v: (W - q * G * M, S - p * G * W)),
        "masked weights zeroed": _step(lambda W, S, M, G, p, q, v: ((W - p * G * M) * M, S - q * G * W)),
        "factor 2": _step(lambda W, S, M, G, p, q, v: (W - 2 * p * G * M, S - 2 * q * G * W)),
        "ranked by magnitude": _step(_both, lambda S, R, v: mvp.masks.top_v(R.abs(), v)),
        "mask inverted": _step(_both, lambda S, R, v: ~mvp.masks.top_v(R, v)),
        "transposed": _step(lambda W, S, M, G, p, q, v: ((W - p * G * M).T, (S - q * G * W).T)),
        "M forgotten": lambda *a: correct_step(*a)[:2],
        "dense forward": step_dense_forward,
        "in place": step_in_place,
    },
}
