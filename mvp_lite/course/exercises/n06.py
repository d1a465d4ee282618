"""Checks of notebook 06: a step of soft movement, a shift to an exact density, the gradient of L0's scores."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mvp_lite.course.exercises.tools import WrongAnswer, call, close, exercise, like, normal
from mvp_lite.masks import expected_l0, hard_concrete, hard_concrete_gradient, keep_count, threshold_mask


@exercise("6.1")
def _soft_step(answer: Any) -> None:
    for seed, (n, high, wide) in enumerate([(4, 2, 3), (1, 3, 5), (7, 5, 2)]):
        shapes = [(high, wide), (high, wide), (n, wide), (n, high)]
        W, S, x, y = (normal(*shape, seed=10 * seed + i) for i, shape in enumerate(shapes))
        S, tau, lam, lr, score_lr = 3.0 * S, 0.3, 0.7, 0.2, 0.5
        _check_step(call(answer, W, S, x, y, tau, lam, lr, score_lr), W, S, x, y, tau, lam, lr, score_lr)


def _check_step(
    got: Any, W: Tensor, S: Tensor, x: Tensor, y: Tensor, tau: float, lam: float, lr: float, score_lr: float
) -> None:
    if got is None:
        raise WrongAnswer("your answer is None: does the function return the new W and the new S?")
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise WrongAnswer(f"your answer is a {type(got).__name__}, expected the pair (new W, new S)")
    M, gate = threshold_mask(S, tau, min_density=0.0), torch.sigmoid(S)

    def gradient(used: Tensor) -> Tensor:
        return (x @ used.T - y).T @ x / len(x)

    G = gradient(W * M)
    new_W = W - lr * G * M
    raw = (tau < S).double()
    forward = {
        "the loss is a mean over the examples": len(x) * G,
        "the forward pass uses W * M, not W": gradient(W),
        "the gradient of (a - y)^2 / 2 is a - y, without a factor 2": 2.0 * G,
        "the loss is a mean over the examples alone, not over the outputs": G / len(W),
    }
    hints = {hint: W - lr * wrong * M for hint, wrong in forward.items()} | {
        "pruned weights have changed: under plain SGD the gradient of W is G * M": W - lr * G,
        "gradient descent subtracts": W + lr * G * M,
        "tau is the threshold of sigmoid(S), not of S": W - lr * gradient(W * raw) * raw,
        "kept and pruned weights are exchanged": W - lr * gradient(W * ~M) * ~M,
        "the new W is masked, expected the dense weight: pruned entries keep their values": new_W * M,
        "it moves with the learning rate of the scores": W - score_lr * G * M,
    }
    close(got[0], new_W, mistakes=hints, what="the new W")
    slope = gate * (1.0 - gate)
    pull = lam * slope
    gradients = {
        "its gradient is straight-through, without a mask: else pruned weights never return": G * M * W + pull,
        "the penalty acts on every score, without a mask": G * W + M * pull,
        "neither of its two terms has a mask: else pruned weights never return": M * (G * W + pull),
        "the gradient of the loss is straight-through, G * W, without sigmoid * (1 - sigmoid)": G * W * slope + pull,
        "the derivative of sigmoid is sigmoid * (1 - sigmoid)": G * W + lam * gate,
        "its gradient uses W before the step": G * new_W + pull,
        "its gradient uses G before the step": gradient(new_W * M) * W + pull,
        "the penalty is a sum here, not a mean": G * W + pull / S.numel(),
        "the penalty is missing": G * W,
        "the penalty pushes scores down: its sign is wrong": G * W - pull,
        "W is missing in its gradient G * W": G + pull,
        "gradient descent subtracts": -(G * W + pull),
    }
    mistakes = {hint: S - score_lr * wrong for hint, wrong in gradients.items()}
    mistakes["it moves with the learning rate of the weights"] = S - lr * (G * W + pull)
    close(got[1], S - score_lr * (G * W + pull), mistakes=mistakes, what="the new S")


@exercise("6.2")
def _shift_to_density(answer: Any) -> None:
    # density * N is 3: no rounding; then 2.6, 1.2 and 2.5, which tell the kinds of rounding apart; 0.06 comes last
    cases: list[tuple[tuple[int, ...], float, float]]
    cases = [((2, 3), 0.5, 0.1), ((4, 5), 0.13, 0.1), ((2, 3), 0.2, 0.3), ((4, 5), 0.125, 0.1)]
    cases += [((30,), 0.03, 0.6), ((7, 9), 0.9, 0.25), ((3, 2), 0.01, 0.1)]
    for seed, (shape, density, tau) in enumerate(cases):
        S = 2.0 * normal(*shape, seed=seed) + 1.0
        got = like(call(answer, S, density, tau), S)
        shift = got.double() - S
        rounding = 1e-5 if got.dtype == torch.float32 else 1e-9
        if float(shift.max() - shift.min()) > rounding * float(got.abs().max() + S.abs().max()):
            raise WrongAnswer(
                "your answer shifts the scores by different amounts, expected one constant, which keeps their order"
            )
        k = keep_count(S.numel(), density)
        ranked, level = S.flatten().sort(descending=True).values, math.log(tau / (1.0 - tau))
        middle = _middle(ranked, k)
        exact = density * S.numel()
        rounded = {
            "a half is rounded up: floor(2.5 + 1/2) is 3, but Python's round(2.5) is 2": round(exact),
            "density * N is rounded down, expected to the nearest integer": math.floor(exact),
            "density * N is rounded up, expected to the nearest integer": math.ceil(exact),
        }
        constants = {hint: level - _middle(ranked, count) for hint, count in rounded.items() if count not in (0, k)}
        constants |= {
            "the threshold of S + c is log(tau / (1 - tau)), not tau": tau - middle,
            "the threshold used is 0, expected log(tau / (1 - tau))": -middle,
            "log(tau / (1 - tau)) has the wrong sign": -level - middle,
            "c has the wrong sign": middle - level,
            "the halfway point has the wrong sign: it must move to the threshold": level + middle,
            "one too many passes: index k - 1 is the k-th score": level - _middle(ranked, k + 1),
            "one too few passes: index k - 1 is the k-th score": level - _middle(ranked, k - 1),
            "the lowest scores pass, expected the highest": level - _middle(ranked.flip(0), k),
            "the threshold equals the last score that passes, expected the middle": level - float(ranked[k - 1]),
            "the threshold equals the first score that does not pass, expected the middle": level - float(ranked[k]),
        }
        kept = int(threshold_mask(got, tau, min_density=0.0).sum())
        if kept != k:
            found = float(shift.mean())
            least = ": k is at least 1, also where density * N rounds to 0" if exact < 0.5 else ""
            why = next((f": {hint}" for hint, c in constants.items() if math.isclose(c, found, abs_tol=1e-4)), least)
            raise WrongAnswer(f"{kept} of {S.numel()} entries pass, expected {k} (density {density}, tau {tau}){why}")
        close(got, S - middle + level, mistakes={hint: S + c for hint, c in constants.items()})


def _middle(ranked: Tensor, k: int) -> float:
    """Halfway between the k-th score and the next, for scores in falling order; k is moved inside their range."""
    k = min(max(k, 1), len(ranked) - 1)
    return float(ranked[k - 1] + ranked[k]) / 2.0


@exercise("6.3")
def _l0_score_gradient(answer: Any) -> None:
    for seed, shape in enumerate([(3, 5), (4, 1), (2, 7)]):
        W, S, G, noise = (normal(*shape, seed=10 * seed + i) for i in range(4))
        S, u, lam = 2.0 * S, torch.sigmoid(noise), 1.7
        scores = S.clone().requires_grad_()
        # G is the gradient of a loss that is linear in W * M
        (expected,) = torch.autograd.grad(
            (G * W * hard_concrete(scores, u)).sum() + lam * expected_l0(scores).sum(), scores
        )
        M, P, gate = hard_concrete(S, u), expected_l0(S), torch.sigmoid(S)
        from_loss = G * W * hard_concrete_gradient(M)
        squeezed = torch.sigmoid((u.logit() + S) * 1.5)
        b_log = math.log(11.0) * 2.0 / 3.0
        pull = lam * P * (1.0 - P)

        def loss_at(squeezed: Tensor, W: Tensor = W, G: Tensor = G) -> Tensor:
            Z = 1.2 * squeezed - 0.1
            return G * W * 1.8 * squeezed * (1.0 - squeezed) * ((Z > 0.0) & (Z < 1.0))

        plain, with_u = torch.sigmoid(u.logit() + S), torch.sigmoid((u + S) * 1.5)

        def pull_at(shift: float, S: Tensor = S, lam: float = lam) -> Tensor:
            return lam * torch.sigmoid(S + shift) * torch.sigmoid(-S - shift)

        hints = {
            "the penalty is missing": from_loss,
            "the term of the loss is missing": pull,
            "the factor f is missing": G * W + pull,
            "f is 0 where the gate is exactly 0 or 1": G * W * 1.8 * squeezed * (1.0 - squeezed) + pull,
            "the factor is f, the derivative of the gate, not the gate M": G * W * M + pull,
            "the factor 1 / b in f is missing": from_loss / 1.5 + pull,
            "the factor r - l in f is missing": from_loss / 1.2 + pull,
            "the gradient of the loss has the factor W": G * hard_concrete_gradient(M) + pull,
            "the gradient of the penalty is P * (1 - P), not P": from_loss + lam * P,
            "this is soft movement's penalty: sigmoid(S) in place of P(M != 0)": from_loss + pull_at(0.0),
            "the shift in P(M != 0) has the wrong sign": from_loss + pull_at(-b_log),
            "b is missing in the shift of P(M != 0)": from_loss + pull_at(1.5 * b_log),
            "the slope of P(M != 0) has no factor 1 / b": from_loss + 1.5 * pull,
            "the last factor of the chain rule is 1 - P, since P is a sigmoid": from_loss + lam * P * (1.0 - gate),
            "the penalty is a sum, not a mean over the entries": from_loss + pull / S.numel(),
            "only the term of the loss has the factor f": from_loss + hard_concrete_gradient(M) * pull,
            "the penalty has no mask": from_loss + M * pull,
            "the penalty acts on every score, also where the gate is shut": from_loss + (M > 0.0) * pull,
            "the noise u is missing in f": loss_at(torch.sigmoid(S * 1.5)) + pull,
            "the noise u and the temperature b are missing in f": loss_at(gate) + pull,
            "the noise u and the temperature b are missing in f, also the factor 1 / b": loss_at(gate) / 1.5 + pull,
            "the temperature b is missing inside the sigmoid of f": loss_at(plain) + pull,
            "the temperature b is missing in f": loss_at(plain) / 1.5 + pull,
            "the noise enters by its log-odds, log(u) - log(1 - u), not by u": loss_at(with_u) + pull,
            "lambda is missing": from_loss + pull / lam,
            "the penalty pushes scores down: its sign is wrong": from_loss - pull,
            "the sign is wrong: expected the gradient, not the step": -expected,
        }
        close(call(answer, W, S, G, u, lam), expected, mistakes=hints)
