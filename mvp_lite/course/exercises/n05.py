"""Checks of notebook 05: a second-order prediction, the costs of a threshold step, a swap that raises the loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mvp_lite.course.exercises.tools import WrongAnswer, call, close, exercise, like, normal
from mvp_lite.course.swaps import step
from mvp_lite.masks import top_v

Call = Callable[..., Any]


@exercise("5.1")
def _second_order(answer: Call) -> None:
    for seed, (n, c) in enumerate([(2, 1), (3, 0), (6, 4)]):
        a, d = normal(n, seed=seed), normal(n, seed=10 + seed)

        def loss(logits: Tensor, label: int = c) -> Tensor:
            return logits.logsumexp(0) - logits[label]

        def along(first: Tensor, second: Tensor, a: Tensor = a, d: Tensor = d) -> tuple[Tensor, Tensor]:
            return first @ d, d @ second @ d / 2

        gradient = torch.func.grad(loss)(a)
        slope, bend = along(gradient, torch.func.hessian(loss)(a))
        p = a.softmax(0)
        square = d @ d / 2
        got = call(answer, a, a + d, c)
        close(
            got,
            slope + bend,
            what=f"the predicted change with {n} classes",
            mistakes={
                "this is the first-order change alone": slope,
                "this is the second-order term alone": bend,
                "the second-order term lacks its factor 1/2": slope + 2 * bend,
                "the second-order term has the wrong sign": slope - bend,
                "this is the second-order term of the squared loss: use diag(p) - p p^T": slope + square,
                "the - p p^T of the second derivatives is missing": slope + (p * d * d).sum() / 2,
                "this is diag(p) + p p^T, expected a minus": slope + ((p * d * d).sum() + (p @ d) ** 2) / 2,
                "the right class is not subtracted in the gradient": p @ d + bend,
                "the gradient is p minus one-hot, not the reverse": -slope + bend,
                "this is the true change; predict it from derivatives at a": loss(a + d) - loss(a),
                "the derivatives are taken at a_next, expected a": torch.stack(
                    along(torch.func.grad(loss)(a + d), torch.func.hessian(loss)(a + d))
                ).sum(),
                "the change is a_next - a, not a - a_next": -slope + bend,
            },
        )


@exercise("5.2")
def _bill(answer: Call) -> None:
    for seed, (shape, tau) in enumerate([((3, 4), 0.2), ((5, 4), -0.3), ((4, 7), 0.0)]):
        G, W, S, noise = normal(4, *shape, seed=seed)
        S_next = S + 1.5 * noise  # any step, so that some flips raise the loss
        # one of each kind: enters and leaves at the threshold, enters, leaves, stays, enters from far below
        S.view(-1)[:6] = tau + torch.tensor([0.0, 1.0, -0.4, 0.5, 0.3, -3.0], dtype=torch.float64)
        S_next.view(-1)[:6] = tau + torch.tensor([1.0, 0.0, 0.6, -0.3, 0.8, 0.7], dtype=torch.float64)
        expected = torch.zeros(shape, dtype=torch.float64)
        for m in range(shape[0]):
            for n in range(shape[1]):
                if S[m, n] <= tau < S_next[m, n]:
                    expected[m, n] = G[m, n] * W[m, n]
                elif S_next[m, n] <= tau < S[m, n]:
                    expected[m, n] = -G[m, n] * W[m, n]
        old, new = (S > tau).double(), (S_next > tau).double()

        def costs(before: Tensor, after: Tensor, product: Tensor = G * W) -> Tensor:
            return (after.double() - before.double()) * product

        got = call(answer, G, W, S, S_next, tau)
        close(
            got,
            expected,
            what=f"the matrix of costs of a step on {shape[0]} x {shape[1]} weights",
            mistakes={
                "a mask is 1 above the threshold; at the threshold it is 0": costs(S >= tau, S_next >= tau),
                "the mask is S > tau, not |S| > tau": costs(S.abs() > tau, S_next.abs() > tau),
                "the mask is S > tau; the sigmoid of S comes in notebook 06": costs(
                    S.sigmoid() > tau, S_next.sigmoid() > tau
                ),
                "the mask is S > tau; S < tau is the reversed rule": costs(S < tau, S_next < tau),
                "the sign is wrong: an entry that enters costs G W, one that leaves costs -G W": -expected,
                "the sign of leaving entries is wrong: they cost -G W": (new - old).abs() * G * W,
                "entries that leave are missing": (1 - old) * new * G * W,
                "entries that enter are missing": -old * (1 - new) * G * W,
                "entries that stay cost nothing: count only changes of the mask": new * G * W,
                "costs keep their signs: the sum of |G W| holds for plain gradient descent alone": -expected.abs(),
                "this uses the change of the scores, expected the change of the mask": (S_next - S) * G * W,
                "the cost of a flip is G W, not G": (new - old) * G,
                "the cost of a flip is G W, not W": (new - old) * W,
            },
        )


@exercise("5.3")
def _bad_swap(answer: Call) -> None:
    shapes = {"W": (2, 3), "S": (2, 3), "x": (3,), "y": (2,)}
    for lr in (0.1, 1e-3, 1e-5, 1e-9):
        got = call(answer, lr)
        if not isinstance(got, tuple | list) or len(got) != 4:
            raise WrongAnswer(f"expected four tensors, W, S, x and y; got {type(got).__name__}")
        W, S, x, y = (
            like(tensor, torch.zeros(shape), what=name).detach().double()
            for tensor, (name, shape) in zip(got, shapes.items(), strict=True)
        )
        swap = step(W, S, x, y, lr)
        words = f"with lr={lr:g}"
        if not (math.isfinite(swap.first) and math.isfinite(swap.true)):
            raise WrongAnswer(f"{words} the loss is too large for a floating-point number: choose smaller numbers")
        if swap.leaves != swap.enters and swap.true >= 1.0:
            continue
        exchanged = step(S, W, x, y, lr)
        if exchanged.leaves != exchanged.enters and exchanged.true >= 1.0:
            raise WrongAnswer("W and S are exchanged: return W, S, x, y in this order")
        if swap.leaves == swap.enters:
            G = torch.outer((W * top_v(S, 1 / 6)) @ x - y, x)
            lead = (S - lr * G * W).flatten().topk(2).values
            place = tuple(n + 1 for n in swap.leaves)
            raise WrongAnswer(
                f"{words} there is no swap: {place} is kept before and after the step, and leads by "
                f"{(lead[0] - lead[1]).item():.3g}; a score moves by lr times G W, so the lead before the step must "
                "shrink with lr"
            )
        change = (
            f"{'rises' if swap.true > 0.0 else 'falls'} by {abs(swap.true):.3g}" if swap.true else "does not change"
        )
        raise WrongAnswer(
            f"{words} the loss {change}: {swap.first:.3g} to first order and "
            f"{swap.true - swap.first:+.3g} from the jump of the outputs; expected a rise of at least 1"
        )
