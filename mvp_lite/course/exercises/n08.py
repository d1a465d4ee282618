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
    """Logits of a student and of a surer teacher, and labels."""
    student, teacher = (size * normal(*shape, seed=10 * seed + i) for i, size in enumerate((1.5, 3.0)))
    labels = torch.arange(shape[0]) % (shape[1] - 1) + 1
    return student, teacher, labels


def _gradients(got: Any, students: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of `got` with respect to each student's logits; says so where there is none."""
    if not got.requires_grad:
        raise WrongAnswer("your loss has no gradient: has the student been detached, or turned into a plain number?")
    slopes = torch.autograd.grad(got, students, allow_unused=True)
    return [torch.zeros_like(z) if slope is None else slope for z, slope in zip(students, slopes, strict=True)]


def _loss(got: Any, wanted: Tensor, mistakes: Mapping[str, Tensor], students: Sequence[Tensor]) -> None:
    """The value of a loss and its gradient with respect to the student's logits."""
    close(got, wanted.detach(), mistakes={hint: value.detach() for hint, value in mistakes.items()}, what="your loss")
    slopes = _gradients(wanted, students)
    for mine, right in zip(_gradients(got, students), slopes, strict=True):
        close(mine, right, what="the gradient of your loss")


def _leaf(z: Tensor) -> Tensor:
    return z.clone().requires_grad_()


@exercise("8.1")
def _kd_loss(answer: Any) -> None:
    for seed, (shape, T) in enumerate(_CASES):
        student, teacher, _ = _logits(shape, seed)
        z = _leaf(student)
        wanted = distillation_loss(z, teacher, T)
        p, q = torch.softmax(teacher / T, 1), torch.softmax(student / T, 1)
        crossed = -(p * q.log()).sum(1).mean() * T**2
        hints = {
            "T squared is missing": wanted / T**2,
            "T once, not squared": wanted / T,
            "the mean is over the rows, not over all entries": wanted / shape[1],
            "this is the sum over the rows, their mean is wanted": wanted * shape[0],
            "the teacher comes first: sum of p log(p / q)": distillation_loss(teacher, student, T),
            "this is the cross-entropy: the teacher's entropy is to be subtracted (the gradient is right)": crossed,
            "the sign: KL is never negative": -wanted,
            "there is no temperature in it": T**2 * distillation_loss(student, teacher, 1.0),
            "logits are divided by T, not multiplied": T**4 * distillation_loss(student, teacher, 1 / T),
            "the teacher has the temperature, too": T**2 * _kl(torch.softmax(teacher, 1), q),
            "the student has the temperature, too": T**2 * _kl(p, torch.softmax(student, 1)),
            "softmax runs over the classes (dim=1), not over the rows": T**2
            * _kl(torch.softmax(teacher / T, 0), torch.softmax(student / T, 0)),
        }
        _loss(call(answer, z, teacher, T), wanted, hints, [z])


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
            "F.kl_div wants the student's logarithms: log_softmax in its first argument": a * ce
            + b * T**2 * raw.sum() / shape[0],
            "F.kl_div wants the student's logarithms, and T squared is missing": a * ce + b * raw.sum() / shape[0],
            "T squared is missing": a * ce + b * kd / T**2,
            "the mean is over the rows (reduction='batchmean'), not over all entries": a * ce + b * kd / shape[1],
            "T squared is missing, and the mean is over the rows, not over all entries": a * ce
            + b * kd / T**2 / shape[1],
            "the labels' loss has no temperature": a * cool + b * kd,
            "T squared belongs to the teacher's part alone": T**2 * a * ce + b * kd,
            "the weights are exchanged": b * ce + a * kd,
            "the teacher's part is missing": a * ce,
            "the labels' part is missing": b * kd,
            "the weights are missing": ce + kd,
            "student and teacher are exchanged in F.kl_div": a * ce + b * distillation_loss(teacher, z, T),
            "still the colleague's": a * cool + b * raw.mean(),
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
        wanted = (a * (ce[0] + ce[1]) + b * (kd[0] + kd[1])) / 2
        swapped = [distillation_loss(z[i], teachers[1 - i], T) for i in (0, 1)]
        hints = {
            "the mean of start and end is wanted, not their sum": 2 * wanted,
            "the mean of start and end is wanted in the teacher's part, too": wanted + b * (kd[0] + kd[1]) / 2,
            "the mean of start and end is wanted in the labels' part, too": wanted + a * (ce[0] + ce[1]) / 2,
            "the end is missing": a * ce[0] + b * kd[0],
            "the start is missing": a * ce[1] + b * kd[1],
            "the student's start learns from the teacher's start, its end from the end": (
                a * (ce[0] + ce[1]) + b * (swapped[0] + swapped[1])
            )
            / 2,
            "the weights are exchanged": (b * (ce[0] + ce[1]) + a * (kd[0] + kd[1])) / 2,
            "start and end are two distributions, not one over twice the tokens": a * (ce[0] + ce[1]) / 2
            + b * distillation_loss(torch.cat(z, 1), torch.cat(teachers, 1), T),
            "the labels' part is missing": b * (kd[0] + kd[1]) / 2,
            "the teacher's part is missing": a * (ce[0] + ce[1]) / 2,
        }
        copies = [t.clone() for t in teachers]
        _loss(answer(tuple(z), teachers, positions, T, a, b), wanted, hints, z)
        if not all(map(torch.equal, copies, teachers)):
            raise WrongAnswer("your function changes the teacher's logits in place: work on a copy")
