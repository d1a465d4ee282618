"""Checks of notebook 06: a step of soft movement, a shift to an exact density, the gradient of the L0 penalty."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mvp_lite.course.exercises.tools import WrongAnswer, call, close, exercise, like, normal
from mvp_lite.masks import expected_l0, keep_count, threshold_mask
from mvp_lite.scores import soft_penalty_gradient

_SHAPES = [(2, 3), (4, 1), (5, 7)]


@exercise("6.1")
def _soft_step(answer: Any) -> None:
    for seed, shape in enumerate(_SHAPES):
        W, S, G = (normal(*shape, seed=10 * seed + i) for i in range(3))
        S, tau, lam, lr = 3.0 * S, 0.3, 0.7, 0.2
        got = call(answer, W, S, G, tau, lam, lr)
        if got is None:
            raise WrongAnswer("your answer is None: does the function return the new W and the new S?")
        if not isinstance(got, tuple | list) or len(got) != 2:
            raise WrongAnswer(f"your answer is a {type(got).__name__}, expected the pair (new W, new S)")
        M = threshold_mask(S, tau, min_density=0.0)
        new_W = W - lr * G * M
        raw = torch.where(tau < S, W - lr * G, W)
        hints = {
            "pruned weights have changed: under plain SGD the gradient of W is G * M": W - lr * G,
            "gradient descent subtracts": W + lr * G * M,
            "tau is the threshold of sigmoid(S), not of S": raw,
            "kept and pruned weights are exchanged": W - lr * G * ~M,
            "the new W is masked, expected the dense weight: pruned entries keep their values": new_W * M,
        }
        close(got[0], new_W, mistakes=hints, what="the new W")
        gate = torch.sigmoid(S)
        pull = lam * gate * (1.0 - gate)
        hints = {
            "the gradient of S is straight-through, without a mask: else pruned weights never return": S
            - lr * (G * W * M + pull),
            "the derivative of sigmoid is sigmoid * (1 - sigmoid)": S - lr * (G * W + lam * gate),
            "the gradient of S uses W before the step": S - lr * (G * new_W + pull),
            "the penalty is a sum here, not a mean": S - lr * (G * W + pull / S.numel()),
            "the penalty is missing": S - lr * G * W,
            "the sign of the penalty is wrong: it pushes scores down": S - lr * (G * W - pull),
            "gradient descent subtracts": S + lr * (G * W + pull),
        }
        close(got[1], S - lr * (G * W + pull), mistakes=hints, what="the new S")


@exercise("6.2")
def _shift_to_density(answer: Any) -> None:
    cases = [((2, 3), 0.5, 0.1), ((4, 5), 0.13, 0.1), ((30,), 0.03, 0.6), ((7, 9), 0.9, 0.25), ((3, 2), 0.01, 0.1)]
    for seed, (shape, density, tau) in enumerate(cases):
        S = 2.0 * normal(*shape, seed=seed) + 1.0
        got = like(call(answer, S, density, tau), S)
        shift = got - S
        if float(shift.max() - shift.min()) > 1e-9:
            raise WrongAnswer(
                "your answer shifts the scores by different amounts, expected one constant, which keeps their order"
            )
        k = keep_count(S.numel(), density)
        kept = int(threshold_mask(got, tau, min_density=0.0).sum())
        if kept != k:
            asked = f"(density {density}, tau {tau})"
            raise WrongAnswer(f"{kept} of {S.numel()} entries pass, expected {k} {asked}{_hint(got, k, tau)}")
        last, first = _ranked(S, k), _ranked(S, k + 1)
        expected = S - (last + first) / 2.0 + _logit(tau)
        hints = {
            "the threshold equals the last score that passes, expected the middle": S - last + _logit(tau),
            "the threshold equals the first score that does not pass, expected the middle": S - first + _logit(tau),
        }
        close(got, expected, mistakes=hints)


def _logit(tau: float) -> float:
    return math.log(tau / (1.0 - tau))


def _ranked(S: Tensor, k: int) -> float:
    """The k-th largest score."""
    return float(S.flatten().sort(descending=True).values[k - 1])


def _hint(got: Tensor, k: int, tau: float) -> str:
    """The likely mistake, from the threshold that would have kept k."""
    if int((got > tau).sum()) == k:
        return ": the threshold of S + c is log(tau / (1 - tau)), not tau"
    if int((got > 0).sum()) == k:
        return ": the threshold used is 0, expected log(tau / (1 - tau))"
    if int((got > -_logit(tau)).sum()) == k:
        return ": log(tau / (1 - tau)) has the wrong sign"
    if abs(int((torch.sigmoid(got) > tau).sum()) - k) == 1:
        return ": off by one; k is rounded to the nearest integer, and index k - 1 is the k-th score"
    return ""


@exercise("6.3")
def _l0_penalty_gradient(answer: Any) -> None:
    for seed, shape in enumerate(_SHAPES):
        S, lam, matrices = 2.0 * normal(*shape, seed=seed), 1.7, 3 + seed
        scores = S.clone().requires_grad_()
        (slope,) = torch.autograd.grad(lam * expected_l0(scores).mean() / matrices, scores)
        P, gate = expected_l0(S), torch.sigmoid(S)
        inner = math.log(11.0) * 2.0 / 3.0
        wrong_side = torch.sigmoid(S - inner)
        share = lam / (matrices * S.numel())
        hints = {
            "this is the sum: divide by the number of entries and by the number of matrices": lam * P * (1.0 - P),
            "divide by the number of matrices too": lam * P * (1.0 - P) / S.numel(),
            "divide by the number of entries of the matrix too": lam * P * (1.0 - P) / matrices,
            "this is the penalty itself, not its gradient": share * P,
            "this is the gradient of soft movement: sigmoid(S) in place of P(M != 0)": lam
            * soft_penalty_gradient(S, matrices),
            "the sign is wrong: a higher score has a higher expected L0": -slope,
            "lambda is missing": slope / lam,
            "the shift in P(M != 0) has the wrong sign": share * wrong_side * (1.0 - wrong_side),
            "the temperature b belongs to the shift alone, not to the slope": slope * 1.5,
            "the last factor of the chain rule is 1 - P, since P is a sigmoid": share * P * (1.0 - gate),
        }
        close(call(answer, S, lam, matrices), slope, mistakes=hints)
