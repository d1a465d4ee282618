"""Right and wrong answers to notebook 05's exercises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot


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


Layer = tuple[Tensor, Tensor, Tensor, Tensor]


def bad_swap(lr: float) -> Layer:
    """The kept weight fits its output; the one that enters overshoots: the loss goes from 0.5 to 45."""
    W = torch.tensor([[3.0, 0.0, 0.0], [10.0, 0.0, 0.0]])
    S = torch.tensor([[0.0, -1.0, -1.0], [-5 * lr, -1.0, -1.0]])
    return W, S, torch.tensor([1.0, 0.0, 0.0]), torch.tensor([3.0, 1.0])


def bad_swap_among_ties(lr: float) -> Layer:
    """All scores are 0, so the first weight is kept; any step lets the best G W overtake it."""
    W = torch.tensor([[4.0, 0.1, 0.1], [0.1, 0.1, 6.0]])
    return W, torch.zeros(2, 3), torch.tensor([1.0, 1.0, 2.0]), torch.tensor([4.0, 2.0])


def bad_swap_of_large_weights(lr: float) -> Layer:
    """The swap of the pencil example, with all weights ten times as large and scores that are close."""
    W = 10 * torch.tensor([[0.4, 0.5, -0.2], [-0.3, 0.4, 0.5]])
    S = torch.full((2, 3), -100.0)
    S[0, 1], S[1, 2] = 0.0, -30 * lr
    return W, S, torch.tensor([1.0, -2.0, 3.0]), torch.tensor([1.0, 3.0])


def bad_swap_at_one_rate(lr: float) -> Layer:
    return bad_swap(0.1)


def pencil(lr: float) -> Layer:
    W = torch.tensor([[0.4, 0.5, -0.2], [-0.3, 0.4, 0.5]])
    S = torch.tensor([[0.0, lr, 0.0], [0.0, 0.0, lr / 2]])
    return W, S, torch.tensor([1.0, -2.0, 3.0]), torch.tensor([1.0, 3.0])


def small_rise(lr: float) -> Layer:
    W, S, x, y = bad_swap(lr)
    W[1, 0] = 2.2
    S[1, 0] = -lr
    y[0] = W[0, 0] = 0.5
    return W, S, x, y


def no_step_of_the_scores(lr: float) -> Layer:
    """The scores after the step in place of those before it: the other weight is kept already."""
    W, S, x, y = bad_swap(lr)
    S[1, 0] = 5 * lr
    return W, S, x, y


def fixed_lead(lr: float) -> Layer:
    W, S, x, y = bad_swap(lr)
    S[1, 0] = -1e-7
    return W, S, x, y


def overflow(lr: float) -> Layer:
    W, S, x, y = bad_swap(lr)
    W = W.double()
    W[1, 0] = 1e200
    return W, S, x, y


def twin(lr: float) -> Layer:
    """What enters does for the second output what the other one did for the first: the loss stays."""
    W = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    S = torch.tensor([[0.0, -1.0, -1.0], [-lr / 2, -1.0, -1.0]])
    return W, S, torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.0, 1.0])


def not_a_number(lr: float) -> Layer:
    W, S, x, y = bad_swap(lr)
    return W / 0.0, S, x, y


RIGHT: dict[str, list[Callable[..., Any]]] = {
    "5.1": [second_order, second_order_by_autograd],
    "5.2": [bill, bill_by_loop],
    "5.3": [bad_swap, bad_swap_among_ties, bad_swap_of_large_weights],
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
        "weight alone": lambda G, W, S, R, tau: ((R > tau).double() - (S > tau).double()) * W,
        "mask of the sigmoid": lambda G, W, S, R, tau: bill(G, W, S.sigmoid(), R.sigmoid(), tau),
        "reversed rule": lambda G, W, S, R, tau: ((R < tau).double() - (S < tau).double()) * G * W,
        "absolute scores": lambda G, W, S, R, tau: bill(G, W, S.abs(), R.abs(), tau),
        "in place": bill_in_place,
    },
    "5.3": {
        "stub": lambda *a: None,
        "the pencil's swap": pencil,
        "the lead does not shrink with the learning rate": bad_swap_at_one_rate,
        "no swap, no gradient": lambda lr: (torch.eye(2, 3), torch.eye(2, 3), torch.zeros(3), torch.ones(2)),
        "the wrong one is kept at first": no_step_of_the_scores,
        "the rise is too small": small_rise,
        "W transposed": lambda lr: (bad_swap(lr)[0].T, *bad_swap(lr)[1:]),
        "x and y exchanged": lambda lr: tuple(bad_swap(lr)[i] for i in (0, 1, 3, 2)),
        "W and S exchanged": lambda lr: tuple(bad_swap(lr)[i] for i in (1, 0, 2, 3)),
        "target forgotten": lambda lr: bad_swap(lr)[:3],
        "the changes instead of the layer": lambda lr: -4.0,
        "a mask in place of scores": lambda lr: (bad_swap(lr)[0], bad_swap(lr)[1] == 0, *bad_swap(lr)[2:]),
        "lists": lambda lr: [tensor.tolist() for tensor in bad_swap(lr)],
        "a fixed lead": fixed_lead,
        "overflow": overflow,
        "one fit for another": twin,
        "not a number": not_a_number,
    },
}

#: Exercise -> wrong answer -> what its author reads; None: only what differs, and where.
SAID = {
    "5.2": {
        "sign": "costs of .* is not right: the sign is wrong: .* costs -G W$",
        "leaving has the sign of entering": "the sign of leaving entries is wrong: they cost -G W$",
        "leaving forgotten": "right: entries that leave are missing$",
        "entering forgotten": "right: entries that enter are missing$",
        "those that stay counted": "right: entries that stay cost nothing",
        "ties kept": "right: .* at the threshold it is 0$",
        "always a gain": "right: costs keep their signs",
        "scores in place of masks": "expected the change of the mask$",
        "weight forgotten": "right: the cost of a flip is G W, not G$",
        "weight alone": "right: the cost of a flip is G W, not W$",
        "absolute scores": r"right: the mask is S > tau, not \|S\| > tau$",
        "mask of the sigmoid": "right: the mask is S > tau; the sigmoid of S comes in notebook 06$",
        "reversed rule": "right: the mask is S > tau; S < tau is the reversed rule$",
    },
    "5.3": {
        "the lead does not shrink with the learning rate": "with lr=0.001 there is no swap: .* must shrink with lr$",
        "a fixed lead": "with lr=1e-09 there is no swap: .* must shrink with lr$",
        "W and S exchanged": "^W and S are exchanged: return W, S, x, y in this order$",
        "overflow": "with lr=0.1 the loss is too large for a floating-point number: choose smaller numbers$",
        "one fit for another": "the loss does not change: -1 to first order and [+]1 from the jump",
        "the pencil's swap": "the loss falls by 4.88: -6.5 to first order",
        "the rise is too small": "the loss rises by .* expected a rise of at least 1$",
    },
}
