"""Checks of notebook 05: a second-order prediction, the costs of a threshold step, a training step without bugs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mvp_lite.course.exercises.tools import WrongAnswer, call, close, exercise, normal
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
    for seed, (shape, tau) in enumerate([((2, 3), 0.2), ((5, 4), -0.3), ((4, 7), 0.0)]):
        G, W, S, noise = normal(4, *shape, seed=seed)
        S_next = S + 1.5 * noise  # any step, so that some flips raise the loss
        S.view(-1)[0], S_next.view(-1)[0] = tau, tau + 1.0  # equal to the threshold is not above it
        expected = torch.zeros(shape, dtype=torch.float64)
        for m in range(shape[0]):
            for n in range(shape[1]):
                if S[m, n] <= tau < S_next[m, n]:
                    expected[m, n] = G[m, n] * W[m, n]
                elif S_next[m, n] <= tau < S[m, n]:
                    expected[m, n] = -G[m, n] * W[m, n]
        old, new = (S > tau).double(), (S_next > tau).double()
        got = call(answer, G, W, S, S_next, tau)
        close(
            got,
            expected,
            what=f"the costs of a step on {shape[0]} x {shape[1]} weights",
            mistakes={
                "the sign is wrong: an entry that enters costs G W, one that leaves costs -G W": -expected,
                "the sign of leaving entries is wrong: they cost -G W": (new - old).abs() * G * W,
                "entries that leave are missing": (1 - old) * new * G * W,
                "entries that enter are missing": -old * (1 - new) * G * W,
                "entries that stay cost nothing: count only changes of the mask": new * G * W,
                "a mask is 1 above the threshold; at the threshold it is 0": (
                    (S_next >= tau).double() - (S >= tau).double()
                )
                * G
                * W,
                "costs keep their signs: the sum of |G W| holds for plain gradient descent alone": -(
                    (new - old) * G * W
                ).abs(),
                "this uses the change of the scores, expected the change of the mask": (S_next - S) * G * W,
                "the cost of a flip is G W, not G": (new - old) * G,
            },
        )


@exercise("5.3")
def _correct_step(answer: Call) -> None:
    lr_W, lr_S = 0.05, 0.4
    for seed, (out, inputs, density) in enumerate([(2, 3, 0.5), (4, 3, 5 / 12), (3, 6, 0.2)]):
        W, S = normal(2, out, inputs, seed=seed)
        x, y = normal(inputs, seed=20 + seed), normal(out, seed=30 + seed)
        # In the last case the density is still falling: the mask in use is not Top-v of S.
        M = top_v(S, density if seed < 2 else 0.6)
        G = torch.zeros_like(W)
        for m in range(out):
            a = sum(float(W[m, n] * x[n]) for n in range(inputs) if M[m, n])
            for n in range(inputs):
                G[m, n] = (a - y[m]) * x[n]
        W_next, S_next, late = W - lr_W * G * M, S - lr_S * G * W, top_v(S, density)
        dense = torch.outer(W @ x - y, x)

        got = call(answer, W, S, M, x, y, density, 0.05, 0.4)
        if not isinstance(got, tuple | list) or len(got) != 3:
            raise WrongAnswer(f"expected three tensors, the new W, S and M; got {type(got).__name__}")
        close(
            got[0],
            W_next,
            what="the new W",
            mistakes={
                "this is the new S: W comes first": S_next,
                "this updates the weights of the next mask, expected those that this forward pass used": W
                - lr_W * G * late,
                "this updates the weights of the new mask, expected those of the old one": W
                - lr_W * G * top_v(S_next, density),
                "masked weights have changed: the gradient of W is G times the mask": W - lr_W * G,
                "the sign of the step is wrong": W + lr_W * G * M,
                "W stays dense: do not zero the masked ones": W_next * M,
                "W has its own learning rate, lr_W": W - lr_S * G * M,
                "the gradient of half the squared error has no factor 2": W - 2 * lr_W * G * M,
                "the forward pass uses the masked weights": W - lr_W * dense * M,
            },
        )
        close(
            got[1],
            S_next,
            what="the new S",
            mistakes={
                "this uses the new weight, expected the one that the forward pass used": S - lr_S * G * W_next,
                "this uses a new weight in the step of the scores, expected the old one": S
                - lr_S * G * (W - lr_W * G * late),
                "scores of masked weights have not changed: their gradient has no mask": S - lr_S * G * M * W,
                "the sign of the step is wrong": S + lr_S * G * W,
                "S has its own learning rate, lr_S": S - lr_W * G * W,
                "the step of a score is signed: no absolute value": S - lr_S * (G * W).abs(),
                "the gradient of a score is G times W, not G": S - lr_S * G,
                "the forward pass uses the masked weights": S - lr_S * dense * W,
            },
        )
        close(
            got[2],
            top_v(S_next, density),
            what="the new M",
            mistakes={
                "the mask is one step late: it is Top-v of the old scores": late,
                "the mask has not changed": M,
                "this ranks |S|, expected S": top_v(S_next.abs(), density),
                "the mask is 1 where a weight is kept": ~top_v(S_next, density),
                "this ranks the weights, expected the scores": top_v(W_next.abs(), density),
            },
        )
