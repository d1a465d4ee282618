"""Checks of notebook 08: the mixed loss, the gradient of scores with a teacher, and the loss of a sequence's tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mvp_lite.course.exercises.tools import WrongAnswer, call, close, exercise, normal
from mvp_lite.distill import distillation_loss

_CASES = [((1, 2), 1.5), ((4, 3), 2.0), ((5, 7), 0.5), ((3, 6), 8.0)]


def _logits(shape: tuple[int, int], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of a student and of a more confident teacher, and labels."""
    student, teacher = (scale * normal(*shape, seed=10 * seed + i) for i, scale in enumerate((1.5, 3.0)))
    labels = torch.arange(shape[0]) % (shape[1] - 1) + 1
    return student, teacher, labels


def _loss(got: Any, expected: Tensor, mistakes: Mapping[str, Tensor], student: Tensor) -> None:
    """Check the value of a loss and its gradient with respect to the logits of the student."""
    close(got, expected.detach(), mistakes={hint: value.detach() for hint, value in mistakes.items()}, what="your loss")
    if not got.requires_grad:
        raise WrongAnswer("your loss has no gradient: has the student been detached, or converted to a plain number?")
    mine, right = (torch.autograd.grad(loss, student, allow_unused=True)[0] for loss in (got, expected))
    mine = torch.zeros_like(student) if mine is None else mine
    close(mine.to(got.dtype), right, what="the gradient of your loss")  # an answer in float32 has float32's errors


def _leaf(z: Tensor) -> Tensor:
    return z.clone().requires_grad_()


def _kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p / q).log()).sum(1).mean()


@exercise("8.1")
def _mixed_loss(answer: Any) -> None:
    for seed, (shape, T) in enumerate(_CASES):
        student, teacher, labels = _logits(shape, seed + 20)
        z, a, b = _leaf(student), 0.3, 0.8
        p, q = torch.softmax(teacher / T, 1), torch.softmax(z / T, 1)
        ce, kd = F.cross_entropy(z, labels), distillation_loss(z, teacher, T)
        cool = F.cross_entropy(z / T, labels)
        raw = F.kl_div(q, p, reduction="none")
        hints = {
            "F.kl_div expects log-probabilities of the student: use log_softmax in its first argument": a * ce
            + b * T**2 * raw.sum() / shape[0],
            "F.kl_div expects log-probabilities of the student, and T squared is missing": a * ce
            + b * raw.sum() / shape[0],
            "T squared is missing": a * ce + b * kd / T**2,
            "T once, not squared": a * ce + b * kd / T,
            "the teacher's term is a mean over the examples, not over all entries": a * ce + b * kd / shape[1],
            "T squared is missing, and the mean is over the examples, not over all entries": a * ce
            + b * kd / T**2 / shape[1],
            "the teacher's term is the sum over the examples, expected their mean": a * ce + b * kd * shape[0],
            "the loss of the labels has no temperature": a * cool + b * kd,
            "T squared belongs to the teacher's term alone": T**2 * a * ce + b * kd,
            "the weights are exchanged": b * ce + a * kd,
            "alpha_kd is an argument of its own, not 1 - alpha_ce": a * ce + (1 - a) * kd,
            "F.cross_entropy expects logits, not probabilities": a * F.cross_entropy(torch.softmax(z, 1), labels)
            + b * kd,
            "the teacher's term is missing": a * ce,
            "the labels' term is missing": b * kd,
            "the weights are missing": ce + kd,
            "teacher and student are exchanged: the sum is of p log(p / q)": a * ce
            + b * distillation_loss(teacher, z, T),
            "the teacher's term is the cross-entropy: subtract the teacher's entropy (the gradient is right)": a * ce
            - b * T**2 * (p * q.log()).sum(1).mean(),
            "the logits are multiplied by T, expected a division": a * ce
            + b * T**4 * distillation_loss(z, teacher, 1 / T),
            "the temperature of the teacher is missing": a * ce + b * T**2 * _kl(torch.softmax(teacher, 1), q),
            "the temperature of the student is missing": a * ce + b * T**2 * _kl(p, torch.softmax(z, 1)),
            "the temperature is missing": a * ce + b * T**2 * distillation_loss(z, teacher, 1.0),
            "temperature and T squared are missing": a * ce + b * distillation_loss(z, teacher, 1.0),
            "softmax is over the examples, expected the classes (dim=1)": a * ce
            + b * T**2 * _kl(torch.softmax(teacher / T, 0), torch.softmax(z / T, 0)),
        }
        got = call(answer, z, teacher, labels, T, a, b)
        if isinstance(got, Tensor) and bool(got.isnan().any()):
            raise WrongAnswer(
                "your loss is NaN: negative numbers have no logarithm. F.kl_div expects the student's log-probabilities"
                " first, then the teacher's probabilities"
            )
        _loss(got, a * ce + b * kd, hints, z)


