"""Answers to the exercises of notebook 08: two right ones for each, and wrong ones that the checks must reject."""

import math

import torch
from torch.nn import functional as F


def kd_by_logs(student, teacher, T):
    log_p, log_q = torch.log_softmax(teacher / T, 1), torch.log_softmax(student / T, 1)
    return T**2 * (log_p.exp() * (log_p - log_q)).sum(1).mean()


def kd_by_loop(student, teacher, T):
    total = torch.zeros((), dtype=student.dtype)
    for z, z_t in zip(student, teacher, strict=True):
        weights = [math.exp(float(a) / T) for a in z_t]
        p = [w / sum(weights) for w in weights]
        q = (z / T).exp() / (z / T).exp().sum()
        total = total + sum(a * (math.log(a) - b.log()) for a, b in zip(p, q, strict=True))
    return T * T * total / len(student)


def kd_torch(student, teacher, T, reduction="batchmean"):
    log_q, p = torch.log_softmax(student / T, 1), torch.softmax(teacher / T, 1)
    return F.kl_div(log_q, p, reduction=reduction)


def mixed(student, teacher, labels, T, alpha_ce, alpha_kd):
    return alpha_ce * F.cross_entropy(student, labels) + alpha_kd * T**2 * kd_torch(student, teacher, T)


def mixed_by_hand(student, teacher, labels, T, alpha_ce, alpha_kd):
    ce = -torch.log_softmax(student, 1).gather(1, labels[:, None]).mean()
    return alpha_ce * ce + alpha_kd * kd_by_logs(student, teacher, T)


def mixed_slip(formula):
    """The mixed loss with one of its parts replaced: ce and kd (with T squared) are the right ones."""

    def loss(student, teacher, labels, T, alpha_ce, alpha_kd):
        ce, kd = F.cross_entropy(student, labels), T**2 * kd_torch(student, teacher, T)
        return formula(ce, kd, alpha_ce, alpha_kd, student, teacher, labels, T)

    return loss


def raw(z, t, T, reduction="none"):
    return F.kl_div(torch.softmax(z / T, 1), torch.softmax(t / T, 1), reduction=reduction)


def broken_loss(student, teacher, labels, T, alpha_ce, alpha_kd):
    return alpha_ce * F.cross_entropy(student / T, labels) + alpha_kd * raw(student, teacher, T).mean()


def span(student, teacher, positions, T, alpha_ce, alpha_kd):
    start, end = (mixed(student[i], teacher[i], positions[i], T, alpha_ce, alpha_kd) for i in (0, 1))
    return (start + end) / 2


def span_by_parts(student, teacher, positions, T, alpha_ce, alpha_kd):
    ce = torch.stack([F.cross_entropy(z, at) for z, at in zip(student, positions, strict=True)])
    kd = torch.stack([kd_by_logs(z, t, T) for z, t in zip(student, teacher, strict=True)])
    return alpha_ce * ce.mean() + alpha_kd * kd.mean()


def span_joined(student, teacher, positions, T, alpha_ce, alpha_kd):
    ce = sum(F.cross_entropy(z, at) for z, at in zip(student, positions, strict=True)) / 2
    return alpha_ce * ce + alpha_kd * kd_by_logs(torch.cat(student, 1), torch.cat(teacher, 1), T)


def stub(*_):
    return None


RIGHT = {
    "8.1": [kd_by_logs, kd_by_loop],
    "8.2": [mixed, mixed_by_hand],
    "8.3": [span, span_by_parts],
}

