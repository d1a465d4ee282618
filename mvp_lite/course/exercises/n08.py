"""Checks of notebook 08: the distillation loss, the mixed loss, and both heads of a span model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def _gradients(got: Any, students: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of `got` with respect to the logits of each student; raises if there are none."""
    if not got.requires_grad:
        raise WrongAnswer("your loss has no gradient: has the student been detached, or converted to a plain number?")
    slopes = torch.autograd.grad(got, students, allow_unused=True)
    return [torch.zeros_like(z) if slope is None else slope for z, slope in zip(students, slopes, strict=True)]


def _loss(got: Any, expected: Tensor, mistakes: Mapping[str, Tensor], students: Sequence[Tensor]) -> None:
    """Check the value of a loss and its gradient with respect to the logits of the student."""
    close(got, expected.detach(), mistakes={hint: value.detach() for hint, value in mistakes.items()}, what="your loss")
    slopes = _gradients(expected, students)
    for mine, right in zip(_gradients(got, students), slopes, strict=True):
        close(mine, right, what="the gradient of your loss")


def _leaf(z: Tensor) -> Tensor:
    return z.clone().requires_grad_()


@exercise("8.1")
def _kd_loss(answer: Any) -> None:
    for seed, (shape, T) in enumerate(_CASES):
        student, teacher, _ = _logits(shape, seed)
        z = _leaf(student)
        expected = distillation_loss(z, teacher, T)
        p, q = torch.softmax(teacher / T, 1), torch.softmax(student / T, 1)
        crossed = -(p * q.log()).sum(1).mean() * T**2
        hints = {
            "T squared is missing": expected / T**2,
            "T once, not squared": expected / T,
            "the mean is over the examples, not over all entries": expected / shape[1],
            "this is the sum over the examples, expected their mean": expected * shape[0],
            "teacher and student are exchanged: the sum is of p log(p / q)": distillation_loss(teacher, student, T),
            "this is the cross-entropy: subtract the teacher's entropy (the gradient is right)": crossed,
            "the sign: KL is never negative": -expected,
            "the temperature is missing": T**2 * distillation_loss(student, teacher, 1.0),
            "the logits are multiplied by T, expected a division": T**4 * distillation_loss(student, teacher, 1 / T),
            "the temperature of the teacher is missing": T**2 * _kl(torch.softmax(teacher, 1), q),
            "the temperature of the student is missing": T**2 * _kl(p, torch.softmax(student, 1)),
            "softmax is over the examples, expected the classes (dim=1)": T**2
            * _kl(torch.softmax(teacher / T, 0), torch.softmax(student / T, 0)),
        }
        _loss(call(answer, z, teacher, T), expected, hints, [z])


def _kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p / q).log()).sum(1).mean()


@exercise("8.2")
def _mixed_loss(answer: Any) -> None:
    for seed, (shape, T) in enumerate(_CASES):
        student, teacher, labels = _logits(shape, seed + 20)
        z, a, b = _leaf(student), 0.3, 0.8
        ce, kd = F.cross_entropy(z, labels), distillation_loss(z, teacher, T)
        cool = F.cross_entropy(z / T, labels)
        raw = F.kl_div(torch.softmax(z / T, 1), torch.softmax(teacher / T, 1), reduction="none")
        hints = {
            "F.kl_div expects log-probabilities of the student: use log_softmax in its first argument": a * ce
            + b * T**2 * raw.sum() / shape[0],
            "F.kl_div expects log-probabilities of the student, and T squared is missing": a * ce
            + b * raw.sum() / shape[0],
            "T squared is missing": a * ce + b * kd / T**2,
            "the mean is over the examples (reduction='batchmean'), not over all entries": a * ce + b * kd / shape[1],
            "T squared is missing, and the mean is over the examples, not over all entries": a * ce
            + b * kd / T**2 / shape[1],
            "the loss of the labels has no temperature": a * cool + b * kd,
            "T squared belongs to the teacher's term alone": T**2 * a * ce + b * kd,
            "the weights are exchanged": b * ce + a * kd,
            "the teacher's term is missing": a * ce,
            "the labels' term is missing": b * kd,
            "the weights are missing": ce + kd,
            "student and teacher are exchanged in F.kl_div": a * ce + b * distillation_loss(teacher, z, T),
            "this is the given function, unchanged": a * cool + b * raw.mean(),
        }
        _loss(call(answer, z, teacher, labels, T, a, b), a * ce + b * kd, hints, [z])


@exercise("8.3")
def _span_loss(answer: Any) -> None:
    for seed, (shape, T) in enumerate(_CASES):
        first, last = (_logits(shape, 2 * seed + i + 40) for i in (0, 1))
        z, a, b = [_leaf(first[0]), _leaf(last[0])], 0.3, 0.8
        teachers, positions = (first[1], last[1]), (first[2], last[2].flip(0))
        ce = [F.cross_entropy(*pair) for pair in zip(z, positions, strict=True)]
        kd = [distillation_loss(*pair, T) for pair in zip(z, teachers, strict=True)]
        expected = (a * (ce[0] + ce[1]) + b * (kd[0] + kd[1])) / 2
        swapped = [distillation_loss(z[i], teachers[1 - i], T) for i in (0, 1)]
        hints = {
            "this is the sum of start and end, expected their mean": 2 * expected,
            "the teacher's term is the sum of start and end, expected their mean": expected + b * (kd[0] + kd[1]) / 2,
            "the labels' term is the sum of start and end, expected their mean": expected + a * (ce[0] + ce[1]) / 2,
            "the end is missing": a * ce[0] + b * kd[0],
            "the start is missing": a * ce[1] + b * kd[1],
            "the student's start learns from the teacher's start, its end from the end": (
                a * (ce[0] + ce[1]) + b * (swapped[0] + swapped[1])
            )
            / 2,
            "the weights are exchanged": (b * (ce[0] + ce[1]) + a * (kd[0] + kd[1])) / 2,
            "start and end are two distributions, not one over twice the tokens": a * (ce[0] + ce[1]) / 2
            + b * distillation_loss(torch.cat(z, 1), torch.cat(teachers, 1), T),
            "the labels' term is missing": b * (kd[0] + kd[1]) / 2,
            "the teacher's term is missing": a * (ce[0] + ce[1]) / 2,
        }
        copies = [t.clone() for t in teachers]
        _loss(answer(tuple(z), teachers, positions, T, a, b), expected, hints, z)
        if not all(map(torch.equal, copies, teachers)):
            raise WrongAnswer("your function changes the logits of the teacher in place: work on a copy")