@exercise("8.2")
def _score_gradient(answer: Any) -> None:
    for seed, (n, high, wide, T) in enumerate([(4, 3, 5, 2.0), (1, 2, 4, 1.5), (6, 4, 3, 4.0)]):
        W, X, teacher = (
            normal(*shape, seed=100 * seed + i) for i, shape in enumerate([(high, wide), (n, wide), (n, high)])
        )
        M = (normal(high, wide, seed=100 * seed + 3) > 0).double()
        M[0, 0], M[-1, -1] = 0.0, 1.0
        teacher, labels, a, b = 2.0 * teacher, torch.arange(n) % high, 0.3, 0.8
        _check_gradient(call(answer, W, M, X, teacher, labels, T, a, b), W, M, X, teacher, labels, T, a, b)


def _check_gradient(
    got: Any, W: Tensor, M: Tensor, X: Tensor, teacher: Tensor, labels: Tensor, T: float, a: float, b: float
) -> None:
    y = F.one_hot(labels, len(W)).double()

    def gradient(weights: tuple[float, float] = (a, b), used: Tensor = W * M, at: float = 1.0) -> Tensor:
        z = X @ used.T
        pulled = T * (torch.softmax(z / T, 1) - torch.softmax(teacher / T, 1))
        return (weights[0] * (torch.softmax(z / at, 1) - y) + weights[1] * pulled).T @ X / len(X)

    G = gradient()
    hints = {
        "the gradient of a score has no mask: else pruned weights never return": G * W * M,
        "the factor W is missing": G,
        "this is the gradient of the weights, G * M; that of the scores is G * W": G * M,
        "it is a mean over the examples, not a sum": len(X) * G * W,
        "the teacher's term has the factor T": gradient((a, b / T)) * W,
        "the teacher's term has the factor T, not 1 / T: the loss is multiplied by T squared": gradient((a, b / T**2))
        * W,
        "the teacher's term has the factor T, not T squared: one T goes with the derivative": gradient((a, b * T)) * W,
        "the labels' term has no temperature": gradient(at=T) * W,
        "the weights are exchanged": gradient((b, a)) * W,
        "the teacher's term is missing": gradient((a, 0.0)) * W,
        "the labels' term is missing": gradient((0.0, b)) * W,
        "the forward pass uses W * M, not W": gradient(used=W) * W,
        "the sign is wrong: expected the gradient, not the step": -G * W,
        "the sign of the teacher's term is wrong: it is q - p": gradient((a, -b)) * W,
    }
    z, p = X @ (W * M).T, torch.softmax(teacher / T, 1)
    unsoftened = T * (torch.softmax(z / T, 1) - torch.softmax(teacher, 1))
    hints["the teacher's logits are divided by T, too"] = (gradient((a, 0.0)) + b * unsoftened.T @ X / len(X)) * W
    hints["the student's logits are divided by T, too"] = (
        gradient((a, 0.0)) + b * T * (torch.softmax(z, 1) - p).T @ X / len(X)
    ) * W
    close(got, G * W, mistakes=hints)


@exercise("8.3")
def _token_loss(answer: Any) -> None:
    for seed, (n, tokens, classes, T) in enumerate([(3, 5, 6, 2.0), (1, 4, 3, 1.5), (4, 6, 7, 4.0)]):
        z = _leaf(1.5 * normal(n, tokens, classes, seed=1000 * seed + 1))
        teacher = 3.0 * normal(n, tokens, classes, seed=1000 * seed + 2)
        lengths = 1 + (torch.arange(n) * 3 + 1) % (tokens - 1)
        real = torch.arange(tokens) < lengths[:, None]
        labels = torch.where(real, torch.arange(n * tokens).view(n, tokens) % classes, -100)
        kl = F.kl_div(torch.log_softmax(z / T, 2), torch.softmax(teacher / T, 2), reduction="none").sum(2)
        back = F.kl_div(torch.log_softmax(teacher / T, 2), torch.softmax(z / T, 2), reduction="none").sum(2)
        log_p = torch.log_softmax(teacher / T, 2)
        entropy = -(log_p.exp() * log_p).sum(2)
        plain = F.kl_div(torch.log_softmax(z, 2), torch.softmax(teacher, 2), reduction="none").sum(2)
        expected = T**2 * kl[real].mean()
        hints = {
            "positions that are padding count: leave out those with the label -100": T**2 * kl.mean(),
            "the sum leaves out the padding, but the mean divides by all positions": T**2 * (kl * real).mean(),
            "the mean is over the positions that count, not over the sequences": T**2 * kl[real].sum() / n,
            "padding counts, and the mean is over the positions, not over the sequences": T**2 * kl.sum() / n,
            "a mean of means: long sequences count more, each position the same": T**2
            * ((kl * real).sum(1) / lengths).mean(),
            "the sum is over the classes, their mean divides once more": expected / classes,
            "T squared is missing": expected / T**2,
            "T once, not squared": expected / T,
            "this is the sum over the positions, expected their mean": expected * int(real.sum()),
            "only padding counts: the condition is reversed": T**2 * kl[~real].mean(),
            "the temperature is missing": T**2 * plain[real].mean(),
            "temperature and T squared are missing": plain[real].mean(),
            "this is the cross-entropy: subtract the teacher's entropy (the gradient is right)": T**2
            * (kl + entropy)[real].mean(),
            "the label of class 0 is no padding: leave out -100": T**2 * kl[labels > 0].mean(),
            "teacher and student are exchanged: the sum is of p log(p / q)": T**2 * back[real].mean(),
        }
        _loss(call(answer, z, teacher, labels, T), expected, hints, z)
