"""Checks of notebook 05's exercises: a second-order prediction, the bill of a threshold step, a mended step."""

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
                "this is the squared loss's second term: use diag(p) - p p^T": slope + square,
                "the - p p^T of the second derivatives is missing": slope + (p * d * d).sum() / 2,
                "diag(p) + p p^T: it is minus": slope + ((p * d * d).sum() + (p @ d) ** 2) / 2,
                "the right class is not subtracted in the gradient": p @ d + bend,
                "the gradient is p minus one-hot, not the reverse": -slope + bend,
                "this is the true change; predict it from derivatives at a": loss(a + d) - loss(a),
                "the derivatives belong to a, before the step, not to a_next": torch.stack(
                    along(torch.func.grad(loss)(a + d), torch.func.hessian(loss)(a + d))
                ).sum(),
                "the change is a_next - a, not a - a_next": -slope + bend,
            },
        )


@exercise("5.2")
def _bill(answer: Call) -> None:
    for seed, (shape, tau) in enumerate([((2, 3), 0.2), ((5, 4), -0.3), ((4, 7), 0.0)]):
        G, W, S, noise = normal(4, *shape, seed=seed)
        S_next = S + 1.5 * noise  # any step will do: also flips that do not pay
        S.view(-1)[0], S_next.view(-1)[0] = tau, tau + 1.0  # on the threshold is not above it
        wanted = torch.zeros(shape, dtype=torch.float64)
        for m in range(shape[0]):
            for n in range(shape[1]):
                if S[m, n] <= tau < S_next[m, n]:
                    wanted[m, n] = G[m, n] * W[m, n]
                elif S_next[m, n] <= tau < S[m, n]:
                    wanted[m, n] = -G[m, n] * W[m, n]
        old, new = (S > tau).double(), (S_next > tau).double()
        got = call(answer, G, W, S, S_next, tau)
        close(
            got,
            wanted,
            what=f"the bill of a step on {shape[0]} x {shape[1]} weights",
            mistakes={
                "the signs are exchanged: bringing an entry in costs G W, taking it out costs -G W": -wanted,
                "taking an entry out costs -G W: the sign of what leaves": (new - old).abs() * G * W,
                "what leaves is forgotten": (1 - old) * new * G * W,
                "what enters is forgotten": -old * (1 - new) * G * W,
                "entries that stay cost nothing: count changes of the mask only": new * G * W,
                "a mask is 1 above the threshold; at the threshold it is 0": (
                    (S_next >= tau).double() - (S >= tau).double()
                )
                * G
                * W,
                "not every gain: an entry's cost keeps its sign, the sum of |G W| holds for plain descent alone": -(
                    (new - old) * G * W
                ).abs(),
                "the change of the scores is not the change of the mask": (S_next - S) * G * W,
                "the cost of a flip is G W, not G": (new - old) * G,
            },
        )


@exercise("5.3")
def _mended_step(answer: Call) -> None:
    lr_W, lr_S = 0.05, 0.4
    for seed, (out, inputs, density) in enumerate([(2, 3, 0.5), (4, 3, 5 / 12), (3, 6, 0.2)]):
        W, S = normal(2, out, inputs, seed=seed)
        x, y = normal(inputs, seed=20 + seed), normal(out, seed=30 + seed)
        # The last case comes from a density that is still falling: the mask in use is not the cut of S.
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
            raise WrongAnswer(f"three tensors are wanted, the new W, S and M; got {type(got).__name__}")
        close(
            got[0],
            W_next,
            what="the new W",
            mistakes={
                "this is the new S: W comes first": S_next,
                "the weights that move are those that this forward pass used, not the next one's": W - lr_W * G * late,
                "move what the old mask keeps, not what the new one keeps": W - lr_W * G * top_v(S_next, density),
                "masked weights must not move: the gradient of W is G times the mask": W - lr_W * G,
                "uphill: descend": W + lr_W * G * M,
                "W stays dense: do not zero the masked ones": W_next * M,
                "W takes its own rate, lr_W": W - lr_S * G * M,
                "the gradient of half the squared error has no factor 2": W - 2 * lr_W * G * M,
                "the forward pass uses the masked weights": W - lr_W * dense * M,
            },
        )
        close(
            got[1],
            S_next,
            what="the new S",
            mistakes={
                "use the weight that the forward pass used, not the new one": S - lr_S * G * W_next,
                "the weight in the score's step is the old one": S - lr_S * G * (W - lr_W * G * late),
                "the scores of masked weights move too: no mask there": S - lr_S * G * M * W,
                "uphill: descend": S + lr_S * G * W,
                "S takes its own rate, lr_S": S - lr_W * G * W,
                "a score's step is signed: no absolute value": S - lr_S * (G * W).abs(),
                "the gradient of a score is G times W, not G": S - lr_S * G,
                "the forward pass uses the masked weights": S - lr_S * dense * W,
            },
        )
        close(
            got[2],
            top_v(S_next, density),
            what="the new M",
            mistakes={
                "the mask comes late by one step: it is the cut of the old scores": late,
                "the mask has not been cut again": M,
                "the cut ranks the scores, not their size": top_v(S_next.abs(), density),
                "the mask is 1 where a weight is kept": ~top_v(S_next, density),
                "the cut ranks the scores, not the weights": top_v(W_next.abs(), density),
            },
        )
