"""Checks of notebook 04: one step of weights and scores, scores from a path of weights, the inverse of the schedule."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mvp_lite.course.exercises.tools import WrongAnswer, call, close, exercise, normal
from mvp_lite.schedule import cubic


def _step_by_loop(W: Tensor, S: Tensor, G: Tensor, M: Tensor, lr: float, score_lr: float) -> tuple[Tensor, Tensor]:
    W_next, S_next = W.clone(), S.clone()
    for i in range(W.shape[0]):
        for j in range(W.shape[1]):
            S_next[i, j] -= score_lr * G[i, j] * W[i, j]
            if M[i, j]:
                W_next[i, j] -= lr * G[i, j]
    return W_next, S_next


@exercise("4.1")
def _one_step(answer: Any) -> None:
    for seed, shape in enumerate([(1, 1), (2, 3), (4, 4), (5, 2)]):
        W, S, G = (normal(*shape, seed=10 * seed + k) for k in range(3))
        M = (normal(*shape, seed=10 * seed + 3) > 0).to(torch.float64)
        lr, score_lr = 0.1 + 0.2 * seed, 0.7
        W_next, S_next = _step_by_loop(W, S, G, M, lr, score_lr)
        # Values come before the check for changes in place: the exercise is about the order of the two updates.
        given = [x.clone() for x in (W, S, G, M)]
        pair = answer(*given, lr, score_lr)
        if pair is None:
            raise WrongAnswer("your answer is None: does the function return its result?")
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise WrongAnswer("expected two tensors: the new W and the new S")
        what = f"for {shape[0]}x{shape[1]} weights"
        close(
            pair[1],
            S_next,
            mistakes={
                "it uses the weight after the step, expected the one before, as in (4.1)": S - score_lr * G * W_next,
                "the sign: a score falls where G * W is positive": S + score_lr * G * W,
                "its gradient is masked, so pruned weights could never return": S - score_lr * G * M * W,
                "it uses the masked weight, so pruned weights could never return": S - score_lr * G * (W * M),
                "it uses the learning rate of the weights": S - lr * G * W,
                "it has not changed": S,
                "these are the weights: W comes first, S second": W_next,
            },
            what=f"the new S {what}",
        )
        close(
            pair[0],
            W_next,
            mistakes={
                "pruned weights have changed: the gradient is G * M": W - lr * G,
                "the weights returned are masked; W is the dense weight": W_next * M,
                "the sign: SGD steps against the gradient": W + lr * G * M,
                "it uses the learning rate of the scores": W - score_lr * G * M,
            },
            what=f"the new W {what}",
        )
        for name, copy, x in zip("WSGM", given, (W, S, G, M), strict=True):
            if not torch.equal(copy, x):
                raise WrongAnswer(f"your function changes its argument {name}: the caller still needs the old one")


@exercise("4.2")
def _scores_from_path(answer: Any) -> None:
    cases = [(7, 2, 3, 0.3, 0.3), (4, 3, 2, 0.1, 1.0), (12, 4, 4, 0.5, 0.01), (1, 1, 2, 0.2, 0.4)]
    for seed, (steps, rows, columns, lr, score_lr) in enumerate(cases):
        G = normal(steps, rows, columns, seed=seed)
        W, S = normal(rows, columns, seed=100 + seed), torch.zeros(rows, columns, dtype=torch.float64)
        path = [W]
        for g in G:
            S, W = S - score_lr * g * W, W - lr * g
            path.append(W)
        trail = torch.stack(path)
        moves = trail[1:] - trail[:-1]
        gain, ratio = trail[-1].square() - trail[0].square(), score_lr / lr
        close(
            call(answer, trail, lr, score_lr),
            S,
            mistakes={
                "the second-order term is missing": ratio / 2 * gain,
                "the second-order term has the wrong sign": ratio / 2 * (gain + moves.square().sum(dim=0)),
                "the factor 1/2 is missing": ratio * (gain - moves.square().sum(dim=0)),
                "it uses the weights after each step, expected those before": ratio * (trail[1:] * moves).sum(dim=0),
                "the sign: a weight that has moved away from zero has a positive score": -S,
                "the ratio of the learning rates is inverted": S / ratio**2,
                "the learning rate of the scores is missing": S / score_lr,
                "the learning rates are missing": S / ratio,
                "it averages over the steps, expected a sum": S / steps,
                "the last step is missing": ratio * (trail[:-2] * moves[:-1]).sum(dim=0),
            },
            what=f"the scores after {steps} steps of {rows}x{columns} weights",
        )


def _by_bisection(density: float, final: float, total: int, warmup: int, cooldown: int) -> float:
    """Step at which the schedule of the package, refined until it is continuous, passes a density."""
    fine = 2**30
    low, high = warmup * fine, (total - cooldown) * fine
    while high - low > 1:
        middle = (low + high) // 2
        if cubic(middle, 1.0, final, total * fine, warmup * fine, cooldown * fine) > density:
            low = middle
        else:
            high = middle
    return (low + high) / 2 / fine


@exercise("4.3")
def _step_of(answer: Any) -> None:
    cases = [(0.1, 100, 10, 20), (0.03, 500, 50, 150), (0.5, 40, 0, 7), (0.01, 1000, 300, 0)]
    for seed, (final, total, warmup, cooldown) in enumerate(cases):
        share = torch.rand(4 + seed, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        density = final + (1.0 - final) * (0.05 + 0.9 * share)
        settings = (final, total, warmup, cooldown)
        expected = torch.tensor([_by_bisection(v, *settings) for v in density.tolist()], dtype=torch.float64)
        steps = total - warmup - cooldown
        ratio = (density - final) / (1.0 - final)
        down = 1.0 - ratio ** (1 / 3)
        close(
            call(answer, density, *settings),
            expected,
            mistakes={
                "the warm-up is missing": down * steps,
                "the cool-down is not part of the descent": warmup + down * (total - warmup),
                "the descent has T - t_i - t_f steps, not T": warmup + down * total,
                "this inverts Eq. 5 as printed, which is t_f steps late": warmup + cooldown + down * steps,
                "it counts from the end of the descent": warmup + ratio ** (1 / 3) * steps,
                "the exponent: the inverse of a cube is the third root": warmup + (1.0 - ratio**0.5) * steps,
                "this is the third power, expected the third root": warmup + (1.0 - ratio**3) * steps,
                "this is a straight line": warmup + (1.0 - ratio) * steps,
                "the final density is missing": warmup + (1.0 - density ** (1 / 3)) * steps,
                "it divides by 1, expected 1 - final": warmup + (1.0 - (density - final) ** (1 / 3)) * steps,
                "the steps are rounded, expected no rounding": expected.ceil(),
            },
            what=f"the steps for final={final}, T={total}, t_i={warmup}, t_f={cooldown}",
            tol=1e-7,
        )