WRONG = {
    "8.1": {
        "stub": stub,
        "number": lambda *a: kd_by_logs(*a).item(),
        "detached": lambda z, t, T: kd_by_logs(z.detach(), t, T),
        "T squared forgotten": kd_torch,
        "T once": lambda z, t, T: T * kd_torch(z, t, T),
        "divided by T squared": lambda z, t, T: kd_torch(z, t, T) / T**2,
        "mean over entries": lambda z, t, T: T**2 * kd_torch(z, t, T, "none").mean(),
        "sum over rows": lambda z, t, T: T**2 * kd_torch(z, t, T, "sum"),
        "per row": lambda z, t, T: T**2 * kd_torch(z, t, T, "none").sum(1),
        "student first": lambda z, t, T: kd_by_logs(t, z, T),
        "cross-entropy": lambda z, t, T: (
            -(T**2) * (torch.softmax(t / T, 1) * torch.log_softmax(z / T, 1)).sum(1).mean()
        ),
        "sign": lambda *a: -kd_by_logs(*a),
        "no temperature": lambda z, t, T: T**2 * kd_torch(z, t, 1.0),
        "times T": lambda z, t, T: T**2 * kd_torch(z, t, 1 / T),
        "teacher not softened": lambda z, t, T: T**2 * kd_torch(z, t * T, T),
        "student not softened": lambda z, t, T: T**2 * kd_torch(z * T, t, T),
        "over rows": lambda z, t, T: kd_by_logs(z.T, t.T, T),
        "squared error of the logits": lambda z, t, T: (z - t).square().mean(),
    },
    "8.2": {
        "stub": stub,
        "as it was": broken_loss,
        "detached": lambda z, *a: mixed(z.detach(), *a),
        "no logarithm": mixed_slip(lambda ce, kd, a, b, z, t, y, T: a * ce + b * T**2 * raw(z, t, T, "batchmean")),
        "no logarithm, no T squared": mixed_slip(
            lambda ce, kd, a, b, z, t, y, T: a * ce + b * raw(z, t, T, "batchmean")
        ),
        "mean over entries": mixed_slip(lambda ce, kd, a, b, z, *_: a * ce + b * kd / z.shape[1]),
        "T squared forgotten": mixed_slip(lambda ce, kd, a, b, z, t, y, T: a * ce + b * kd / T**2),
        "both": mixed_slip(lambda ce, kd, a, b, z, t, y, T: a * ce + b * kd / T**2 / z.shape[1]),
        "labels softened": mixed_slip(lambda ce, kd, a, b, z, t, y, T: a * F.cross_entropy(z / T, y) + b * kd),
        "T squared on both": mixed_slip(lambda ce, kd, a, b, z, t, y, T: a * ce * T**2 + b * kd),
        "weights exchanged": mixed_slip(lambda ce, kd, a, b, *_: b * ce + a * kd),
        "no weights": mixed_slip(lambda ce, kd, *_: ce + kd),
        "teacher alone": mixed_slip(lambda ce, kd, a, b, *_: b * kd),
        "labels alone": mixed_slip(lambda ce, kd, a, b, *_: a * ce),
        "student first": mixed_slip(lambda ce, kd, a, b, z, t, y, T: a * ce + b * kd_by_logs(t, z, T)),
        "logarithms in both": mixed_slip(
            lambda ce, kd, a, b, z, t, y, T: (
                a * ce
                + b * T**2 * F.kl_div(torch.log_softmax(z / T, 1), torch.log_softmax(t / T, 1), reduction="batchmean")
            )
        ),
        "teacher in its place for labels": mixed_slip(
            lambda ce, kd, a, b, z, t, *_: a * F.cross_entropy(z, t.argmax(1)) + b * kd
        ),
    },
    "8.3": {
        "stub": stub,
        "sum": lambda *a: 2 * span(*a),
        "start alone": lambda z, t, at, *a: mixed(z[0], t[0], at[0], *a),
        "end alone": lambda z, t, at, *a: mixed(z[1], t[1], at[1], *a),
        "pair": lambda z, t, at, *a: tuple(mixed(z[i], t[i], at[i], *a) for i in (0, 1)),
        "teacher's ends exchanged": lambda z, t, *a: span(z, t[::-1], *a),
        "positions exchanged": lambda z, t, at, *a: span(z, t, at[::-1], *a),
        "weights exchanged": lambda z, t, at, T, a, b: span(z, t, at, T, b, a),
        "one distribution": span_joined,
        "T squared forgotten": lambda z, t, at, T, a, b: span(z, t, at, T, a, b / T**2),
        "labels forgotten": lambda z, t, at, T, a, b: span(z, t, at, T, 0.0, b),
        "teacher forgotten": lambda z, t, at, T, a, b: span(z, t, at, T, a, 0.0),
        "detached": lambda z, *a: span([x.detach() for x in z], *a),
        "in place": lambda z, t, *a: span(z, [x.sub_(1.0) for x in t], *a),
    },
}
